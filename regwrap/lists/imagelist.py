"""images.list: which images, under which names, for which platforms. Every bad line is reported at once.

    line  := SP* (comment | entry)?
    entry := SRC [ (SP+ | SP*"=>"SP* | SP*"->"SP* | "=") DST ] { SP+ key=value } [ SP+ "#" text ]
    key   := platform (linux/amd64,linux/arm64 or all) | name | group

Nothing of a line is guessed at: what the grammar does not know is an error with line and column.
"""

from __future__ import annotations

import re
import unicodedata
from contextlib import nullcontext
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, BinaryIO, Final

from regwrap.core.errors import UsageError, usage_error
from regwrap.core.model import Destination, ImageRef, ParseError, Platform, is_repository
from regwrap.lists.sniff import UTF8_BOM, is_document, untagged_tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from regwrap.lists.formats.values import ListedImage

MAX_LIST_BYTES: Final = 16 * 1024 * 1024
MAX_LINE: Final = 4096

_HINT: Final = "a line is: SRC [DST] [platform=linux/amd64,linux/arm64|all] [name=…] [group=…] [# comment]"
_UTF16_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")
_KEYS: Final = ("platform", "name", "group")
_ARROWS: Final = ("=>", "->")
_COMMENT: Final = re.compile(r"(?:^|(?<=[ \t]))#")
_WORD: Final = re.compile(r"=>|->|(?:(?!=>|->)[^ \t])+")
_SPACED_EQUALS: Final = re.compile(r"[ \t]*([^ \t=>]+)(?:[ \t]+=[ \t]*|=[ \t]+)([^ \t=>]+)")
# Skopeo's transports need no slashes: `oci:dir` is one. An image of that name can be written `docker://oci:tag`.
_SCHEME: Final = re.compile(
    r"(?!docker://)(?:[A-Za-z][A-Za-z0-9+.-]*://"
    r"|(?:oci|oci-archive|docker-archive|docker-daemon|dir|containers-storage|ostree|sif|tarball):)"
)


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

    def outline(self) -> dict[str, object]:
        return {"source": self.source, "dest": self.dest, "line": self.line}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageList:
    """What a list says, in its order and without repeats. `notes` are for the user, a line each."""

    name: str
    entries: tuple[ImageEntry, ...]
    notes: tuple[str, ...]


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
        shown = [f"{name}:{number}:{offset + 1}: {message}" for number, offset, message in sorted(problems)]
        raise usage_error(name, shown, hint=read.hint)
    entries = tuple(line.entry for line in lines if first[line.entry.dest] is line)
    return ImageList(name=name, entries=entries, notes=(*read.notes, *_notes(lines, first, name)))


def failed_list(entries: Iterable[ImageEntry]) -> str:
    """The lines of `entries`, as a list that can be tried again."""
    return "".join(f"{entry.text}\n" for entry in entries)


def list_text(images: Iterable[ImageRef], heading: str) -> str:
    """A list of these images, below a comment. One with a digest alone goes under the tag that such images get."""
    lines = [f"# {heading}", *(_image_line(image) for image in images)]
    return "".join(f"{line}\n" for line in lines)


def _image_line(image: ImageRef) -> str:
    if image.tag or not image.digest:
        return f"{image}"
    return f"{image} => {image.repository}:{untagged_tag(image.digest)}"


def need_source(images: ImageList) -> tuple[ImageEntry, ...]:
    """The entries that do not say which registry they come from."""
    return tuple(entry for entry in images.entries if entry.source.registry is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """An entry with what only this module needs: where its destination stands and the host written there."""

    entry: ImageEntry
    dest_offset: int
    dropped_host: str | None
    note: str


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    offset: int

    def error(self, message: str, index: int = 0) -> ParseError:
        return ParseError(message, self.offset + index)


@dataclass(frozen=True, slots=True)
class _Read:
    """What a list's lines or another tool's document say. A problem has a line, an offset in it, and a text."""

    lines: list[_Line]
    problems: list[tuple[int, int, str]]
    notes: tuple[str, ...]
    hint: str


def _read_lines(data: bytes, _name: str, rewrite: Rewrite) -> _Read:
    read = _Read(lines=[], problems=[], notes=(), hint=_HINT)
    for number, raw in enumerate(data.removeprefix(UTF8_BOM).split(b"\n"), start=1):
        try:
            if line := _parse_line(raw.removesuffix(b"\r"), number, rewrite):
                read.lines.append(line)
        except ParseError as error:
            read.problems.append((number, error.offset, str(error)))
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


def _notes(lines: list[_Line], first: dict[Destination, _Line], name: str) -> Iterator[str]:
    hosts: set[str] = set()
    for line in lines:
        number, other = line.entry.line, first[line.entry.dest]
        if other is not line:
            yield f"{name}:{number}: repeats line {other.entry.line}"
        elif line.note:
            yield f"{name}:{number}: {line.note}"
        if line.dropped_host is not None and line.dropped_host not in hosts:
            hosts.add(line.dropped_host)
            why = "the destination's registry comes from --dest or the archive"
            yield f"{name}:{number}: {line.dropped_host} is left out: {why}"


def _parse_line(raw: bytes, number: int, rewrite: Rewrite) -> _Line | None:
    body = _body(_decoded(raw))
    words = [_Word(match[0], match.start()) for match in _WORD.finditer(body)]
    if not words:
        return None
    source_word, dest_word, options = _split(words, body)
    source = _reference(source_word)
    dest, host = _destination(source, source_word, dest_word, rewrite)
    platforms = _platforms(options)
    note = _moving_note(source)
    if not source.tag and not source.digest:
        source = replace(source, tag="latest")
    entry = ImageEntry(source=source, dest=dest, platforms=platforms, line=number, text=body.strip(" \t"))
    return _Line(entry=entry, dest_offset=(dest_word or source_word).offset, dropped_host=host, note=note)


def _decoded(raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        offset = len(raw[: error.start].decode())
        raise ParseError(f"the byte 0x{raw[error.start]:02x} is not UTF-8", offset) from error
    if len(text) > MAX_LINE:
        raise ParseError(f"the line has {len(text)} characters; at most {MAX_LINE} are read", MAX_LINE)
    return text


def _body(line: str) -> str:
    """The line without its comment. A comment may hold any character but control characters."""
    comment = _COMMENT.search(line)
    end = comment.start() if comment else len(line)
    for offset, char in enumerate("" if line.isprintable() else line):
        odd = not char.isprintable() if offset < end else unicodedata.category(char) == "Cc"
        if odd and char != "\t":
            raise ParseError(f"{_named(char)} is not allowed here; only space and tab are blanks", offset)
    return line[:end]


def _split(words: list[_Word], body: str) -> tuple[_Word, _Word | None, list[_Word]]:
    """Source, destination and options."""
    head, rest = words[0], words[1:]
    if head.text in _ARROWS:
        raise head.error(f"the source is missing before {head.text}")
    if "," in head.text.partition("=")[0]:
        pair = " ".join(re.split(r"[, \t]+", body.strip(" \t"))[:2]).strip()
        raise head.error(
            f"separate source and destination with a blank, not a comma: {_shown(pair)}", head.text.index(",")
        )
    if spaced := _SPACED_EQUALS.match(body):
        pair = f"{spaced[1]}={spaced[2]}"
        raise ParseError(f"no blanks around '=': write {_shown(pair)}", body.index("="))
    if rest and rest[0].text in _ARROWS:
        return (head, *_after_arrow(rest))
    if "=" in head.text:
        return (*_split_pair(head), rest)
    if rest and "=" not in rest[0].text:
        return head, rest[0], rest[1:]
    return head, None, rest


def _after_arrow(words: list[_Word]) -> tuple[_Word, list[_Word]]:
    arrow, rest = words[0], words[1:]
    if not rest or rest[0].text in _ARROWS or rest[0].text.partition("=")[0] in _KEYS:
        raise (rest or words)[0].error(f"the destination is missing after {arrow.text}")
    return rest[0], rest[1:]


def _split_pair(word: _Word) -> tuple[_Word, _Word]:
    source, _, dest = word.text.partition("=")
    # `platform=linux/amd64` alone would be the image `platform`: a line that was broken in two, never meant so.
    if not source or source in _KEYS:
        raise word.error(f"the source is missing before {_shown(word.text)}")
    if not dest:
        raise word.error("the destination is missing after '='", len(source))
    return _Word(source, word.offset), _Word(dest, word.offset + len(source) + 1)


def _reference(word: _Word) -> ImageRef:
    text = word.text
    if text.startswith("-"):
        raise word.error(f"{_shown(text)} is not an image; a list holds references, no options")
    if scheme := _SCHEME.match(text):
        raise word.error(f"only docker references are read, not {_shown(scheme[0])}: write [docker://]HOST/PATH:TAG")
    if "=" in text:
        raise word.error(f"a reference has no '=': {_shown(text)}", text.index("="))
    if odd := re.search(r"[^\x00-\x7f]", text):
        raise word.error(f"{_named(odd[0])} is not allowed in a reference", odd.start())
    try:
        return ImageRef.parse(text)
    except ParseError as error:
        raise word.error(str(error), error.offset) from error


def _destination(
    source: ImageRef, source_word: _Word, word: _Word | None, rewrite: Rewrite
) -> tuple[Destination, str | None]:
    """The destination without its host, and that host."""
    written = _reference(word) if word else None
    if word and written and written.digest:
        raise word.error("a destination has no digest; it goes to the source", word.text.index("@"))
    try:
        return _placed(source, written, rewrite), written.registry if written else None
    except ParseError as error:
        raise (word or source_word).error(str(error)) from error


def _placed(source: ImageRef, written: ImageRef | None, rewrite: Rewrite, tag: str | None = None) -> Destination:
    """`tag` is the one where neither the source nor what is written has any."""
    tag = (written.tag if written else None) or source.tag or tag
    if not tag and source.digest:
        raise ParseError("the source has a digest but no tag: give the destination a tag")
    repository = written.repository if written else rewritten(source, rewrite)
    return Destination(repository, tag or "latest")


def rewritten(source: ImageRef, rewrite: Rewrite) -> str:
    """The repository for a source whose line names no destination. Raises ParseError where that would be no name.

    The colon before a port becomes an underscore, which no host's name has: two hosts never become one.
    """
    host = f"{source.registry.lower().replace(':', '_')}/" if rewrite.keep_host and source.registry else ""
    repository = f"{rewrite.prefix}{host}{source.repository}"
    if not is_repository(repository):
        raise ParseError(f"rewrite: makes it {_shown(repository)}, which is no repository's name: write a destination")
    return repository


def _moving_note(source: ImageRef) -> str:
    if source.digest or source.tag not in {None, "latest"}:
        return ""
    return "`latest` is a moving tag; pin a digest" if source.tag else "no tag given, latest is meant"


def _platforms(options: list[_Word]) -> tuple[Platform, ...]:
    """Checks all options; the platforms are the only one with a meaning."""
    platforms: set[Platform] = set()
    seen: set[str] = set()
    for word in options:
        key, equals, value = word.text.partition("=")
        _check_option(word, key, equals)
        if key in seen or not value:
            raise word.error(f"{key}= stands twice" if key in seen else f"{key}= needs a value")
        seen.add(key)
        if key == "platform" and value != "all":
            platforms.update(_parse_platforms(_Word(value, word.offset + len(key) + 1)))
    return tuple(sorted(platforms))


def _check_option(word: _Word, key: str, equals: str) -> None:
    if not equals or not key:
        raise word.error(f"expected key=value without blanks, got {_shown(word.text)}")
    if key not in _KEYS:
        near = get_close_matches(key, _KEYS, n=1)
        advice = f"did you mean {near[0]}=?" if near else f"known are {', '.join(_KEYS)}"
        raise word.error(f"unknown option {_shown(key)}; {advice}")


def _parse_platforms(word: _Word) -> Iterator[Platform]:
    index = 0
    for text in word.text.split(","):
        try:
            yield Platform.parse(text)
        except ParseError as error:
            raise word.error(str(error), index) from error
        index += len(text) + 1


def _named(char: str) -> str:
    name = unicodedata.name(char, "a control character" if unicodedata.category(char) == "Cc" else "unnamed")
    return f"U+{ord(char):04X} ({name})"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "…")
