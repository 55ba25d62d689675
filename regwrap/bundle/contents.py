"""bundle.json and what follows from it: which members a bundle has, in which order, at which offset. Pure.

Everything in a bundle is a function of this one file, so a reader knows each member before it comes, and two builders
get the same bytes. The file has one canonical form: parsed and written again it has the same bytes, or it is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Final

from regwrap.bundle.canonical import canonical_json
from regwrap.core.closure import Closure, closure_of
from regwrap.core.counts import counted
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.fields import a_text, an_object, field, json_object, list_of, shown
from regwrap.core.manifest import a_size
from regwrap.core.model import Digest, ParseError, Platform, is_repository, is_tag
from regwrap.core.release_id import ReleaseId
from regwrap.storage import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regwrap.bundle.canonical import Value

PLAIN_FORMAT: Final = 1
SECOND_FORMAT: Final = 2  # with a name, or with blobs that are required
BUNDLE_JSON: Final = "bundle.json"
MAX_BUNDLE_JSON_BYTES: Final = 128 * 1024 * 1024  # of 100,000 images, the longest list, with a few blobs each

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")

BLOCK: Final = 512
RECORD: Final = 128 * BLOCK
SHORT_NAME: Final = 100  # longer names take a header and a block of their own (GNU tar, create.c:write_long_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleImage:
    """A listed image. `platforms` are those that are in the bundle; `omitted` its index's manifests that are not."""

    repository: str
    tag: str
    digest: Digest
    media_type: str
    platforms: tuple[Platform, ...]
    omitted: tuple[Digest, ...]

    @property
    def name(self) -> str:
        return f"{self.repository}:{self.tag}"

    def closure(self, read: Callable[[Digest], bytes | None]) -> Closure | None:
        """What belongs to it; `read` gives a manifest, or None. Raises IntegrityError where one is damaged."""
        left_out = set(self.omitted)
        return closure_of(self.digest, lambda digest: None if digest in left_out else read(digest))


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleRepository:
    """What a repository links to: revisions (manifests) and layers (configs and layers), sorted."""

    name: str
    manifests: tuple[Digest, ...]
    layers: tuple[Digest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequiredBlob:
    """A blob that the images of a delta need and that is not in its tar. `release` has it, by name or id; empty where
    that is not known."""

    digest: Digest
    size: int
    release: str


@dataclass(frozen=True, kw_only=True)  # no slots: what follows from it is worked out once
class BundleContents:
    """All that bundle.json says. `blobs` are (digest, bytes) of every blob in the tar, manifests included, sorted by
    digest. `name` is the release's name; empty where it has none. `required` are what a delta leaves out, sorted."""

    images: tuple[BundleImage, ...]
    repositories: tuple[BundleRepository, ...]
    blobs: tuple[tuple[Digest, int], ...]
    name: str = ""
    required: tuple[RequiredBlob, ...] = ()

    @cached_property
    def id(self) -> Digest:
        """The release's identity: the sha256 of bundle.json, from which all else follows. A delta has that of the
        whole: it is the same release."""
        return Digest.of(self.whole.to_json())

    @cached_property
    def whole(self) -> BundleContents:
        """The same release with every blob in it."""
        return replace(self, blobs=tuple(sorted(self.sizes.items())), required=()) if self.required else self

    @property
    def label(self) -> str:
        """What people call the release."""
        return self.name or str(self.id)

    @property
    def release(self) -> ReleaseId:
        return ReleaseId(self.name, self.id)

    @property
    def format(self) -> int:
        """A whole bundle without a name is the same bytes as ever."""
        return SECOND_FORMAT if self.name or self.required else PLAIN_FORMAT

    @property
    def blob_bytes(self) -> int:
        return sum(size for _digest, size in self.blobs)

    @property
    def required_bytes(self) -> int:
        return sum(blob.size for blob in self.required)

    @cached_property
    def sizes(self) -> dict[Digest, int]:
        """Of every blob that the images need."""
        return {**dict(self.blobs), **{blob.digest: blob.size for blob in self.required}}

    @cached_property
    def linked_by(self) -> dict[Digest, list[str]]:
        """The repositories that link to each blob, sorted."""
        found: dict[Digest, list[str]] = {}
        for repository in self.repositories:
            for digest in {*repository.manifests, *repository.layers}:
                found.setdefault(digest, []).append(repository.name)
        return found

    @cached_property
    def tar_bytes(self) -> int:
        """The exact size of the bundle's file: two zero blocks at the end, filled up to a whole record of 64 KiB."""
        return -(-(links_end(self) + 2 * BLOCK) // RECORD) * RECORD

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """Every member after bundle.json, in order: blobs by digest, links of layers and revisions, tags last.

        Even a plain `tar x` that is interrupted then leaves no tag that points to nothing.
        """
        blobs = [Member(path=layout.blob_path(digest), size=size, digest=digest) for digest, size in self.blobs]
        return (*blobs, *_links(_inner_links(self)), *_links(_index_links(self)), *_links(_tag_links(self)))

    def to_json(self) -> bytes:
        """Raises UsageError where it would be longer than what is read."""
        if len(self.canonical) > MAX_BUNDLE_JSON_BYTES:
            raise UsageError(
                f"bundle.json of {counted(len(self.images), 'image')} has {len(self.canonical)} bytes,"
                f" and one of more than {MAX_BUNDLE_JSON_BYTES} is not read",
                hint="divide the list, and make a bundle of each part",
            )
        return self.canonical

    @cached_property
    def canonical(self) -> bytes:
        """The bytes, however long: sorted keys, one blank of indent, a newline at the end."""
        return canonical_json(
            {
                "format": self.format,
                **({"name": self.name} if self.name else {}),
                "images": map(_image_object, self.images),
                "repositories": map(_repository_object, self.repositories),
                "blobs": ({"digest": f"{digest}", "size": size} for digest, size in self.blobs),
                **({"required": map(_required_object, self.required)} if self.required else {}),
            }
        )


def _image_object(image: BundleImage) -> dict[str, Value]:
    return {
        "repository": image.repository,
        "tag": image.tag,
        "digest": str(image.digest),
        "mediaType": image.media_type,
        "platforms": [str(platform) for platform in image.platforms],
        "omitted": [str(digest) for digest in image.omitted],
    }


def _repository_object(repository: BundleRepository) -> dict[str, Value]:
    return {
        "name": repository.name,
        "manifests": [str(digest) for digest in repository.manifests],
        "layers": [str(digest) for digest in repository.layers],
    }


def _required_object(blob: RequiredBlob) -> dict[str, Value]:
    return {"digest": str(blob.digest), "release": blob.release, "size": blob.size}


def parse_contents(raw: bytes) -> BundleContents:
    """Read bundle.json. Raises IntegrityError where it is of another format or not in canonical form."""
    contents = _contents_in(raw)
    _check_names(contents)
    if contents.canonical != raw:  # which may be longer than what is read, where the text has no blanks
        raise IntegrityError("bundle.json is not in canonical form: regwrap did not write it, or it was altered")
    contents.__dict__.update(canonical=raw)  # not twice in memory
    return contents


def _contents_in(raw: bytes) -> BundleContents:
    """The document is gone before another one is made, to compare: of 100,000 images it has half a gigabyte."""
    try:
        document = json_object(raw)
        if document.get("format") not in (PLAIN_FORMAT, SECOND_FORMAT):
            raise IntegrityError(
                f"the bundle's format is {shown(document.get('format'))}, this regwrap reads formats {PLAIN_FORMAT}"
                f" and {SECOND_FORMAT}",
                hint="use a regwrap as new as the bundle",
            )
        return _contents_of(document)
    except ValueError as error:
        raise IntegrityError(f"bundle.json is invalid: {error}") from error


def contents_with_id(raw: bytes, wanted: Digest) -> BundleContents:
    """A bundle.json whose form was checked when it came: its digest proves that it is the same. Writing it again, to
    compare, takes longer than all the rest. Raises IntegrityError and ValueError."""
    if Digest.of(raw) != wanted:
        raise IntegrityError(f"{wanted.hex}.json is another release")
    contents = _contents_of(json_object(raw))
    if contents.required:
        raise IntegrityError(f"{wanted.hex}.json is a delta's, and a release is remembered as a whole")
    _check_names(contents)
    contents.__dict__.update(canonical=raw, id=wanted)  # what would be worked out from it
    return contents


def _contents_of(document: dict[str, object]) -> BundleContents:
    return BundleContents(
        images=field(document, "images", list_of(_image)),
        repositories=field(document, "repositories", list_of(_repository)),
        blobs=field(document, "blobs", list_of(_blob)),
        name=field(document, "name", lambda value: parse_name(a_text(value))) if "name" in document else "",
        required=field(document, "required", list_of(_required)) if "required" in document else (),
    )


def parse_name(text: str) -> str:
    """The name of a release: what can stand in a file's name everywhere. Raises ParseError."""
    if not _NAME.fullmatch(text):
        raise ParseError(
            f"{shown(text)} is not a release name: use up to 128 letters, digits and . _ + -, a letter or digit first"
        )
    return text


@lru_cache(maxsize=1 << 16)
def _parsed(text: str) -> Digest:
    return Digest.parse(text)


def _digest(value: object) -> Digest:
    """The releases of a site share most of their digests."""
    return _parsed(a_text(value))


def _image(value: object) -> BundleImage:
    item = an_object(value)
    return BundleImage(
        repository=field(item, "repository", a_text),
        tag=field(item, "tag", a_text),
        digest=field(item, "digest", _digest),
        media_type=field(item, "mediaType", a_text),
        platforms=field(item, "platforms", list_of(lambda text: Platform.parse(a_text(text)))),
        omitted=field(item, "omitted", list_of(_digest)),
    )


def _repository(value: object) -> BundleRepository:
    item = an_object(value)
    return BundleRepository(
        name=field(item, "name", a_text),
        manifests=field(item, "manifests", list_of(_digest)),
        layers=field(item, "layers", list_of(_digest)),
    )


def _blob(value: object) -> tuple[Digest, int]:
    item = an_object(value)
    return field(item, "digest", _digest), field(item, "size", a_size)


def _required(value: object) -> RequiredBlob:
    digest, size = _blob(value)
    return RequiredBlob(digest=digest, size=size, release=field(an_object(value), "release", _label))


def _label(value: object) -> str:
    text = a_text(value)
    if text.startswith("sha256:"):
        return str(Digest.parse(text))
    return parse_name(text) if text else ""


def _check_names(contents: BundleContents) -> None:
    for image in contents.images:
        if not is_repository(image.repository) or not is_tag(image.tag):
            raise IntegrityError(f"bundle.json names an image {image.name!r}, which is not valid in a registry")
    for repository in contents.repositories:
        if not is_repository(repository.name):
            raise IntegrityError(
                f"bundle.json names a repository {repository.name!r}, which is not valid in a registry"
            )
    ordered = (
        [image.name for image in contents.images],
        [repository.name for repository in contents.repositories],
        [digest.hex for digest, _size in contents.blobs],
        [blob.digest.hex for blob in contents.required],
        *([d.hex for d in digests] for r in contents.repositories for digests in (r.manifests, r.layers)),
    )
    if any(names != sorted(set(names)) for names in ordered):
        raise IntegrityError("bundle.json is not sorted, or names something twice")
    if len(contents.sizes) != len(contents.blobs) + len(contents.required):
        raise IntegrityError("bundle.json requires a blob that is in the bundle")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file in the tar: `digest` is the sha256 of its bytes, `link` what a link file says (None for a blob)."""

    path: str
    size: int
    digest: Digest
    link: Digest | None = None


def _links(pairs: Iterator[tuple[str, Digest]]) -> list[Member]:
    return [
        Member(path=path, size=layout.LINK_BYTES, digest=Digest.of(str(target).encode("ascii")), link=target)
        for path, target in sorted(pairs)
    ]


def _inner_links(contents: BundleContents) -> Iterator[tuple[str, Digest]]:
    for repository in contents.repositories:
        for digest in repository.layers:
            yield layout.layer_link(repository.name, digest), digest
        for digest in repository.manifests:
            yield layout.revision_link(repository.name, digest), digest


def _index_links(contents: BundleContents) -> Iterator[tuple[str, Digest]]:
    for image in contents.images:
        yield layout.tag_index_link(image.repository, image.tag, image.digest), image.digest


def _tag_links(contents: BundleContents) -> Iterator[tuple[str, Digest]]:
    for image in contents.images:
        yield layout.tag_link(image.repository, image.tag), image.digest


def header_bytes(path: str) -> int:
    length = len(path.encode())
    return BLOCK if length <= SHORT_NAME else 2 * BLOCK + padded(length + 1)


def padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def blob_offsets(contents: BundleContents) -> Iterator[tuple[Digest, int, int]]:
    """Each blob's digest, the offset of its first byte in the bundle's file, and its size."""
    position = _json_end(contents)
    for digest, size in contents.blobs:
        position += header_bytes(layout.blob_path(digest))
        yield digest, position, size
        position += padded(size)


def blob_end(contents: BundleContents) -> int:
    """Where the last blob's padding ends and the first link's header begins."""
    blobs = contents.blobs
    return _json_end(contents) + sum(header_bytes(layout.blob_path(digest)) + padded(size) for digest, size in blobs)


def _json_end(contents: BundleContents) -> int:
    return header_bytes(BUNDLE_JSON) + padded(len(contents.to_json()))


def check_first_member(name: str, length: int) -> None:
    """Raises IntegrityError where that is no bundle.json, or a larger one than is read."""
    if name != BUNDLE_JSON:
        raise IntegrityError(f"not a regwrap bundle: the first member is {name!r}, not {BUNDLE_JSON}")
    if length > MAX_BUNDLE_JSON_BYTES:
        raise IntegrityError(f"bundle.json has {length} bytes, more than {MAX_BUNDLE_JSON_BYTES}")


def links_end(contents: BundleContents) -> int:
    """Where the last link's padding ends: from there on all is zeros."""
    links = (m for m in contents.members if m.link is not None)
    return blob_end(contents) + sum(header_bytes(m.path) + padded(m.size) for m in links)
