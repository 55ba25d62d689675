"""A small read-only registry: HTTP/1.1, a thread a connection up to a bound, blobs by sendfile out of the tar.

It answers what clients need to pull (distribution's docs/spec/api.md) and refuses all else with the API's errors. What
it cannot give whole it does not pretend to: a connection whose file became shorter is closed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from itertools import chain
from typing import TYPE_CHECKING, ClassVar, Final, assert_never, cast

from regwrap import __version__
from regwrap.core.closure import parsed
from regwrap.core.errors import IntegrityError, LostBlobError, UsageError
from regwrap.core.manifest import OCI_INDEX, parse_manifest
from regwrap.core.model import Digest
from regwrap.core.text import printable
from regwrap.registry.server_connections import Guest, ServerConnections
from regwrap.registry.server_referrers import referrers_of
from regwrap.registry.server_requests import (
    BlobOf,
    Catalog,
    Front,
    ManifestOf,
    Page,
    Ping,
    ReferrersOf,
    RefusedError,
    Tags,
    asked_host,
    malformed,
    nothing_here,
    parse_path,
    parse_range,
)

if TYPE_CHECKING:
    import ssl

    from regwrap.bundle.by_repository import LocalSource

_IDLE_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.1

Login = Callable[[str, str], bool]
"""Whether the value of an Authorization header is somebody's who may pull; and the address that it comes from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Where to listen, and who may pull."""

    host: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = None
    login: Login | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A running server: its address as clients write it."""

    scheme: str
    host: str

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"


@contextmanager
def served_contents(
    contents: LocalSource,
    options: ServeOptions,
    *,
    log: Callable[[str], None] = lambda _line: None,
    page: Callable[[str], str] | None = None,
) -> Iterator[Served]:
    """Serve for the length of the block, from threads of its own. `log` hears each request as a line. `page` makes the
    HTML for a browser that asks a host; without it there is nothing. Raises UsageError where it cannot listen there."""
    server = _listen(_Shared(contents=contents, options=options, log=log, page=page))
    thread = threading.Thread(target=server.serve_forever, args=(_POLL_SECONDS,), name="serve", daemon=True)
    thread.start()
    try:
        yield Served(scheme="https" if options.tls else "http", host=server.host)
    finally:
        server.socket.shutdown(socket.SHUT_RDWR)  # wakes the loop; it would look around after a poll's time only
        server.shutdown()
        server.server_close()


def check_listening(contents: LocalSource, options: ServeOptions) -> None:
    """Raises UsageError where it cannot listen there; nobody is answered."""
    _listen(_Shared(contents=contents, options=options)).server_close()


def _listen(shared: _Shared) -> _Server:
    options = shared.options
    try:
        family, _kind, _protocol, _name, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM
        )[0]
        return _Server(shared, family, address)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {options.host}:{options.port}: {error.strerror or error}",
            hint="choose another --addr; port 0 selects a free port",
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """What all connections of a server have in common."""

    contents: LocalSource
    options: ServeOptions
    log: Callable[[str], None] = lambda _line: None
    page: Callable[[str], str] | None = None


_Request = socket.socket | tuple[bytes, socket.socket]  # of TCP and UDP, as socketserver has it


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, shared: _Shared, family: int, address: tuple[object, ...]) -> None:
        self.address_family = family
        self.local = threading.local()  # whom this thread answers
        self.places, self.options = ServerConnections(self._start), shared.options
        super().__init__(cast("tuple[str, int]", address), functools.partial(_Connection, shared))  # IPv6: four parts

    @property
    def host(self) -> str:
        """Its address as clients write it."""
        host = self.options.host
        return f"{f'[{host}]' if ':' in host else host}:{self.server_address[1]}"

    def process_request(self, request: _Request, client_address: tuple[str, int]) -> None:
        if isinstance(request, socket.socket):
            self.places.come(Guest(request, client_address[0]))

    def service_actions(self) -> None:
        self.places.look()

    def _start(self, guest: Guest) -> None:
        threading.Thread(target=self._answer, args=(guest,), name="answer", daemon=True).start()

    def _answer(self, guest: Guest) -> None:
        self.local.guest = guest
        try:
            self.process_request_thread(guest.request, (guest.address, 0))
        finally:
            guest.request.close()  # the TLS one, which socketserver does not know
            self.places.go(guest)

    def server_close(self) -> None:
        super().server_close()
        self.places.close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away, or no TLS client at all, is not worth a line."""


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = f"regwrap/{__version__}"
    sys_version = ""
    timeout: ClassVar[float | None] = _IDLE_SECONDS
    disable_nagle_algorithm = True

    def __init__(self, shared: _Shared, request: socket.socket, client_address: object, server: _Server) -> None:
        self.shared = shared
        self.places, self.guest, self.served_at = server.places, server.local.guest, server.host
        super().__init__(request, client_address, server)

    def setup(self) -> None:
        if self.shared.options.tls is not None:
            # here, not at accept: a client that shakes no hands must not stop the others
            self.request.settimeout(_IDLE_SECONDS)
            tls = self.shared.options.tls.wrap_socket(self.request, server_side=True, do_handshake_on_connect=False)
            self.request = self.guest.request = tls
            tls.do_handshake()
        super().setup()

    def handle_one_request(self) -> None:
        self.guest.waits()
        super().handle_one_request()

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        self.guest.is_heard()
        wrong = malformed(self.headers)
        if wrong:
            self.send_error(400, wrong)
        return not wrong

    def do_GET(self) -> None:
        try:
            self._check_request()
            self._answer()
        except RefusedError as error:
            self._refuse(error)

    do_HEAD = do_GET  # what differs is in `_send`

    def do_POST(self) -> None:
        self.close_connection = True  # its body stays unread
        self._refuse(RefusedError(405, "UNSUPPORTED", "this registry is read-only"))

    do_PUT = do_PATCH = do_DELETE = do_POST

    def _check_request(self) -> None:
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # else a body would be read as the next request
        if self.places.is_crowded():
            self.close_connection = True  # somebody may wait for the place that an idle connection would hold
        login = self.shared.options.login
        if login is not None and not login(self.headers.get("Authorization", ""), self.guest.address):
            raise RefusedError(401, "UNAUTHORIZED", "authentication required")

    def _answer(self) -> None:
        contents, asked = self.shared.contents, parse_path(self.path)
        match asked:
            case Front():
                self._front()
            case Ping():
                self._send(200, "application/json", b"{}")
            case Catalog(page):
                self._list("repositories", contents.repositories_after(page.last), page, {})
            case Tags(repository, page):
                tags = contents.tags_after(repository, page.last)
                first = next(tags, None) or self._first_tag(repository)
                self._list("tags", chain((first,) if first > page.last else (), tags), page, {"name": repository})
            case ManifestOf(repository, reference):
                self._manifest(repository, reference)
            case BlobOf(repository, digest):
                self._blob(repository, digest)
            case ReferrersOf():
                self._referrers(asked)
            case _:
                assert_never(asked)

    def _front(self) -> None:
        page = self.shared.page
        if page is None:
            raise nothing_here()
        try:
            body = page(asked_host(self.headers) or self.served_at).encode()
        except (IntegrityError, OSError) as error:
            raise RefusedError(500, "UNKNOWN", "what is served here is damaged") from error
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        headers = {"ETag": etag, "Cache-Control": "no-cache", "Content-Security-Policy": "frame-ancestors 'none'"}
        if etag in self.headers.get("If-None-Match", ""):
            self._head(304, 0, headers)
        else:
            self._send(200, "text/html; charset=utf-8", body, headers)

    def _first_tag(self, repository: str) -> str:
        """Raises RefusedError where there is none: a repository is what has tags."""
        first = next(self.shared.contents.tags_after(repository, ""), None)
        if first is None:
            raise RefusedError(404, "NAME_UNKNOWN", "repository name not known to registry")
        return first

    def _list(self, key: str, names: Iterator[str], page: Page, also: dict[str, object]) -> None:
        shown, query = page.of(names)
        path = self.path.partition("?")[0]
        link = {"Link": f'<{path}?{query}>; rel="next"'} if query else {}
        self._send(200, "application/json", json.dumps({**also, key: shown}).encode(), link)

    def _manifest(self, repository: str, reference: str | Digest) -> None:
        contents = self.shared.contents
        digest = reference if isinstance(reference, Digest) else contents.resolve(repository, reference)
        raw = None if digest is None else self._parsed(repository, digest)
        if digest is None or raw is None:
            raise RefusedError(404, "MANIFEST_UNKNOWN", "manifest unknown")
        if self._is_known(digest):
            return
        self._send(200, parse_manifest(raw).media_type, raw, _of_digest(digest))

    def _referrers(self, asked: ReferrersOf) -> None:
        self._first_tag(asked.repository)
        index = referrers_of(
            self.shared.contents,
            asked.repository,
            asked.subject,
            asked.artifact_type,
            functools.partial(self._parsed, asked.repository),
        )
        self._send(200, OCI_INDEX, index, {"OCI-Filters-Applied": "artifactType"} if asked.artifact_type else {})

    def _parsed(self, repository: str, digest: Digest) -> bytes | None:
        try:
            raw = self.shared.contents.manifest(repository, digest)
            return None if raw is None else parsed(digest, raw).raw
        except LostBlobError as error:
            raise RefusedError(500, "UNKNOWN", "what is served here cannot be read") from error
        except IntegrityError:  # what is no manifest is absent
            return None

    def _is_known(self, digest: Digest) -> bool:
        if f"{digest}" not in self.headers.get("If-None-Match", ""):
            return False
        self._head(304, 0, _of_digest(digest))
        return True

    def _blob(self, repository: str, digest: Digest) -> None:
        piece = self.shared.contents.blob(repository, digest)
        if piece is None:
            raise RefusedError(404, "BLOB_UNKNOWN", "blob unknown to registry")
        with piece.file:
            if self._is_known(digest):
                return
            asked = parse_range(self._wanted_range(digest), piece.size)
            start, count = asked or (0, piece.size)
            headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **_of_digest(digest)}
            if asked:
                headers["Content-Range"] = f"bytes {start}-{start + count - 1}/{piece.size}"
            self._head(206 if asked else 200, count, headers)
            if self.command == "HEAD" or count == 0:
                return
            self.wfile.flush()
            sent = self.connection.sendfile(piece.file, piece.offset + start, count)
            if sent != count:
                self.close_connection = True

    def _wanted_range(self, digest: Digest) -> str:
        """Empty where the range is only wanted of another blob (RFC 9110, 13.1.5)."""
        condition = self.headers.get("If-Range", "").strip()
        return self.headers.get("Range", "") if condition in {"", f'"{digest}"'} else ""

    def _send(self, status: int, media_type: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._head(status, len(body), {"Content-Type": media_type, **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Length", f"{length}")
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _refuse(self, error: RefusedError) -> None:
        body = json.dumps({"errors": [{"code": error.code, "message": error.message}]}).encode()
        headers = {"WWW-Authenticate": 'Basic realm="regwrap"'} if error.status == 401 else {}
        if error.status == 405:
            headers["Allow"] = "GET, HEAD"
        if error.size is not None:
            headers["Content-Range"] = f"bytes */{error.size}"
        self._send(error.status, "application/json", body, headers)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """The standard library's own refusals (a bad request line, an unknown method), in the API's form."""
        self.close_connection = True
        self._refuse(RefusedError(code, "UNSUPPORTED", message or explain or "not supported"))

    def log_message(self, format: str, *args: object) -> None:
        self.shared.log(printable(f"{self.client_address[0]} {format % args}"))


def _of_digest(digest: Digest) -> dict[str, str]:
    return {"Docker-Content-Digest": f"{digest}", "ETag": f'"{digest}"'}
