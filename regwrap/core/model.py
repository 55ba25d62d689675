"""The vocabulary: digests, references, platforms, manifests. Pure values; parsing happens here, once.

A manifest keeps its raw bytes, because a digest belongs to bytes: nothing here is ever serialised again.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Final, Self

from regwrap.core.errors import IntegrityError
from regwrap.core.fields import Pairs, a_text, a_whole, an_object, json_object, json_value, list_of
from regwrap.core.fields import field as value_of
from regwrap.core.hosts import DOCKER_HUB, normal_host

DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
_ARTIFACT_MANIFEST: Final = "application/vnd.oci.artifact.manifest.v1+json"
MANIFEST_TYPES: Final = (OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST)

# Bodies of manifests are limited to 4 MiB by distribution (registry/handlers/manifests.go) and by the OCI
# distribution specification's advice; what is larger could not be pulled anyway.
MAX_MANIFEST_BYTES: Final = 4 * 1024 * 1024
# An image nests one level in practice; a cycle is impossible (digests), depth is only a guard.
MAX_INDEX_DEPTH: Final = 5

_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_ABOUT: Final = re.compile(r"sha256-([0-9a-f]{64})(?:\..+)?")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HOST: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_MAX_NAME: Final = 255
_FOLDED_KEYS: Final = {
    key.casefold(): key
    for key in (
        "schemaVersion", "mediaType", "config", "layers", "manifests", "digest", "size", "platform",
        "architecture", "os", "variant", "urls",
    )
}  # fmt: skip


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
            raise ParseError(f"sha512 digests are not supported, got {_shown(text)}")
        if match is None:
            raise ParseError(f"expected sha256: and 64 hex digits, got {_shown(text)}")
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
            raise ParseError(f"expected a platform such as linux/amd64, got {_shown(text)}")
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
            raise ParseError(f"not a tag: {_shown(tag)}", start + len(name) + 1)
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
            raise ParseError(f"not a host: {_shown(first)}", start)
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
            f"upper case is not allowed in a repository's name: {_shown(repository)}", offset + upper.start()
        )
    bad = match.end() if match else 0
    raise ParseError(f"not a repository's name: {_shown(repository)}", offset + bad)


def _parse_digest(text: str, offset: int) -> Digest:
    try:
        return Digest.parse(text)
    except ParseError as error:
        raise ParseError(str(error), offset) from error


def _shown(text: str, limit: int = 80) -> str:
    return repr(text if len(text) <= limit else text[:limit] + "…")


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """What a manifest says of a blob or of another manifest. `size` in bytes. `about`: BuildKit's attestations stand in
    the index beside the image that they are about."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    about: Digest | None = field(default=None, compare=False)

    @property
    def is_foreign(self) -> bool:
        """A layer that no registry has to hold (Windows base layers); skopeo cannot push images with one."""
        return bool(self.urls) or "foreign" in self.media_type or "nondistributable" in self.media_type


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One image for one platform, or an artifact of that shape (Helm chart, signature)."""

    raw: bytes
    digest: Digest
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        return (self.config, *self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An OCI image index or a docker manifest list."""

    raw: bytes
    digest: Digest
    media_type: str
    manifests: tuple[Descriptor, ...]


def parse_manifest(raw: bytes) -> Manifest | Index:
    """The manifest or index that `raw` is. Raises IntegrityError where it is neither, is ambiguous or too large."""
    digest = Digest.of(raw)
    if len(raw) > MAX_MANIFEST_BYTES:
        raise IntegrityError(
            f"manifest {digest.short} has {len(raw)} bytes; registries accept at most {MAX_MANIFEST_BYTES}"
        )
    try:
        document = json_value(raw, _strict_object)
        _refuse_old_forms(document, digest)
        return _manifest_of(document, raw, digest)
    except ValueError as error:
        raise IntegrityError(f"manifest {digest.short} is not a manifest: {error}") from error


def _strict_object(pairs: Pairs) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return result


def _check_keys(document: dict[str, object]) -> None:
    # Go reads keys whatever their case (encoding/json); a file that two readers understand differently is
    # refused rather than interpreted. Annotations are free text and are not looked at.
    for key in document:
        if _FOLDED_KEYS.get(key.casefold(), key) != key:
            raise ValueError(f"the key {_shown(key)} is ambiguous")


def _refuse_old_forms(document: object, digest: Digest) -> None:
    """What was a manifest once, by its name: nothing is damaged, and nobody has to search for it."""
    if not isinstance(document, dict):
        return
    if document.get("schemaVersion") == 1:
        raise IntegrityError(
            f"manifest {digest.short} is of docker's schema 1, which is not supported",
            hint="push the image again with a program of today: docker pull, docker push; or skopeo copy --format oci",
        )
    if document.get("mediaType") == _ARTIFACT_MANIFEST:
        raise IntegrityError(
            f"manifest {digest.short} is an OCI artifact manifest ({_ARTIFACT_MANIFEST}), which is not supported",
            hint="push the artifact again as an image manifest, as oras 1.0 and newer do",
        )


def _manifest_of(document: object, raw: bytes, digest: Digest) -> Manifest | Index:
    version = document.get("schemaVersion") if isinstance(document, dict) else None
    if not isinstance(document, dict) or type(version) is not int or version != 2:
        raise ValueError("schemaVersion is not 2")
    _check_keys(document)
    media_type = value_of(document, "mediaType", a_text, "")
    is_index = "manifests" in document
    if is_index == ("config" in document or "layers" in document):
        raise ValueError("expected either manifests, or config and layers")
    if is_index:
        _expect_type(media_type, (OCI_INDEX, DOCKER_LIST))
        children = value_of(document, "manifests", _descriptors)
        return Index(raw=raw, digest=digest, media_type=media_type or OCI_INDEX, manifests=children)
    _expect_type(media_type, (OCI_MANIFEST, DOCKER_MANIFEST))
    config = value_of(document, "config", _descriptor)
    layers = value_of(document, "layers", _descriptors)
    return Manifest(raw=raw, digest=digest, media_type=media_type or OCI_MANIFEST, config=config, layers=layers)


def _expect_type(media_type: str, allowed: tuple[str, ...]) -> None:
    if media_type and media_type not in allowed:
        raise ValueError(f"its mediaType {_shown(media_type)} does not fit its content")


def a_digest(value: object) -> Digest:
    return Digest.parse(a_text(value))


a_size: Final = a_whole(0, 2**63 - 1)


def _descriptor(value: object) -> Descriptor:
    item = an_object(value)
    _check_keys(item)
    return Descriptor(
        media_type=value_of(item, "mediaType", a_text, ""),
        digest=value_of(item, "digest", a_digest),
        size=value_of(item, "size", a_size),
        platform=_platform(item.get("platform")),
        urls=value_of(item, "urls", lambda urls: list_of(a_text)(urls or [])),
        about=_attested(item.get("annotations")),
    )


def _attested(annotations: object) -> Digest | None:
    """Free text to everybody else: what is no digest names nothing."""
    said = annotations.get("vnd.docker.reference.digest") if isinstance(annotations, dict) else None
    match = _DIGEST.fullmatch(said) if isinstance(said, str) else None
    return Digest(match[1]) if match else None


def _descriptors(value: object) -> tuple[Descriptor, ...]:
    """A list that is null or absent has nothing in it, as Go reads and writes it."""
    return list_of(_descriptor)([] if value is None else value)


def _platform(item: object) -> Platform | None:
    if not isinstance(item, dict):
        return None
    _check_keys(item)
    return Platform(
        *(value_of(item, key, lambda text: a_text(text or "")) for key in ("os", "architecture", "variant"))
    )


def subject_of(raw: bytes) -> Digest | None:
    """The manifest that an OCI referrer (a signature, an SBOM) is about; None where `raw` names none.

    Read whatever else is in it: what may refer to an image must not be lost because of its type.
    """
    try:
        subjects = [value for key, value in json_object(raw).items() if key.casefold() == "subject"]
        return value_of(an_object(subjects[-1]), "digest", a_digest) if subjects else None
    except ValueError:
        return None


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
            raise ParseError(f"expected oci:DIR or oci:DIR:TAG, got {_shown(text)}")
        return cls(directory=match[1], name=match[2])

    def __str__(self) -> str:
        return f"oci:{self.directory}" + (f":{self.name}" if self.name else "")
