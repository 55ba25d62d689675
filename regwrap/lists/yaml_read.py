"""YAML, and JSON as a part of it, as plain values or as nodes that know their lines. The only importer of yaml.

Files come from people and from other programs, so only what cannot hurt is taken: no objects, and aliases up to a bound
on what they unfold to. libyaml reads where PyYAML has it: it is several times faster, with the same lines.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import yaml

from regwrap.core.errors import UsageError
from regwrap.lists.yaml_nodes import Mapping, Node, Scalar, Sequence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_STANDARD: Final = "tag:yaml.org,2002:"
_SCALARS: Final = {"str", "int", "float", "bool", "null", "timestamp", "value"}
_NULLS: Final = {"", "~", "null", "Null", "NULL"}
_MAX_DEPTH: Final = 200
_MAX_VALUES: Final = 1_000_000  # events of the parser
_MAX_UNFOLDED: Final = 10  # times the length of the text
# What YAML 1.2 allows (5.1, Character Set). Both parsers refuse the rest, each in words of its own.
_CONTROL: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_BOUNDARY: Final = re.compile(r"^---(?=\s|$)", re.MULTILINE)
# A value or a line that begins with braces, as charts have it before they are rendered. YAML never means a text by it.
_TEMPLATE: Final = re.compile(r"""^[ ]*(?:- +)*(?:[^#"'\n:]+:[ ]+)?(\{\{)""", re.MULTILINE)
_IS_TEMPLATE: Final = "is a template ({{): render it first (helm template CHART); this document is left out"
_JSON: Final = re.compile(r"\s*(?:(?:#[^\n]*\n|---)\s*)*[{\[]")
_BLANKS: Final = re.compile(r"\s*")


class NotReadError(Exception):
    """A document cannot be read; `line` and `column` count from 1."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Oddity:
    """Something in a file that is not read as it stands, or not at all. `is_harmless`: all was read."""

    line: int
    column: int
    text: str
    is_harmless: bool = False


def parse_value(text: str, name: str) -> object:
    """The document in `text` as Python's values, None where there is none. Raises UsageError with `name` and line."""
    parse_documents(text, name)  # refuses all that is odd
    try:
        value: object = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text).get_single_data()
        return value
    except yaml.MarkedYAMLError as error:
        failed = _not_read(error, 0)
        raise UsageError(f"{name}:{failed.line}:{failed.column}: {failed}") from error
    except (ValueError, OverflowError) as error:  # a date or a number that Python cannot hold
        raise UsageError(f"{name}: a value cannot be read: {error}"[:200]) from error


def parse_documents(text: str, name: str) -> tuple[Node, ...]:
    """The documents in `text`. No scalar is interpreted. Raises UsageError with `name` and line for all that is odd."""
    try:
        return tuple(_Builder(text, 0, None).documents())
    except NotReadError as error:
        raise UsageError(f"{name}:{error.line}:{error.column}: {error}") from error


def read_documents(text: str, before: int = 0) -> tuple[list[Node], list[Oddity]]:
    """The documents in `text` that can be read, and what is odd in it. One that is broken hides no other.

    `before` is the number of lines before the text in its file.
    """
    documents: list[Node] = []
    odd: list[Oddity] = []
    budget = _Budget()
    for part, line in _parts(text):
        try:
            documents += _Builder(part, before + line, odd, budget).documents()
        except NotReadError as error:
            odd.append(_why(part, before + line, error))
            if budget.left < 0:
                break
    return documents, odd


def _why(part: str, line: int, error: NotReadError) -> Oddity:
    """A template is no YAML, and its author wants to hear that: in the line of the error, or wherever one begins."""
    lines = part.split("\n")
    of_error = lines[error.line - line - 1] if error.line - line <= len(lines) else ""
    if "{{" in of_error:
        return Oddity(error.line, of_error.index("{{") + 1, _IS_TEMPLATE)
    if template := _TEMPLATE.search(part):
        at = line + part.count("\n", 0, template.start(1)) + 1
        return Oddity(at, template.start(1) - part.rfind("\n", 0, template.start(1)), _IS_TEMPLATE)
    return Oddity(error.line, error.column, f"{error}; this document is left out")


def _parts(text: str) -> Iterator[tuple[str, int]]:
    """The documents as texts, each with the number of lines before it."""
    starts = [0, *(match.start() for match in _BOUNDARY.finditer(text) if match.start()), len(text)]
    line = 0
    for start, end in itertools.pairwise(starts):
        part = text[start:end]
        yield from ((piece, line + before) for piece, before in _json_pieces(part))
        line += part.count("\n")


def _json_pieces(part: str) -> list[tuple[str, int]]:
    """JSON documents one behind the other, as tools stream them; anything else stays one piece."""
    decoder, pieces, line = json.JSONDecoder(strict=False), list[tuple[str, int]](), 0
    start = end = 0
    while (start := _skipped(part, end)) < len(part):
        line += part.count("\n", end, start)
        if part[start] not in "{[":
            return [(part, 0)]
        try:
            _value, end = decoder.raw_decode(part, start)
        except (ValueError, RecursionError):
            return [(part, 0)]
        pieces.append((part[start:end], line))
        line += part.count("\n", start, end)
    return pieces if len(pieces) > 1 else [(part, 0)]


def _skipped(text: str, start: int) -> int:
    blanks = _BLANKS.match(text, start)
    return blanks.end() if blanks else start


class _Mark(Protocol):
    line: int
    column: int
    index: int


class _Event(Protocol):
    """What both parsers give; which of these there are depends on the event's class."""

    start_mark: _Mark
    end_mark: _Mark
    value: str
    tag: str | None
    anchor: str | None
    implicit: tuple[bool, bool]
    style: str | None


@dataclass(slots=True)
class _Open:
    """A collection whose end has not been read yet. `index` and `unfolded` are what had been read where it begins."""

    line: int
    column: int
    index: int
    unfolded: int
    anchor: str | None
    is_mapping: bool
    nodes: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class _Budget:
    """How many more values a file may have: they take memory and time, which its bytes say little of."""

    left: int = field(default_factory=lambda: _MAX_VALUES)

    def spend(self, line: int, column: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise NotReadError(line, column, f"the file has more than {_MAX_VALUES:,} values, split it")


class _Builder:
    """Makes nodes of a parser's events. What is odd is collected in `odd`, or refused where that is None."""

    def __init__(self, text: str, before: int, odd: list[Oddity] | None, budget: _Budget | None = None) -> None:
        self.budget = budget or _Budget()
        self.text = text.replace("\t", " ") if _JSON.match(text) else text  # JSON may be indented by tabs
        self.first = before + 1
        self.odd = odd
        self.unfolded = 0
        self.is_bounded = False
        self.anchors: dict[str, tuple[Node | None, int]] = {}

    def documents(self) -> Iterator[Node]:
        if control := _CONTROL.search(self.text):
            line = self.text.count("\n", 0, control.start())
            column = control.start() - self.text.rfind("\n", 0, control.start())
            raise NotReadError(self.first + line, column, "a control character, which YAML does not allow")
        try:
            yield from self._documents()
        except yaml.MarkedYAMLError as error:
            raise _not_read(error, self.first - 1) from error

    def _documents(self) -> Iterator[Node]:
        stack: list[_Open] = []
        node: Node
        for event in _events(self.text):
            kind: type[object] = type(event)
            self.budget.spend(self.first + event.start_mark.line, event.start_mark.column + 1)
            if kind is yaml.ScalarEvent:
                node = self._scalar(event)
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                stack.append(self._opened(event, len(stack), is_mapping=kind is yaml.MappingStartEvent))
                continue
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                node = self._closed(stack.pop(), event)
            elif kind is yaml.AliasEvent:
                node = self._alias(event)
            else:
                self.anchors.clear()
                continue
            if stack:
                stack[-1].nodes.append(node)
            else:
                yield node

    def _scalar(self, event: _Event) -> Scalar:
        mark, tag, text = event.start_mark, event.tag, event.value
        if tag is not None and self.odd is None:
            self._expect(tag, _SCALARS, event)
        is_null = text in _NULLS and event.implicit[0] if tag is None else tag == f"{_STANDARD}null"
        node = Scalar(None if is_null else text, self.first + mark.line, mark.column + 1, event.style in {"|", ">"})
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, len(text))
        return node

    def _opened(self, event: _Event, depth: int, *, is_mapping: bool) -> _Open:
        mark = event.start_mark
        if event.tag is not None and self.odd is None:
            self._expect(event.tag, {"map" if is_mapping else "seq"}, event)
        if depth >= _MAX_DEPTH:
            raise NotReadError(self.first + mark.line, mark.column + 1, "too deeply nested")
        return _Open(self.first + mark.line, mark.column + 1, mark.index, self.unfolded, event.anchor, is_mapping)

    def _closed(self, opened: _Open, event: _Event) -> Node:
        node: Node
        if opened.is_mapping:
            node = Mapping(self._pairs(opened.nodes), opened.line, opened.column)
        else:
            node = Sequence(tuple(opened.nodes), opened.line, opened.column)
        if opened.anchor is not None:
            size = event.end_mark.index - opened.index + self.unfolded - opened.unfolded
            self.anchors[opened.anchor] = (node, size)
        return node

    def _pairs(self, nodes: list[Node]) -> tuple[tuple[Scalar, Node], ...]:
        pairs: list[tuple[Scalar, Node]] = []
        merged: list[Node] = []
        lines: dict[str, int] = {}
        for key, value in zip(nodes[::2], nodes[1::2], strict=True):
            if isinstance(key, Sequence) and self.odd is not None:
                self._note(key, "a key must be a string; this one is left out")
                continue
            if not isinstance(key, Scalar) or (not key.text and self.odd is None):
                raise NotReadError(key.line, key.column, "a key must be a string")
            text = key.text or ""
            if text == "<<":
                merged += value.items if isinstance(value, Sequence) else (value,)
                continue
            if text in lines:
                self._note(key, f"the key {_shown(text)} stands twice, first in line {lines[text]}", is_harmless=True)
            lines.setdefault(text, key.line)
            pairs.append((key, value))
        for mapping in merged:
            pairs += self._merged(mapping, lines)
        return tuple(pairs)

    def _merged(self, node: Node, known: dict[str, int]) -> Iterator[tuple[Scalar, Node]]:
        if not isinstance(node, Mapping):
            self._note(node, "<< merges mappings, and this is none")
            return
        for key, value in node.pairs:
            if f"{key.text}" not in known:
                known[f"{key.text}"] = key.line
                yield key, value

    def _alias(self, event: _Event) -> Node:
        mark = event.start_mark
        node, size = self.anchors.get(f"{event.anchor}", (None, 0))
        if node is not None and not self.is_bounded and self.unfolded + size <= _MAX_UNFOLDED * len(self.text):
            self.unfolded += size
            return node
        nothing = Scalar(None, self.first + mark.line, mark.column + 1)
        name = f"*{event.anchor}"
        if node is None:
            self._note(nothing, f"the alias {_shown(name)[1:-1]} has no anchor before it")
        elif not self.is_bounded:
            self.is_bounded = True
            why = f"aliases unfold to more than {_MAX_UNFOLDED} times the file: {name} and what follows is not unfolded"
            self._note(nothing, why)
        return nothing

    def _expect(self, tag: str, known: set[str], event: _Event) -> None:
        if tag != "!" and tag.removeprefix(_STANDARD) not in known:
            line, column = self.first + event.start_mark.line, event.start_mark.column + 1
            raise NotReadError(line, column, f"the tag {_shown(tag)} is not supported")

    def _note(self, node: Node, what: str, *, is_harmless: bool = False) -> None:
        if self.odd is None:
            raise NotReadError(node.line, node.column, what)
        self.odd.append(Oddity(node.line, node.column, what, is_harmless))


def _events(text: str) -> Iterator[_Event]:
    parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    next_event: Callable[[], _Event | None] = parser.get_event
    while (event := next_event()) is not None:
        yield event


def _not_read(error: yaml.MarkedYAMLError, before: int) -> NotReadError:
    mark = error.problem_mark or error.context_mark
    what = ", ".join(part for part in (error.context, error.problem) if part)[:200]
    what = "too deeply nested" if "nesting depth" in what else what  # libyaml's own bound
    return NotReadError(before + mark.line + 1, mark.column + 1, what) if mark else NotReadError(before + 1, 1, what)


def _shown(text: str) -> str:
    return json.dumps(text if len(text) <= 60 else f"{text[:60]}...", ensure_ascii=not text.isprintable())
