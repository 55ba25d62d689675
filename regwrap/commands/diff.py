"""What differs between two things that say images: lists, locks, bundles, their bundle.json, receipts. Decided purely
from what both sides are; bytes are read only where a bundle is at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from regwrap.bundle.as_list import opened_listing
from regwrap.core.errors import RegwrapError
from regwrap.core.fields import an_object, field, json_object, or_none

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from regwrap.bundle.as_list import Listing
    from regwrap.bundle.contents import BundleImage
    from regwrap.bundle.read import Bundle
    from regwrap.core.closure import Closure
    from regwrap.core.model import Digest, Platform
    from regwrap.lists.imagelist import Rewrite

_LABELS: Final = ("version", "revision", "created")


@dataclass(frozen=True, slots=True, kw_only=True)
class SideImage:
    """An image as one side has it. Digest and platforms are None where the side does not say; `blobs` are all of it,
    `labels` version, revision and created of its config, where the bytes are at hand."""

    digest: Digest | None
    platforms: tuple[Platform, ...] | None
    blobs: Mapping[Digest, int] | None = None
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """`blobs` are those of all images, None where the side does not say."""

    path: str
    name: str
    id: str
    images: Mapping[str, SideImage]
    blobs: Mapping[Digest, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDiff:
    """`old_name` where only the name is another; `new_bytes` that the old side does not have, None where unknown."""

    image: str
    old: Digest | None = None
    new: Digest | None = None
    old_name: str = ""
    old_labels: tuple[tuple[str, str], ...] = ()
    new_labels: tuple[tuple[str, str], ...] = ()
    platforms_added: tuple[Platform, ...] = ()
    platforms_removed: tuple[Platform, ...] = ()
    new_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffReport:
    """`unknown` are on both sides, and one does not say their digests. Bytes are None where a side does not say."""

    old: str
    old_name: str
    new: str
    new_name: str
    images_old: int
    images_new: int
    added: tuple[ImageDiff, ...]
    removed: tuple[ImageDiff, ...]
    renamed: tuple[ImageDiff, ...]
    changed: tuple[ImageDiff, ...]
    unknown: tuple[str, ...]
    new_bytes: int | None
    shared_bytes: int | None
    dropped_bytes: int | None

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.removed or self.renamed or self.changed)


def diff_listings(old: str, new: str, stdin: BinaryIO, rewrite: Rewrite) -> DiffReport:
    """Raises UsageError and IntegrityError."""
    with opened_listing(old, stdin, rewrite) as first, opened_listing(new, stdin, rewrite) as second:
        return diff_of(_side(first), _side(second))


def diff_of(old: Side, new: Side) -> DiffReport:
    """What differs. An image that is gone and one that came with the same digest are one that was renamed."""
    gone = {name: old.images[name] for name in sorted(old.images.keys() - new.images.keys())}
    came = {name: new.images[name] for name in sorted(new.images.keys() - old.images.keys())}
    renames = dict(_renames(gone, came))
    renamed = set(renames.values())
    both = sorted(old.images.keys() & new.images.keys())
    first, second = old.blobs or {}, new.blobs or {}
    known = old.blobs is not None and new.blobs is not None
    return DiffReport(
        old=old.path,
        old_name=old.name or old.id,
        new=new.path,
        new_name=new.name or new.id,
        images_old=len(old.images),
        images_new=len(new.images),
        added=tuple(_diff(name, None, came[name], old) for name in came if name not in renamed),
        removed=tuple(_diff(name, gone[name], None, old) for name in gone if name not in renames),
        renamed=tuple(
            ImageDiff(image=n, old_name=o, old=gone[o].digest, new=came[n].digest) for o, n in renames.items()
        ),
        changed=tuple(
            _diff(name, old.images[name], new.images[name], old)
            for name in both
            if _is_changed(old.images[name], new.images[name])
        ),
        unknown=tuple(n for n in both if None in {old.images[n].digest, new.images[n].digest}),
        new_bytes=sum(second[d] for d in second.keys() - first.keys()) if known else None,
        shared_bytes=sum(second[d] for d in second.keys() & first.keys()) if known else None,
        dropped_bytes=sum(first[d] for d in first.keys() - second.keys()) if known else None,
    )


def _renames(gone: Mapping[str, SideImage], came: Mapping[str, SideImage]) -> Iterator[tuple[str, str]]:
    """Old and new name of each image of which only the name is another, where there is no choice."""
    before, after = _by_digest(gone), _by_digest(came)
    for digest, names in before.items():
        if len(names) == len(after.get(digest, ())) == 1:
            yield names[0], after[digest][0]


def _by_digest(images: Mapping[str, SideImage]) -> dict[Digest, list[str]]:
    names: dict[Digest, list[str]] = {}
    for name, image in images.items():
        if image.digest is not None:
            names.setdefault(image.digest, []).append(name)
    return names


def _is_changed(old: SideImage, new: SideImage) -> bool:
    if None not in {old.digest, new.digest} and old.digest != new.digest:
        return True
    return old.platforms is not None and new.platforms is not None and old.platforms != new.platforms


def _diff(name: str, old: SideImage | None, new: SideImage | None, side: Side) -> ImageDiff:
    before, after = (old and old.platforms) or (), (new and new.platforms) or ()
    both = old is not None and new is not None and old.platforms is not None and new.platforms is not None
    blobs = None if new is None or side.blobs is None else new.blobs
    return ImageDiff(
        image=name,
        old=old.digest if old else None,
        new=new.digest if new else None,
        old_labels=old.labels if old else (),
        new_labels=new.labels if new else (),
        platforms_added=tuple(p for p in after if p not in before) if both else (),
        platforms_removed=tuple(p for p in before if p not in after) if both else (),
        new_bytes=None if blobs is None else sum(s for d, s in blobs.items() if d not in (side.blobs or {})),
    )


def _side(listing: Listing) -> Side:
    contents = listing.contents
    if contents is None:
        images = {
            str(entry.dest): SideImage(digest=entry.source.digest, platforms=entry.platforms or None)
            for entry in listing.images.entries
        }
        return Side(path=listing.images.name, name="", id="", images=images, blobs=listing.blobs)
    return Side(
        path=listing.images.name,
        name=contents.name,
        id=contents.id.short,
        images={image.name: _bundle_image(image, listing.bundle) for image in contents.images},
        blobs=contents.sizes,
    )


def _bundle_image(image: BundleImage, bundle: Bundle | None) -> SideImage:
    plain = SideImage(digest=image.digest, platforms=image.platforms)
    closure = bundle.closure(image) if bundle else None
    if bundle is None or closure is None:
        return plain
    digests = (*(manifest.digest for manifest in closure.manifests), *(blob.digest for blob in closure.blobs))
    return SideImage(
        digest=image.digest,
        platforms=image.platforms,
        blobs={digest: bundle.contents.sizes[digest] for digest in digests},
        labels=_labels(bundle, closure),
    )


def _labels(bundle: Bundle, closure: Closure) -> tuple[tuple[str, str], ...]:
    """Of the first platform's config: its labels, and when it was made."""
    leaf = next(iter(closure.leaves), None)
    try:
        config = json_object(bundle.read(leaf.config.digest) or b"") if leaf else {}
        labels = field(field(config, "config", an_object), "Labels", or_none(an_object)) or {}
    except (ValueError, RegwrapError):
        return ()
    found = {key: labels.get(f"org.opencontainers.image.{key}") for key in _LABELS}
    found["created"] = found["created"] or config.get("created")
    return tuple((key, text) for key, text in found.items() if isinstance(text, str) and text)
