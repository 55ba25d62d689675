"""One line of images.list: the grammar, and for every refusal the column. Pure.

    line  := SP* (comment | entry)?
    entry := [ "--platform=" PLATFORMS SP+ ] SRC [ (SP+ | SP*"=>"SP* | SP*"->"SP* | "=") DST ] { SP+ key=value }
             [ SP+ "#" text ]
    SRC   := REFERENCE | docker-archive:FILE[:REF] | oci-archive:FILE[:REF] | oci:DIR:TAG | dir:DIR
    key   := platform (linux/amd64,linux/arm64 or all) | name | group

Nothing of a line is guessed at: what the grammar does not know is an error.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from regwrap.core.archive_ref import ArchiveRef, is_archive
from regwrap.core.errors import UsageError
from regwrap.core.model import ImageRef, ParseError, Platform

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LINE: Final = 4096
MAX_IMAGES: Final = 100_000
HINT: Final = "a line is: SRC [DST] [platform=linux/amd64,linux/arm64|all] [name=…] [group=…] [# comment]"

_KEYS: Final = ("platform", "name", "group")
_ARROWS: Final = ("=>", "->")
_PLATFORM_OPTION: Final = "--platform"
_COMMENT: Final = re.compile(r"(?:^|(?<=[ \t]))#")
_WORD: Final = re.compile(r"=>|->|(?:(?!=>|->)[^ \t])+")
_SPACED_EQUALS: Final = re.compile(r"[ \t]*([^ \t=>]+)(?:[ \t]+=[ \t]*|=[ \t]+)([^ \t=>]+)")
_VERSION: Final = re.compile(r"v?[0-9]+(?:[._+-][A-Za-z0-9]+)*|latest|stable|nightly|edge|main|master")
_TEMPLATE: Final = re.compile(r"\{\{|\$[{(]|\$[A-Za-z_]")
_PATTERN: Final = re.compile(r"[*?]")
# Skopeo's transports need no slashes: `oci:dir` is one. An image of that name can be written `docker://oci:tag`.
_SCHEME: Final = re.compile(
    r"(?!docker://)(?:[A-Za-z][A-Za-z0-9+.-]*://"
    r"|(?:oci|oci-archive|docker-archive|docker-daemon|dir|containers-storage|ostree|sif|tarball):)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedLine:
    """What a line says. `dest` is None where it says none; `text` is the line without its comment."""

    source: ImageRef
    dest: ImageRef | None
    platforms: tuple[Platform, ...]
    text: str
    dest_offset: int


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    offset: int

    def error(self, message: str, index: int = 0) -> ParseError:
        return ParseError(message, self.offset + index)


def too_many_images(where: str, most: int) -> UsageError:
    return UsageError(f"{where}: more than {most} images", hint="split the list")


def parse_line(raw: bytes) -> ParsedLine | None:
    """None for an empty line or a comment. Raises ParseError."""
    body = _body(_decoded(raw))
    words = [_Word(match[0], match.start()) for match in _WORD.finditer(body)]
    if not words:
        return None
    _refuse_templates(body)
    words, before = _without_platform(words)
    source_word, dest_word, options = _split(words, body)
    source = _source(source_word)
    dest = _reference(dest_word) if dest_word else None
    if dest_word and dest and dest.digest:
        raise dest_word.error("a destination has no digest; put it at the source", dest_word.text.index("@"))
    return ParsedLine(
        source=source,
        dest=dest,
        platforms=_platforms([*before, *options]),
        text=body.strip(" \t"),
        dest_offset=(dest_word or source_word).offset,
    )


def _refuse_templates(body: str) -> None:
    if template := _TEMPLATE.search(body):
        what = "a template" if template[0] == "{{" else "a variable"
        message = f"{what} ({template[0]}) is not expanded: render the list first, or write the text out"
        raise ParseError(message, template.start())


def _without_platform(words: list[_Word]) -> tuple[list[_Word], list[_Word]]:
    """The words behind `--platform=linux/amd64`, as docker's option is written in front of images; and the option."""
    option, equals, value = words[0].text.partition("=")
    if option != _PLATFORM_OPTION:
        return words, []
    rest = words[1:] if equals else words[2:]
    if not rest:
        raise words[0].error("the image is missing after --platform")
    found = value if equals else words[1].text
    return rest, [_Word(f"platform={found}", words[0].offset + 2)]


def _decoded(raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        offset = len(raw[: error.start].decode())
        raise ParseError(f"the byte 0x{raw[error.start]:02x} is not UTF-8", offset) from error
    if len(text) > MAX_LINE:
        raise ParseError(f"the line has {len(text)} characters; the limit is {MAX_LINE}", MAX_LINE)
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
        _refuse_version(head, rest[0])
        return head, rest[0], rest[1:]
    return head, None, rest


def _refuse_version(source: _Word, dest: _Word) -> None:
    if _VERSION.fullmatch(dest.text) and not re.search("[:@]", source.text.rpartition("/")[2]):
        raise dest.error(f"a tag follows a colon: write {_shown(f'{source.text}:{dest.text}')}")


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


def _source(word: _Word) -> ImageRef:
    if not is_archive(word.text):
        return _reference(word)
    try:
        return ArchiveRef.parse(word.text)
    except ParseError as error:
        raise word.error(str(error), error.offset) from error


def _reference(word: _Word) -> ImageRef:
    text = word.text
    if text.startswith("-"):
        raise word.error(f"{_shown(text)} is not an image; a list has references, not options")
    if scheme := _SCHEME.match(text):
        raise word.error(
            f"only docker references are supported here, not {_shown(scheme[0])}: write [docker://]HOST/PATH:TAG"
        )
    if "=" in text:
        raise word.error(f"a reference has no '=': {_shown(text)}", text.index("="))
    if odd := re.search(r"[^\x00-\x7f]", text):
        raise word.error(f"{_named(odd[0])} is not allowed in a reference", odd.start())
    if pattern := _PATTERN.search(text):
        message = f"{_shown(text)} is a pattern; it goes under images: in the configuration, for regwrap lock"
        raise word.error(message, pattern.start())
    if text.endswith(":"):
        raise word.error("the tag is missing after the colon", len(text) - 1)
    try:
        return ImageRef.parse(text)
    except ParseError as error:
        raise word.error(str(error), error.offset) from error


def _platforms(options: list[_Word]) -> tuple[Platform, ...]:
    """Checks all options; the platforms are the only one with a meaning."""
    platforms: set[Platform] = set()
    seen: set[str] = set()
    for word in options:
        key, equals, value = word.text.partition("=")
        _check_option(word, key, equals)
        if key in seen or not value:
            raise word.error(f"{key}= is given twice" if key in seen else f"{key}= needs a value")
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
