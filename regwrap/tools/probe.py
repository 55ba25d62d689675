"""Small questions to a registry over kept-alive HTTP: a digest by HEAD, a manifest, a config, a blob's size.

It is an optimisation of skopeo, which costs a process start a question. Whatever is odd (an answer that is no
registry's, credential helpers, a redirect of a manifest) raises UnsureError, and the caller asks skopeo instead.
A digest in a header is a claim; what matters is hashed by the caller.
"""

import base64
import json
import re
import ssl
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3

from regwrap.errors import RegwrapError, ToolError
from regwrap.model import MANIFEST_TYPES, MAX_MANIFEST_BYTES, Digest, ParseError
from regwrap.tools.access import Registry
from regwrap.tools.pressure import HostGate

_ACCEPT: Final = ", ".join(MANIFEST_TYPES)
_CHALLENGE: Final = re.compile(r'(\w+)="([^"]*)"')
_NO_HTTPS: Final = (urllib3.exceptions.SSLError, urllib3.exceptions.NewConnectionError)
_NO_CONNECTION: Final = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
_ODD: Final = (urllib3.exceptions.SSLError, urllib3.exceptions.ResponseError)  # the latter: redirects without an end
_STORE_FACTOR: Final = 10
_DOCKER_HUB: Final = "registry-1.docker.io"
# docker-registry gives 100 names without `n`, and answers 400 where it is larger than this
_PAGE: Final = 1000
_MAX_PAGES: Final = 10_000
_NEXT: Final = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next"?')


class UnsureError(RegwrapError):
    """The probe can't tell; skopeo shall. Caught in `observe` and `carry`."""


@dataclass(frozen=True, slots=True)
class Body:
    """What a request carries. `size` is needed for what comes in pieces, which may be asked for twice."""

    media_type: str = ""
    data: bytes | Iterable[bytes] = b""
    size: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        kind = {"Content-Type": self.media_type} if self.media_type else {}
        return kind if self.size is None else {**kind, "Content-Length": f"{self.size}"}


@dataclass(slots=True)
class Probe:
    """Questions to one registry; safe to use from several threads. `timeout` in seconds a request.

    `environment` holds HTTP_PROXY, HTTPS_PROXY, NO_PROXY where they are meant to count. Each request takes a turn at
    `gate`.
    """

    registry: Registry
    timeout: float
    connections: int
    environment: tuple[tuple[str, str], ...] = ()
    gate: HostGate = field(default_factory=lambda: HostGate(host=""))
    _authorization: dict[str, str] = field(default_factory=dict)
    _basic: str = ""
    _token_server: Mapping[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _manager: urllib3.PoolManager | None = None
    _scheme: str = ""

    def digest(self, repository: str, tag: str) -> Digest | None:
        """What the tag points to, by one HEAD request; None where the registry has no such tag."""
        answer = self._ask("HEAD", repository, f"manifests/{tag}")
        if answer is None:
            return None
        try:
            return Digest.parse(answer.headers.get("Docker-Content-Digest", ""))
        except ParseError as error:
            raise UnsureError(f"{self.registry.host} named no digest for {repository}:{tag}") from error

    def manifest(self, repository: str, reference: str | Digest) -> bytes | None:
        """A manifest's bytes, not verified; None where it is absent."""
        answer = self._ask("GET", repository, f"manifests/{reference}")
        return None if answer is None else self._body(answer)

    def small_blob(self, repository: str, digest: Digest) -> bytes | None:
        """A config's bytes, not verified; None where it is absent."""
        answer = self._ask("GET", repository, f"blobs/{digest}", redirect=True)
        return None if answer is None else self._body(answer)

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        """Bytes of a blob as the registry has it; None where it is absent."""
        answer = self._ask("HEAD", repository, f"blobs/{digest}", redirect=True)
        if answer is None:
            return None
        length = answer.headers.get("Content-Length", "")
        if not length.isdigit():
            raise UnsureError(f"{self.registry.host} named no size for {digest.short}")
        return int(length)

    def mount(self, repository: str, digest: Digest, source: str) -> bool:
        """Whether the registry now has in `repository` the blob that it has in `source`; no byte of it is sent.

        POST …?mount=&from= (distribution-spec, "Mounting a blob from another repository"): 201, or 202 for an upload
        that was begun instead, which is cancelled. False for whatever else: the blob is pushed then.
        """
        path = f"/v2/{repository}/blobs/uploads/?{urlencode({'mount': f'{digest}', 'from': source})}"
        key = f"{repository} from {source}"
        answer = self._send("POST", path, self._authorization.get(key) or self._basic, redirect=False)
        if answer.status == 401 and self._authorize(answer, key, (f"repository:{source}:pull",)):
            answer = self._send("POST", path, self._authorization.get(key), redirect=False)
        answer.drain_conn()
        if answer.status == 202:
            self._cancel_upload(answer.headers.get("Location", ""), key)
        return answer.status == 201

    def _cancel_upload(self, location: str, key: str) -> None:
        parts = urlsplit(location)
        if parts.netloc in {"", self.registry.host} and parts.path.startswith("/v2/"):
            path = f"{parts.path}?{parts.query}" if parts.query else parts.path
            authorization = self._authorization.get(key) or self._basic
            self._send("DELETE", path, authorization, redirect=False).drain_conn()

    def put_manifest(self, repository: str, reference: str | Digest, body: Body) -> tuple[int, bytes]:
        """Put a manifest's bytes; status and what the registry says."""
        return self._tell("PUT", f"/v2/{repository}/manifests/{reference}", repository, body)

    def upload(self, repository: str, digest: Digest, body: Body) -> tuple[int, bytes]:
        """Send a blob in one piece, which the registry hashes; status and what it says. 201: it is there."""
        path = f"/v2/{repository}/blobs/uploads/"
        answer = self._told("POST", path, repository, Body())
        location = answer.headers.get("Location", "")
        if answer.status != 202 or not location:
            return answer.status, answer.data
        url = urlsplit(urljoin(f"{self._scheme}://{self.registry.host}{path}", location))
        query = f"{url.query}&{urlencode({'digest': f'{digest}'})}".removeprefix("&")
        if url.netloc == self.registry.host:  # by the scheme that works: what ends TLS in front may not know it
            return self._tell("PUT", f"{url.path}?{query}", repository, body)
        return self._put_elsewhere(url._replace(query=query).geturl(), body)

    def _put_elsewhere(self, url: str, body: Body) -> tuple[int, bytes]:
        """A blob store of the registry's: our credentials are not for it."""
        if self._manager is None:
            raise UnsureError(f"{self.registry.host} was not asked yet")
        try:
            answer = self._manager.request(
                "PUT", url, headers=body.headers, body=body.data, redirect=False, timeout=self._patience
            )
        except urllib3.exceptions.HTTPError as error:
            raise ToolError(
                f"{urlsplit(url).netloc} could not be reached", detail=_reason(error), transient=True
            ) from error
        return answer.status, answer.data

    @property
    def _patience(self) -> urllib3.Timeout:
        """What a registry may take to store a large blob once it has all of it."""
        return urllib3.Timeout(connect=self.timeout, read=_STORE_FACTOR * self.timeout)

    def call(self, method: str, path: str, body: Body | None = None) -> tuple[int, bytes]:
        """A request beside the registry's API (Harbor's): with the authfile's credentials at once, if it has any."""
        basic = _basic_credentials(self.registry)
        self._authorization.setdefault(path, f"Basic {basic}" if basic else "")
        return self._tell(method, path, path, body or Body())

    def _tell(self, method: str, path: str, scope: str, body: Body) -> tuple[int, bytes]:
        answer = self._told(method, path, scope, body)
        return answer.status, answer.data

    def _told(self, method: str, path: str, scope: str, body: Body) -> urllib3.BaseHTTPResponse:
        """`scope` is what an authorization is kept for. Reads the whole answer. Raises ToolError."""
        answer = self._send(method, path, self._authorization.get(scope) or self._basic, redirect=False, body=body)
        if answer.status == 401 and self._authorize(answer, scope):
            answer = self._send(method, path, self._authorization.get(scope), redirect=False, body=body)
        try:
            answer.read(cache_content=True)
        except urllib3.exceptions.HTTPError as error:
            raise ToolError(
                f"{self.registry.host} cut its answer off", detail=str(error), transient=True, host=self.registry.host
            ) from error
        if answer.status in {408, 429} or answer.status >= 500:
            what = f"{self.registry.host} answered {answer.status} to {method} {path}"
            raise ToolError(what, transient=True, host=self.registry.host)
        return answer

    def tags(self, repository: str) -> tuple[str, ...] | None:
        """All tags of a repository, page by page; None where the registry has no such repository."""
        return self._names(f"/v2/{repository}/tags/list", repository, "tags")

    def catalog(self) -> tuple[str, ...]:
        """All repositories of the registry. Few public ones tell: UnsureError."""
        names = self._names("/v2/_catalog", "", "repositories")
        if names is None:
            raise UnsureError(f"{self.registry.host} has no catalog")
        return names

    def _names(self, path: str, repository: str, key: str) -> tuple[str, ...] | None:
        names: list[str] = []
        page = f"{path}?n={_PAGE}"
        for _number in range(_MAX_PAGES):
            answer = self._ask_path("GET", repository, page, redirect=True)
            if answer is None:
                return None
            names += _listed(self._body(answer), key, self.registry.host)
            link = _NEXT.search(answer.headers.get("Link", ""))
            if link is None:
                return tuple(dict.fromkeys(names))
            parts = urlsplit(urljoin(page, link[1]))  # the host in it may be one that only a proxy knows
            page = f"{parts.path}?{parts.query}"
        raise UnsureError(f"{self.registry.host} gives more than {_MAX_PAGES} pages for {path}")

    def _body(self, answer: urllib3.BaseHTTPResponse) -> bytes:
        try:
            body = answer.read(MAX_MANIFEST_BYTES + 1)
        except urllib3.exceptions.HTTPError as error:
            raise ToolError(
                f"{self.registry.host} cut its answer off", detail=str(error), transient=True, host=self.registry.host
            ) from error
        finally:
            answer.release_conn()
        if len(body) > MAX_MANIFEST_BYTES:
            answer.close()
            raise UnsureError(f"{self.registry.host} sent more than {MAX_MANIFEST_BYTES} bytes for a manifest")
        return body

    def _ask(
        self, method: str, repository: str, rest: str, *, redirect: bool = False
    ) -> urllib3.BaseHTTPResponse | None:
        return self._ask_path(method, repository, f"/v2/{repository}/{rest}", redirect=redirect)

    def _ask_path(self, method: str, repository: str, path: str, *, redirect: bool) -> urllib3.BaseHTTPResponse | None:
        answer = self._send(method, path, self._known(repository), redirect=redirect)
        if answer.status == 401 and self._authorize(answer, repository):
            answer = self._send(method, path, self._authorization.get(repository), redirect=redirect)
        if method == "HEAD" or answer.status != 200:
            answer.drain_conn()  # gives the connection back
        if answer.status == 200 and "html" not in answer.headers.get("Content-Type", ""):
            return answer
        answer.close()
        if answer.status == 404 and _is_registry(answer):
            return None
        if answer.status in {408, 429} or answer.status >= 500:
            what = f"{self.registry.host} answered {answer.status} to {path}"
            raise ToolError(what, transient=True, host=self.registry.host)
        raise UnsureError(f"{self.registry.host} answered {answer.status} to {method} {path}")

    def _send(
        self, method: str, path: str, authorization: str | None, *, redirect: bool, body: Body | None = None
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": _ACCEPT, **({"Authorization": authorization} if authorization else {})}
        headers |= body.headers if body else {}
        host = _DOCKER_HUB if self.registry.host == "docker.io" else self.registry.host
        schemes = [self._scheme] if self._scheme else self._schemes()
        for scheme in schemes:
            try:
                with self.gate.turn() as started:
                    answer = self._pool(scheme, host).request(
                        method,
                        f"{scheme}://{host}{path}",
                        headers=headers,
                        body=body.data if body else None,
                        timeout=self._patience if body else urllib3.Timeout(connect=self.timeout, read=self.timeout),
                        redirect=redirect,
                        preload_content=False,
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
                    self.gate.unreachable()
                raise self._unreached(error, reason) from error
            self._scheme = scheme
            return answer
        raise UnsureError(f"{host} speaks neither HTTPS nor HTTP")

    def _heard(self, answer: urllib3.BaseHTTPResponse, started: float) -> None:
        if answer.status in {429, 503}:
            self.gate.pushed_back(started, answer.headers.get("Retry-After", ""))
        elif answer.status < 500:
            self.gate.answered()

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

    def _pool(self, scheme: str, host: str) -> urllib3.PoolManager:
        with self._lock:
            if self._manager is None:
                self._manager = self._new_pool(scheme, host)
            return self._manager

    def _new_pool(self, scheme: str, host: str) -> urllib3.PoolManager:
        if not self.registry.tls_verify:
            # the user has said so; a warning of a library's on stderr would be none of his
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        # One probe asks one host; redirects to a blob store may go elsewhere, so a few pools are kept.
        options = {
            "num_pools": 4,
            "maxsize": self.connections,
            "retries": urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=5),
            "timeout": urllib3.Timeout(connect=self.timeout, read=self.timeout),
            "ssl_context": _ssl_context(self.registry, dict(self.environment)),
        }
        variables = dict(self.environment)
        proxy = variables.get(f"{scheme.upper()}_PROXY", "")
        if proxy and not _is_direct(host, variables.get("NO_PROXY", "")):
            return urllib3.ProxyManager(proxy, **options)  # type: ignore[arg-type]  # a dict of mixed options
        return urllib3.PoolManager(**options)  # type: ignore[arg-type]

    def _known(self, repository: str) -> str | None:
        """What to say before being asked: the credentials that the host took, or a token for the repository from the
        server that gave one for another. It saves each repository a refused request."""
        if repository and repository not in self._authorization and self._token_server:
            challenge = {**self._token_server, "scope": _pull_scope(repository)}
            self._authorization[repository] = f"Bearer {self._token(challenge, _basic_credentials(self.registry), ())}"
        return self._authorization.get(repository) or self._basic

    def _authorize(self, answer: urllib3.BaseHTTPResponse, key: str, scopes: tuple[str, ...] = ()) -> bool:
        """Answer the registry's challenge (RFC 7235; distribution's docs/spec/auth/token.md), with `scopes` as well."""
        answer.drain_conn()
        kind, _, parameters = answer.headers.get("WWW-Authenticate", "").partition(" ")
        basic = _basic_credentials(self.registry)
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

    def _token(self, challenge: Mapping[str, str], basic: str | None, scopes: tuple[str, ...]) -> str:
        realm = challenge.get("realm", "")
        if urlsplit(realm).scheme not in {"http", "https"} or self._manager is None:
            raise UnsureError(f"{self.registry.host} names no token server")
        wanted = [(key, challenge[key]) for key in ("service", "scope") if key in challenge]
        query = urlencode([*wanted, *(("scope", scope) for scope in scopes)])
        headers = {"Authorization": f"Basic {basic}"} if basic else {}
        try:
            answer = self._manager.request("GET", f"{realm}?{query}", headers=headers)
            document = json.loads(answer.data) if answer.status == 200 else {}
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise UnsureError(f"the token server of {self.registry.host} failed") from error
        token = document.get("token") or document.get("access_token") if isinstance(document, dict) else None
        if not isinstance(token, str):
            raise UnsureError(f"the token server of {self.registry.host} answered {answer.status}")
        return token


def _pull_scope(repository: str) -> str:
    return f"repository:{repository}:pull"


def _listed(body: bytes, key: str, host: str) -> list[str]:
    try:
        document = json.loads(body)
        names = document.get(key) or []  # null, as some registries say for none
    except (ValueError, RecursionError, AttributeError) as error:
        raise UnsureError(f"{host} listed no {key}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UnsureError(f"{host} listed no {key}")
    return names


def _is_direct(host: str, no_proxy: str) -> bool:
    """NO_PROXY as Go reads it (golang.org/x/net/http/httpproxy): names with their subdomains, or `*`."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    entries = [entry.strip().removeprefix("*").removeprefix(".") for entry in no_proxy.split(",") if entry.strip()]
    return any(entry in {"", name, host} or name.endswith(f".{entry}") for entry in entries)


def _is_registry(answer: urllib3.BaseHTTPResponse) -> bool:
    headers = answer.headers
    return "Docker-Distribution-Api-Version" in headers or "json" in headers.get("Content-Type", "")


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


def _basic_credentials(registry: Registry) -> str | None:
    """`user:password` in base64 from the authfile (containers-auth.json(5)); None where it has no entry."""
    if registry.authfile is None:
        return None
    document = _read_json(registry.authfile)
    helpers = document.get("credHelpers")
    if document.get("credsStore") or (isinstance(helpers, dict) and registry.host in helpers):
        raise UnsureError(f"{registry.authfile} names a credential helper for {registry.host}")
    auths = document.get("auths")
    for key in _auth_keys(registry.host):
        entry = auths.get(key) if isinstance(auths, dict) else None
        if isinstance(entry, dict) and isinstance(entry.get("auth"), str):
            if entry.get("identitytoken"):
                raise UnsureError(f"{registry.authfile} has an identity token for {registry.host}")
            return _checked_base64(entry["auth"], registry.authfile)
    return None


def _auth_keys(host: str) -> tuple[str, ...]:
    hub = ("https://index.docker.io/v1/", "index.docker.io") if host == "docker.io" else ()
    return (host, f"https://{host}", f"http://{host}", f"https://{host}/v1/", f"https://{host}/v2/", *hub)


def _read_json(path: Path) -> dict[str, object]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UnsureError(f"{path} can't be read: {error}") from error
    return document if isinstance(document, dict) else {}


def _checked_base64(text: str, path: Path) -> str:
    try:
        base64.b64decode(text, validate=True)
    except ValueError as error:
        raise UnsureError(f"{path}: an auth entry is not base64") from error
    return text
