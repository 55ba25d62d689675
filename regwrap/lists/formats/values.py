"""What is found in a document: images, notes, problems; and the values of its nodes, each checked where it is read.

A key is read, noted, refused, or unknown, which is refused as well: nothing of a document is dropped in silence.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from regwrap.core.model import ImageRef, ParseError, Platform
from regwrap.lists import yaml_nodes
from regwrap.lists.line import MAX_IMAGES, too_many_images
from regwrap.lists.sniff import untagged_tag
from regwrap.lists.yaml_nodes import Node, Scalar, Sequence

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# `{{ env "REGISTRY" }}/…`, `${REGISTRY}/…`: the host of a destination, which does not count here
_TEMPLATE_HOST: Final = re.compile(r"(?:\{\{[^{}]*\}\}|\$\{[^{}]*\}|\$\w+)/(?=[^{}$]+$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedImage:
    """An image of a document. `dest` is None where the format leaves it open; `tag` is for a destination that gets none
    from its own text or from the source."""

    source: ImageRef
    dest: ImageRef | None
    tag: str | None
    platforms: tuple[Platform, ...]
    line: int
    column: int


class BadValueError(Exception):
    """A value is not what it should be; reported with its line, and the next image is looked at."""

    def __init__(self, node: Node, message: str) -> None:
        super().__init__(message)
        self.node = node


class Verdict(Enum):
    """What becomes of a key of another tool's list."""

    READ = auto()
    NOTED = auto()
    REFUSED = auto()


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of a key."""

    verdict: Verdict
    why: str = ""


@dataclass(slots=True)
class Found:
    """What was found so far."""

    tool: str
    name: str
    images: list[ListedImage] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    problems: list[tuple[int, int, str]] = field(default_factory=list)

    def note(self, node: Node, message: str) -> None:
        """A note is given once, with the line where it first holds."""
        self.notes.setdefault(message, node.line)

    @contextmanager
    def collected(self) -> Iterator[None]:
        try:
            yield
        except BadValueError as bad:
            self.problems.append((bad.node.line, bad.node.column, str(bad)))

    def dest(self, node: Node, text: str) -> ImageRef:
        """A destination. Where its host is a template it is left out, as hosts of destinations are."""
        if host := _TEMPLATE_HOST.match(text):
            what = (
                f"{shown(host[0][:-1])[1:-1]} is left out: the destination's registry comes from --dest or the archive"
            )
            self.note(node, what)
            return reference_of(node, text[host.end() :], None)
        return reference_of(node, text)

    def add(
        self,
        node: Node,
        source: ImageRef,
        *,
        dest: ImageRef | None = None,
        tag: str | None = None,
        platforms: tuple[Platform, ...] = (),
    ) -> None:
        if len(self.images) >= MAX_IMAGES:
            raise too_many_images(f"{self.name}:{node.line}", MAX_IMAGES)
        if dest and dest.digest:
            raise BadValueError(node, "a destination has no digest; put it at the source")
        if source.digest and not source.tag and not tag and not (dest and dest.tag):
            tag = untagged_tag(source.digest)
            self.note(node, "a digest without a tag is kept under the tag sha256-….untagged")
        image = ListedImage(source=source, dest=dest, tag=tag, platforms=platforms, line=node.line, column=node.column)
        self.images.append(image)

    def fields(self, node: Node, path: str, rules: Mapping[str, Rule]) -> dict[str, Node]:
        """The values of a mapping that are read. All else is noted or refused, and so is what `rules` do not know."""
        read: dict[str, Node] = {}
        for key, value in pairs_of(node, path):
            with self.collected():
                if self._is_read(key, value, f"{path}.{key.text}" if path else f"{key.text}", rules):
                    read[f"{key.text}"] = value
        return read

    def _is_read(self, key: Scalar, value: Node, path: str, rules: Mapping[str, Rule]) -> bool:
        text = f"{key.text}"
        rule = rules.get("x-" if text.startswith("x-") else text)
        if rule is None:
            near = get_close_matches(text[:60], rules, n=1)
            advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(rules)}"
            raise BadValueError(key, f"unknown key {quoted(path)}; {advice}")
        if rule.verdict is Verdict.REFUSED and not says_nothing(value):
            raise BadValueError(key, f"{quoted(path)} {rule.why}")
        if rule.verdict is Verdict.NOTED and not is_null(value):
            self.note(key, f"{self.tool}'s {quoted(path)} has no meaning here: {rule.why}")
        return rule.verdict is Verdict.READ and not is_null(value)


# --- values


def pairs_of(node: Node, path: str) -> tuple[tuple[Scalar, Node], ...]:
    if isinstance(node, yaml_nodes.Mapping):
        return node.pairs
    raise BadValueError(node, f"{quoted(path)}: expected a mapping (key: value), got {_kind(node)}")


def keys_of(node: Node) -> dict[str, Node]:
    """The values of a mapping; nothing of anything else."""
    return {f"{key.text}": value for key, value in node.pairs} if isinstance(node, yaml_nodes.Mapping) else {}


def items_of(node: Node, path: str) -> tuple[Node, ...]:
    if isinstance(node, Sequence):
        return node.items
    raise BadValueError(node, f"{quoted(path)}: expected a list, got {_kind(node)}")


def text_of(node: Node, path: str) -> str:
    if isinstance(node, Scalar) and node.text:
        return node.text
    raise BadValueError(node, f"{quoted(path)}: expected a string, got {_kind(node)}")


def needed(fields: Mapping[str, Node], key: str, node: Node, path: str) -> Node:
    if key in fields:
        return fields[key]
    raise BadValueError(node, f"{quoted(f'{path}.{key}')} is missing")


def reference_of(node: Node, text: str, registry: str | None = "docker.io") -> ImageRef:
    """These tools take an image without a host for one of Docker Hub, under either of its names; None leaves it so."""
    if odd := re.search(r"\{\{|\$", text):
        raise BadValueError(
            node, f"templates and variables are not expanded, and {odd[0]} is not allowed in a reference"
        )
    try:
        image = ImageRef.parse(text)
        if image.registry is None and registry is not None:
            image = ImageRef.parse(f"{registry}/{image}")
        if image.registry == "index.docker.io":
            image = ImageRef.parse(f"docker.io/{replace(image, registry=None)}")
    except ParseError as error:
        raise BadValueError(node, str(error)) from error
    if image.registry is None and registry is not None:
        raise BadValueError(node, f"not a host: {shown(registry)}")
    return image


def platforms_of(node: Node | None, path: str) -> tuple[Platform, ...]:
    if node is None:
        return ()
    try:
        return (Platform.parse(text_of(node, path)),)
    except ParseError as error:
        raise BadValueError(node, str(error)) from error


def scalar_of(node: Node, key: str) -> Scalar | None:
    pairs = node.pairs if isinstance(node, yaml_nodes.Mapping) else ()
    return next((value for name, value in pairs if name.text == key and isinstance(value, Scalar)), None)


def is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.text is None


def says_nothing(node: Node) -> bool:
    match node:
        case Scalar(text=text):
            return (text or "").lower() in {"", "false"}
        case Sequence(items=items):
            return not items
        case yaml_nodes.Mapping(pairs=pairs):
            return not pairs


def _kind(node: Node) -> str:
    # A value is not shown: where a mistake is, there may be a password.
    match node:
        case Scalar(text=text):
            return "a text" if text else "nothing"
        case Sequence():
            return "a list"
        case yaml_nodes.Mapping():
            return "a mapping"


def quoted(path: str) -> str:
    return f"`{shown(path)[1:-1]}`"


def shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "…")
