"""A registry in the test's own process, with images in memory, that answers as registries in the field do."""

import base64
import json
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from regwrap.core.manifest import OCI_MANIFEST
from regwrap.core.model import Digest
from tests.answering import Answer, Answering, Asked, answering
from tests.builders import Image

JSON = {"Content-Type": "application/json", "Docker-Distribution-Api-Version": "registry/2.0"}
Hook = Callable[[Asked], Answer | None]


def login(text: str) -> str:
    """USER:PASSWORD as authfiles have it."""
    return base64.b64encode(text.encode()).decode()


def refusing(status: int, code: str, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, {**JSON, **named}, json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode())


def wanting(text: str) -> Hook:
    """Whoever does not log in with Basic is refused."""

    def hook(asked: Asked) -> Answer | None:
        right = asked.authorization == f"Basic {login(text)}"
        return None if right else refusing(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="tests"')

    return hook


@dataclass
class FieldRegistry:
    """`tags` by REPOSITORY:TAG, `manifests` and `blobs` by REPOSITORY@DIGEST. `hook` may answer in its place."""

    hook: Hook = lambda _asked: None
    location: Callable[[str], str] = lambda path: path
    tags: dict[str, str] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    server: Answering = field(default_factory=Answering)

    @property
    def host(self) -> str:
        return self.server.host

    @property
    def lines(self) -> list[str]:
        return self.server.lines

    def add(self, name: str, image: Image) -> None:
        repository = name.rpartition(":")[0]
        self.tags[name] = f"{image.top}"
        for raw in image.manifests:
            self.manifests[f"{repository}@{Digest.of(raw)}"] = (json.loads(raw).get("mediaType", OCI_MANIFEST), raw)
        for blob in image.blobs:
            self.blobs[f"{repository}@{Digest.of(blob)}"] = blob

    def answer(self, asked: Asked) -> Answer:
        hooked = self.hook(asked)
        return self._served(asked) if hooked is None else hooked

    def _served(self, asked: Asked) -> Answer:
        method, _, target = asked.line.partition(" ")
        url = urlsplit(target)
        path, query = unquote(url.path), parse_qs(url.query)
        if path in {"/v2", "/v2/", "/v2/_catalog"}:
            names = sorted({name.rpartition(":")[0] for name in self.tags})
            return Answer(200, JSON, json.dumps({"repositories": names} if "_" in path else {}).encode())
        match = re.fullmatch(r"/v2/(.+)/(tags/list|manifests|blobs/uploads|blobs)(?:/([^/]*))?", path)
        if match is None:
            return refusing(404, "NOT_FOUND")
        repository, what, name = match[1], match[2], match[3] or ""
        if what == "tags/list":
            return self._tags(repository)
        if what == "manifests":
            return self._manifest(method, repository, name, asked)
        if what != "blobs":
            return self._upload(method, path, repository, query, asked)
        blob = self.blobs.get(f"{repository}@{name}")
        return refusing(404, "BLOB_UNKNOWN") if blob is None else _whole_or_range(asked, blob)

    def _tags(self, repository: str) -> Answer:
        tags = sorted(name.rpartition(":")[2] for name in self.tags if name.rpartition(":")[0] == repository)
        found = Answer(200, JSON, json.dumps({"name": repository, "tags": tags}).encode())
        return found if tags else refusing(404, "NAME_UNKNOWN")

    def _manifest(self, method: str, repository: str, reference: str, asked: Asked) -> Answer:
        digest = self.tags.get(f"{repository}:{reference}", reference)
        if method == "PUT":
            digest = f"{Digest.of(asked.body)}"
            self.manifests[f"{repository}@{digest}"] = (asked.headers.get("content-type", ""), asked.body)
            if ":" not in reference:
                self.tags[f"{repository}:{reference}"] = digest
            return Answer(201, {**JSON, "Docker-Content-Digest": digest})
        media_type, raw = self.manifests.get(f"{repository}@{digest}", ("", b""))
        if not raw:
            return refusing(404, "MANIFEST_UNKNOWN")
        return Answer(200, {**JSON, "Content-Type": media_type, "Docker-Content-Digest": digest}, raw)

    def _upload(self, method: str, path: str, repository: str, query: dict[str, list[str]], asked: Asked) -> Answer:
        if method == "POST":
            path = f"/v2/{repository}/blobs/uploads/u{len(self.uploads)}"
            self.uploads[path] = b""
        if path not in self.uploads:
            return refusing(404, "BLOB_UPLOAD_UNKNOWN")
        self.uploads[path] += asked.body
        if method != "PUT":
            end = max(0, len(self.uploads[path]) - 1)
            return Answer(202, {**JSON, "Location": self.location(path), "Range": f"0-{end}"})
        data, (digest,) = self.uploads[path], query["digest"]
        if f"{Digest.of(data)}" != digest:
            return refusing(400, "DIGEST_INVALID")
        self.blobs[f"{repository}@{digest}"] = data
        return Answer(201, {**JSON, "Docker-Content-Digest": digest})


def _whole_or_range(asked: Asked, blob: bytes) -> Answer:
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("range", ""))
    if match is None:
        return Answer(200, {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}, blob)
    start, end = int(match[1]), min(int(match[2] or len(blob)), len(blob) - 1)
    if start >= len(blob):
        return Answer(416, {"Content-Range": f"bytes */{len(blob)}"})
    return Answer(206, {"Content-Range": f"bytes {start}-{end}/{len(blob)}"}, blob[start : end + 1])


@contextmanager
def field_registry(
    images: Mapping[str, Image],
    hook: Hook = lambda _asked: None,
    tls: ssl.SSLContext | None = None,
    *,
    port: int = 0,
) -> Iterator[FieldRegistry]:
    """Serve `images` by REPOSITORY:TAG on loopback for the block."""
    registry = FieldRegistry(hook=hook)
    for name, image in images.items():
        registry.add(name, image)
    with answering(registry.answer, tls, port=port) as registry.server:
        yield registry
