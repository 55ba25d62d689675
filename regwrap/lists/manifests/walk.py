"""The walk over a document: every mapping is shown to every form, every other text is looked at by itself."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from regwrap.lists import yaml_nodes
from regwrap.lists.manifests.forms import FORMS
from regwrap.lists.manifests.lists_of_images import is_unwanted
from regwrap.lists.manifests.mapping import Context, Fields, Mention, fields_of, plain
from regwrap.lists.manifests.reference import MAX_TEXT, references_in
from regwrap.lists.yaml_nodes import Node, Scalar, Sequence
from regwrap.lists.yaml_read import read_documents

if TYPE_CHECKING:
    from collections.abc import Iterator

# What runs already, what others wrote about it, what it was before: all name images that may be old.
_STATUS: Final = "status"
_METADATA: Final = "metadata"
_NEVER: Final = {"kubectl.kubernetes.io/last-applied-configuration", "managedFields", "description", "$schema"}
_SCHEMA: Final = "CustomResourceDefinition"
_MAX_EMBEDDED: Final = 3
# JSON, several lines, or one line with a key or a dash
_EMBEDDED: Final = re.compile(r"[\[{]|[^\n]*\n\s*\S|\s*(?:- |export |[\w.-]+(?::\s|\s+=\s))")
_WORTH_READING: Final = re.compile(r"image|repository|@sha256:|/[^\s\"'/]*:\w", re.IGNORECASE)
# `key: value`, and `key = "value"` of TOML, INI, shells
_KEYED: Final = re.compile(r"""\s*(?:-\s+|export\s+)?["']?([\w./][\w./-]*)["']?(?:\s*:\s+|\s*=\s*)(.+?),?\s*""")


class Walk:
    """Of one document, and of the texts in it that are documents themselves."""

    def __init__(self, depth: int = 0) -> None:
        self.depth = depth
        self.used: set[int] = set()

    def mentions(self, root: Node) -> Iterator[Mention]:
        pending: list[tuple[Node, Context]] = [(root, Context())]
        while pending:
            node, context = pending.pop()
            if isinstance(node, yaml_nodes.Mapping):
                fields = fields_of(node, context)
                yield from self._by_forms(fields)
                pending += reversed(list(_children(fields)))
            elif isinstance(node, Sequence):
                pending += [(item, context) for item in reversed(node.items)]
            elif node.text and id(node) not in self.used:
                yield from self._in_text(node, node.text, context)

    def _by_forms(self, fields: Fields) -> Iterator[Mention]:
        if fields.context.is_free:
            return
        used: set[int] = set()  # of this mapping: an alias stands for the same nodes elsewhere
        for form in FORMS if id(fields.node) not in self.used else ():
            for mention in form(fields):
                if id(mention.node) not in used:
                    used.update(map(id, (mention.node, *mention.used)))
                    yield replace(mention, is_sure=False) if fields.context.is_default else mention
        self.used |= used

    def _in_text(self, node: Scalar, text: str, context: Context) -> Iterator[Mention]:
        if self.depth < _MAX_EMBEDDED and _EMBEDDED.match(text) and _WORTH_READING.search(text):
            yield from self._embedded(node, text, context)
            return
        for found in references_in(text, key=context.key, says_image=context.says_image):
            yield Mention(key=context.key, node=node, text=found)

    def _embedded(self, node: Scalar, text: str, context: Context) -> Iterator[Mention]:
        """A text of several lines, or in JSON: a document, or else lines."""
        roots, odd = read_documents(text, node.line)
        is_broken = any(not oddity.is_harmless for oddity in odd)
        if is_broken or not any(isinstance(root, yaml_nodes.Mapping | Sequence) for root in roots):
            yield from _in_lines(node, text, context)
            return
        walk = Walk(self.depth + 1)
        for root in roots:
            for mention in walk.mentions(root):
                at = mention.node.line if node.is_block else node.line
                yield replace(mention, node=Scalar(mention.text, at, mention.node.column), is_sure=False)


def _in_lines(node: Scalar, text: str, context: Context) -> Iterator[Mention]:
    for number, line in enumerate(text.split("\n"), start=node.line + 1):
        if len(line) > MAX_TEXT:
            continue
        keyed = _KEYED.fullmatch(line)
        key, value = (keyed[1], keyed[2]) if keyed else (context.key, line)
        beside = Context(key=key, above=context.above)
        for found in references_in(value, key=key, says_image=beside.says_image):
            at = Scalar(found, number if node.is_block else node.line, node.column)
            yield Mention(key=context.key, node=at, text=found)


def _children(fields: Fields) -> Iterator[tuple[Node, Context]]:
    context = fields.context
    is_resource = fields.has(("kind",)) and fields.has(("apiversion",))
    if _is_schema(fields, is_resource=is_resource):
        yield from _defaults(fields.node)
        return
    is_compose = isinstance(fields.values.get("services"), yaml_nodes.Mapping) and context.above is None
    for key, value in fields.node.pairs:
        text = f"{key.text}"
        if text in _NEVER or (is_resource and text == _STATUS) or is_unwanted(plain(text)):
            continue
        child = Context(
            key=text,
            above=fields,
            is_resource=is_resource or context.is_resource,
            is_service=context.key == "services" and context.is_service,
            is_free=context.is_free or (is_resource and text == _METADATA),
            is_default=context.is_default,
        )
        child.is_service = child.is_service or (is_compose and text == "services")
        yield value, child


def _is_schema(fields: Fields, *, is_resource: bool) -> bool:
    is_definition = is_resource and fields.text("kind") == _SCHEMA
    return is_definition or (fields.context.above is None and fields.has(("$schema",)) and fields.has(("properties",)))


def _defaults(root: Node) -> Iterator[tuple[Node, Context]]:
    """What a schema sets where nothing is given; all else in it describes."""
    pending: list[tuple[Node, Context]] = [(root, Context())]
    while pending:
        node, context = pending.pop()
        if isinstance(node, yaml_nodes.Mapping):
            fields = fields_of(node, context)
            together = yaml_nodes.Mapping(tuple(_property_defaults(node)), node.line, node.column)
            if context.key == "properties" and together.pairs:
                yield together, Context(key=context.above.context.key if context.above else "", is_default=True)
            for key, value in node.pairs:
                if key.text != "default":
                    pending.append((value, Context(key=f"{key.text}", above=fields)))
                elif not context.above or context.above.context.key != "properties":
                    yield value, replace(context, is_default=True)
        elif isinstance(node, Sequence):
            pending += [(item, context) for item in node.items]


def _property_defaults(node: yaml_nodes.Mapping) -> Iterator[tuple[Scalar, Node]]:
    """What all properties are where none is given: a tag may be one, and its repository another."""
    for name, schema in node.pairs:
        for key, value in schema.pairs if isinstance(schema, yaml_nodes.Mapping) else ():
            if key.text == "default":
                yield name, value
