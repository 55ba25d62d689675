"""A proxy on loopback that leads every CONNECT to one server, whatever host is named: a stand-in for hosts outside."""

import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.listening import listening


@contextmanager
def tunnel_to(target: str) -> Iterator[tuple[str, list[str]]]:
    """HOST:PORT of the proxy, and the names that it was asked for."""
    asked: list[str] = []
    with listening(lambda connection: _lead(connection, target, asked)) as host:
        yield host, asked


def _lead(client: socket.socket, target: str, asked: list[str]) -> None:
    host, _, port = target.partition(":")
    with suppress(OSError), client, socket.create_connection((host, int(port))) as upstream:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        asked.append(head.split()[1].decode())
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        pass_on(client, upstream)


def pass_on(client: socket.socket, upstream: socket.socket) -> None:
    """Whatever comes from one of them goes to the other, until one ends."""
    while True:
        for side in select.select([client, upstream], [], [], 30)[0]:
            data = side.recv(65536)
            if not data:
                return
            (upstream if side is client else client).sendall(data)
