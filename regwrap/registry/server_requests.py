"""What a client asks for: the path, a byte range, a page of a list. Pure, and nothing of it ever becomes a file's name
unless it has been parsed as a repository, a tag or a digest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from regwrap.core.model import Digest, ParseError, is_repository, is_tag

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message

_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_HOST: Final = re.compile(r"[A-Za-z0-9._-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")
MAX_PAGE: Final = 1000


class RefusedError(Exception):
    """An answer that is an error of the API: the HTTP status, the code of the specification, a sentence. `size` of the
    blob that has no such bytes."""

    def __init__(self, status: int, code: str, message: str, *, size: int | None = None) -> None:
        super().__init__(message)
        self.size = size
        self.status = status
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Ping:
    """GET /v2/: whether a registry is there at all."""


def nothing_here() -> RefusedError:
    return RefusedError(404, "UNSUPPORTED", "there is nothing here: this is the pull side of a registry")


@dataclass(frozen=True, slots=True)
class Front:
    """GET /: what a browser shows."""


@dataclass(frozen=True, slots=True)
class Page:
    """`count` names after `last`; no count means all of them."""

    count: int | None = None
    last: str = ""

    def of(self, names: Iterator[str]) -> tuple[tuple[str, ...], str]:
        """The names of this page, of those behind `last`, and the query that asks for the next one (empty where there
        is none). No more of them are looked for than the page shows, and one."""
        shown = tuple(names if self.count is None else islice(names, self.count))
        more = self.count is not None and shown and next(names, None) is not None
        return shown, urlencode({"n": self.count, "last": shown[-1]}) if more else ""


@dataclass(frozen=True, slots=True)
class Catalog:
    """`GET /v2/_catalog`."""

    page: Page


@dataclass(frozen=True, slots=True)
class Tags:
    """`GET /v2/NAME/tags/list`."""

    repository: str
    page: Page


@dataclass(frozen=True, slots=True)
class ManifestOf:
    """`GET /v2/NAME/manifests/REFERENCE`."""

    repository: str
    reference: str | Digest


@dataclass(frozen=True, slots=True)
class BlobOf:
    """`GET /v2/NAME/blobs/DIGEST`."""

    repository: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class ReferrersOf:
    """What is about a manifest; only what has `artifact_type`, where one is given."""

    repository: str
    subject: Digest
    artifact_type: str = ""


Asked = Front | Ping | Catalog | Tags | ManifestOf | BlobOf | ReferrersOf


def parse_path(target: str) -> Asked:
    """What a request's target asks for. Raises RefusedError."""
    parts = urlsplit(_origin_form(target))
    path = unquote(parts.path, errors="strict") if _is_decodable(parts.path) else ""
    if path == "/":
        return Front()
    if path in {"/v2", "/v2/"}:
        return Ping()
    if path == "/v2/_catalog":
        return Catalog(_page(parts.query))
    return _in_repository(path, parts.query)


def _in_repository(path: str, query: str) -> Asked:
    name, kind, reference = [*path.removeprefix("/v2/").rsplit("/", 2), "", ""][:3]
    if not path.startswith("/v2/") or kind not in {"manifests", "blobs", "tags", "referrers"}:
        raise nothing_here()
    if not is_repository(name):
        raise RefusedError(400, "NAME_INVALID", "invalid repository name")
    if kind == "blobs":
        return BlobOf(name, _digest(reference))
    if kind == "referrers":
        return ReferrersOf(name, _digest(reference), parse_qs(query).get("artifactType", [""])[-1])
    if kind == "manifests":
        return ManifestOf(name, reference if is_tag(reference) else _digest(reference, of_manifest=True))
    if reference != "list":
        raise RefusedError(404, "UNSUPPORTED", "there is nothing here but tags/list")
    return Tags(name, _page(query))


def _origin_form(target: str) -> str:
    """Path and query; a proxy may be sent the whole address (RFC 9112, 3.2.2). Empty for what is neither."""
    scheme, found, rest = target.partition("://")
    if found and scheme.lower() in {"http", "https"}:
        target = "/" + rest.partition("/")[2]
    return target if target.startswith("/") and not target.startswith("//") else ""


def asked_host(headers: Message) -> str:
    """The server as the client calls it; empty where that is no name of a host."""
    return name if _HOST.fullmatch(name := headers.get("Host", "").strip()) else ""


def malformed(headers: Message) -> str:
    """What is wrong with the head of a request; empty where nothing is. Two readers of such a head may disagree on
    where the request ends (RFC 9112, 5.1, 5.2, 6.3)."""
    lengths = headers.get_all("Content-Length", [])
    if headers.defects or any("\r" in value or "\n" in value for value in headers.values()):
        return "a header line is malformed"
    if len(lengths) > 1 or not all(re.fullmatch("[0-9]+", length) for length in lengths):
        return "Content-Length is not one number"
    if lengths and "Transfer-Encoding" in headers:
        return "there are Content-Length and Transfer-Encoding"
    return "there are two Host headers" if len(headers.get_all("Host", [])) > 1 else ""


def _is_decodable(path: str) -> bool:
    try:
        return "\0" not in unquote(path, errors="strict")
    except UnicodeDecodeError:
        return False


def _digest(text: str, *, of_manifest: bool = False) -> Digest:
    try:
        return Digest.parse(text)
    except ParseError:
        if of_manifest:
            raise RefusedError(404, "MANIFEST_UNKNOWN", "manifest unknown: no tag and no digest") from None
        raise RefusedError(400, "DIGEST_INVALID", "provided digest did not match the form sha256:HEX") from None


def _page(query: str) -> Page:
    given = parse_qs(query)
    count = given.get("n", [""])[-1]
    if count and not re.fullmatch("[0-9]{1,9}", count):
        raise RefusedError(400, "PAGINATION_NUMBER_INVALID", "n has to be a whole number")
    return Page(count=min(int(count), MAX_PAGE) if count else None, last=given.get("last", [""])[-1])


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """First byte and count that a Range header asks for; None where it asks for all, or for what we don't know (RFC
    9110 lets a server ignore that). Raises RefusedError where nothing of it is there."""
    match = _RANGE.fullmatch(header.strip())
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)
    if match[1] and match[2] and int(match[2]) < int(match[1]):
        return None
    if start >= end:
        raise RefusedError(416, "RANGE_INVALID", "the blob has no such bytes", size=size)
    return start, end - start
