"""images.lock: what each image of a list is, by digest. Text that is itself a list, one line an image, sorted. Pure.

    SRC:TAG@sha256:HEX => DST:TAG [platform=…]  # PLATFORMS BYTES bytes

The comment is for people and for the next lock, which need not ask again; what counts is before it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regwrap.core.bounded import read_bounded
from regwrap.core.errors import UsageError, usage_error
from regwrap.core.model import Destination, Digest, ImageRef, ParseError, Platform
from regwrap.lists.imagelist import ImageEntry, ImageList, parse_images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_MAX_BYTES: Final = 64 * 1024 * 1024
_HEADER: Final = "# Written by regwrap lock; a list of images as well. What is shipped is what the digests say.\n"
_FACTS: Final = re.compile(r"#\s+(\S+)\s+([0-9]{1,18}) bytes\s*$")
_HINT: Final = "update the lock: regwrap lock with the same list and configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedImage:
    """`source` has a digest. `chosen` are the platforms that the list asks for, `platforms` those that there are;
    `size` counts manifests and blobs; None where the lock does not say it."""

    source: ImageRef
    dest: Destination
    chosen: tuple[Platform, ...]
    platforms: tuple[Platform, ...]
    size: int | None

    @property
    def digest(self) -> Digest:
        if self.source.digest is None:
            raise ParseError(f"{self.source} has no digest")
        return self.source.digest

    @property
    def line(self) -> str:
        """As in the lock, without the comment."""
        # A first component with a dot would be read as a host, and dropped: a host stands before it then.
        host = f"{self.source.registry or 'localhost'}/" if "." in self.dest.repository.partition("/")[0] else ""
        options = f" platform={','.join(map(str, self.chosen))}" if self.chosen else ""
        return f"{self.source} => {host}{self.dest}{options}"


@dataclass(frozen=True, kw_only=True)  # no slots: what follows from it is worked out once
class Lock:
    """`images` by destination, sorted."""

    name: str
    images: tuple[LockedImage, ...]

    @cached_property
    def by_dest(self) -> dict[Destination, LockedImage]:
        return {image.dest: image for image in self.images}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One image whose lock is not what is there now. Digests are None where there is none: `what` says why."""

    image: Destination
    what: str
    old: Digest | None
    new: Digest | None


def lock_path(images_list: str, given: Path | None) -> Path:
    """Where the lock of a list is: beside it, with `.lock` at its end. Raises UsageError."""
    if given is None and images_list == "-":
        raise UsageError("a list on standard input has no lock of its own", hint="give the lock with --lock-file FILE")
    return given or Path(images_list).with_suffix(".lock")


def lock_text(images: Iterable[LockedImage]) -> str:
    lines = (f"{image.line}  # {_facts(image)}\n" for image in sorted(images, key=lambda image: image.dest))
    return "".join([_HEADER, *lines])


def parse_lock(data: bytes, name: str) -> Lock:
    """Raises UsageError where it is no list, or a line of it has no digest."""
    images = parse_images(data, name)
    texts = data.decode().split("\n")
    loose = [f"{name}:{entry.line}: {entry.source} has no digest" for entry in images.entries if not _is_fixed(entry)]
    if loose:
        raise usage_error(name, loose, hint=_HINT)
    found = (_locked(entry, texts[entry.line - 1]) for entry in images.entries)
    return Lock(name=name, images=tuple(sorted(found, key=lambda image: image.dest)))


def read_lock(path: Path) -> Lock:
    """Raises UsageError."""
    try:
        return parse_lock(read_bounded(path, _MAX_BYTES), f"{path}")
    except FileNotFoundError as error:
        raise UsageError(
            f"the lock {path} does not exist", hint="create it: regwrap lock with the same list"
        ) from error
    except OSError as error:
        raise UsageError(f"the lock {path} cannot be read: {error.strerror}") from error


def locked_list(images: ImageList, lock: Lock, is_by_rule: Callable[[ImageRef], bool]) -> ImageList:
    """The list with the digests of its lock, and the lock's images that a rule of the configuration has added.

    Raises UsageError where the lock is not that of this list.
    """
    known, listed = lock.by_dest, {entry.dest for entry in images.entries}
    problems = [
        f"{entry.at(images.name)}: {entry.source} is not in {lock.name}, or differs there"
        for entry in images.entries
        if not is_lock_of(known.get(entry.dest), entry)
    ]
    others = [image for image in lock.images if image.dest not in listed]
    problems += [
        f"{lock.name}: {image.dest} is neither in {images.name} nor in a rule of the configuration"
        for image in others
        if not is_by_rule(image.source)
    ]
    if problems:
        raise usage_error(lock.name, problems, hint=_HINT)
    entries = tuple(_fixed(entry, known[entry.dest]) for entry in images.entries)
    return replace(images, entries=(*entries, *map(_entry_by_rule, others)))


def is_lock_of(image: LockedImage | None, entry: ImageEntry) -> bool:
    """Whether the locked image is what the entry asks for."""
    if image is None or image.chosen != entry.platforms:
        return False
    wanted = entry.source if entry.source.digest else replace(entry.source, digest=image.source.digest)
    return image.source == wanted


def changes(old: Lock, new: Iterable[tuple[ImageEntry, Digest | None]]) -> tuple[Change, ...]:
    """What differs between a lock and the digests that its images have now; None is an image that is gone."""
    known, found = old.by_dest, {entry.dest: (entry, digest) for entry, digest in new}
    differing = [_change(known.get(dest), entry, digest) for dest, (entry, digest) in found.items()]
    dropped = [
        Change(image=image.dest, what="no longer listed", old=image.digest, new=None)
        for image in old.images
        if image.dest not in found
    ]
    return tuple(sorted((*(change for change in differing if change), *dropped), key=lambda change: change.image))


def _change(image: LockedImage | None, entry: ImageEntry, digest: Digest | None) -> Change | None:
    if image is None:
        return Change(image=entry.dest, what="not locked yet", old=None, new=digest)
    if digest is None:
        return Change(image=entry.dest, what="gone", old=image.digest, new=None)
    if digest != image.digest:
        return Change(image=entry.dest, what="moved", old=image.digest, new=digest)
    if not is_lock_of(image, entry):
        return Change(image=entry.dest, what="listed otherwise", old=image.digest, new=digest)
    return None


def _is_fixed(entry: ImageEntry) -> bool:
    return entry.source.digest is not None


def _facts(image: LockedImage) -> str:
    platforms = ",".join(map(str, image.platforms)) or "-"
    return platforms if image.size is None else f"{platforms} {image.size} bytes"


def _locked(entry: ImageEntry, text: str) -> LockedImage:
    platforms: tuple[Platform, ...] = ()
    facts = _FACTS.search(text)
    if facts and facts[1] != "-":
        try:
            platforms = tuple(Platform.parse(part) for part in facts[1].split(","))
        except ParseError:
            facts = None  # a comment of somebody's
    return LockedImage(
        source=entry.source,
        dest=entry.dest,
        chosen=entry.platforms,
        platforms=platforms,
        size=int(facts[2]) if facts else None,
    )


def _fixed(entry: ImageEntry, image: LockedImage) -> ImageEntry:
    return replace(entry, source=image.source, text=image.line, locked=True)


def _entry_by_rule(image: LockedImage) -> ImageEntry:
    return ImageEntry(
        source=image.source, dest=image.dest, platforms=image.chosen, line=0, text=image.line, locked=True
    )
