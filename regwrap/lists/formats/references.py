"""A sequence of references, alone or below `images:`: texts, or mappings with the parts of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from regwrap.core.archive_ref import is_archive
from regwrap.lists import yaml_nodes
from regwrap.lists.formats.values import (
    BadValueError,
    Found,
    items_of,
    keys_of,
    quoted,
    reference_of,
    says_nothing,
    text_of,
)
from regwrap.lists.formats.verdicts import READ
from regwrap.lists.manifests.mapping import Context, fields_of
from regwrap.lists.manifests.parts import NAMES, parts_of
from regwrap.lists.yaml_nodes import Sequence

if TYPE_CHECKING:
    from regwrap.lists.yaml_nodes import Node

_LABELS: Final = ("name", "description", "comment")
_ROOT: Final = dict.fromkeys(("images", "version", "name"), READ)


def is_references(root: Node) -> bool:
    keys = keys_of(root)
    return isinstance(root, Sequence) or (isinstance(keys.get("images"), Sequence) and keys.keys() <= _ROOT.keys())


def read_references(found: Found, root: Node) -> None:
    if isinstance(root, yaml_nodes.Mapping):
        root = found.fields(root, "", _ROOT)["images"]
    add_references(found, items_of(root, "images"))


def add_references(found: Found, items: tuple[Node, ...]) -> None:
    """Each is a reference, or a mapping that parts of one stand in."""
    for item in items:
        with found.collected():
            found.add(item, reference_of(item, _text(item)))


def _text(item: Node) -> str:
    if not isinstance(item, yaml_nodes.Mapping):
        text = text_of(item, "images")
        if is_archive(text):
            raise BadValueError(item, f"{quoted(text)} is a file or directory: write it as a line of a plain list")
        return text
    parts = parts_of(fields_of(item, Context(key="images")), names=(*NAMES, "name"))
    if not parts.name:
        raise BadValueError(item, "not an image: expected a string, or a mapping with image: and tag:")
    for key, value in item.pairs:
        if not any(value is used for used in parts.used) and not says_nothing(value) and key.text not in _LABELS:
            raise BadValueError(key, f"unknown key {quoted(f'images.{key.text}')}; known are image, tag and the like")
    return parts.text
