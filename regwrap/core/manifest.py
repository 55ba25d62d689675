"""Manifests and indexes, read once and strictly. They keep their raw bytes, because a digest belongs to bytes: nothing
here is ever serialised again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from regwrap.core.errors import IntegrityError
from regwrap.core.fields import Pairs, a_text, an_integer, an_object, json_object, json_value, list_of
from regwrap.core.fields import field as value_of
from regwrap.core.model import Digest, ParseError, Platform, quoted

DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
_ARTIFACT_MANIFEST: Final = "application/vnd.oci.artifact.manifest.v1+json"
_IMAGE_CONFIGS: Final = {
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
}
_IMAGE_LAYERS: Final = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")
MANIFEST_TYPES: Final = (OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST)

# Bodies of manifests are limited to 4 MiB by distribution (registry/handlers/manifests.go) and by the OCI
# distribution specification's advice; what is larger could not be pulled anyway.
MAX_MANIFEST_BYTES: Final = 4 * 1024 * 1024
# An image nests one level in practice; a cycle is impossible (digests), depth is only a guard.
MAX_INDEX_DEPTH: Final = 5

_FOLDED_KEYS: Final = {
    key.casefold(): key
    for key in (
        "schemaVersion", "mediaType", "config", "layers", "manifests", "digest", "size", "platform",
        "architecture", "os", "variant", "urls",
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """What a manifest says of a blob or of another manifest. `size` in bytes. `subject`: BuildKit's attestations stand
    in the index beside the image that they are about."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    subject: Digest | None = field(default=None, compare=False)

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

    @property
    def can_run(self) -> bool:
        """Whether it is an image with files in it; cosign's signatures have an image's config, and no such layer."""
        has_files = any(layer.media_type.startswith(_IMAGE_LAYERS) for layer in self.layers)
        return has_files and self.config.media_type in _IMAGE_CONFIGS


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
            raise ValueError(f"the key {quoted(key)} is ambiguous")


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
        raise ValueError(f"its mediaType {quoted(media_type)} does not fit its content")


def a_digest(value: object) -> Digest:
    return Digest.parse(a_text(value))


a_size: Final = an_integer(0, 2**63 - 1)


def _descriptor(value: object) -> Descriptor:
    item = an_object(value)
    _check_keys(item)
    return Descriptor(
        media_type=value_of(item, "mediaType", a_text, ""),
        digest=value_of(item, "digest", a_digest),
        size=value_of(item, "size", a_size),
        platform=_platform(item.get("platform")),
        urls=value_of(item, "urls", lambda urls: list_of(a_text)(urls or [])),
        subject=_attested(item.get("annotations")),
    )


def _attested(annotations: object) -> Digest | None:
    """Free text to everybody else: what is no digest names nothing."""
    said = annotations.get("vnd.docker.reference.digest") if isinstance(annotations, dict) else None
    try:
        return Digest.parse(said) if isinstance(said, str) else None
    except ParseError:
        return None


def children_of(index: Index) -> tuple[tuple[Descriptor, dict[str, object]], ...]:
    """Each child with all that the index says of it, which is more (annotations) than what we read."""
    said = value_of(json_object(index.raw), "manifests", lambda value: list_of(an_object)(value or []))
    return tuple(zip(index.manifests, said, strict=True))


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
