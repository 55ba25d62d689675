"""HTTP to one registry: kept-alive connections, what to say to its challenges, proxies, certificates, its limiter."""

from __future__ import annotations

import json
import os
import re
import ssl
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3

from regwrap.core.errors import FULL_DISK_HINT, ToolError
from regwrap.core.model import MANIFEST_TYPES
from regwrap.registry.credentials import UnsureError, basic_credentials

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from regwrap.core.place import Registry
    from regwrap.tools.rate_limit import HostLimiter

_ACCEPT: Final = ", ".join(MANIFEST_TYPES)
_CHALLENGE: Final = re.compile(r'(\w+)="([^"]*)"')
_NO_HTTPS: Final = (urllib3.exceptions.SSLError, urllib3.exceptions.NewConnectionError)
_NO_CONNECTION: Final = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
_ODD: Final = (urllib3.exceptions.SSLError, urllib3.exceptions.ResponseError)  # the latter: redirects without an end
_NO_RETRIES: Final = urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=5)
_STORE_FACTOR: Final = 10
_DOCKER_HUB: Final = "registry-1.docker.io"


def reason_of(body: bytes) -> str:
    """Why a registry says no. docker-registry tells what its disk said, at times as a bare number of errno."""
    text = " ".join(body.decode(errors="replace").split())[:500]
    number = re.search(r'"Err":(\d{1,3})\b', text)
    return f"{text} ({os.strerror(int(number[1]))})" if number else text


@dataclass(frozen=True, slots=True)
class Body:
    """What a request carries. `size` is needed for what comes in pieces, which may be asked for twice."""

    media_type: str = ""
    data: bytes | Iterable[bytes | memoryview] = b""
    size: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        kind = {"Content-Type": self.media_type} if self.media_type else {}
        return kind if self.size is None else {**kind, "Content-Length": f"{self.size}"}


@dataclass(slots=True)
class Transport:
    """Requests to one registry; safe to use from several threads. `timeout` in seconds a request.

    `environment` holds HTTP_PROXY, HTTPS_PROXY, NO_PROXY where they are meant to count. Each request takes a slot of
    `limiter`.
    """

    registry: Registry
    timeout: float
    connections: int
    environment: tuple[tuple[str, str], ...]
    limiter: HostLimiter
    _authorization: dict[str, str] = field(default_factory=dict)
    _basic: str = ""
    _token_server: Mapping[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _managers: dict[tuple[str, str], urllib3.PoolManager] = field(default_factory=dict)
    _direct: dict[str, urllib3.HTTPConnectionPool] = field(default_factory=dict)
    _scheme: str = ""

    def ask(  # noqa: PLR0913  a request has that many sides
        self,
        method: str,
        path: str,
        key: str,
        *,
        pull: bool = False,
        redirect: bool = False,
        scopes: tuple[str, ...] = (),
        body: Body | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """Send, and once more after the registry's challenge. The answer's content is not read yet. Raises ToolError.

        `key` is what an authorization is kept for; with `pull` it is a repository, which a token can be had for before
        it is asked for. `scopes` are asked for as well.
        """
        early = self._known(key) if pull else self._authorization.get(key) or self._basic
        answer = self._send(method, path, early, redirect=redirect, body=body)
        if answer.status == 401 and self._authorize(answer, key, scopes):
            answer = self._send(method, path, self._authorization.get(key), redirect=redirect, body=body)
        return answer

    def told(self, method: str, path: str, key: str, body: Body) -> urllib3.BaseHTTPResponse:
        """Ask, and read the whole answer. Raises ToolError, also where the registry wants to be asked later."""
        answer = self.ask(method, path, key, body=body)
        try:
            answer.read(cache_content=True)
        except urllib3.exceptions.HTTPError as error:
            raise self.cut_off(error) from error
        self.refuse_later(answer, method, path, answer.data)
        return answer

    def cut_off(self, error: urllib3.exceptions.HTTPError) -> ToolError:
        host = self.registry.host
        return ToolError(f"{host} cut its answer off", detail=str(error), transient=True, host=host)

    def refuse_later(self, answer: urllib3.BaseHTTPResponse, method: str, path: str, said: bytes = b"") -> None:
        """Raise a transient ToolError for answers that another try may change. `said`: the answer's body."""
        if answer.status in {408, 429} or answer.status >= 500:
            what = f"{self.registry.host} answered {answer.status} to {method} {path.partition('?')[0]}"
            hint = FULL_DISK_HINT if answer.status == 500 else ""
            raise ToolError(what, detail=reason_of(said), hint=hint, transient=True, host=self.registry.host)

    def use_basic(self, key: str) -> None:
        """Send the authfile's credentials at once, where there are any."""
        basic = basic_credentials(self.registry)
        self._authorization.setdefault(key, f"Basic {basic}" if basic else "")

    def absolute(self, path: str, location: str) -> str:
        """A Location as a whole URL; it may be relative to the path that it answers."""
        return urljoin(f"{self._scheme}://{self.registry.host}{path}", location)

    def close(self) -> None:
        """Close the connections that are kept alive."""
        for manager in self._managers.values():
            manager.clear()

    def _send(
        self, method: str, path: str, authorization: str | None, *, redirect: bool, body: Body | None = None
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": _ACCEPT, **({"Authorization": authorization} if authorization else {})}
        headers |= body.headers if body else {}
        host = _DOCKER_HUB if self.registry.host == "docker.io" else self.registry.host
        schemes = [self._scheme] if self._scheme else self._schemes()
        for scheme in schemes:
            try:
                with self.limiter.slot() as started:
                    way, url = self._way(scheme, host, path, redirect=redirect)
                    answer = way.urlopen(
                        method,
                        url,
                        headers=headers,
                        body=body.data if body else None,  # type: ignore[arg-type]  # any buffer can be sent
                        timeout=self._patience if body else self._soon,
                        redirect=redirect,
                        preload_content=False,
                        retries=_NO_RETRIES,
                    )
                self._heard(answer, started)
            except urllib3.exceptions.HTTPError as error:
                # urllib3 wraps all that it would have tried again
                reason = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) else error
                if scheme != schemes[-1] and isinstance(reason, _NO_HTTPS):
                    continue
                if isinstance(reason, _ODD):
                    raise UnsureError(f"{host}: {reason}") from error
                if isinstance(reason, _NO_CONNECTION):
                    self.limiter.unreachable()
                raise self._unreached(error, reason) from error
            self._scheme = scheme
            return answer
        raise UnsureError(f"{host} speaks neither HTTPS nor HTTP")

    def _way(
        self, scheme: str, host: str, path: str, *, redirect: bool
    ) -> tuple[urllib3.PoolManager | urllib3.HTTPConnectionPool, str]:
        """Who sends a request, and what it wants as its address. The connections of the host itself, where nothing is
        between and no redirect is followed: a manager looks for them anew each time, which is a fifth of the work."""
        if redirect or scheme not in self._direct:
            manager = self._pool(f"{scheme}://{host}")
            if redirect or isinstance(manager, urllib3.ProxyManager):
                return manager, f"{scheme}://{host}{path}"
            self._direct[scheme] = manager.connection_from_url(f"{scheme}://{host}")
        return self._direct[scheme], path

    def _known(self, repository: str) -> str | None:
        """What to say before being asked: the credentials that the host took, or a token for the repository from the
        server that gave one for another. It saves each repository a refused request."""
        if repository and repository not in self._authorization and self._token_server:
            challenge = {**self._token_server, "scope": _pull_scope(repository)}
            self._authorization[repository] = f"Bearer {self._token(challenge, basic_credentials(self.registry), ())}"
        return self._authorization.get(repository) or self._basic

    def _authorize(self, answer: urllib3.BaseHTTPResponse, key: str, scopes: tuple[str, ...] = ()) -> bool:
        """Answer the registry's challenge (RFC 7235; distribution's docs/spec/auth/token.md), with `scopes` as well."""
        answer.drain_conn()
        kind, _, parameters = answer.headers.get("WWW-Authenticate", "").partition(" ")
        basic = basic_credentials(self.registry)
        if kind.lower() == "basic":
            if basic is None:
                return False
            self._basic = self._authorization[key] = f"Basic {basic}"
            return True
        if kind.lower() == "bearer":
            challenge = dict(_CHALLENGE.findall(parameters))
            self._authorization[key] = f"Bearer {self._token(challenge, basic, scopes)}"
            if challenge.get("scope") == _pull_scope(key):
                self._token_server = challenge
            return True
        return False

    def put_elsewhere(self, url: str, body: Body) -> tuple[int, bytes]:
        """A blob store of the registry's: our credentials are not for it."""
        try:
            answer = self._pool(url).request(
                "PUT",
                url,
                headers=body.headers,
                body=body.data,  # type: ignore[arg-type]  # any buffer can be sent
                redirect=False,
                timeout=self._patience,
            )
        except urllib3.exceptions.HTTPError as error:
            raise ToolError(
                f"{urlsplit(url).netloc} could not be reached", detail=_reason(error), transient=True
            ) from error
        return answer.status, answer.data

    @property
    def _soon(self) -> urllib3.Timeout:
        return urllib3.Timeout(connect=self.timeout, read=self.timeout)

    @property
    def _patience(self) -> urllib3.Timeout:
        """What a registry may take to store a large blob once it has all of it."""
        return urllib3.Timeout(connect=self.timeout, read=_STORE_FACTOR * self.timeout)

    def _heard(self, answer: urllib3.BaseHTTPResponse, started: float) -> None:
        if answer.status in {429, 503}:
            self.limiter.pushed_back(started, answer.headers.get("Retry-After", ""))
        elif answer.status < 500:
            self.limiter.answered()

    def _unreached(self, error: urllib3.exceptions.HTTPError, reason: Exception | None) -> ToolError:
        unknown = isinstance(reason, urllib3.exceptions.NameResolutionError)
        return ToolError(
            f"{self.registry.host} could not be reached",
            detail=_reason(error),
            hint="check the registry's name, in the list and in the configuration" if unknown else "",
            transient=True,
            host=self.registry.host,
        )

    def _schemes(self) -> list[str]:
        if self.registry.plain_http:
            return ["http"]
        return ["https"] if self.registry.tls_verify else ["https", "http"]

    def _pool(self, url: str) -> urllib3.PoolManager:
        scheme, host = urlsplit(url)[:2]
        variables = dict(self.environment)
        proxy = variables.get(f"{scheme.upper()}_PROXY", "")
        if proxy and _is_direct(host, variables.get("NO_PROXY", "")):
            proxy = ""
        with self._lock:
            if (scheme, proxy) not in self._managers:
                self._managers[scheme, proxy] = self._new_pool(scheme, proxy)
            return self._managers[scheme, proxy]

    def _new_pool(self, scheme: str, proxy: str) -> urllib3.PoolManager:
        if not self.registry.tls_verify:
            # the user has said so; a warning of a library's on stderr would be none of his
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        # One probe asks one host; redirects to a blob store may go elsewhere, so a few pools are kept.
        options = {
            "num_pools": 4,
            "maxsize": self.connections,
            "retries": _NO_RETRIES,
            "timeout": self._soon,
        }
        if "https" in {scheme, urlsplit(proxy).scheme}:  # to read all CAs takes as long as twenty requests
            options["ssl_context"] = _ssl_context(self.registry, dict(self.environment))
        if proxy:
            return urllib3.ProxyManager(proxy, **options)  # type: ignore[arg-type]  # a dict of mixed options
        return urllib3.PoolManager(**options)  # type: ignore[arg-type]

    def _token(self, challenge: Mapping[str, str], basic: str | None, scopes: tuple[str, ...]) -> str:
        realm = challenge.get("realm", "")
        if urlsplit(realm).scheme not in {"http", "https"}:
            raise UnsureError(f"{self.registry.host} names no token server")
        wanted = [(key, challenge[key]) for key in ("service", "scope") if key in challenge]
        query = urlencode([*wanted, *(("scope", scope) for scope in scopes)])
        headers = {"Authorization": f"Basic {basic}"} if basic else {}
        try:
            answer = self._pool(realm).request("GET", f"{realm}?{query}", headers=headers)
            document = json.loads(answer.data) if answer.status == 200 else {}
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise UnsureError(f"the token server of {self.registry.host} failed") from error
        token = document.get("token") or document.get("access_token") if isinstance(document, dict) else None
        if not isinstance(token, str):
            raise UnsureError(f"the token server of {self.registry.host} answered {answer.status}")
        return token


def _pull_scope(repository: str) -> str:
    return f"repository:{repository}:pull"


def _is_direct(host: str, no_proxy: str) -> bool:
    """NO_PROXY as Go reads it (golang.org/x/net/http/httpproxy): names with their subdomains, or `*`."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    entries = [entry.strip().removeprefix("*").removeprefix(".") for entry in no_proxy.split(",") if entry.strip()]
    return any(entry in {"", name, host} or name.endswith(f".{entry}") for entry in entries)


def _reason(error: urllib3.exceptions.HTTPError) -> str:
    """The innermost reason: urllib3 wraps what the kernel said into two sentences about itself."""
    reason = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason else error
    return re.sub(r"^.*(Connection|Connect|Pool)[A-Za-z]*\(.*?\): ", "", str(reason))


def _ssl_context(registry: Registry, variables: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=variables.get("SSL_CERT_FILE"), capath=variables.get("SSL_CERT_DIR"))
    if not registry.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if registry.cert_dir is not None:
        # the same convention as docker and skopeo: *.crt are CAs, *.cert with *.key a client's certificate
        for path in sorted(registry.cert_dir.glob("*.crt")):
            context.load_verify_locations(cafile=path)
        for path in sorted(registry.cert_dir.glob("*.cert")):
            context.load_cert_chain(path, path.with_suffix(".key"))
    return context
