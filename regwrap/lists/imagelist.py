"""images.list: which images, under which names, for which platforms. Every bad line is reported at once.

`line` has the grammar of a line, `formats` the lists of other tools.
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, Final

from regwrap.core.archive_ref import ArchiveRef
from regwrap.core.counts import counted
from regwrap.core.errors import UsageError, usage_error
from regwrap.core.model import Destination, ImageRef, ParseError, Platform, is_repository
from regwrap.lists.line import HINT, MAX_IMAGES, ParsedLine, parse_line, too_many_images
from regwrap.lists.sniff import UTF8_BOM, is_document, untagged_tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from regwrap.core.release_id import ReleaseId
    from regwrap.lists.formats.values import ListedImage

MAX_LIST_BYTES: Final = 64 * 1024 * 1024  # what 100,000 images hardly need

_UTF16_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")
_UNTAGGED: Final = "a digest without a tag is kept under the tag sha256-….untagged"
_MAX_OF_A_KIND: Final = 10
# What differs between two problems of one kind: what is quoted, numbers, names
_PARTICULARS: Final = re.compile(r"""'[^']*'|"[^"]*"|`[^`]*`|[^\s]*[:/@][^\s]*|[0-9]+""")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageEntry:
    """One image to be had; no platforms means all of them.

    `line` is 0 where a rule of the configuration stands for it. `locked`: its digest counts even where the tag has
    moved.
    """

    source: ImageRef
    dest: Destination
    platforms: tuple[Platform, ...]
    line: int
    text: str
    locked: bool = False

    @property
    def where(self) -> str:
        """Its destination, and the line of the list, where there is one."""
        return f"{self.dest} (line {self.line})" if self.line else f"{self.dest}"

    def at(self, name: str) -> str:
        """Its place in the list `name`; the list alone where no line stands for it."""
        return f"{name}:{self.line}" if self.line else name

    def outline(self) -> dict[str, object]:
        return {"source": self.source, "dest": self.dest, "line": self.line}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageList:
    """What a list says, in its order and without repeats. `notes` are for the user, a line each. `release` is the one
    that stands for the list, if it is a bundle."""

    name: str
    entries: tuple[ImageEntry, ...]
    notes: tuple[str, ...]
    release: ReleaseId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """Where an image goes whose line does not say it: to `prefix` (empty, or a path with a slash at its end), then its
    host where `keep_host` says so, then its repository."""

    prefix: str = ""
    keep_host: bool = False


HOST_IS_DROPPED: Final = Rewrite()


def read_images(path: str, stdin: BinaryIO, rewrite: Rewrite = HOST_IS_DROPPED) -> ImageList:
    """The list in the file `path`, or on standard input for `-`."""
    name = "<stdin>" if path == "-" else path
    try:
        with nullcontext(stdin) if path == "-" else open(path, "rb") as file:
            data = file.read(MAX_LIST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(f"cannot read the list of images {_shown(name)}", detail=why) from error
    return parse_images(data, name, rewrite)


def parse_images(data: bytes, name: str, rewrite: Rewrite = HOST_IS_DROPPED) -> ImageList:
    """The list that `data` is; `name` stands for it in notes and errors. Raises UsageError."""
    _check_file(data, name)
    read = (_read_document if is_document(data) else _read_lines)(data, name, rewrite)
    lines, problems = read.lines, read.problems
    first = {line.entry.dest: line for line in reversed(lines)}
    problems.extend(_conflicts(lines, first))
    if problems:
        raise usage_error(name, list(_capped(name, sorted(problems))), hint=read.hint, count=len(problems))
    entries = tuple(line.entry for line in lines if first[line.entry.dest] is line)
    return ImageList(name=name, entries=entries, notes=(*read.notes, *_notes(lines, first, name)))


def failed_list(entries: Iterable[ImageEntry]) -> str:
    """The lines of `entries`, as a list that can be tried again."""
    return "".join(f"{entry.text}\n" for entry in entries)


def list_text(images: Iterable[ImageRef], heading: str) -> str:
    """A list of these images, below a comment. One with a digest alone goes under the tag that such images get."""
    lines = [f"# {heading}", *(image_line(image) for image in images)]
    return "".join(f"{line}\n" for line in lines)


def image_line(image: ImageRef) -> str:
    if image.tag or not image.digest:
        return f"{image}"
    return f"{image} => {image.repository}:{untagged_tag(image.digest)}"


def need_source(images: ImageList) -> tuple[ImageEntry, ...]:
    """The entries that do not say which registry they come from."""
    return tuple(e for e in images.entries if e.source.registry is None and not isinstance(e.source, ArchiveRef))


def as_archived(images: ImageList) -> ImageList:
    """The same images by the names that they have in an archive."""
    return replace(images, entries=tuple(replace(entry, source=_archived(entry)) for entry in images.entries))


def _archived(entry: ImageEntry) -> ImageRef:
    dest = entry.dest
    return ImageRef(registry=None, repository=dest.repository, tag=dest.tag, digest=entry.source.digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """An entry with what only this module needs: where its destination stands and the host written there."""

    entry: ImageEntry
    dest_offset: int
    dropped_host: str | None
    note: str


@dataclass(frozen=True, slots=True)
class _Read:
    """What a list's lines or another tool's document say. A problem has a line, an offset in it, and a text."""

    lines: list[_Line]
    problems: list[tuple[int, int, str]]
    notes: tuple[str, ...]
    hint: str


def _read_lines(data: bytes, name: str, rewrite: Rewrite) -> _Read:
    read = _Read(lines=[], problems=[], notes=(), hint=HINT)
    for number, raw in enumerate(data.removeprefix(UTF8_BOM).split(b"\n"), start=1):
        try:
            if parsed := parse_line(raw.removesuffix(b"\r")):
                read.lines.append(_entry(parsed, number, rewrite))
        except ParseError as error:
            read.problems.append((number, error.offset, str(error)))
        if len(read.lines) > MAX_IMAGES:
            raise too_many_images(f"{name}:{number}", MAX_IMAGES)
    return read


def _read_document(data: bytes, name: str, rewrite: Rewrite) -> _Read:
    from regwrap.lists.formats.recognise import read_document  # most lists are plain

    document = read_document(data, name)
    problems = [(line, column - 1, message) for line, column, message in document.problems]
    notes = tuple(f"{name}:{line}: {message}" for line, message in document.notes)
    read = _Read(lines=[], problems=problems, notes=notes, hint=document.hint)
    for image in document.images:
        try:
            read.lines.append(_line_of(image, rewrite))
        except ParseError as error:
            problems.append((image.line, image.column - 1, str(error)))
    return read


def _line_of(image: ListedImage, rewrite: Rewrite) -> _Line:
    """An image of a document, and the line that would say the same in a list of ours."""
    source = image.source if image.source.tag or image.source.digest else replace(image.source, tag="latest")
    dest = _placed(source, image.dest, rewrite, image.tag)
    # A first component with a dot would be read as a host, and dropped: a host stands before it then.
    written = f"{source.registry}/{dest}" if "." in dest.repository.partition("/")[0] else f"{dest}"
    options = f" platform={','.join(map(str, image.platforms))}" if image.platforms else ""
    return _Line(
        entry=ImageEntry(
            source=source, dest=dest, platforms=image.platforms, line=image.line, text=f"{source} => {written}{options}"
        ),
        dest_offset=image.column - 1,
        dropped_host=image.dest.registry if image.dest else None,
        note=_moving_note(image.source),
    )


def _check_file(data: bytes, name: str) -> None:
    if len(data) > MAX_LIST_BYTES:
        raise UsageError(f"{name}: larger than {MAX_LIST_BYTES} bytes; this is not a list of images")
    if data.startswith(_UTF16_BOMS):
        raise UsageError(f"{name}:1:1: the file is UTF-16", hint="save it as UTF-8")


def _conflicts(lines: list[_Line], first: dict[Destination, _Line]) -> Iterator[tuple[int, int, str]]:
    for line in lines:
        entry, other = line.entry, first[line.entry.dest].entry
        if (entry.source, entry.platforms) != (other.source, other.platforms):
            why = "with another source" if entry.source != other.source else "for other platforms"
            message = f"{entry.dest} is already the destination of line {other.line}, {why}"
            yield entry.line, line.dest_offset, message


def _capped(name: str, problems: list[tuple[int, int, str]]) -> Iterator[str]:
    """Of each kind the first ten, and how many more there are."""
    kinds: dict[str, int] = {}
    for number, offset, message in problems:
        kind = _PARTICULARS.sub("", message)
        kinds[kind] = kinds.get(kind, 0) + 1
        if kinds[kind] <= _MAX_OF_A_KIND:
            yield f"{name}:{number}:{offset + 1}: {message}"
        elif kinds[kind] == _MAX_OF_A_KIND + 1:
            more = sum(_PARTICULARS.sub("", text) == kind for _line, _offset, text in problems) - _MAX_OF_A_KIND
            yield f"{name}:{number}:{offset + 1}: and {more} more of this kind"


def _notes(lines: list[_Line], first: dict[Destination, _Line], name: str) -> Iterator[str]:
    """Each note once, with the line where it first holds and the number of the others."""
    found: dict[str, list[int]] = {}
    hosts: set[str] = set()
    repeats: list[tuple[int, int]] = []
    for line in lines:
        number, other = line.entry.line, first[line.entry.dest]
        if other is not line:
            repeats.append((number, other.entry.line))
        elif line.note:
            found.setdefault(line.note, []).append(number)
        if line.dropped_host is not None and line.dropped_host not in hosts:
            hosts.add(line.dropped_host)
            why = "the destination's registry comes from --dest or the archive"
            found.setdefault(f"{line.dropped_host} is left out: {why}", []).append(number)
    for message, numbers in found.items():
        more = f" (and in {counted(len(numbers) - 1, 'other line')})" if len(numbers) > 1 else ""
        yield f"{name}:{numbers[0]}: {message}{more}"
    if repeats:
        (number, other_number), more = (
            repeats[0],
            f"; {counted(len(repeats), 'line repeats another one', 'lines repeat others')}" if len(repeats) > 1 else "",
        )
        yield f"{name}:{number}: repeats line {other_number}{more}"


def _entry(parsed: ParsedLine, number: int, rewrite: Rewrite) -> _Line:
    try:
        dest = _placed(parsed.source, parsed.dest, rewrite)
    except ParseError as error:
        raise ParseError(str(error), parsed.dest_offset) from error
    source, has_tag = parsed.source, bool(parsed.source.tag or (parsed.dest and parsed.dest.tag))
    note = _moving_note(source) or ("" if has_tag else _UNTAGGED)
    if not source.tag and not source.digest:
        source = replace(source, tag="latest")
    entry = ImageEntry(source=source, dest=dest, platforms=parsed.platforms, line=number, text=parsed.text)
    host = parsed.dest.registry if parsed.dest else None
    return _Line(entry=entry, dest_offset=parsed.dest_offset, dropped_host=host, note=note)


def _placed(source: ImageRef, written: ImageRef | None, rewrite: Rewrite, tag: str | None = None) -> Destination:
    """`tag` is the one where neither the source nor what is written has any."""
    if isinstance(source, ArchiveRef):
        return _placed_archive(source, written, rewrite)
    tag = (written.tag if written else None) or source.tag or tag
    if not tag and source.digest:
        tag = untagged_tag(source.digest)
    repository = written.repository if written else rewritten(source, rewrite)
    return Destination(repository, tag or "latest")


def _placed_archive(source: ArchiveRef, written: ImageRef | None, rewrite: Rewrite) -> Destination:
    name = source.own_name
    if written is None and name is not None:
        return Destination(rewritten(ImageRef.parse(source.reference), rewrite), name.tag)
    tag = written.tag if written and written.tag else source.own_tag
    if written is None or tag is None:
        raise ParseError(f"{source.url} does not name its image: write => REPOSITORY:TAG after it")
    return Destination(written.repository, tag)


def rewritten(source: ImageRef, rewrite: Rewrite) -> str:
    """The repository for a source whose line names no destination. Raises ParseError where that would be no name.

    The colon before a port becomes an underscore, which no host's name has: two hosts never become one.
    """
    host = f"{source.registry.lower().replace(':', '_')}/" if rewrite.keep_host and source.registry else ""
    repository = f"{rewrite.prefix}{host}{source.repository}"
    if not is_repository(repository):
        raise ParseError(f"rewrite: gives {_shown(repository)}, which is not a repository's name: write a destination")
    return repository


def _moving_note(source: ImageRef) -> str:
    if source.digest or source.tag not in {None, "latest"}:
        return ""
    return "`latest` is a moving tag; pin a digest" if source.tag else "no tag given, latest is meant"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "…")
