"""YAML, and JSON as a part of it, as plain values or as nodes that know their lines. The only importer of yaml.

Files come from people and from other programs, so only what can't hurt is taken: no objects, no aliases (with which a
small file grows without end), no key twice. How large a file may be, its reader says.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, TypeVar

import yaml

from regwrap.core.errors import UsageError
from regwrap.lists.yaml_nodes import Mapping, Node, Scalar, Sequence

if TYPE_CHECKING:
    from collections.abc import Callable

_STANDARD: Final = "tag:yaml.org,2002:"
_SCALARS: Final = {"str", "int", "float", "bool", "null", "timestamp", "value"}

T = TypeVar("T")


def parse_value(text: str, name: str) -> object:
    """The document in `text` as Python's values, None where there is none. Raises UsageError with `name` and line."""
    return _read(lambda: _Loader(text).get_single_data(), text, name)


def parse_documents(text: str, name: str) -> tuple[Node, ...]:
    """The documents in `text`. No scalar is interpreted. Raises UsageError with `name` and line."""
    return _read(lambda: tuple(_documents(_Loader(text))), text, name)


def _read(read: Callable[[], T], text: str, name: str) -> T:
    try:
        return read()
    except yaml.MarkedYAMLError as error:
        what = ", ".join(part for part in (error.context, error.problem) if part)
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise UsageError(f"{where}: {what[:200]}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        raise UsageError(f"{name}:{line}:{column}: a control character, which YAML does not allow") from error
    except (RecursionError, ValueError, OverflowError) as error:  # also a date or a number that Python can't hold
        what = "too deeply nested" if isinstance(error, RecursionError) else f"a value can't be read: {error}"
        raise UsageError(f"{name}: {what[:200]}") from error


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases and without keys that stand twice."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            what = "aliases (*name) are not supported; write out what they stand for"
            raise yaml.MarkedYAMLError(problem=what, problem_mark=mark)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: dict[object, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key in (key for key, _value in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in lines:
                what = f"the key {_shown(key.value)} stands twice, first in line {lines[key.value]}"
                raise yaml.MarkedYAMLError(problem=what, problem_mark=key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        return node


def _documents(loader: _Loader) -> list[Node]:
    documents = []
    while loader.check_node() and (root := loader.get_node()):
        documents.append(_node(root))
    return documents


def _node(node: yaml.Node) -> Node:
    line, column = node.start_mark.line + 1, node.start_mark.column + 1
    kind = node.tag.removeprefix(_STANDARD)
    if isinstance(node, yaml.ScalarNode) and kind in _SCALARS:
        return Scalar(text=None if kind == "null" else node.value, line=line, column=column)
    if isinstance(node, yaml.SequenceNode) and kind == "seq":
        return Sequence(items=tuple(_node(item) for item in node.value), line=line, column=column)
    if isinstance(node, yaml.MappingNode) and kind == "map":
        return Mapping(pairs=tuple((_key(key), _node(value)) for key, value in node.value), line=line, column=column)
    what = "merged mappings (<<) are" if kind == "merge" else f"the tag {_shown(node.tag)} is"
    raise yaml.MarkedYAMLError(problem=f"{what} not supported", problem_mark=node.start_mark)


def _key(key: yaml.Node) -> Scalar:
    scalar = _node(key)
    if isinstance(scalar, Scalar) and scalar.text:
        return scalar
    raise yaml.MarkedYAMLError(problem="a key has to be a text", problem_mark=key.start_mark)


def _shown(text: str) -> str:
    return json.dumps(text if len(text) <= 60 else f"{text[:60]}...", ensure_ascii=not text.isprintable())
