"""A proxy in front of a real registry that fails on demand, counts what it serves, and can demand tokens.

Real sockets and real answers: what skopeo and the probe make of a fault is what they would make of it outside.
"""

import base64
import http.client
import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Literal
from urllib.parse import parse_qs, urlsplit

from regwrap.core.manifest import OCI_INDEX

Kind = Literal["refuse", "cut", "silent", "stall", "reset", "html", "wrong-digest", "flip", "slow", "redirect", "down"]

_HOP_HEADERS: Final = {"connection", "transfer-encoding", "content-length", "date", "server"}
_HTML: Final = b"<html><body>Please log in</body></html>"


@dataclass(frozen=True)
class Fault:
    """What happens to requests whose `METHOD PATH` has `pattern` in it: from the `first` one on, `times` times.

    `refuse` answers `status` with `headers` and `body`; `silent` says nothing at all; `stall` sends the headers and
    `at` bytes, then nothing; `cut` ends the connection there; `flip` changes a byte; `slow` answers `seconds` late;
    `redirect` leads to the same place again; `reset` resets the connection, and `down` stops to listen as well.
    """

    kind: Kind
    pattern: str
    times: int = 10**9
    at: int = 0
    status: int = 503
    seconds: float = 0.0
    first: int = 1
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b"refused on demand\n"

    def hits(self, number: int) -> bool:
        """Whether the `number`th request that fits is one of those that go wrong."""
        return self.first <= number < self.first + self.times


@dataclass
class FaultProxy:
    """`host` is 127.0.0.1:PORT. `requests` are `METHOD PATH` in their order, `times` when they came; `sent` and
    `received` are bodies' bytes by path; `delay` makes each answer so many seconds late. A token is good for `lifetime`
    GETs, `rate` bounds the bytes a second of each answer; 0: without an end. Without `knows_ranges` all of a blob is
    sent, whatever part is asked for. `agents` are numbers of requests by `CLIENT METHOD`. `changed` makes what is sent
    of the body of an answer."""

    host: str
    upstream: str
    faults: list[tuple[Fault, list[int]]]
    token: str = ""
    login: str = ""
    lifetime: int = 0
    delay: float = 0.0
    rate: int = 0
    knows_ranges: bool = True
    changed: Callable[[bytes], bytes] = bytes
    requests: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    agents: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    received: Counter[str] = field(default_factory=Counter)
    most_together: int = 0
    connections: int = 0
    ending: threading.Event = field(default_factory=threading.Event)
    referrers: dict[str, bytes] = field(default_factory=dict)
    _together: int = 0
    _used: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fault_for(self, request: str) -> Fault | None:
        """The first fault that hits. Each that fits counts the request."""
        found = None
        with self._lock:
            self.requests.append(request)
            self.times.append(time.monotonic())
            for fault, seen in self.faults:
                if re.search(fault.pattern, request):
                    seen[0] += 1
                    found = found or (fault if fault.hits(seen[0]) else None)
        return found

    @contextmanager
    def counted(self) -> Iterator[None]:
        """One request that is being answered."""
        with self._lock:
            self._together += 1
            self.most_together = max(self.most_together, self._together)
        try:
            yield
        finally:
            with self._lock:
                self._together -= 1

    def count(self, path: str, *, sent: int = 0, received: int = 0) -> None:
        with self._lock:
            self.sent[path] += sent
            self.received[path] += received

    def count_agent(self, name: str, method: str) -> None:
        with self._lock:
            self.agents[f"{name.partition('/')[0]} {method}"] += 1

    def count_connection(self) -> None:
        with self._lock:
            self.connections += 1

    def use_token(self) -> None:
        with self._lock:
            self._used += 1
            if self.lifetime and self._used % self.lifetime == 0:
                self.token += "+"

    def asked(self, pattern: str) -> list[str]:
        return [request for request in self.requests if re.search(pattern, request)]


@contextmanager
def faulty_proxy(
    upstream: str, faults: Sequence[Fault] = (), *, token: str = "", login: str = "", delay: float = 0.0
) -> Iterator[FaultProxy]:
    """Serve `upstream` (HOST:PORT) with `faults` for the block. With `token` each request needs a Bearer token for its
    repository, which `/token` gives; with `login` (USER:PASSWORD) only to those who log in there."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.proxy = FaultProxy(
        host=f"127.0.0.1:{server.server_address[1]}",
        upstream=upstream,
        faults=[(fault, [0]) for fault in faults],
        token=token,
        login=login,
        delay=delay,
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

    def stop_listening(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that were sent garbage, or nothing, hang up; that is not worth a line."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body would wait 40 ms for the ack of its header

    @property
    def proxy(self) -> FaultProxy:
        assert isinstance(self.server, _Server)
        return self.server.proxy

    def setup(self) -> None:
        super().setup()
        self.upstream: http.client.HTTPConnection | None = None
        self.proxy.count_connection()

    def finish(self) -> None:
        if self.upstream is not None:
            self.upstream.close()
        with suppress(OSError):
            super().finish()

    def do_GET(self) -> None:
        if self.path.startswith("/token"):
            self._give_token()
            return
        self.proxy.count_agent(self.headers.get("User-Agent", ""), self.command)
        fault = self.proxy.fault_for(f"{self.command} {self.path}")
        subject = self.path.rpartition("/referrers/")[2]
        if self.proxy.referrers and subject != self.path:
            nothing = b'{"schemaVersion": 2, "manifests": []}'
            self._answer(200, {"Content-Type": OCI_INDEX}, self.proxy.referrers.get(subject, nothing))
            return
        with self.proxy.counted():
            time.sleep(self.proxy.delay)
            if fault is None or fault.kind in {"cut", "stall", "flip", "wrong-digest", "slow"}:
                self._forward(fault)
            else:
                self._fail(fault)

    def _fail(self, fault: Fault) -> None:
        kind: Kind = fault.kind
        # the body of the request is not read, and would be taken for the next one
        self.close_connection = self.close_connection or self.headers.get("Content-Length", "0") != "0"
        if kind == "silent":
            self.close_connection = True
            self.proxy.ending.wait(60)
        elif kind in {"reset", "down"}:
            self._reset(down=kind == "down")
        elif kind == "html":
            self._answer(200, {"Content-Type": "text/html"}, _HTML)
        elif kind == "redirect":
            self._answer(307, {"Location": f"http://{self.proxy.host}{self.path}"}, b"")
        else:
            self._answer(fault.status, {"Content-Type": "text/plain", **dict(fault.headers)}, fault.body)

    def _reset(self, *, down: bool) -> None:
        if down:
            assert isinstance(self.server, _Server)
            self.server.stop_listening()
        # no linger: the kernel answers with a reset instead of an orderly end
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.connection.close()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def log_message(self, *_args: object) -> None:
        """Silent."""

    def _give_token(self) -> None:
        proxy = self.proxy
        expected = "Basic " + base64.b64encode(proxy.login.encode()).decode()
        if proxy.login and self.headers.get("Authorization") != expected:
            self._answer(401, {"Content-Type": "application/json"}, b"{}")
            return
        scopes = parse_qs(urlsplit(self.path).query).get("scope", [])
        token = f"{proxy.token}.{' '.join(scopes).encode().hex()}"
        self._answer(200, {"Content-Type": "application/json"}, json.dumps({"token": token}).encode())

    def _is_allowed(self) -> bool:
        """Whether the request has a token of ours whose scopes are enough."""
        text, _, scopes = self.headers.get("Authorization", "").removeprefix("Bearer ").partition(".")
        if text != self.proxy.token:
            return False
        given = bytes.fromhex(scopes).decode().split()
        _, _, wanted = self._scope().rpartition(":")
        prefix = self._scope().removesuffix(wanted)
        found = {
            action for scope in given if scope.startswith(prefix) for action in scope.removeprefix(prefix).split(",")
        }
        is_enough = not wanted or set(wanted.split(",")) <= found
        if is_enough and self.command == "GET":
            self.proxy.use_token()
        return is_enough

    def _scope(self) -> str:
        """What a registry demands for this request; empty for the ping."""
        match = re.match(r"/v2/(.+)/(?:manifests|blobs|tags)/", self.path)
        actions = "pull" if self.command in {"GET", "HEAD"} else "pull,push"
        return f"repository:{match[1]}:{actions}" if match else ""

    def _forward(self, fault: Fault | None) -> None:
        proxy = self.proxy
        body = self._read_body()
        proxy.count(self.path.partition("?")[0], received=len(body))
        if proxy.token and not self._is_allowed():
            scope = f',scope="{self._scope()}"' if self._scope() else ""
            challenge = f'Bearer realm="http://{proxy.host}/token",service="tests"{scope}'
            self._answer(401, {"WWW-Authenticate": challenge, "Content-Type": "application/json"}, b'{"errors":[]}')
            return
        if fault is not None and fault.kind == "slow":
            time.sleep(fault.seconds)
        status, headers, data = self._ask_upstream(body)
        if fault is not None and fault.kind == "wrong-digest":
            headers["Docker-Content-Digest"] = "sha256:" + "0" * 64
        if fault is not None and fault.kind == "flip":
            data = bytes([data[0] ^ 1]) + data[1:] if data else data
        cut = fault.at if fault is not None and fault.kind in {"cut", "stall"} else None
        self._answer(status, headers, data, cut=cut)
        if fault is not None and fault.kind == "stall":
            proxy.ending.wait(60)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(parts)

    def _ask_upstream(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if self.upstream is None:
            self.upstream = http.client.HTTPConnection(self.proxy.upstream, timeout=30)
        self.upstream.request(self.command, self.path, body=body or None, headers=self._passed_headers())
        answer = self.upstream.getresponse()
        kept = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP_HEADERS}
        if self.command == "HEAD":
            kept["Content-Length"] = answer.headers.get("Content-Length", "0")
        return answer.status, kept, self.proxy.changed(answer.read())

    def _passed_headers(self) -> dict[str, str]:
        # Go sends one Accept line for each type; a dict of the items would keep the last
        own = {"connection", "transfer-encoding", "content-length", *(["authorization"] if self.proxy.token else [])}
        own |= set() if self.proxy.knows_ranges else {"range"}
        names = {name.lower() for name in self.headers} - own
        return {name: ", ".join(self.headers.get_all(name, [])) for name in names}

    def _answer(self, status: int, headers: dict[str, str], data: bytes, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        shown = data[:cut]
        with suppress(OSError):
            if self.command != "HEAD":
                self._write(shown)
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True

    def _write(self, data: bytes) -> None:
        """What was written counts; with a rate, in small pieces."""
        rate = self.proxy.rate
        step = max(1, rate // 100) if rate else max(1, len(data))
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            self.proxy.count(self.path, sent=len(piece))
            self.wfile.write(piece)
            if rate and self.proxy.ending.wait(len(piece) / rate):
                return
