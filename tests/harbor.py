"""A small Harbor: its project API (api/v2.0/swagger.yaml) in front of a real docker-registry.

Written from goharbor/harbor: getPing, headProject and createProject; and src/server/middleware/v2auth, which answers
401 with `project NAME not found` to any request below a project that is not there.
"""

import base64
import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qs, urlsplit

USER: Final = "robot$ci:Harbor12345"
_HOP_HEADERS: Final = {"connection", "transfer-encoding", "content-length", "date", "server"}


@dataclass
class FakeHarbor:
    """`projects` by name, each with its metadata. `created` are the bodies of the requests that made one."""

    host: str
    upstream: str
    projects: dict[str, dict[str, str]] = field(default_factory=dict)
    created: list[object] = field(default_factory=list)
    may_create: bool = True


@contextmanager
def fake_harbor(upstream: str, *projects: str) -> Iterator[FakeHarbor]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.harbor = FakeHarbor(f"127.0.0.1:{server.server_address[1]}", upstream, {name: {} for name in projects})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.harbor
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    harbor: FakeHarbor

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up; that is not worth a line."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body would wait 40 ms for the ack of its header

    @property
    def harbor(self) -> FakeHarbor:
        assert isinstance(self.server, _Server)
        return self.server.harbor

    def do_GET(self) -> None:
        body = self._body()
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        if path == "/api/v2.0/ping":
            self._answer(200, {"Content-Type": "text/plain"}, b"Pong")
        elif path == "/api/v2.0/projects":
            self._projects(query, body)
        elif path.startswith("/v2/"):
            self._registry(path, body)
        else:
            self._error(404, "NOT_FOUND", "not found")

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def log_message(self, *_args: object) -> None:
        """Silent."""

    def _is_logged_in(self) -> bool:
        return self.headers.get("Authorization") == "Basic " + base64.b64encode(USER.encode()).decode()

    def _projects(self, query: dict[str, list[str]], body: bytes) -> None:
        harbor = self.harbor
        if not self._is_logged_in():
            self._error(401, "UNAUTHORIZED", "unauthorized")
        elif self.command == "HEAD":
            self._answer(200 if query["project_name"][0] in harbor.projects else 404, {}, b"")
        elif not harbor.may_create:
            self._error(403, "FORBIDDEN", "Only system admin can create project")
        else:
            wanted = json.loads(body)
            name = wanted["project_name"]
            if name in harbor.projects:
                self._error(409, "CONFLICT", f"The project named {name} already exists")
                return
            harbor.created.append(wanted)
            harbor.projects[name] = wanted["metadata"]
            self._answer(201, {"Location": "/api/v2.0/projects/1"}, b"")

    def _registry(self, path: str, body: bytes) -> None:
        project = path.removeprefix("/v2/").partition("/")[0]
        if not self._is_logged_in():
            self._error(401, "UNAUTHORIZED", "unauthorized", {"WWW-Authenticate": 'Basic realm="harbor"'})
        elif project and project not in self.harbor.projects:
            self._error(401, "UNAUTHORIZED", f"project {project} not found", {"WWW-Authenticate": ""})
        else:
            self._forward(body)

    def _forward(self, body: bytes) -> None:
        headers = {name: ", ".join(self.headers.get_all(name, [])) for name in {n.lower() for n in self.headers}}
        for name in ("connection", "authorization", "transfer-encoding", "content-length"):
            headers.pop(name, None)
        with closing(http.client.HTTPConnection(self.harbor.upstream, timeout=30)) as connection:
            connection.request(self.command, self.path, body=body or None, headers=headers)
            answer = connection.getresponse()
            kept = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP_HEADERS}
            if self.command == "HEAD":
                kept["Content-Length"] = answer.headers.get("Content-Length", "0")
            self._answer(answer.status, kept, answer.read())

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _error(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        document = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        extra = {"Docker-Distribution-Api-Version": "registry/2.0", **(headers or {})}
        self._answer(status, {"Content-Type": "application/json", **extra}, document)

    def _answer(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
