"""The volumes that a bundle was cut into: slices of the one tar, `NAME.001`, `NAME.002` and so on, in one or more
directories. `NAME.json` says which bytes each is; without it the first volume does.
"""

from __future__ import annotations

import os
import re
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regwrap.bundle.contents import BLOCK, BUNDLE_JSON, MAX_BUNDLE_JSON_BYTES, parse_contents
from regwrap.bundle.files import ManyFiles
from regwrap.bundle.volume_places import directories_of, volume_name, volumes_in
from regwrap.core.counts import counted
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.fields import a_text, an_integer, an_object, field, json_object, list_of
from regwrap.core.manifest import a_size
from regwrap.core.writing import UnreadableError, named_on_error, status_of
from regwrap.storage.hashing import hash_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from regwrap.bundle.contents import BundleContents
    from regwrap.bundle.files import Located

MAX_VOLUMES: Final = 999
_SHA256_LINE: Final = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_MAX_FACTS_BYTES: Final = 1024 * 1024
_AGAIN: Final = "copy them again, or let the vendor make just these again: regwrap release ... --volume N"


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """`size` bytes from `offset` of the bundle on; `sha256` is empty where nobody says it."""

    name: str
    offset: int
    size: int
    sha256: str = ""

    @property
    def end(self) -> int:
        return self.offset + self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSet:
    """The volumes of the bundle `path`, which is not there itself; `places` has those that are there."""

    path: Path
    volumes: tuple[Volume, ...]
    places: Mapping[str, Path]

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(volume.name for volume in self.volumes if volume.name not in self.places)

    def blame(self, error: IntegrityError) -> IntegrityError:
        """The volumes that are to blame for what was found; the error itself, where that can't be told."""
        return blamed(self.path, self.problems(), error)

    def problems(self) -> tuple[str, ...]:
        """Volumes that are not what their sha256 says, or have another one's bytes; where nobody says the sums, those
        that are not what the bundle itself says."""
        seen: dict[str, str] = {}
        lines = list[str]()
        for volume in self.volumes:
            place = self.places.get(volume.name)
            if place is None:
                continue
            try:
                digest = hash_file(place).hex
            except UnreadableError as error:
                lines.append(f"{place}: cannot be read: {error.strerror}")
                continue
            if volume.sha256 not in {"", digest}:
                lines.append(f"{place}: has other bytes than {self.path.name}.sha256 says")
            elif digest in seen:
                lines.append(f"{place}: has the same bytes as {seen[digest]}")
            seen.setdefault(digest, volume.name)
        if not lines and not self.missing and not all(volume.sha256 for volume in self.volumes):
            with suppress(ValueError, IntegrityError):  # without bundle.json it can't be told
                lines = [f"{places}: has other bytes than the bundle" for places in self._unlike_contents()]
        return tuple(lines)

    def _unlike_contents(self) -> Iterator[str]:
        """By what bundle.json says of every byte: a volume, or those that share a blob, of which it can't be told."""
        from regwrap.bundle.damage import damage  # seldom asked for

        with opened_volumes(self) as file:
            found = dict.fromkeys(self._holding(part) for part in damage(file, _contents_in(file)))
        sure = {places for places in found if len(places) == 1}
        return (
            " or ".join(places) for places in found if places in sure or not any((place,) in sure for place in places)
        )

    def _holding(self, part: Located) -> tuple[str, ...]:
        touching = (v for v in self.volumes if v.offset < part.end and part.offset < v.end)
        return tuple(f"{self.places[volume.name]}" for volume in touching)


def damaged_volumes(path: Path) -> tuple[str, ...]:
    """Which volumes are to blame for damage that was found, as far as that can still be told: the medium that says what
    they are may be gone by now."""
    try:
        volumes = found_volumes(path)
    except UsageError:
        return ()
    except IntegrityError as error:
        return error.problems
    return () if volumes is None else volumes.problems()


def blamed(path: Path, problems: tuple[str, ...], error: IntegrityError) -> IntegrityError:
    """The volumes that are to blame; the error itself where it is not known of any."""
    return _foreign(path, problems) if problems else error


class NoFirstVolumeError(UsageError):
    """Nothing says what the volumes are that are there. Caught to ask for the first one."""


def facts_of_volumes(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def found_volumes(path: Path, directories: Sequence[Path] | None = None) -> VolumeSet | None:
    """The volumes of the bundle `path`, looked for in `directories`, or wherever they may lie; None where there is
    none. Raises UsageError where one is doubled, IntegrityError where one can't be of this bundle."""
    places = directories_of(path) if directories is None else directories
    there = volumes_in(path, places)
    if not there:
        return None
    volumes = _from_facts(path.name, places) or _from_first(path, there)
    sums = _sums(path.name, places)
    volumes = tuple(_with_sum(volume, sums) for volume in volumes)
    _refuse_foreign(path, volumes, there)
    return VolumeSet(path=path, volumes=volumes, places=there)


def _from_facts(bundle: str, places: Iterable[Path]) -> tuple[Volume, ...]:
    """What `NAME.json` says; nothing where it is not there. Raises IntegrityError."""
    for place in places:
        path = place / f"{bundle}.json"
        if not path.is_file():
            continue
        try:
            with named_on_error(path.open("rb")) as file:
                document = json_object(file.read(_MAX_FACTS_BYTES))
            volumes = field(document, "volumes", list_of(_volume))
        except ValueError as error:
            raise IntegrityError(f"{path} does not say which volumes there are: {error}", hint=_AGAIN) from error
        names = [volume_name(bundle, number + 1) for number in range(len(volumes))]
        ends = [0, *(volume.end for volume in volumes)]
        if [v.name for v in volumes] != names or any(v.offset != end for v, end in zip(volumes, ends, strict=False)):
            raise IntegrityError(f"{path} is of another bundle, or was altered", hint=_AGAIN)
        return volumes
    return ()


def _volume(value: object) -> Volume:
    item = an_object(value)
    return Volume(
        name=field(item, "volume", a_text),
        offset=field(item, "offset", a_size),
        size=field(item, "bytes", an_integer(1, 2**63 - 1)),
        sha256=field(item, "sha256", a_text),
    )


def _from_first(path: Path, there: Mapping[str, Path]) -> tuple[Volume, ...]:
    """As the first volume says: all have its size but the last. Raises NoFirstVolumeError where it is not there."""
    front = list[Path]()
    while (place := there.get(volume_name(path.name, len(front) + 1))) is not None:
        front.append(place)
    if not front:
        first = volume_name(path.name, 1)
        hint = f"provide it, or {path.name}.json"
        raise NoFirstVolumeError(f"{first} is missing: it says what {path.name} is", hint=hint)
    try:
        with _opened_files(front) as file:
            total = _contents_in(file).tar_bytes
    except (ValueError, IntegrityError) as error:
        raise IntegrityError(
            f"{front[0]} is no first volume of {path.name}, or not all of bundle.json is here", hint=_AGAIN
        ) from error
    size = front[0].stat().st_size
    if total > size * MAX_VOLUMES:
        raise IntegrityError(f"{front[0]} has only {size:,} of {total:,} bytes", hint=_AGAIN)
    starts = [*range(0, total, size), total]
    return tuple(
        Volume(name=volume_name(path.name, number), offset=start, size=end - start)
        for number, (start, end) in enumerate(pairwise(starts), start=1)
    )


def _contents_in(file: ManyFiles) -> BundleContents:
    """What the bundle says of itself, which may need several volumes. Raises IntegrityError and ValueError."""
    header = file.pread(BLOCK, 0)
    length = int(header[124:135], 8) if header.startswith(f"{BUNDLE_JSON}\0".encode()) else 0
    return parse_contents(file.pread(min(length, MAX_BUNDLE_JSON_BYTES), BLOCK) if length > 0 else b"")


def _sums(bundle: str, places: Iterable[Path]) -> dict[str, str]:
    for place in places:
        with suppress(OSError, UnicodeDecodeError), (place / f"{bundle}.sha256").open(encoding="utf-8") as file:
            matches = map(_SHA256_LINE.fullmatch, file.read(_MAX_FACTS_BYTES).splitlines())
            return {match[2]: match[1] for match in matches if match}
    return {}


def said_sums(path: Path) -> dict[str, str]:
    """What stands beside the volumes of `path` says of their bytes: the sha256 of each name, whatever lies there. What
    is damaged says nothing."""
    places, facts = (path.parent,), tuple[Volume, ...]()
    with suppress(IntegrityError):
        facts = _from_facts(path.name, places)
    return {**_sums(path.name, places), **{volume.name: volume.sha256 for volume in facts if volume.sha256}}


def _with_sum(volume: Volume, sums: Mapping[str, str]) -> Volume:
    sha256 = volume.sha256 or sums.get(volume.name, "")
    return Volume(name=volume.name, offset=volume.offset, size=volume.size, sha256=sha256)


def _refuse_foreign(path: Path, volumes: Sequence[Volume], there: Mapping[str, Path]) -> None:
    sizes = {volume.name: volume.size for volume in volumes}
    problems = [
        f"{place}: {path.name} has only {counted(len(volumes), 'volume')}"
        for n, place in there.items()
        if n not in sizes
    ]
    for name, size in sizes.items():
        place = there.get(name)
        if place is not None and (actual := place.stat().st_size) != size:
            problems.append(f"{place}: has {actual:,} bytes instead of {size:,}")
    if problems:
        raise _foreign(path, tuple(problems))


def _foreign(path: Path, problems: tuple[str, ...]) -> IntegrityError:
    found = counted(len(problems), "of its volumes is", "of its volumes are")
    return IntegrityError(f"{path}: {found} damaged, or of another bundle", problems=problems, hint=_AGAIN)


def no_volume(path: Path) -> UsageError:
    return UsageError(f"there is no volume of {path}", hint="name the directories: --volumes-from DIR")


def missing_volumes(volumes: VolumeSet) -> UsageError:
    count, missing = counted(len(volumes.volumes), "volume"), ", ".join(volumes.missing)
    return UsageError(
        f"{volumes.path} lacks {len(volumes.missing)} of its {count}: {missing}",
        hint="name their directories with --volumes-from; or let the vendor make them again:"
        " regwrap release ... --volume N",
    )


@contextmanager
def opened_volumes(volumes: VolumeSet) -> Iterator[ManyFiles]:
    """All of them as one file. Raises UsageError where one is missing."""
    if volumes.missing:
        raise missing_volumes(volumes)
    with _opened_files([volumes.places[volume.name] for volume in volumes.volumes]) as file:
        yield file


@contextmanager
def _opened_files(paths: Sequence[Path]) -> Iterator[ManyFiles]:
    with ExitStack() as stack:
        descriptors, starts = list[int](), [0]
        for path in paths:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            stack.callback(os.close, descriptor)
            descriptors.append(descriptor)
            starts.append(starts[-1] + status_of(descriptor).st_size)
        file = ManyFiles(tuple(descriptors), tuple(starts))
        stack.callback(file.close)
        yield file
