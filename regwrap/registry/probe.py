"""Small questions to a registry over kept-alive HTTP: a digest by HEAD, a manifest, a config, a blob's size.

It is an optimisation of skopeo, which costs a process start a question. Whatever is odd (an answer that is no
registry's, credential helpers, a redirect of a manifest) raises UnsureError, and the caller asks skopeo instead.
A digest in a header is a claim; what matters is hashed by the caller.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3

from regwrap.core.errors import ToolError
from regwrap.core.model import MAX_MANIFEST_BYTES, Digest, ParseError
from regwrap.registry.credentials import UnsureError
from regwrap.registry.transport import Body, Transport
from regwrap.tools.rate_limit import HostLimiter

if TYPE_CHECKING:
    from regwrap.core.place import Registry

# docker-registry gives 100 names without `n`, and answers 400 where it is larger than this
_PAGE: Final = 1000
_MAX_PAGES: Final = 10_000
_NEXT: Final = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next"?')


@dataclass(slots=True)
class Probe:
    """Questions to one registry; safe to use from several threads. `timeout` in seconds a request."""

    registry: Registry
    timeout: float
    connections: int
    environment: tuple[tuple[str, str], ...] = ()
    limiter: HostLimiter = field(default_factory=lambda: HostLimiter(host=""))
    _transport: Transport = field(init=False)

    def __post_init__(self) -> None:
        self._transport = Transport(
            registry=self.registry,
            timeout=self.timeout,
            connections=self.connections,
            environment=self.environment,
            limiter=self.limiter,
        )

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

    def referrers(self, repository: str, digest: Digest) -> tuple[dict[str, object], ...] | None:
        """Descriptors of the manifests that are about `digest` (distribution-spec 1.1, "Listing Referrers"); None where
        the registry has no such API."""
        found: list[dict[str, object]] = []
        page = f"/v2/{repository}/referrers/{digest}"
        for _number in range(_MAX_PAGES):
            answer = self._transport.ask("GET", page, repository, pull=True, redirect=True)
            if answer.status != 200 or "json" not in answer.headers.get("Content-Type", ""):
                answer.drain_conn()
                self._transport.refuse_later(answer, "GET", page)
                return None
            found += _descriptors(self._body(answer), self.registry.host)
            link = _NEXT.search(answer.headers.get("Link", ""))
            if link is None:
                return tuple(found)
            parts = urlsplit(urljoin(page, link[1]))
            page = f"{parts.path}?{parts.query}"
        raise UnsureError(f"{self.registry.host} gives more than {_MAX_PAGES} pages of referrers")

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

    def tags(self, repository: str) -> tuple[str, ...] | None:
        """All tags of a repository, page by page; None where the registry has no such repository."""
        return self._names(f"/v2/{repository}/tags/list", repository, "tags")

    def catalog(self) -> tuple[str, ...]:
        """All repositories of the registry. Few public ones tell: UnsureError."""
        names = self._names("/v2/_catalog", "", "repositories")
        if names is None:
            raise UnsureError(f"{self.registry.host} has no catalog")
        return names

    def mount(self, repository: str, digest: Digest, source: str) -> bool:
        """Whether the registry now has in `repository` the blob that it has in `source`; no byte of it is sent.

        POST …?mount=&from= (distribution-spec, "Mounting a blob from another repository"): 201, or 202 for an upload
        that was begun instead, which is cancelled. False for whatever else: the blob is pushed then.
        """
        path = f"/v2/{repository}/blobs/uploads/?{urlencode({'mount': f'{digest}', 'from': source})}"
        key = f"{repository} from {source}"
        answer = self._transport.ask("POST", path, key, scopes=(f"repository:{source}:pull",))
        answer.drain_conn()
        if answer.status == 202:
            self._cancel_upload(answer.headers.get("Location", ""), key)
        return answer.status == 201

    def put_manifest(self, repository: str, reference: str | Digest, body: Body) -> tuple[int, bytes]:
        """Put a manifest's bytes; status and what the registry says."""
        return self._tell("PUT", f"/v2/{repository}/manifests/{reference}", repository, body)

    def upload(self, repository: str, digest: Digest, body: Body) -> tuple[int, bytes]:
        """Send a blob in one piece, which the registry hashes; status and what it says. 201: it is there."""
        path = f"/v2/{repository}/blobs/uploads/"
        answer = self._transport.told("POST", path, repository, Body())
        location = answer.headers.get("Location", "")
        if answer.status != 202 or not location:
            return answer.status, answer.data
        try:
            return self._upload_to(location, path, repository, digest, body)
        except ToolError:
            with suppress(ToolError, UnsureError):
                self._cancel_upload(location, repository)
            raise

    def _upload_to(self, location: str, path: str, repository: str, digest: Digest, body: Body) -> tuple[int, bytes]:
        url = urlsplit(self._transport.absolute(path, location))
        query = f"{url.query}&{urlencode({'digest': f'{digest}'})}".removeprefix("&")
        if url.netloc == self.registry.host:  # by the scheme that works: what ends TLS in front may not know it
            return self._tell("PUT", f"{url.path}?{query}", repository, body)
        return self._transport.put_elsewhere(url._replace(query=query).geturl(), body)

    def call(self, method: str, path: str, body: Body | None = None) -> tuple[int, bytes]:
        """A request beside the registry's API (Harbor's): with the authfile's credentials at once, if it has any."""
        self._transport.use_basic(path)
        return self._tell(method, path, path, body or Body())

    def close(self) -> None:
        """Close the connections that are kept alive."""
        self._transport.close()

    def _tell(self, method: str, path: str, key: str, body: Body) -> tuple[int, bytes]:
        answer = self._transport.told(method, path, key, body)
        return answer.status, answer.data

    def _cancel_upload(self, location: str, key: str) -> None:
        """A registry keeps what was sent of an upload for a week; told so, it forgets it."""
        parts = urlsplit(location)
        if parts.netloc in {"", self.registry.host} and parts.path.startswith("/v2/"):
            path = f"{parts.path}?{parts.query}" if parts.query else parts.path
            self._transport.ask("DELETE", path, key).drain_conn()

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
            raise self._transport.cut_off(error) from error
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
        answer = self._transport.ask(method, path, repository, pull=bool(repository), redirect=redirect)
        if method == "HEAD" or answer.status != 200:
            answer.drain_conn()  # gives the connection back
        if answer.status == 200 and "html" not in answer.headers.get("Content-Type", ""):
            return answer
        answer.close()
        if answer.status == 404 and _is_registry(answer):
            return None
        self._transport.refuse_later(answer, method, path)
        raise UnsureError(f"{self.registry.host} answered {answer.status} to {method} {path}")


def _listed(body: bytes, key: str, host: str) -> list[str]:
    try:
        document = json.loads(body)
        names = document.get(key) or []  # null, as some registries say for none
    except (ValueError, RecursionError, AttributeError) as error:
        raise UnsureError(f"{host} listed no {key}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UnsureError(f"{host} listed no {key}")
    return names


def _descriptors(body: bytes, host: str) -> list[dict[str, object]]:
    try:
        found = json.loads(body)["manifests"] or []
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        raise UnsureError(f"{host} listed no referrers") from error
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise UnsureError(f"{host} listed no referrers")
    return found


def _is_registry(answer: urllib3.BaseHTTPResponse) -> bool:
    headers = answer.headers
    return "Docker-Distribution-Api-Version" in headers or "json" in headers.get("Content-Type", "")
