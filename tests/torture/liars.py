"""Hostile registry: one image of a list comes from a registry that lies. It fails alone, and soon."""

import base64
import gzip
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from tests.builders import make_image
from tests.forked import Ended
from tests.torture.ground import NEW, SECRET, Ground, Place, snapshot
from tests.torture.judge import Verdict, leaks, left
from tests.torture.scenarios import BY_NAME

GROUP: Final = "registry"
_IMAGE: Final = make_image("evil")
_REPOSITORY: Final = "/v2/evil/app/"
_JSON: Final = b"Content-Type: application/json\r\nDocker-Distribution-Api-Version: registry/2.0\r\n"
_PATIENCE: Final = 60.0  # seconds, for a run whose requests may take two between two bytes

Answer = Iterator[bytes]


def _plain(status: int, body: bytes, *headers: bytes) -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"HTTP/1.1 %d X\r\n%sContent-Length: %d\r\n%s\r\n%s" % (status, _JSON, len(body), lines, body)


def _manifest(change: Callable[[dict[str, Any]], object] | None = None, raw: bytes = b"") -> bytes:
    document = json.loads(_IMAGE.raw)
    if change is not None:
        change(document)
    data = raw or json.dumps(document).encode()
    kind = b"Docker-Content-Digest: sha256:" + hashlib.sha256(data).hexdigest().encode()
    return _plain(200, data, kind).replace(b"application/json", b"application/vnd.oci.image.manifest.v1+json")


def _many_layers(document: dict[str, Any]) -> None:
    document["layers"] *= 10_000


def _endless(status: int) -> Answer:
    yield b"HTTP/1.1 %d X\r\n%sTransfer-Encoding: chunked\r\n\r\n" % (status, _JSON)
    while True:
        yield b"10000\r\n" + b"x" * 65536 + b"\r\n"


def _drip(start: bytes, piece: bytes) -> Answer:
    yield start
    while True:
        yield piece
        time.sleep(0.3)


def _flood(start: bytes, piece: bytes) -> Answer:
    yield start
    while True:
        yield piece


def _layer(**changes: object) -> Callable[[dict[str, object]], object]:
    def change(document: dict[str, object]) -> None:
        layers = document["layers"]
        assert isinstance(layers, list)
        layers[0].update(changes)

    return change


def _challenge(text: str) -> bytes:
    return _plain(401, b"{}", b"WWW-Authenticate: " + text.encode("latin-1"))


def _once(answer: bytes) -> Answer:
    yield answer


_HEAD: Final = b"HTTP/1.1 200 X\r\n" + _JSON
_MANIFESTS: Final[dict[str, Callable[[str], Answer]]] = {
    "size-2^62": lambda _host: _once(_manifest(_layer(size=2**62))),
    "size-negative": lambda _host: _once(_manifest(_layer(size=-1))),
    "size-5000-digits": lambda _host: _once(_manifest(raw=_IMAGE.raw.replace(b'"size": ', b'"size": ' + b"9" * 5000))),
    "digest-path": lambda _host: _once(_manifest(_layer(digest="sha256:../../../../etc/passwd"))),
    "deep": lambda _host: _once(_manifest(raw=b'{"schemaVersion":2,"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}")),
    "layers-10000": lambda _host: _once(_manifest(_many_layers)),
    "not-utf8": lambda _host: _once(_manifest(raw=b'{"a":"\xff\xfe"}')),
    "endless-200": lambda _host: _endless(200),
    "endless-404": lambda _host: _endless(404),
    "endless-401": lambda _host: _endless(401),
    "endless-500": lambda _host: _endless(500),
    "drip-body": lambda _host: _drip(_HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
    "drip-header": lambda _host: _drip(_HEAD, b"X: y\r\n"),
    "drip-100": lambda _host: _drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "flood-100": lambda _host: _flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "flood-headers": lambda _host: _flood(_HEAD, b"X: " + b"y" * 60_000 + b"\r\n"),
    "chunk-negative": lambda _host: _once(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nx\r\n0\r\n\r\n"),
    "length-odd": lambda _host: _once(_HEAD + b"Content-Length: \xc2\xb2\r\n\r\nxx"),
    "status-odd": lambda _host: _once(b"HTTP/1.1 9999 X\r\n\r\n"),
    "garbage": lambda _host: _once(b"\x00\xff\x1b[31m\r\n\r\n"),
    "challenge-32000": lambda _host: _once(_challenge("Bearer " + 'a="b",' * 5_300)),
    "challenge-quotes": lambda _host: _once(_challenge('Bearer realm="' + '\\"' * 15_000)),
    "realm-bad": lambda _host: _once(_challenge('Bearer realm="http://[",service="s"')),
    "realm-file": lambda _host: _once(_challenge('Bearer realm="file:///etc/passwd",service="s"')),
    "realm-elsewhere": lambda host: _once(_challenge(f'Bearer realm="mailto:@{host}/x",service="s"')),
    "redirect-bad": lambda _host: _once(_plain(307, b"", b"Location: http://[")),
    "redirect-elsewhere": lambda host: _once(_plain(307, b"", f"Location: http://{host}/steal".encode())),
    "link-elsewhere": lambda host: _once(_plain(200, b"{}", f'Link: <mailto:@{host}/x>; rel="next"'.encode())),
    "retry-after": lambda _host: _once(_plain(429, b"{}", b"Retry-After: " + b"9" * 400)),
    "control-characters": lambda _host: _once(_plain(403, b'{"errors":[{"message":"\x1b]0;T\x07\x1b[31m"}]}')),
    "silent": lambda _host: _drip(b"", b""),
}
# what curl is answered to a blob of an image whose manifest is right
_BLOBS: Final[dict[str, Callable[[str], Answer]]] = {
    f"blob-{kind}": _MANIFESTS[kind]
    for kind in ("endless-200", "endless-404", "drip-body", "drip-header", "drip-100", "flood-100", "flood-headers",
                 "chunk-negative", "length-odd", "status-odd", "garbage", "redirect-bad", "redirect-elsewhere",
                 "retry-after", "control-characters")
} | {
    "blob-redirect-file": lambda _host: _once(_plain(307, b"", b"Location: file:///etc/passwd")),
    "blob-redirect-port": lambda _host: _once(_plain(307, b"", b"Location: http://127.0.0.1:1/x")),
    "blob-redirect-circle": lambda _host: _once(_plain(307, b"", f"Location: {_REPOSITORY}blobs/x".encode())),
    "blob-redirect-config": lambda _host: _once(_plain(307, b"", b'Location: /"\noutput = "/x')),
    "blob-range-wrong": lambda _host: _once(_plain(206, b"x" * 9, b"Content-Range: bytes 5-13/4000")),
    "blob-other-bytes": lambda _host: _once(_plain(206, b"x" * 4000, b"Content-Range: bytes 0-3999/4000")),
    "blob-length-9s": lambda _host: _once(_HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nx"),
    "blob-gzip-bomb": lambda _host: _once(_plain(200, gzip.compress(bytes(50_000_000), 1), b"Content-Encoding: gzip")),
    "blob-headers-100000": lambda _host: _once(_HEAD + b"X: y\r\n" * 100_000 + b"\r\n"),
}  # fmt: skip
_ANSWERS: Final = _MANIFESTS | _BLOBS
# skopeo, which is asked about what is odd, reads a refusal to its end
_WAITING: Final = {kind for kind in _ANSWERS if kind in {"silent", "endless-401"} or "drip" in kind}


@dataclass
class _Server:
    """Answers everything below the repository by `answer`, or where it `is_honest` all but manifests; `heard` are the
    Authorization headers."""

    answer: Callable[[str], Answer]
    other: str = ""
    is_honest: bool = False
    heard: list[str] = field(default_factory=list)

    @contextmanager
    def listening(self, address: str) -> Iterator[str]:
        with socket.create_server((address, 0)) as server:
            threading.Thread(target=self._accept, args=(server,), daemon=True).start()
            yield f"{address}:{server.getsockname()[1]}"

    def _accept(self, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _address = server.accept()
                threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection, suppress(OSError, ValueError):
            connection.settimeout(60)
            lines = connection.makefile("rb")
            while line := lines.readline():
                for header in iter(lines.readline, b"\r\n"):
                    if not header:
                        return
                    if header.lower().startswith(b"authorization:"):
                        self.heard.append(header.decode("latin-1"))
                path = line.decode("latin-1")
                if self.is_honest and f"{_REPOSITORY}manifests/" in path:
                    answer = _manifest(raw=_IMAGE.raw)
                    connection.sendall(answer.partition(_IMAGE.raw)[0] if path.startswith("HEAD") else answer)
                    continue
                if _REPOSITORY in path:
                    for piece in self.answer(self.other):
                        connection.sendall(piece)
                    return
                connection.sendall(_plain(200, b"{}"))


def cases(_ground: Ground) -> Iterator[tuple[str, str]]:
    for kind in _ANSWERS:
        for times in ("first", "again"):
            yield "sync", f"{GROUP}/sync/{kind}/{times}"


def run(ground: Ground, name: str) -> Verdict:
    _group, work, kind, _times = name.split("/")
    scenario, verdict = BY_NAME[work], Verdict(name)
    wanted = ground.result_of(scenario)
    thief = _Server(lambda _host: _once(_plain(200, b"{}")))
    with ground.place(scenario) as place, thief.listening("127.0.0.2") as elsewhere:
        with _Server(_ANSWERS[kind], other=elsewhere, is_honest=kind in _BLOBS).listening("127.0.0.1") as host:
            place.hasty = kind in _WAITING
            place.configure()
            _add(place, host)
            started = time.monotonic()
            ended = place.run(*scenario.args(place))
        if time.monotonic() - started > _PATIENCE:
            verdict.lies.append(f"it took more than {_PATIENCE:.0f} s")
        verdict.code, verdict.said = ended.code, ended.said[-2000:]
        missing = sorted(set(wanted) - set(snapshot(place.root, scenario.results)))
        if missing:
            verdict.lost.append(f"good images did not arrive: {missing[:3]} of {len(NEW)} images")
        verdict.lies += _lies(ended)
        if thief.heard:
            verdict.lies.append("a login went to another host")
        verdict.lies += [f"a secret is in {path}" for path in leaks(place.root)]
        verdict.left += list(left(scenario, place, gone=False))
    return verdict


def _add(place: Place, host: str) -> None:
    """One line of the list comes from there, and there is a login for it."""
    auths = json.loads((place.root / "auth.json").read_text())
    auths["auths"][host] = {"auth": base64.b64encode(f"robot:{SECRET}".encode()).decode()}
    (place.root / "auth.json").write_text(json.dumps(auths))
    settings = json.loads((place.root / "regwrap.yaml").read_text())
    settings["registries"]["liar"] = {"url": f"http://{host}", "authfile": "auth.json"}
    (place.root / "regwrap.yaml").write_text(json.dumps(settings))
    with (place.root / "images.list").open("a") as lines:
        lines.write(f"{host}/evil/app:v1 => evil/app:v1\n")


def _lies(ended: Ended) -> Iterator[str]:
    if ended.code not in {0, 1} or "Traceback" in ended.said:
        yield f"it ended with {ended.code}"
    if "\x1b" in ended.said or "\x07" in ended.said:
        yield "a control character is in the output"
    if SECRET in ended.said:
        yield "a secret is in the output"
