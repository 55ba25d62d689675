"""Requests that two readers could understand in two ways, and clients that only hold a connection."""

import http.client
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from regwrap.bundle.by_repository import StorageSource
from regwrap.core.model import Digest
from regwrap.registry import server_connections
from regwrap.registry.server import ServeOptions, served_contents
from regwrap.registry.server_access import read_certificate
from regwrap.registry.server_connections import MAX_CONNECTIONS
from regwrap.storage import layout
from regwrap.storage.store import Storage
from tests.builders import make_image, make_storage

TLS = Path(__file__).parents[2] / "samples/tls"
IMAGE, OTHER = make_image("one"), make_image("two")
BLOB = IMAGE.blobs[-1]
DIGEST = Digest.of(BLOB)


@contextmanager
def served(tmp_path: Path, log: list[str] | None = None) -> Iterator[tuple[str, int]]:
    root = tmp_path / "storage"
    if not root.exists():
        make_storage(root, {"team/app:v1": IMAGE, "team/app:v2": OTHER})
    contents = StorageSource(name="archive", storage=Storage(root))
    lines = [] if log is None else log
    with served_contents(contents, ServeOptions(), log=lines.append) as server:
        host, _, port = server.host.rpartition(":")
        yield host, int(port)


def raw(address: tuple[str, int], request: bytes) -> bytes:
    """All that is answered until the server ends the connection."""
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


def get(address: tuple[str, int], target: str, *headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return raw(address, f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n".encode())


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 0\r\nContent-Length: 0\r\n",
        b"Content-Length : 0\r\n",
        b"Content-Length: +0\r\n",
        b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        b"X: a\r\n folded\r\n",
        b"X: a\n folded\r\n",
        b"X: a\r folded\r\n",
        b"Host: y\r\n",
        b"no colon\r\n",
    ],
    ids=["two lengths", "blank", "plus", "both", "folded", "by LF", "by CR", "two hosts", "no colon"],
)
def test_a_malformed_head_is_refused_and_ends_the_connection(tmp_path: Path, headers: bytes) -> None:
    with served(tmp_path) as address:
        answer = raw(
            address, b"GET /v2/ HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\nGET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"
        )
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_what_is_no_request_at_all_has_one_answer(tmp_path: Path) -> None:
    with served(tmp_path) as address:
        answer = raw(address, b"GARBAGE\r\n\r\n")
        assert b'"code": "UNSUPPORTED", "message": "Bad request syntax' in answer
        assert answer.count(b'"errors"') == 1
        good = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n"
        endless = b"".join(b"X-%d: y\r\n" % number for number in range(200))
        answer = raw(address, good + b"\r\n" + good + endless + b"\r\n" + good + b"\r\n")
        assert re.findall(rb"HTTP/1.1 ([0-9]+)", answer) == [b"200", b"431"]


def test_a_page_of_nothing_is_an_empty_list(tmp_path: Path) -> None:
    with served(tmp_path) as address:
        assert get(address, "/v2/_catalog?n=0").endswith(b'{"repositories": []}')
        assert get(address, "/v2/team/app/tags/list?n=0").endswith(b'{"name": "team/app", "tags": []}')
        assert b" 404 " in get(address, "/v2/absent/tags/list?n=0")


def test_the_whole_address_is_a_target_too(tmp_path: Path) -> None:
    with served(tmp_path) as address:
        assert b" 200 " in get(address, "http://elsewhere:1/v2/team/app/manifests/v1")
        assert b" 404 " in get(address, "ftp://elsewhere/v2/")


def test_ranges_say_the_size_and_hold_for_the_blob_that_was_meant(tmp_path: Path) -> None:
    path = f"/v2/team/app/blobs/{DIGEST}"
    with served(tmp_path) as address:
        refused = get(address, path, "Range: bytes=99999-")
        assert b" 416 " in refused
        assert f"Content-Range: bytes */{len(BLOB)}\r\n".encode() in refused
        assert b" 206 " in get(address, path, "Range: bytes=0-3", f'If-Range: "{DIGEST}"')
        whole = get(address, path, "Range: bytes=0-3", 'If-Range: "another"')
        assert b" 200 " in whole
        assert whole.endswith(BLOB)


def test_an_empty_blob_and_one_byte_of_another_are_given_and_the_connection_goes_on(tmp_path: Path) -> None:
    """A client that waits for a byte that never comes holds its pull up for a minute."""
    nothing = make_image("nothing", layers=[b""])
    make_storage(tmp_path / "storage", {"team/app:v1": IMAGE, "team/app:empty": nothing})
    with served(tmp_path) as address, closing(http.client.HTTPConnection(*address, timeout=10)) as connection:
        for digest, wanted, data in ((Digest.of(b""), "", b""), (DIGEST, "bytes=5-5", BLOB[5:6]), (DIGEST, "", BLOB)):
            connection.request("GET", f"/v2/team/app/blobs/{digest}", headers={"Range": wanted})
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (206 if wanted else 200, data)


@pytest.mark.slow
def test_who_sends_nothing_more_is_ended_and_who_is_being_answered_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a minute is made no time at all here, once the answers have begun."""
    large = make_image("large", layers=[bytes(6 * 1024 * 1024)])
    make_storage(tmp_path / "storage", {"team/app:v1": large})
    with served(tmp_path) as address, ExitStack() as stack:
        slow, idle = (stack.enter_context(socket.socket()) for _ in range(2))
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for connection in (slow, idle):
            connection.settimeout(20)
            connection.connect(address)
        slow.sendall(f"GET /v2/team/app/blobs/{Digest.of(large.blobs[1])} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        data = slow.recv(100)
        idle.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"{}"):
            answer += idle.recv(1000)
        monkeypatch.setattr(server_connections, "_HEAD_SECONDS", 0.0)
        assert idle.recv(1) == b""
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024 * 1024)
        data += b"".join(iter(lambda: slow.recv(1024 * 1024), b""))
        assert len(data.partition(b"\r\n\r\n")[2]) == len(large.blobs[1])


@pytest.mark.slow
def test_who_connects_and_never_begins_tls_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a minute is made a moment here. Else 256 such clients would keep all others away."""
    monkeypatch.setattr(server_connections, "_HEAD_SECONDS", 0.3)
    tls = read_certificate(TLS / "server.crt", TLS / "server.key")
    contents = StorageSource(name="archive", storage=Storage(make_storage(tmp_path, {"team/app:v1": IMAGE})))
    with served_contents(contents, ServeOptions(tls=tls)) as server:
        host, _, port = server.host.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=20) as silent:
            assert silent.recv(1) == b""


@pytest.mark.slow
def test_one_manifest_that_is_too_large_hides_only_itself(tmp_path: Path) -> None:
    with served(tmp_path) as address:
        os.truncate(tmp_path / "storage" / layout.blob_path(OTHER.top), 5 * 1024 * 1024)
        assert get(address, "/v2/_catalog").endswith(b'{"repositories": ["team/app"]}')
        assert get(address, "/v2/team/app/tags/list").endswith(b'"tags": ["v1"]}')
        assert b" 404 " in get(address, "/v2/team/app/manifests/v2")


def test_control_characters_reach_no_log(tmp_path: Path) -> None:
    log: list[str] = []
    with served(tmp_path, log) as address:
        raw(address, b"GET /v2/\x1b[31m\x07\x00\xc2\x9b HTTP/1.1\r\nHost: x\r\n\r\n")
    assert log
    assert all(line.isprintable() for line in log), log


@pytest.mark.exhaustive
def test_connections_that_only_wait_do_not_keep_others_away(tmp_path: Path) -> None:
    with served(tmp_path) as address, ExitStack() as stack:
        for number in range(MAX_CONNECTIONS + 20):
            idle = stack.enter_context(socket.create_connection(address, timeout=10))
            if number % 2:
                idle.sendall(b"GET /v2/ HTTP/1.1\r\nX-Slow: ")
        started = time.monotonic()
        assert b" 200 " in get(address, "/v2/")
        assert time.monotonic() - started < 15


@pytest.mark.exhaustive
def test_a_server_full_of_idle_clients_ends_at_once_and_those_who_wait_are_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_connections, "_CROWDED_SECONDS", 1000.0)  # nobody makes room
    with ExitStack() as stack:
        with served(tmp_path) as address:
            clients = [
                stack.enter_context(socket.create_connection(address, timeout=10)) for _ in range(MAX_CONNECTIONS + 20)
            ]
            started = time.monotonic()
        assert time.monotonic() - started < 30
        for waiting in clients[MAX_CONNECTIONS:]:
            with suppress(ConnectionResetError):  # as who was not even accepted hears
                assert waiting.recv(1) == b""
