"""A small registry in the test's own process, which keeps what it gets in memory and fails on demand."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

from regwrap.core.manifest import parse_manifest
from regwrap.core.model import Digest
from tests.builders import Image

_JSON = {"Content-Type": "application/json"}


@dataclass
class FakeRegistry:
    """`blobs` by repository and digest, `manifests` by repository and tag or digest; `requests` are `METHOD PATH` in
    their order. `named` are the digests that it says of manifests, by repository and reference, where they lie. `fails`
    gets each request, and the status that it returns is answered; None: it is served. `referrers` by digest: what the
    API lists of each; None: it has no such API. With a `challenge`, requests that fit `guarded` are refused unless they
    say one of `logins`."""

    host: str = ""
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    named: dict[tuple[str, str], str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    fails: Callable[[str], int | None] = lambda _request: None
    referrers: dict[str, list[dict[str, object]]] | None = None
    connections: int = 0
    challenge: str = ""
    guarded: str = ""
    logins: tuple[str, ...] = ()

    def refuses(self, request: str, login: str) -> bool:
        return bool(self.challenge) and re.search(self.guarded, request) is not None and login not in self.logins

    def hold(self, name: str, image: Image) -> None:
        """Have the image `REPOSITORY:TAG`."""
        repository, _, tag = name.rpartition(":")
        self.blobs |= {(repository, f"{Digest.of(blob)}"): blob for blob in image.blobs}
        kept = {f"{Digest.of(raw)}": (parse_manifest(raw).media_type, raw) for raw in image.manifests}
        kept[tag] = kept[f"{image.top}"]
        self.manifests |= {(repository, reference): manifest for reference, manifest in kept.items()}

    def has(self, name: str, image: Image) -> bool:
        """Whether it has all of the image, under that name."""
        repository, _, tag = name.rpartition(":")
        tops = [self.manifests.get((repository, reference)) for reference in (tag, f"{image.top}")]
        return (
            all(top is not None and top[1] == image.raw for top in tops)
            and all((repository, f"{Digest.of(raw)}") in self.manifests for raw in image.manifests)
            and all(self.blobs.get((repository, f"{Digest.of(blob)}")) == blob for blob in image.blobs)
        )

    def asked(self, pattern: str) -> list[str]:
        return [request for request in self.requests if re.search(pattern, request)]


@contextmanager
def fake_registry() -> Iterator[FakeRegistry]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        _Handler.registries[server.server_address[1]] = registry = FakeRegistry(f"127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield registry
        finally:
            server.shutdown()
            thread.join()
            del _Handler.registries[server.server_address[1]]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients whose run was ended hang up; that is not worth a line."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body would wait 40 ms for the ack of its header
    registries: ClassVar[dict[int, FakeRegistry]] = {}  # one for each server of this process

    @property
    def registry(self) -> FakeRegistry:
        address = self.server.server_address
        assert isinstance(address, tuple)
        return self.registries[int(address[1])]

    def setup(self) -> None:
        super().setup()
        self.registry.connections += 1

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0) or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        request = f"{self.command} {self.path}"
        self.registry.requests.append(request)
        status = self.registry.fails(request)
        if self.registry.refuses(request, self.headers.get("Authorization", "")):
            self._answer(401, b"{}", {**_JSON, "WWW-Authenticate": self.registry.challenge})
        elif status is not None:
            self._answer(status, b"refused on demand\n", {"Content-Type": "text/plain"})
        else:
            self._serve(body)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _chunk(self) -> bytes:
        data = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return data

    def _serve(self, body: bytes) -> None:
        parts = urlsplit(self.path)
        found = re.fullmatch(r"/v2/(.+)/(manifests|blobs|blobs/uploads|tags|referrers)/([^/]*)", parts.path)
        if found is None:
            self._answer(200 if parts.path == "/v2/" else 404, b"{}", _JSON)
        elif found[2] in {"tags", "referrers"}:
            self._list(found[1], found[3])
        elif found[2] == "manifests":
            self._manifest(found[1], found[3], body)
        elif found[2] == "blobs":
            data = self.registry.blobs.get((found[1], found[3]))
            self._answer(200, data, {}) if data is not None else self._answer(404, b"{}", _JSON)
        else:
            self._upload(found[1], parse_qs(parts.query), body)

    def _manifest(self, repository: str, reference: str, body: bytes) -> None:
        manifests, digest = self.registry.manifests, f"{Digest.of(body)}"
        if self.command == "PUT":
            kept = (self.headers.get("Content-Type", ""), body)
            manifests[repository, reference] = manifests[repository, digest] = kept
            self._answer(201, b"", {})
        elif (repository, reference) in manifests:
            media_type, raw = manifests[repository, reference]
            said = self.registry.named.get((repository, reference), f"{Digest.of(raw)}")
            self._answer(200, raw, {"Content-Type": media_type, "Docker-Content-Digest": said})
        else:
            self._answer(404, b"{}", _JSON)

    def _list(self, repository: str, what: str) -> None:
        if what == "list":
            tags = [tag for name, tag in self.registry.manifests if name == repository and ":" not in tag]
            self._answer(200 if tags else 404, json.dumps({"tags": tags}).encode(), _JSON)
        elif self.registry.referrers is None:
            self._answer(404, b"{}", _JSON)
        else:
            self._answer(200, json.dumps({"manifests": self.registry.referrers.get(what, [])}).encode(), _JSON)

    def _upload(self, repository: str, query: dict[str, list[str]], body: bytes) -> None:
        blobs, (source,), (mount,) = self.registry.blobs, query.get("from", [""]), query.get("mount", [""])
        if (source, mount) in blobs:
            blobs[repository, mount] = blobs[source, mount]
            self._answer(201, b"", {})
        elif self.command == "PUT":
            (wanted,) = query["digest"]
            right = f"{Digest.of(body)}" == wanted
            if right:
                blobs[repository, wanted] = body
            self._answer(201 if right else 400, b"" if right else b'{"errors":[{"code":"DIGEST_INVALID"}]}', {})
        else:
            self._answer(202, b"", {"Location": f"/v2/{repository}/blobs/uploads/one"})

    def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": f"{len(data)}"}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_args: object) -> None:
        """Silent."""
