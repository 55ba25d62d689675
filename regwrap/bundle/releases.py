"""What a site remembers of the releases that were imported into it: `.regwrap/releases/ID.json` and `ID.note`.

ID.json is the bundle.json of the release, byte for byte; ID.note says when it came. The note comes last, so a release
is remembered as a whole or not at all; to write it again is harmless.
"""

from __future__ import annotations

import datetime
import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regwrap.bundle.contents import MAX_BUNDLE_JSON_BYTES, BundleContents, BundleImage, contents_with_id
from regwrap.core.counts import counted
from regwrap.core.errors import ImagesFailedError, IntegrityError, UsageError
from regwrap.core.fields import a_text, field, json_object
from regwrap.core.listener import SILENT, counted_by
from regwrap.core.model import Digest
from regwrap.core.moves import TagMove
from regwrap.core.writing import named_on_error
from regwrap.storage.own import OWN_DIR

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from regwrap.core.listener import Listener
    from regwrap.storage.commit import Files
    from regwrap.storage.store import Storage
    from regwrap.storage.tree import Tree

_PLACE: Final = f"{OWN_DIR}/releases"
_NOTE: Final = re.compile(r"([0-9a-f]{64})\.note")
_PART: Final = re.compile(r"[0-9a-f]{64}\.json")
_SHA256_BYTES: Final = 64
_SHA256: Final = re.compile(r"[0-9a-f]{64}(?=\s|$)")
_SHORT_ID: Final = 6
_MAX_NOTE_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRelease:
    """`deployed` is a time in UTC (ISO 8601), `checksum` the sha256 of the bundle's file; empty where nobody knew."""

    contents: BundleContents
    deployed: str
    checksum: str

    @property
    def label(self) -> str:
        """What people call it."""
        return self.contents.name or self.contents.id.hex[:12]


@dataclass(frozen=True, slots=True)
class SiteReleases:
    """`releases` in the order in which they came. `notes`: what lies among them and can't be read."""

    releases: tuple[SiteRelease, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HeldAlone:
    """What is in one release and in no other one of the site."""

    images: int
    blobs: int
    bytes: int


def held_alone(releases: Sequence[SiteRelease]) -> dict[Digest, HeldAlone]:
    """By the releases' ids."""
    blob_users = Counter(digest for release in releases for digest, _size in release.contents.blobs)
    image_users = Counter(image for release in releases for image in _images_of(release))
    found = dict[Digest, HeldAlone]()
    for release in releases:
        contents = release.contents
        sizes = [size for digest, size in contents.blobs if blob_users[digest] == 1]
        images = sum(image_users[image] == 1 for image in _images_of(release))
        found[contents.id] = HeldAlone(images, len(sizes), sum(sizes))
    return found


def _images_of(release: SiteRelease) -> set[tuple[str, Digest]]:
    """Each once, whatever tags it has."""
    return {(image.repository, image.digest) for image in release.contents.images}


def release_now(contents: BundleContents, checksum: str) -> SiteRelease:
    """As it comes now: to the microsecond, since two may come within one second, and gc keeps those that came last."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
    return SiteRelease(contents=contents, deployed=now, checksum=checksum)


def known_checksum(bundle: Path) -> str:
    """What `BUNDLE.sha256` beside the bundle says; empty where there is none, and for volumes, which have one each."""
    return said_checksum(bundle) if bundle.is_file() else ""


def said_checksum(bundle: Path) -> str:
    """The first that `BUNDLE.sha256` says, whether the bundle is there or not."""
    try:
        with bundle.with_name(f"{bundle.name}.sha256").open("rb") as file:
            found = _SHA256.match(file.read(_SHA256_BYTES + 1).decode("ascii"))
    except (OSError, UnicodeDecodeError):
        return ""
    return found[0] if found else ""


def write_release(tree: Tree, release: SiteRelease, *, stage: Tree, files: Files) -> None:
    """Remember the release since it first came, under the storage's lock. `stage` is a private directory on the same
    file system."""
    name = release.contents.id.hex
    if _is_noted(tree, name):
        return
    note = {"deployed": release.deployed, "sha256": release.checksum}
    for file, data in (
        (f"{name}.json", release.contents.to_json()),
        (f"{name}.note", json.dumps(note, sort_keys=True).encode("ascii") + b"\n"),
    ):
        files.make_directory(tree, _PLACE)
        files.write(stage, file, data)
        files.sync(stage)
        files.rename(stage, file, tree, f"{_PLACE}/{file}")
        files.sync(tree)


def _is_noted(tree: Tree, name: str) -> bool:
    try:
        return _read(tree, name).contents.id.hex == name
    except (OSError, ValueError, IntegrityError):
        return False


def read_releases(tree: Tree, listener: Listener = SILENT) -> SiteReleases:
    """What the site remembers. A file that is none of ours, or damaged, is a note and hides nothing else."""
    names = sorted(entry.name for entry in tree.entries(_PLACE))
    found, notes = list[SiteRelease](), list[str]()
    listener.count("read", "records of releases", len(names))
    for name in counted_by(listener, names):
        match = _NOTE.fullmatch(name)
        try:
            if match:
                found.append(_read(tree, match[1]))
            elif not _PART.fullmatch(name):  # one without its note is of a run that was killed
                notes.append(f"{tree.shown(_PLACE)}/{name} is no release; left alone")
        except (OSError, ValueError, IntegrityError) as error:
            notes.append(f"{tree.shown(_PLACE)}/{name} can't be read ({error}); deploy of that release writes it anew")
    return SiteReleases(tuple(sorted(found, key=lambda r: (r.deployed, r.contents.id.hex))), tuple(notes))


def chosen_release(found: SiteReleases, wanted: str, root: Path) -> SiteRelease:
    """The release with that name, or whose id begins so. Raises UsageError, with those that there are."""
    start = wanted.removeprefix("sha256:")
    named = [release for release in found.releases if release.contents.name == wanted]
    same = named or [r for r in found.releases if len(start) >= _SHORT_ID and r.contents.id.hex.startswith(start)]
    if len(same) == 1:
        return same[0]
    known = "\n".join(f"{r.label}, deployed {r.deployed}, id {r.contents.id}" for r in same or found.releases)
    if same:
        raise UsageError(
            f"{root} has {counted(len(same), f'release {wanted}', f'releases {wanted}')}",
            detail=known,
            hint="give the id of the one",
        )
    raise UsageError(
        f"{root} has no record of release {wanted}",
        detail="\n".join([known or "no release is recorded there", *found.notes]),
        hint="deploy its bundle; or, if it came another way: regwrap releases DIR --adopt BUNDLE",
    )


def _read(tree: Tree, name: str) -> SiteRelease:
    note = json_object(_bytes_of(tree, f"{name}.note", _MAX_NOTE_BYTES))
    contents = contents_with_id(_bytes_of(tree, f"{name}.json", MAX_BUNDLE_JSON_BYTES), Digest(name))
    return SiteRelease(
        contents=contents, deployed=field(note, "deployed", a_text), checksum=field(note, "sha256", a_text)
    )


def _bytes_of(tree: Tree, file: str, limit: int) -> bytes:
    if tree.size(f"{_PLACE}/{file}") is None:
        raise IntegrityError("it is no regular file")
    with named_on_error(os.fdopen(tree.open(f"{_PLACE}/{file}"), "rb")) as opened:
        return opened.read(limit + 1)


def missing_of(storage: Storage, image: BundleImage) -> str:
    """What the storage lacks of a release's image, whatever its tag is now; empty where all of it is there. Manifests
    are hashed, of blobs the size is compared."""
    try:
        closure = storage.closure(image.repository, image.digest)
    except IntegrityError as error:
        return str(error)
    if closure is None:
        return f"manifest {image.digest.short} is not there"
    for child in closure.missing:
        if child.digest not in image.omitted:
            return f"manifest {child.digest.short} is not there"
    for blob in closure.blobs:
        if storage.blob_size(blob.digest) != blob.size or not storage.has_layer(image.repository, blob.digest):
            return f"blob {blob.digest.short} is not there"
    return ""


def look_at(storage: Storage, images: Iterable[BundleImage], listener: Listener) -> dict[BundleImage, str]:
    """What the storage lacks of each."""
    distinct = dict.fromkeys(images)
    listener.count("look", "images of releases", len(distinct))
    return {image: missing_of(storage, image) for image in counted_by(listener, distinct)}


def missing_images(contents: BundleContents, looked_at: Mapping[BundleImage, str]) -> tuple[str, ...]:
    """The images of a release that something is missing of, each with what that is."""
    return tuple(f"{image.name}: {looked_at[image]}" for image in contents.images if looked_at[image])


def refuse_missing(storage: Storage, contents: BundleContents, name: str, *, hint: str, listener: Listener) -> None:
    """Raises ImagesFailedError where something of the images of release `name` is missing."""
    if missing := missing_images(contents, look_at(storage, contents.images, listener)):
        raise ImagesFailedError(
            f"{storage.root} lacks {len(missing)} of {counted(len(contents.images), 'image')} of {name};"
            " nothing was changed",
            detail="\n".join(missing),
            hint=hint,
        )


def moves_to(storage: Storage, contents: BundleContents) -> tuple[TagMove, ...]:
    """The tags that are something else in the storage, or are not there."""
    there = ((image, storage.resolve(image.repository, image.tag)) for image in contents.images)
    return tuple(
        TagMove(image=image.name, old=digest, new=image.digest) for image, digest in there if digest != image.digest
    )
