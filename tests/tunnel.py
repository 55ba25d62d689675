"""A proxy on loopback that leads every CONNECT to one server, whatever host is named: a stand-in for hosts outside."""

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def tunnel_to(target: str) -> Iterator[tuple[str, list[str]]]:
    """HOST:PORT of the proxy, and the names that it was asked for."""
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _address = server.accept()
                    threading.Thread(target=_lead, args=(connection, target, asked), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}", asked


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
