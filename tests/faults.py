"""A proxy in front of a real registry that fails on demand, counts what it serves, and can demand tokens.

Real sockets and real answers: what skopeo and the probe make of a fault is what they would make of it outside.
"""

import base64
import http.client
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Literal

Kind = Literal["refuse", "cut", "silent", "html", "wrong-digest", "flip", "slow"]

_HOP_HEADERS: Final = {"connection", "transfer-encoding", "content-length", "date", "server"}
_HTML: Final = b"<html><body>Please log in</body></html>"


@dataclass(frozen=True)
class Fault:
    """What happens to requests whose `METHOD PATH` has `pattern` in it, `times` times; then they pass.

    `at`: the byte before which a body is cut. `status`: of a refusal. `seconds`: how late a slow answer is.
    """

    kind: Kind
    pattern: str
    times: int = 10**9
    at: int = 0
    status: int = 503
    seconds: float = 0.0


@dataclass
class FaultProxy:
    """`host` is 127.0.0.1:PORT. `requests` are `METHOD PATH` in their order; `sent` body bytes by path."""

    host: str
    upstream: str
    faults: list[tuple[Fault, list[int]]]
    token: str = ""
    login: str = ""
    requests: list[str] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    ending: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fault_for(self, request: str) -> Fault | None:
        """The first fault that fits and is not used up; using it up."""
        with self._lock:
            self.requests.append(request)
            for fault, used in self.faults:
                if used[0] < fault.times and re.search(fault.pattern, request):
                    used[0] += 1
                    return fault
        return None

    def count(self, path: str, size: int) -> None:
        with self._lock:
            self.sent[path] += size

    def count_connection(self) -> None:
        with self._lock:
            self.connections += 1

    def asked(self, pattern: str) -> list[str]:
        return [request for request in self.requests if re.search(pattern, request)]


@contextmanager
def faulty_proxy(
    upstream: str, faults: Sequence[Fault] = (), *, token: str = "", login: str = ""
) -> Iterator[FaultProxy]:
    """Serve `upstream` (HOST:PORT) with `faults` for the block. With `token` each request needs it as a Bearer token,
    which `/token` gives; with `login` (USER:PASSWORD) only to those who log in there."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.proxy = FaultProxy(
        f"127.0.0.1:{server.server_address[1]}", upstream, [(f, [0]) for f in faults], token=token, login=login
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.proxy
    finally:
        server.proxy.ending.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    proxy: FaultProxy

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that were sent garbage, or nothing, hang up; that is no story."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def proxy(self) -> FaultProxy:
        assert isinstance(self.server, _Server)
        return self.server.proxy

    def setup(self) -> None:
        super().setup()
        self.proxy.count_connection()

    def do_GET(self) -> None:
        if self.path.startswith("/token"):
            self._give_token()
            return
        fault = self.proxy.fault_for(f"{self.command} {self.path}")
        if fault is None or fault.kind in {"cut", "flip", "wrong-digest", "slow"}:
            self._forward(fault)
        elif fault.kind == "silent":
            self.close_connection = True
            self.proxy.ending.wait(60)
        elif fault.kind == "html":
            self._answer(200, {"Content-Type": "text/html"}, _HTML)
        else:
            self._answer(fault.status, {"Content-Type": "text/plain"}, b"refused on demand\n")

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *_args: object) -> None:
        """Silent."""

    def _give_token(self) -> None:
        proxy = self.proxy
        expected = "Basic " + base64.b64encode(proxy.login.encode()).decode()
        if proxy.login and self.headers.get("Authorization") != expected:
            self._answer(401, {"Content-Type": "application/json"}, b"{}")
            return
        self._answer(200, {"Content-Type": "application/json"}, json.dumps({"token": proxy.token}).encode())

    def _forward(self, fault: Fault | None) -> None:
        proxy = self.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if proxy.token and self.headers.get("Authorization") != f"Bearer {proxy.token}":
            scope = "repository:any:pull"
            challenge = f'Bearer realm="http://{proxy.host}/token",service="tests",scope="{scope}"'
            self._answer(401, {"WWW-Authenticate": challenge, "Content-Type": "application/json"}, b'{"errors":[]}')
            return
        if fault is not None and fault.kind == "slow":
            time.sleep(fault.seconds)
        status, headers, data = self._ask_upstream(body)
        if fault is not None and fault.kind == "wrong-digest":
            headers["Docker-Content-Digest"] = "sha256:" + "0" * 64
        if fault is not None and fault.kind == "flip":
            data = bytes([data[0] ^ 1]) + data[1:] if data else data
        self._answer(status, headers, data, cut=fault.at if fault is not None and fault.kind == "cut" else None)

    def _ask_upstream(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.proxy.upstream, timeout=30)
        try:
            connection.request(self.command, self.path, body=body or None, headers=self._passed_headers())
            answer = connection.getresponse()
            kept = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP_HEADERS}
            if self.command == "HEAD":
                kept["Content-Length"] = answer.headers.get("Content-Length", "0")
            return answer.status, kept, answer.read()
        finally:
            connection.close()

    def _passed_headers(self) -> dict[str, str]:
        # Go sends one Accept line for each type; a dict of the items would keep the last
        names = {name.lower() for name in self.headers} - {"connection", "authorization"}
        return {name: ", ".join(self.headers.get_all(name, [])) for name in names}

    def _answer(self, status: int, headers: dict[str, str], data: bytes, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        shown = data[:cut]
        with suppress(OSError):
            if self.command != "HEAD":
                self.proxy.count(self.path, len(shown))
                self.wfile.write(shown)
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
