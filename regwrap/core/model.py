"""The vocabulary: digests, platforms, references, destinations. Pure values; parsing happens here, once."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Self

from regwrap.core.hosts import DOCKER_HUB, normal_host

_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_ABOUT: Final = re.compile(r"sha256-([0-9a-f]{64})(?:\..+)?")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HOST: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_MAX_NAME: Final = 255


class ParseError(ValueError):
    """A text is not what it should be; `offset` is the index of the character where that shows."""

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A sha256 digest; the text form always has the `sha256:` in front."""

    hex: str

    # those of the text: what a dataclass has makes tuples first, for each of hundreds of thousands
    def __hash__(self) -> int:
        return hash(self.hex)

    def __eq__(self, other: object) -> bool:
        return self.hex == other.hex if isinstance(other, Digest) else NotImplemented

    @classmethod
    def parse(cls, text: str) -> Self:
        """The digest that `text` spells: `sha256:` and 64 lower-case hex digits, else ParseError."""
        match = _DIGEST.fullmatch(text)
        if text.startswith("sha512:"):
            raise ParseError(f"sha512 digests are not supported, got {quoted(text)}")
        if match is None:
            raise ParseError(f"expected sha256: and 64 hex digits, got {quoted(text)}")
        return cls(match[1])

    @classmethod
    def of(cls, data: bytes) -> Self:
        return cls(hashlib.sha256(data).hexdigest())

    @property
    def short(self) -> str:
        return f"sha256:{self.hex[:12]}"

    def __str__(self) -> str:
        return f"sha256:{self.hex}"


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """`os/architecture[/variant]` as an index names it."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        parts = text.split("/")
        if len(parts) not in {2, 3} or not all(re.fullmatch(r"[a-z0-9._-]+", part) for part in parts):
            raise ParseError(f"expected a platform such as linux/amd64, got {quoted(text)}")
        return cls(*parts)

    @property
    def is_nameable(self) -> bool:
        """Whether a list can ask for it: an index may have any text as a platform."""
        try:
            return self.parse(str(self)) == self
        except ParseError:
            return False

    def matches(self, other: Self) -> bool:
        """Whether `other` (from an index) is what this one (from a user) asks for: no variant asks for any."""
        same = (self.os, self.architecture) == (other.os, other.architecture)
        return same and (self.variant == "" or self._exact_variant == other._exact_variant)

    @property
    def _exact_variant(self) -> str:
        return self.variant or ("v8" if self.architecture == "arm64" else "")  # which has no other

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRef:
    """A reference to an image. Tag and digest together mean: this tag, and it must be this digest."""

    registry: str | None
    repository: str
    tag: str | None
    digest: Digest | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """`[docker://][host[:port]/]path[:tag][@sha256:hex]`; nothing is implied. Raises ParseError.

        The first component is a host only if it has a dot or a colon or is `localhost` (Docker's rule), a host has one
        name only, and `docker.io/name` is `docker.io/library/name` (Docker's rule as well).
        """
        start = len("docker://") if text.startswith("docker://") else 0
        name, at, digest_text = text[start:].partition("@")
        name, tag = _split_tag(name)
        registry, repository, path_start = _split_registry(name, start)
        _check_repository(repository, path_start)
        if tag is not None and not _TAG.fullmatch(tag):
            raise ParseError(f"not a tag: {quoted(tag)}", start + len(name) + 1)
        digest = _parse_digest(digest_text, len(text) - len(digest_text)) if at else None
        if registry == DOCKER_HUB and "/" not in repository:
            repository = f"library/{repository}"
        return cls(registry=registry, repository=repository, tag=tag, digest=digest)

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}" if self.registry else self.repository

    def __lt__(self, other: Self) -> bool:
        return self.sort_key() < other.sort_key()

    def sort_key(self) -> tuple[str, ...]:
        """Of many, a tenth of the time that comparing them takes."""
        # None cannot be compared with a text, so dataclass(order=True) would not do.
        return (self.registry or "", self.repository, self.tag or "", str(self.digest or ""))

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


@dataclass(frozen=True, slots=True, order=True)
class Destination:
    """Where an image goes within the archive, a bundle or a registry: always a repository and a tag."""

    repository: str
    tag: str

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}"


def subject_of_tag(tag: str) -> Digest | None:
    """The digest that a tag's image is about: cosign's `sha256-HEX.sig` and the like, and `sha256-HEX`, the index of
    referrers where a registry has no API for them (OCI distribution-spec 1.1, "Referrers Tag Schema")."""
    match = _ABOUT.fullmatch(tag)
    return Digest(match[1]) if match else None


def is_tag(text: str) -> bool:
    return _TAG.fullmatch(text) is not None


def is_repository(text: str) -> bool:
    return len(text) <= _MAX_NAME and _REPOSITORY.fullmatch(text) is not None


def is_host(text: str) -> bool:
    """Whether `text` is `HOST[:PORT]`, with a port below 65536."""
    port = text.rpartition(":")[2]
    return _HOST.fullmatch(text) is not None and not (port.isdigit() and ":" in text and int(port) > 65535)


def _split_tag(name: str) -> tuple[str, str | None]:
    head, colon, tail = name.rpartition(":")
    if colon and "/" not in tail and not tail.endswith("]"):
        return head, tail
    return name, None


def _split_registry(name: str, start: int) -> tuple[str | None, str, int]:
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        if not is_host(first):
            raise ParseError(f"not a host: {quoted(first)}", start)
        return normal_host(first), rest, start + len(first) + 1
    return None, name, start


def _check_repository(repository: str, offset: int) -> None:
    if is_repository(repository):
        return
    if len(repository) > _MAX_NAME:
        raise ParseError(f"a repository name has at most {_MAX_NAME} characters, this one {len(repository)}", offset)
    if not repository:
        raise ParseError("the repository's name is missing", offset)
    match = _REPOSITORY.match(repository)
    if upper := re.search(r"[A-Z]", repository):
        raise ParseError(
            f"upper case is not allowed in a repository's name: {quoted(repository)}", offset + upper.start()
        )
    bad = match.end() if match else 0
    raise ParseError(f"not a repository's name: {quoted(repository)}", offset + bad)


def _parse_digest(text: str, offset: int) -> Digest:
    try:
        return Digest.parse(text)
    except ParseError as error:
        raise ParseError(str(error), offset) from error


def quoted(text: str, limit: int = 80) -> str:
    return repr(text if len(text) <= limit else text[:limit] + "…")


_LAYOUT: Final = re.compile(r"oci:([^:\x00]+)(?::([A-Za-z0-9][A-Za-z0-9._:/@+-]*))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutRef:
    """`oci:DIR[:NAME]`, an image in an OCI layout as skopeo and umoci write it; the directory's path has no colon."""

    directory: str
    name: str | None

    @classmethod
    def parse(cls, text: str) -> Self:
        match = _LAYOUT.fullmatch(text)
        if match is None:
            raise ParseError(f"expected oci:DIR or oci:DIR:TAG, got {quoted(text)}")
        return cls(directory=match[1], name=match[2])

    def __str__(self) -> str:
        return f"oci:{self.directory}" + (f":{self.name}" if self.name else "")
