"""A request with a body, to a server that wants none: the body must not be taken for the next request."""

import socket
from pathlib import Path

import pytest

from regwrap.bundle.by_repository import StorageSource
from regwrap.registry.server import ServeOptions, served_contents
from regwrap.storage.store import Storage
from tests.builders import make_image, make_storage

SMUGGLED = "GET /v2/secret/tags/list HTTP/1.1\r\nHost: x\r\n\r\n"


def answers_to(host: str, text: str) -> str:
    """All that comes back until the server closes the connection."""
    name, _, port = host.partition(":")
    with socket.create_connection((name, int(port)), timeout=10) as connection:
        connection.sendall(text.encode())
        connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts).decode()


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT"])
@pytest.mark.parametrize("header", [f"Content-Length: {len(SMUGGLED)}", "Transfer-Encoding: chunked"])
def test_a_body_is_no_request(tmp_path: Path, method: str, header: str) -> None:
    log: list[str] = []
    storage = Storage(make_storage(tmp_path, {"a:1": make_image("one")}))
    with served_contents(StorageSource(name="archive", storage=storage), ServeOptions(), log=log.append) as served:
        answer = answers_to(served.host, f"{method} /v2/ HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n{SMUGGLED}")
    assert answer.count("HTTP/1.1 ") == 1
    assert "Connection: close" in answer
    assert not any("secret" in line for line in log)


@pytest.mark.parametrize("header", ["Content-Length: 0", "Accept: */*"])
def test_a_request_without_a_body_leaves_the_connection_to_the_next(tmp_path: Path, header: str) -> None:
    storage = Storage(make_storage(tmp_path, {"a:1": make_image("one")}))
    with served_contents(StorageSource(name="archive", storage=storage), ServeOptions()) as served:
        twice = 2 * f"GET /v2/ HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n"
        assert answers_to(served.host, twice).count("HTTP/1.1 200") == 2
