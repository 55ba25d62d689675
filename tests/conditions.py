"""The conditions that regwrap tells apart by skopeo's words, each with how to make it on loopback and what it means."""

import json
import os
import shutil
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from regwrap.core.answers import Meaning
from regwrap.core.model import Digest
from regwrap.tools.answers import Says
from regwrap.tools.skopeo import Remote
from tests.asking import ONE, Location
from tests.faultserver import Fault, faulty_proxy
from tests.island import NOWHERE
from tests.registry import served_loopback
from tests.tls import HTPASSWD, LOGIN, make_certificate, write_authfile

LAYER: Final = Digest.of(ONE.blobs[1])
_BLOBS: Final = f"GET .*{LAYER.hex}"
_NAMELESS: Final = "registry.invalid:5000"
_PING: Final = "GET /v2/$"
_MANIFEST: Final = "(GET|HEAD) .*/manifests/"

Make = Callable[[Location], None]


def _asked(repository: str, reference: str | Digest) -> Make:
    return lambda place: _read(place, place.remote(place.host, repository, reference))


def _read(place: Location, source: Remote) -> None:
    place.skopeo.manifest(source)


def _manifest_with(fault: Fault) -> Make:
    def make(place: Location) -> None:
        with faulty_proxy(place.host, [fault]) as proxy:
            place.skopeo.manifest(place.remote(proxy.host))

    return make


def _tags(fault: Fault | None = None, repository: str = "a/one") -> Make:
    def make(place: Location) -> None:
        with faulty_proxy(place.host, [fault] if fault else []) as proxy:
            place.skopeo.tags(place.remote(proxy.host).registry, repository)

    return make


def _fetch_with(fault: Fault) -> Make:
    def make(place: Location) -> None:
        with faulty_proxy(place.host, [fault]) as proxy:
            place.to_layout(place.remote(proxy.host))

    return make


def _copy_with(fault: Fault, repository: str = "a/one") -> Make:
    def make(place: Location) -> None:
        with faulty_proxy(place.dest, [fault]) as proxy:
            place.skopeo.copy(place.remote(place.host, repository), place.remote(proxy.host, repository))

    return make


def _refused(status: int, pattern: str) -> Fault:
    # it tries 429 again by itself, after what the registry asks for
    return Fault("refuse", pattern, status=status, headers=(("Retry-After", "1"),) if status == 429 else ())


def _error(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message, "detail": None}]}).encode()


def _says(status: int, pattern: str, code: str, message: str) -> Fault:
    """A registry's own answer, in the specification's form."""
    asked = _refused(status, pattern)
    return replace(asked, headers=(*asked.headers, ("Content-Type", "application/json")), body=_error(code, message))


@contextmanager
def _closed(place: Location, login: str = "") -> Iterator[Remote]:
    (place.directory / "htpasswd").write_text(HTPASSWD)
    extra = {"auth": {"htpasswd": {"realm": "tests", "path": f"{place.directory}/htpasswd"}}}
    with served_loopback(place.directory / "source", scratch=place.directory / "closed", extra=extra) as registry:
        authfile = write_authfile(place.directory / "auth.json", registry.host, login) if login else None
        yield place.remote(registry.host, authfile=authfile)


def _without_login(place: Location) -> None:
    with _closed(place) as source:
        place.skopeo.manifest(source)


def _with_wrong_login(place: Location) -> None:
    with _closed(place, "ci:wrong") as source:
        place.skopeo.manifest(source)


def _with_wrong_login_for_a_token(place: Location) -> None:
    with faulty_proxy(place.host, token="t0ken", login=LOGIN) as proxy:
        authfile = write_authfile(place.directory / "auth.json", proxy.host, "ci:wrong")
        place.skopeo.manifest(place.remote(proxy.host, authfile=authfile))


def _plain_http(place: Location) -> None:
    place.skopeo.manifest(place.remote(place.host, tls_verify=True, plain_http=False))


def _unknown_ca(place: Location) -> None:
    certificate = make_certificate(place.directory / "tls")
    extra = {"http": {"tls": {"certificate": f"{certificate.cert}", "key": f"{certificate.key}"}}}
    with served_loopback(place.directory / "source", scratch=place.directory / "tls-registry", extra=extra) as registry:
        place.skopeo.manifest(place.remote(registry.host, tls_verify=True, plain_http=False))


def _nobody_there(place: Location) -> None:
    place.skopeo.manifest(place.remote("127.0.0.1:1"))


@contextmanager
def _server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Something that listens and does `answer` with each connection."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _address = listener.accept()
                answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _end(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.close()


def _hung_up(place: Location) -> None:
    with _server(_end) as host:
        place.skopeo.manifest(place.remote(host))


def _reset(connection: socket.socket) -> None:
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _resetting(place: Location) -> None:
    with _server(_reset) as host:
        place.skopeo.manifest(place.remote(host))


def _no_handshake(place: Location) -> None:
    kept: list[socket.socket] = []
    with _server(kept.append) as host, ExitStack() as stack:
        place.skopeo.manifest(place.remote(host, tls_verify=True, plain_http=False))
        for connection in kept:
            stack.enter_context(connection)


def _late(place: Location) -> None:
    """It has the same limit as the runner, and may be the first to keep it."""
    place.launcher.limit = "1s"
    with faulty_proxy(place.host, [Fault("silent", _MANIFEST)]) as proxy:
        place.skopeo.manifest(place.remote(proxy.host))


def _in_trouble(trouble: str, host: str = "") -> Make:
    """On a machine with that trouble: `host` is asked, or an image is fetched from the usual one."""

    def make(place: Location) -> None:
        user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
        net = ("--net",) if host else ()
        (place.directory / "host").write_text(place.host)
        unshare = shutil.which("unshare") or "unshare"
        script = (sys.executable, f"{Path(__file__).parent}/island.py", trouble, f"{place.directory}")
        place.launcher.front = (unshare, *user, *net, "--mount", "--propagation", "private", *script)
        if host:
            place.skopeo.manifest(place.remote(host))
        else:
            place.to_layout(place.remote(place.host))

    return make


@dataclass(frozen=True)
class Condition:
    """`make` it. What regwrap makes of the answer, whatever the version, beside what TOLD has."""

    make: Make
    means: Says = Says.FINAL


_AGAIN: Final = Says.TRANSIENT
_LATER: Final = Says.TRANSIENT | Says.BUSY
_DOWN: Final = Says.TRANSIENT | Says.UNREACHABLE


def _refusals(name: str, make: Callable[[Fault], Make], pattern: str) -> dict[str, Condition]:
    """Bare statuses, without a registry's words."""
    return {
        f"{name} {status}": Condition(make(_refused(status, pattern)), means)
        for status, means in (
            (401, Says.REFUSED),
            (403, Says.FINAL),
            (408, _AGAIN),
            (418, Says.FINAL),
            (429, _LATER),
            (500, _AGAIN),
            (503, _LATER),
        )
    }


_DENIED: Final = "requested access to the resource is denied"
CONDITIONS: Final[dict[str, Condition]] = {
    "absent tag": Condition(_asked("a/one", "none"), Says.ABSENT),
    "absent repository": Condition(_asked("no/such", "1"), Says.ABSENT),
    "absent digest": Condition(_asked("a/one", Digest("0" * 64)), Says.ABSENT),
    "absent name": Condition(
        _manifest_with(_says(404, _MANIFEST, "NAME_UNKNOWN", "repository name not known to registry")), Says.ABSENT
    ),
    "tags of an absent repository": Condition(_tags(repository="no/such"), Says.ABSENT),
    "tags 404": Condition(_tags(_refused(404, "tags/list")), Says.ABSENT),
    "manifest 404": Condition(_manifest_with(_refused(404, _MANIFEST)), Says.ABSENT),
    "blob 404": Condition(_fetch_with(_refused(404, _BLOBS))),
    "no registry": Condition(_manifest_with(_refused(404, _PING))),
    "nobody there": Condition(_nobody_there, _DOWN),
    "no network": Condition(_in_trouble("no_network", f"{NOWHERE}:5000"), _DOWN),
    "no route": Condition(_in_trouble("no_route", f"{NOWHERE}:5000"), _DOWN),
    "no such name": Condition(_in_trouble("no_such_name", _NAMELESS), Says.UNREACHABLE),
    "broken names": Condition(_in_trouble("broken_names", _NAMELESS), _DOWN),
    "broken names for the C library": Condition(_in_trouble("broken_names_for_libc", _NAMELESS), _DOWN),
    "hung up": Condition(_hung_up, _AGAIN),
    "reset": Condition(_resetting, _AGAIN),
    "no handshake": Condition(_no_handshake, _AGAIN),
    "late": Condition(_late, _AGAIN),
    "blocked": Condition(_in_trouble("blocked")),
    "full disk": Condition(_in_trouble("full_disk")),
    # a 401 there is a challenge, and all goes on
    **{name: it for name, it in _refusals("ping", _manifest_with, _PING).items() if name != "ping 401"},
    **_refusals("manifest", _manifest_with, _MANIFEST),
    **_refusals("blob", _fetch_with, _BLOBS),
    **_refusals("tags", _tags, "tags/list"),
    "too many requests": Condition(
        _manifest_with(_says(429, _MANIFEST, "TOOMANYREQUESTS", "You have reached your limit")), _LATER
    ),
    "denied": Condition(_manifest_with(_says(403, _MANIFEST, "DENIED", _DENIED))),
    "denied push": Condition(_copy_with(_says(403, "POST", "DENIED", _DENIED))),
    "no project": Condition(
        _copy_with(_says(401, "POST", "UNAUTHORIZED", "project a not found: project a not found")),
        Says.REFUSED,
    ),
    "web page": Condition(_fetch_with(Fault("html", _MANIFEST))),
    "web page for tags": Condition(_tags(Fault("html", "tags/list"))),
    "cut blob": Condition(_fetch_with(Fault("cut", _BLOBS, at=20)), _AGAIN),
    "flipped blob": Condition(_fetch_with(Fault("flip", _BLOBS)), _AGAIN),
    "flipped manifest": Condition(_fetch_with(Fault("flip", "GET .*/manifests/"))),
    "without login": Condition(_without_login, Says.REFUSED),
    "wrong login": Condition(_with_wrong_login, Says.REFUSED),
    "wrong login for a token": Condition(_with_wrong_login_for_a_token, Says.REFUSED),
    "plain HTTP": Condition(_plain_http),
    "unknown CA": Condition(_unknown_ca),
    "destination 500": Condition(_copy_with(_refused(500, "HEAD .*/blobs/")), _AGAIN),
    "upload 500": Condition(_copy_with(_refused(500, "PATCH")), _AGAIN),
    "upload unknown": Condition(
        _copy_with(_says(404, "PATCH", "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")), _AGAIN
    ),
    "upload invalid": Condition(
        _copy_with(_says(400, "PUT .*/blobs/", "BLOB_UPLOAD_INVALID", "blob upload invalid")), _AGAIN
    ),
    "digest invalid": Condition(
        _copy_with(_says(400, "PUT .*/blobs/", "DIGEST_INVALID", "provided digest did not match uploaded content")),
        _AGAIN,
    ),
    "blob unknown": Condition(
        _copy_with(_says(400, "PUT .*/manifests/", "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry")), _AGAIN
    ),
    "manifest 503 at the destination": Condition(_copy_with(_refused(503, "PUT .*/manifests/")), _LATER),
    "list refused": Condition(
        _copy_with(_says(400, "PUT .*/manifests/1", "MANIFEST_INVALID", "manifest invalid"), "a/list"), _AGAIN
    ),
}

# what it tells, by its conditions; the others tell nothing that is known
TOLD: Final = {
    Meaning.ABSENT: (
        "absent tag",
        "absent repository",
        "absent digest",
        "absent name",
        "tags of an absent repository",
        "tags 404",
        "manifest 404",
        "blob 404",
    ),
    Meaning.BLOCKED: ("blocked",),
    Meaning.BUSY: (
        "ping 408",
        "ping 429",
        "manifest 408",
        "manifest 429",
        "blob 408",
        "blob 429",
        "tags 408",
        "tags 429",
        "too many requests",
    ),
    Meaning.CUT: ("hung up", "reset", "cut blob"),
    Meaning.DENIED: ("ping 403", "manifest 403", "blob 403", "tags 403", "denied", "denied push"),
    Meaning.FULL_DISK: ("ping 500", "manifest 500", "blob 500", "tags 500", "destination 500", "upload 500"),
    Meaning.LOGIN_PAGE: ("web page", "web page for tags"),
    Meaning.NOBODY_THERE: ("nobody there",),
    Meaning.NO_NAME: ("no such name", "broken names", "broken names for the C library"),
    Meaning.NO_PROJECT: ("no project",),
    Meaning.NO_REGISTRY: ("no registry",),
    Meaning.NO_ROUTE: ("no network", "no route"),
    Meaning.OTHER_BYTES: ("flipped blob",),
    Meaning.OUR_DISK: ("full disk",),
    Meaning.PLAIN_HTTP: ("plain HTTP",),
    Meaning.SILENT: ("no handshake", "late"),
    Meaning.UNAUTHORIZED: (
        "manifest 401",
        "blob 401",
        "tags 401",
        "without login",
        "wrong login",
        "wrong login for a token",
    ),
    Meaning.UNAVAILABLE: ("ping 503", "manifest 503", "blob 503", "tags 503", "manifest 503 at the destination"),
    Meaning.UNKNOWN_CA: ("unknown CA",),
    Meaning.UPLOAD_LOST: ("upload unknown", "upload invalid", "digest invalid", "blob unknown"),
}


def told_of(condition: str) -> Meaning:
    return next((meaning for meaning, conditions in TOLD.items() if condition in conditions), Meaning.OTHER)
