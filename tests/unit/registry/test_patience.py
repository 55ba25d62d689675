"""Answers without an end: each is bounded in bytes and in time as a whole, and a stop ends every wait."""

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from regwrap.core.errors import Interrupted, RegwrapError, ToolError
from regwrap.core.location import Registry
from regwrap.registry.client import Client
from regwrap.registry.exchange import Body, Request
from regwrap.tools.rate_limit import HostLimiter, RateLimit
from tests.listening import listening

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that reads what comes and then does as it likes; its HOST:PORT."""

    def one(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            answer(connection)

    with listening(one) as host:
        yield host


def client_of(host: str, timeout: float, stopping: threading.Event | None = None) -> Client:
    limiter = HostLimiter(host=host, rate=RateLimit(), stopping=stopping or threading.Event())
    registry = Registry(host=host, tls_verify=False, plain_http=True)
    return Client(registry=registry, timeout=timeout, connections=2, environment=(), limiter=limiter)


def drip(start: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(piece)
            time.sleep(0.05)

    return answer


def flood(start: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(piece * 1000)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        drip(OK + b"Content-Length: 100000\r\n\r\n", b" "),
        drip(OK, b"X: y\r\n"),
        drip(b"", b"H"),
        drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["body", "header", "status line", "100 Continue"],
)
@pytest.mark.exhaustive
def test_a_byte_now_and_then_does_not_go_on_for_ever(answer: Callable[[socket.socket], None]) -> None:
    with answering(answer) as host:
        started = time.monotonic()
        with pytest.raises(ToolError, match=f"{host}: the answer was not complete after 4 s") as raised:
            client_of(host, 1.0).request(Request("GET", "/v2/"))
        assert time.monotonic() - started < 20
        assert not raised.value.transient, "the next try would take as long"


@pytest.mark.exhaustive
def test_of_a_refusal_its_end_is_not_waited_for() -> None:
    with answering(drip(b"HTTP/1.1 404 X\r\nContent-Length: 100000\r\n\r\n", b" ")) as host:
        assert client_of(host, 0.3).request(Request("GET", "/v2/")).status == 404


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "answer",
    [
        flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        flood(b"HTTP/1.1 200 OK\r\n", b"X: " + b"y" * 60000 + b"\r\n"),
        flood(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 4096 + b"\r\n"),
    ],
    ids=["100 Continue", "headers", "body"],
)
def test_what_has_no_end_is_given_up_after_so_many_bytes(answer: Callable[[socket.socket], None]) -> None:
    with answering(answer) as host:
        started = time.monotonic()
        with pytest.raises(RegwrapError, match=host):
            client_of(host, 60).request(Request("GET", "/v2/"))
        assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"WWW-Authenticate: a\r\n" * 101 + b"\r\n",
        OK + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
        OK + (b"X: " + b"y" * 60_000 + b"\r\n") * 9 + b"\r\n",
    ],
    ids=["ssh", "many headers", "long header", "large head"],
)
def test_who_answers_what_is_no_http_is_not_waited_for(said: bytes) -> None:
    """A registry that is down comes again; this one was there."""
    with answering(lambda connection: connection.sendall(said)) as host:
        with pytest.raises(ToolError, match=f"the answer of {host} cannot be read") as raised:
            client_of(host, 5).request(Request("GET", "/v2/"))
        assert not raised.value.outage
        assert "what listens there is not a registry" in f"{raised.value.hint}"


@pytest.mark.slow
@pytest.mark.usefixtures("handled_signals")
@pytest.mark.parametrize("sends", [False, True])
@pytest.mark.parametrize("is_told", [False, True])
def test_a_stop_ends_a_wait_at_once(*, sends: bool, is_told: bool) -> None:
    """Also where nobody tells the client: a signal is enough."""
    stopping, ended = threading.Event(), threading.Event()
    begun = threading.Event()

    def answer(_connection: socket.socket) -> None:
        begun.set()
        ended.wait(30)

    body = Body(data=b"x" * 50_000_000, size=50_000_000) if sends else None
    with answering(answer) as host:
        client = client_of(host, 60, stopping if is_told else None)
        told: list[str] = []

        def ask() -> None:
            try:
                client.request(Request("PUT" if sends else "GET", "/v2/", body=body))
            except RegwrapError as error:
                told.append(str(error))

        asking = threading.Thread(target=ask)
        asking.start()
        assert begun.wait(10)
        started = time.monotonic()
        if is_told:
            stopping.set()
        else:
            with pytest.raises(Interrupted):
                signal.raise_signal(signal.SIGINT)
        asking.join(25)
        ended.set()
        assert not asking.is_alive()
        assert time.monotonic() - started < 20
        assert "regwrap is stopping" in told[0]
