"""Small questions to a registry over kept-alive HTTP: a digest by HEAD, a manifest, a config, a blob's size.

It is an optimisation of skopeo, which costs a process start a question. Whatever is odd (an answer that is no
registry's, a helper that fails, a redirect of a manifest) raises UnsureError, and the caller asks skopeo instead.
A digest in a header is a claim; what matters is hashed by the caller.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from regwrap.core.errors import ToolError
from regwrap.core.fields import a_text, an_object, json_object, list_of, or_none
from regwrap.core.fields import field as value_of
from regwrap.core.manifest import OCI_MANIFEST
from regwrap.core.model import Digest, ParseError
from regwrap.registry.addresses import next_page
from regwrap.registry.answers import is_absent, is_page, meaning_of, raise_if_later, refusal
from regwrap.registry.auth import Access
from regwrap.registry.certificates import end_of
from regwrap.registry.client import Client
from regwrap.registry.credentials import AskHelper, UnsureError, no_helper
from regwrap.registry.downloads import Downloads
from regwrap.registry.exchange import Body, Request, Response
from regwrap.registry.uploads import Uploads, mounting
from regwrap.tools.rate_limit import HostLimiter

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from regwrap.core.location import Registry

_SIZE: Final = "?n=1000"  # docker-registry gives 100 names without it, and answers 400 where it is larger
_MAX_DIGITS: Final = 20  # of a size; Python refuses to read thousands of them
_MAX_PAGES: Final = 10_000

T = TypeVar("T")


@dataclass(slots=True)
class Probe:
    """Questions to one registry; safe to use from several threads. `timeout` in seconds a request."""

    registry: Registry
    timeout: float
    connections: int
    environment: tuple[tuple[str, str], ...] = ()
    limiter: HostLimiter = field(default_factory=lambda: HostLimiter(host=""))
    note: Callable[[str], None] = lambda _text: None
    ask_helper: AskHelper = no_helper
    uploads: Uploads = field(init=False)
    _client: Client = field(init=False)

    def __post_init__(self) -> None:
        self._client = Client(
            registry=self.registry,
            timeout=self.timeout,
            connections=self.connections,
            environment=self.environment,
            limiter=self.limiter,
            note=self.note,
            ask_helper=self.ask_helper,
        )
        self.uploads = Uploads(self._client)

    @property
    def downloads(self) -> Downloads:
        """For a program that fetches blobs."""
        return Downloads(self._client)

    def digest(self, repository: str, tag: str) -> Digest | None:
        """What the tag points to, by one HEAD request; None where the registry has no such tag."""
        answer = self._ask("HEAD", f"/v2/{repository}/manifests/{tag}", repository)
        return None if answer is None else self._named_digest(answer, f"{repository}:{tag}")

    def tagged(self, repository: str, tag: str) -> tuple[Digest, bytes] | None:
        """The same with the manifest's bytes, not verified, by one GET request."""
        answer = self._ask("GET", f"/v2/{repository}/manifests/{tag}", repository)
        return None if answer is None else (self._named_digest(answer, f"{repository}:{tag}"), answer.body)

    def _named_digest(self, answer: Response, image: str) -> Digest:
        try:
            return Digest.parse(answer.headers.get("Docker-Content-Digest", ""))
        except ParseError as error:
            raise UnsureError(f"{self.registry.host} named no digest for {image}") from error

    def manifest(self, repository: str, reference: str | Digest) -> bytes | None:
        """A manifest's bytes, not verified; None where it is absent."""
        answer = self._ask("GET", f"/v2/{repository}/manifests/{reference}", repository)
        return None if answer is None else answer.body

    def small_blob(self, repository: str, digest: Digest) -> bytes | None:
        """A config's bytes, not verified; None where it is absent."""
        answer = self._ask("GET", f"/v2/{repository}/blobs/{digest}", repository, redirect=True)
        return None if answer is None else answer.body

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        """Bytes of a blob as the registry has it; None where it is absent."""
        answer = self._ask("HEAD", f"/v2/{repository}/blobs/{digest}", repository, redirect=True)
        if answer is None:
            return None
        size = _number(answer.headers.get("Content-Length", ""))
        return size or self._size_by_range(repository, digest)  # some say 0 for what they do not know

    def _size_by_range(self, repository: str, digest: Digest) -> int | None:
        """The size that stands in an answer's Content-Range, or that of the whole blob, which is not read."""
        target = f"/v2/{repository}/blobs/{digest}"
        answer = self._client.request(Request("GET", target, Access(repository), redirect=True, first_byte=True))
        ranges = answer.headers.get("Content-Range", "").rpartition("/")[2]
        said = {200: answer.headers.get("Content-Length", ""), 206: ranges, 416: ranges}.get(answer.status, "")
        if (size := _number(said)) is None:
            raise UnsureError(f"{self.registry.host} named no size for {digest.short}")
        return size

    def tags(self, repository: str) -> tuple[str, ...] | None:
        """All tags of a repository, page by page; None where the registry has no such repository."""
        names = self._listed(f"/v2/{repository}/tags/list{_SIZE}", repository, "tags", a_text)
        return None if names is None else tuple(dict.fromkeys(names))

    def knows(self, repository: str) -> bool:
        """Whether the registry has tags in the repository, or says that it has the repository."""
        return self._ask("GET", f"/v2/{repository}/tags/list?n=1", repository, redirect=True) is not None

    def catalog(self) -> tuple[str, ...]:
        """All repositories of the registry. Few public ones tell: UnsureError."""
        names = self._listed(f"/v2/_catalog{_SIZE}", "", "repositories", a_text)
        if names is None:
            raise UnsureError(f"{self.registry.host} has no catalog")
        return tuple(dict.fromkeys(names))

    def referrers(self, repository: str, digest: Digest) -> tuple[dict[str, object], ...] | None:
        """Descriptors of the manifests that are about `digest` (distribution-spec 1.1, "Listing Referrers"); None where
        the registry has no such API, which is what 404 means there."""
        target = f"/v2/{repository}/referrers/{digest}"
        request = Request("GET", target, Access(repository), redirect=True)
        answer = self._client.request(request)
        if answer.status == 404:
            return None
        if answer.status == 401:
            raise self._client.refused(request, answer)
        if answer.status != 200 or is_page(answer):
            raise refusal(self.registry.host, request.shown, answer)
        try:
            return tuple(self._listed(target, repository, "manifests", an_object, answer) or ())
        except UnsureError as error:  # the API is there: what it lists must not get lost
            what = f"{self.registry.host} does not list the referrers of {digest.short}"
            raise ToolError(what, detail=f"{error}", hint=error.hint) from error

    def mount(self, repository: str, digest: Digest, source: str) -> bool:
        """Whether the registry now has in `repository` the blob that it has in `source`; no byte of it is sent.

        POST …?mount=&from= (distribution-spec, "Mounting a blob from another repository"): 201, or 202 for an upload
        that was begun instead, which is cancelled. False for whatever else: the blob is pushed then.
        """
        target = f"/v2/{repository}/blobs/uploads/?{mounting(digest, source)}"
        request = Request("POST", target, Access(repository, source))
        answer = self._client.request(request)
        if answer.status == 202:
            with suppress(UnsureError):  # an address that cannot be asked is no upload's
                self.uploads.cancel(self.uploads.begun(request, answer), request.access)
        return answer.status == 201

    def put_manifest(self, repository: str, reference: str | Digest, body: Body) -> Response:
        """Put a manifest's bytes; what the registry says. Raises ToolError where it wants to be asked later."""
        return self._sent(Request("PUT", f"/v2/{repository}/manifests/{reference}", Access(repository), body))

    def call(self, method: str, target: str, body: Body | None = None) -> Response:
        """A request beside the registry's API (Harbor's): with the authfile's credentials at once, if it has any."""
        return self._answered(Request(method, target, body=body or Body(), eager=True))

    def is_distribution_2(self, repository: str) -> bool:
        """Whether it is docker-registry 2, as far as it can be told: of lists of tags it has no pages, so a senseless
        number for one is nothing to it, where version 3 answers 400 (registry/handlers/tags.go)."""
        request = Request("GET", f"/v2/{repository}/tags/list?n=-1", Access(repository))
        answer = self._client.request(request)
        raise_if_later(self.registry.host, request.shown, answer)
        is_list = answer.status == 200 or (answer.status == 404 and b"NAME_UNKNOWN" in answer.body)
        return is_list and answer.headers.get("Docker-Distribution-Api-Version") == "registry/2.0"

    def wants_login(self) -> bool:
        """Whether the registry asks everybody who he is."""
        return self._client.greeting().status == 401

    def is_welcome(self, repository: str) -> bool:
        """Whether it takes the login that counts for the repository. Raises ToolError where that is refused."""
        request = Request("GET", "/v2/", Access(repository))
        answer = self._answered(request)
        if answer.status == 401:
            raise self._client.refused(request, answer)
        return answer.status < 300

    def may_push(self, repository: str) -> bool | None:
        """Whether a push is allowed, where nothing is pushed: these bytes are no manifest, and not of that digest. None
        where nobody knows."""
        target = f"/v2/{repository}/manifests/{Digest('0' * 64)}"
        request = Request("PUT", target, Access(repository), Body(OCI_MANIFEST, b"may this be pushed?"))
        status = self._answered(request).status
        return False if status in {401, 403, 405} else True if status in {400, 415, 422} else None

    def certificate_end(self) -> datetime | None:
        """Until when the certificate is valid; None for plain HTTP. Raises ToolError and ValueError."""
        shown = self._client.certificate()
        return end_of(shown) if shown else None

    def one_repository(self) -> str:
        """The first of the catalog; empty where there is none."""
        answer = self._ask("GET", "/v2/_catalog?n=1", "")
        names = _items(answer.body, "repositories", str, self.registry.host) if answer else []
        return names[0] if names else ""

    def close(self) -> None:
        """Forget uploads that broke, and close the connections that are kept alive."""
        self.uploads.close()
        self._client.close()

    def _sent(self, request: Request) -> Response:
        answer = self._answered(request)
        if answer.status == 401:
            raise self._client.refused(request, answer)
        return answer

    def _answered(self, request: Request) -> Response:
        answer = self._client.request(request)
        raise_if_later(self.registry.host, request.shown, answer)
        return answer

    def _ask(self, method: str, target: str, repository: str, *, redirect: bool = False) -> Response | None:
        """A registry's good answer; None where what is asked for is absent."""
        request = Request(method, target, Access(repository), redirect=redirect)
        return self._judged(request, self._client.request(request))

    def _judged(self, request: Request, answer: Response) -> Response | None:
        if answer.status == 200 and not is_page(answer):
            return answer
        if is_absent(answer):
            return None
        raise_if_later(self.registry.host, request.shown, answer)
        if answer.status == 401:
            raise self._client.refused(request, answer)
        meaning = meaning_of(answer)
        message = meaning.message(f"{self.registry.host} answered {answer.status} to {request.method} {request.target}")
        raise UnsureError(message, hint=meaning.hint)

    def _page(self, target: str, repository: str) -> Response | None:
        request = Request("GET", target, Access(repository), redirect=True)
        answer = self._client.request(request)
        if answer.status == 400 and target.endswith(_SIZE):  # larger than its catalog.maxentries: it takes its own
            return self._page(target.removesuffix(_SIZE), repository)
        return self._judged(request, answer)

    def _listed(
        self, first: str, repository: str, key: str, parse: Callable[[object], T], begun: Response | None = None
    ) -> list[T] | None:
        """What a list has in all its pages; None where the registry does not have the list. `begun` is its first page,
        where that was asked for already."""
        found: list[T] = []
        target, seen = first, set[str]()
        while len(seen) < _MAX_PAGES:
            seen.add(target)
            answer, begun = begun or self._page(target, repository), None
            if answer is None:
                return None
            found += _items(answer.body, key, parse, self.registry.host)
            following = next_page(f"https://{self.registry.host}{target}", answer.headers.get("Link", ""))
            if following is None or following in seen:
                return found
            target = following
        raise UnsureError(f"{self.registry.host} gives more than {_MAX_PAGES} pages for {first}")


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < _MAX_DIGITS else None


def _items(body: bytes, key: str, parse: Callable[[object], T], host: str) -> tuple[T, ...]:
    try:
        return value_of(json_object(body), key, or_none(list_of(parse))) or ()  # null, as some registries say for none
    except ValueError as error:
        raise UnsureError(f"{host} listed no {key}") from error
