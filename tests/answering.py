"""A server in the test's own process that answers what a test says, and keeps what it was asked."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseServer


@dataclass(frozen=True)
class Asked:
    """One request. `line` is `METHOD TARGET`; names of headers are in lower case."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")


@dataclass(frozen=True)
class Answer:
    """`cut`: the connection ends after so many bytes of the body."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None


Behaviour = Callable[[Asked], Answer]


@dataclass
class Answering:
    """`host` is 127.0.0.1:PORT."""

    host: str = ""
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0

    @property
    def lines(self) -> list[str]:
        return [asked.line for asked in self.asked]


@contextmanager
def answering(behaviour: Behaviour, tls: ssl.SSLContext | None = None, *, port: int = 0) -> Iterator[Answering]:
    """Serve on loopback for the block; with `tls` over HTTPS."""
    shown = Answering()
    server = _Server(("127.0.0.1", port), partial(_Handler, behaviour, shown))
    shown.host = f"127.0.0.1:{server.server_address[1]}"
    if tls:
        # the handshake is the handler's, so that who does not begin one disturbs nobody
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield shown
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that does not speak our protocol, or hangs up, is not worth a line."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body would wait 40 ms for the ack of its header

    def __init__(
        self, behaviour: Behaviour, shown: Answering, request: socket.socket, address: object, server: BaseServer
    ) -> None:
        self.behaviour, self.shown = behaviour, shown
        shown.connections += 1
        super().__init__(request, address, server)  # which answers all of the connection's requests

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", "0")))
        if headers.get("transfer-encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        asked = Asked(f"{self.command} {self.path}", headers, body)
        self.shown.asked.append(asked)
        answer = self.behaviour(asked)
        self.send_response(answer.status)
        for name, value in ({"Content-Length": f"{len(answer.body)}"} | answer.headers).items():
            for line in value.splitlines():  # a header may stand there several times
                self.send_header(name, line)
        self.end_headers()
        with suppress(OSError):
            if self.command != "HEAD":
                self.wfile.write(answer.body[: answer.cut])
        self.close_connection = self.close_connection or answer.cut is not None

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_CONNECT = do_GET

    def _chunk(self) -> bytes:
        data = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return data

    def log_message(self, *_args: object) -> None:
        """Silent."""


def script(*answers: Answer) -> Behaviour:
    """These answers one after the other; more requests than answers are a failure of the test."""
    rest = iter(answers)
    return lambda _asked: next(rest)
