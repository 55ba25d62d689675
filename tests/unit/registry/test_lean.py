"""Questions that take the short way: what they say, what they understand, and whom they leave the rest to."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest

from regwrap.core.errors import ToolError
from regwrap.core.location import Registry
from regwrap.registry.auth import Access
from regwrap.registry.client import Client
from regwrap.registry.exchange import Request, Response
from regwrap.tools.rate_limit import HostLimiter, RateLimit
from tests.answering import Answer, answering

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GONE = b"\0gone"
"""The connection is closed here."""


@dataclass
class Said:
    """What came: each question with the number of its connection."""

    questions: list[tuple[int, bytes]] = field(default_factory=list)
    host: str = ""

    @property
    def connections(self) -> list[int]:
        return [number for number, _question in self.questions]


@contextmanager
def saying(*answers: bytes) -> Iterator[Said]:
    """A server that answers one after the other with these bytes, whatever it is asked."""
    said, left = Said(), list(answers)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        said.host = "{}:{}".format(*listening.getsockname())

        def serve() -> None:
            with suppress(OSError):
                for number in range(100):
                    connection, _address = listening.accept()
                    threading.Thread(target=answer, args=(number, connection), daemon=True).start()

        def answer(number: int, connection: socket.socket) -> None:
            with connection, suppress(OSError):
                while question := _question(connection):
                    said.questions.append((number, question))
                    data = left.pop(0)
                    connection.sendall(data.removesuffix(GONE))
                    if data.endswith(GONE):
                        return

        threading.Thread(target=serve, daemon=True).start()
        yield said
        listening.shutdown(socket.SHUT_RDWR)


def _question(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        if not (piece := connection.recv(65536)):
            return b""
        data += piece
    return data


def client_of(host: str, timeout: float = 5) -> Client:
    return Client(
        registry=Registry(host=host, tls_verify=False, plain_http=True),
        timeout=timeout,
        connections=2,
        environment=(),
        limiter=HostLimiter(host=host, rate=RateLimit(most=8)),
    )


def asked(client: Client, method: str = "GET", target: str = "/v2/a/tags/list") -> Response:
    return client.request(Request(method, target, Access("a")))


def test_a_second_question_says_the_same_as_the_first_over_the_same_connection() -> None:
    with saying(PLAIN, PLAIN, PLAIN) as server:
        client = client_of(server.host)
        assert [asked(client).body for _ in range(3)] == [b"ok", b"ok", b"ok"]
    assert server.connections == [0, 0, 0]
    lines = [sorted(question.lower().splitlines()) for _number, question in server.questions]
    assert lines[0] == lines[1] == lines[2]
    assert b"user-agent: regwrap/" in lines[0][-1]
    assert f"host: {server.host}".encode() in lines[0]


def test_a_head_is_understood_whatever_its_case_and_blanks() -> None:
    odd = b"HTTP/1.1 200\r\nDOCKER-content-digest:  sha256:1 \t\r\nLink: a\r\nlink: b\r\nContent-Length: 7\r\n\r\n"
    with saying(PLAIN, odd, PLAIN) as server:
        client = client_of(server.host)
        asked(client)
        answer = asked(client, "HEAD")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers.get("Docker-Content-Digest", "") == "sha256:1"
        assert answer.headers.get("Link", "") == "a, b"
        assert asked(client).body == b"ok"
    assert server.connections == [0, 0, 0]


@pytest.mark.parametrize("status", [204, 304, 404, 503])
def test_every_status_is_told(status: int) -> None:
    body = b"" if status in {204, 304} else b"no"
    head = f"HTTP/1.1 {status} said\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with saying(PLAIN, head + body, PLAIN) as server:
        client = client_of(server.host)
        asked(client)
        answer = asked(client)
        assert (answer.status, answer.body) == (status, body)
        assert asked(client).body == b"ok"


CHUNKS = b"2\r\nok\r\n0\r\n\r\n"
ODD = {
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "chunks and a length": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n" + CHUNKS,
    "a folded line": b"HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\nContent-Length: 2\r\n\r\nok",
    "a line of nothing known": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nhello\r\n\r\nok",
    "an answer before the answer": b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN,
    "a long head": b"HTTP/1.1 200 OK\r\nX: " + 20_000 * b"x" + b"\r\nContent-Length: 2\r\n\r\nok",
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: 2 \xb2\r\n\r\nok" + GONE,
    "no length": b"HTTP/1.1 200 OK\r\n\r\nok" + GONE,
}


@pytest.mark.parametrize("answer", ODD.values(), ids=ODD)
def test_what_is_odd_is_told_as_the_long_way_has_it_which_is_taken_from_then_on(answer: bytes) -> None:
    with saying(answer) as server:
        long = told(client_of(server.host))
    with saying(PLAIN, answer, answer, PLAIN, PLAIN) as server:
        client = client_of(server.host)
        asked(client)
        assert told(client) == long
        assert [told(client), told(client)] == ["200 ok", "200 ok"]
    assert len(server.questions) == 5


def told(client: Client) -> str:
    try:
        answer = asked(client)
    except ToolError as error:
        return str(error)
    return f"{answer.status} {answer.body.decode()}"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_kept_connection_that_has_ended_is_no_failure(method: str) -> None:
    with saying(PLAIN, GONE, PLAIN, PLAIN) as server:
        client = client_of(server.host)
        asked(client)
        assert asked(client, method).status == 200
        assert asked(client).body == b"ok"
    assert server.connections == [0, 0, 1, 1]


def test_an_answer_that_is_cut_is_asked_for_again() -> None:
    def behaviour(asked: object) -> Answer:
        seen.append(asked)
        return Answer(body=b"0123456789", cut=4 if len(seen) == 2 else None)

    seen: list[object] = []
    with answering(behaviour) as server:
        client = client_of(server.host)
        asked(client)
        assert asked(client).body == b"0123456789"
    assert len(seen) == 3


def test_an_answer_that_ends_the_connection_is_the_last_on_it() -> None:
    last = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    with saying(PLAIN, last, PLAIN) as server:
        client = client_of(server.host)
        assert [asked(client).body for _ in range(3)] == 3 * [b"ok"]
    assert server.connections == [0, 0, 1]


def test_what_comes_behind_an_answer_is_not_taken_for_the_next_one() -> None:
    with saying(PLAIN, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyesHTTP/1.1 200", PLAIN) as server:
        client = client_of(server.host)
        assert [asked(client).body for _ in range(3)] == [b"ok", b"yes", b"ok"]
    assert server.connections == [0, 0, 1]


@pytest.mark.slow
def test_a_server_that_has_gone_silent_is_waited_for_once() -> None:
    with saying(PLAIN, b"HTTP/1.1 200 OK\r\nContent-Le", PLAIN) as server:
        client = client_of(server.host, timeout=1)
        asked(client)
        with pytest.raises(ToolError, match="no answer came in time") as raised:
            asked(client)
        assert raised.value.transient
        assert asked(client).body == b"ok"
    assert server.connections == [0, 0, 1]


@pytest.mark.parametrize("target", ["/v2/a/tags/list?last=ä", "/v2/a b"])
def test_what_is_no_plain_address_is_written_by_who_knows_how(target: str) -> None:
    with saying(PLAIN, PLAIN) as server:
        client = client_of(server.host)
        asked(client)
        with suppress(ToolError):
            asked(client, target=target)
    assert all(question.isascii() for _number, question in server.questions)
    assert all(len(question.splitlines()[0].split()) == 3 for _number, question in server.questions)
