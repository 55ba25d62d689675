"""A proxy of SOCKS 5 on loopback that leads to one server, whatever host is named."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.listening import listening
from tests.tunnel import pass_on

IPV4, IPV6, NAME = b"\1" + bytes(4), b"\4" + bytes(16), b"\3\5proxy"


@contextmanager
def socks_to(
    target: str, login: tuple[bytes, bytes] | None = None, refusal: int = 0, bound: bytes = IPV4
) -> Iterator[tuple[str, list[str]]]:
    """HOST:PORT of the proxy, and what it was asked for. With `refusal` it connects to nothing and says so. `bound` is
    the address that it says it has connected from, in one of three forms."""
    asked: list[str] = []

    def lead(client: socket.socket) -> None:
        with suppress(OSError, IndexError), client, client.makefile("rwb") as file:
            methods = file.read(file.read(2)[1])
            method = 2 if login else 0
            client.sendall(bytes([5, method if method in methods else 255]))
            if login:
                user = file.read(file.read(2)[1])
                right = (user, file.read(file.read(1)[0])) == login
                client.sendall(bytes([1, 0 if right else 1]))
            name = file.read(file.read(5)[4]).decode()
            asked.append(f"{name}:{int.from_bytes(file.read(2), 'big')}")
            client.sendall(bytes([5, refusal, 0]) + bound + bytes(2))
            if not refusal:
                with socket.create_connection(("127.0.0.1", int(target.rpartition(":")[2]))) as upstream:
                    pass_on(client, upstream)

    with listening(lead) as host:
        yield host, asked
