"""The ways to a registry and to where it leads: schemes, TLS, proxies, and the connections that are kept alive.

Knows urllib3. What is asked, who asks and what an answer means is the client's.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

import urllib3
from urllib3.exceptions import HTTPError

from regwrap import __version__
from regwrap.core.answers import Meaning
from regwrap.core.errors import ToolError
from regwrap.core.location import WHOLE_ANSWER
from regwrap.core.manifest import MANIFEST_TYPES, MAX_MANIFEST_BYTES
from regwrap.registry.certificates import shown_with, trust_of
from regwrap.registry.credentials import UnsureError
from regwrap.registry.exchange import Request, Response, Stream
from regwrap.registry.failures import endlessness
from regwrap.registry.lean import LeanPool, lean
from regwrap.registry.patience import PatientTls, bounded_answer, head_is_read
from regwrap.registry.proxies import Proxy, proxy_for
from regwrap.registry.socks import SCHEMES, socks_manager

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from regwrap.core.location import Registry

_NAME: Final = f"regwrap/{__version__}"
_ACCEPT: Final = ", ".join(MANIFEST_TYPES)
_NO_RETRIES: Final = urllib3.Retry(total=False)  # errors are not wrapped


@dataclass(slots=True)
class Connections:
    """To `server`, which is the registry's, and to others that it leads to; `size` of them are kept alive. Safe to use
    from several threads. `stopping` ends a wait, `note` hears of trust that is of no use."""

    registry: Registry
    server: str
    size: int
    environment: tuple[tuple[str, str], ...]
    stopping: threading.Event | None
    note: Callable[[str], None]
    _own: dict[str, Sender] = field(default_factory=dict)
    _managers: dict[tuple[str, Proxy | None], urllib3.PoolManager] = field(default_factory=dict)
    _tls: ssl.SSLContext | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def schemes(self) -> tuple[str, ...]:
        """Those that it may speak, the first to be tried first."""
        if self.registry.plain_http:
            return ("http",)
        return ("https",) if self.registry.tls_verify else ("https", "http")

    def own(self, scheme: str) -> Sender:
        """To the registry's server itself. Where nothing is between, its pool is remembered: a manager looks for it
        anew each time, which is a fifth of the work."""
        if (known := self._own.get(scheme)) is not None:
            return known
        origin, host = f"{scheme}://{self.server}", self.registry.host
        manager = self._manager(scheme, self.server)
        if isinstance(manager, urllib3.ProxyManager):
            return self._own.setdefault(scheme, Sender(manager, origin, host, self.stopping))
        pool = manager.connection_from_url(origin)
        return self._own.setdefault(scheme, Sender(pool, "", host, self.stopping))

    def elsewhere(self, scheme: str, server: str) -> Sender:
        """To another server; its targets are whole addresses."""
        return Sender(self._manager(scheme, server), "", server, self.stopping)

    def close(self) -> None:
        with self._lock:
            self._own.clear()  # they hold connections too
            for manager in self._managers.values():
                manager.clear()

    def _manager(self, scheme: str, server: str) -> urllib3.PoolManager:
        proxy = proxy_for(scheme, server, dict(self.environment))
        with self._lock:
            if (scheme, proxy) not in self._managers:
                self._managers[scheme, proxy] = self._new_manager(scheme, proxy)
            return self._managers[scheme, proxy]

    def _new_manager(self, scheme: str, proxy: Proxy | None) -> urllib3.PoolManager:
        # One client asks one server; redirects to a blob store may go elsewhere, so a few pools are kept.
        pools, size, tls = 4, self.size, self._tls
        if "https" in {scheme, proxy.scheme if proxy else ""}:  # to read all CAs takes as long as twenty requests
            tls = self._tls = tls or self._trusted()
        if proxy is None:
            return lean(urllib3.PoolManager(pools, maxsize=size, ssl_context=tls))
        if proxy.scheme in SCHEMES:
            return socks_manager(proxy, pools, size, tls)
        if proxy.scheme not in {"http", "https"}:
            raise UnsureError(f"{proxy.url} is a proxy that only skopeo can use")
        login = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else None
        return lean(urllib3.ProxyManager(proxy.url, pools, proxy_headers=login, maxsize=size, ssl_context=tls))

    def _trusted(self) -> ssl.SSLContext:
        trust = trust_of(self.registry, dict(self.environment))
        for text in trust.useless:
            self.note(text)
        if not self.registry.tls_verify:
            # the user has said so; a warning of a library's on stderr would be none of his
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        trust.context.sslsocket_class = PatientTls
        return trust.context


@dataclass(frozen=True, slots=True)
class Sender:
    """Connections to `host`, and what stands in front of a request's target for them."""

    connections: urllib3.PoolManager | urllib3.HTTPConnectionPool
    prefix: str
    host: str
    stopping: threading.Event | None

    def send(self, request: Request, authorization: str, timeout: urllib3.Timeout) -> Response:
        """Raises urllib3's HTTPError where no answer comes, ToolError where it is cut off, UnsureError where it is
        endless."""
        body = request.body
        headers = {"Accept": _ACCEPT, "User-Agent": _NAME, **(body.headers if body else {})}
        if request.range:
            headers["Range"] = request.range
        if authorization:
            headers["Authorization"] = authorization
        whole = WHOLE_ANSWER * (timeout.read_timeout or 0)
        with bounded_answer(whole, self.stopping):
            return self._lean(request, headers, timeout) or self._answer(request, headers, timeout)

    def certificate(self, timeout: urllib3.Timeout) -> bytes:
        """Of the server at the other end, in DER form. Raises urllib3's HTTPError."""
        return shown_with(self._opened(Request("GET", "/v2/"), {}, timeout))

    def _lean(self, request: Request, headers: dict[str, str], timeout: urllib3.Timeout) -> Response | None:
        if not (request.is_plain and isinstance(self.connections, LeanPool)):
            return None
        answer = self.connections.answer(request.method, request.target, headers, timeout.read_timeout)
        return None if answer is None else Response(answer.status, answer.headers, answer.body)

    def _answer(self, request: Request, headers: dict[str, str], timeout: urllib3.Timeout) -> Response:
        answer = self._opened(request, headers, timeout)
        head_is_read()
        if request.first_byte and answer.status == 200:  # it knows no ranges, and would send all of it
            answer.close()
            return Response(answer.status, answer.headers, b"")
        if request.stream is not None and answer.status in {200, 206}:
            stream = Stream(host=self.host, answer=answer, timeouts=request.stream, stopping=self.stopping)
            return Response(answer.status, answer.headers, b"", stream)
        return Response(answer.status, answer.headers, self._read(answer))

    def _opened(self, request: Request, headers: dict[str, str], timeout: urllib3.Timeout) -> urllib3.BaseHTTPResponse:
        body = request.body
        return self.connections.urlopen(
            request.method,
            self.prefix + request.target,
            headers=headers,
            body=cast("bytes | None", body.data if body else None),  # any buffer can be sent
            timeout=timeout,
            redirect=False,
            retries=_NO_RETRIES,
            preload_content=False,
        )

    def _read(self, answer: urllib3.BaseHTTPResponse) -> bytes:
        """All of a good answer; of a refusal what has come of it."""
        is_good = answer.status < 300
        try:
            data = answer.read(MAX_MANIFEST_BYTES + 1)
        except (HTTPError, ValueError) as error:  # a number in it that is none
            answer.close()
            if is_good and (endless := endlessness(error)):
                raise ToolError(f"{self.host}: {endless}", hint=Meaning.SILENT.hint, host=self.host) from error
            if is_good:
                what = f"{self.host} cut its answer off"
                raise ToolError(what, detail=str(error), transient=True, host=self.host, outage=True) from error
            return b""
        if len(data) <= MAX_MANIFEST_BYTES:
            answer.release_conn()
            return data
        answer.close()
        if is_good:
            raise UnsureError(f"{self.host} sent more than {MAX_MANIFEST_BYTES} bytes")
        return data
