"""zarf: the `images:` of a package's components. What its charts and manifests need stands there as well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from regwrap.lists import yaml_nodes
from regwrap.lists.formats.references import add_references
from regwrap.lists.formats.values import Found, items_of, pairs_of

if TYPE_CHECKING:
    from regwrap.lists.yaml_nodes import Node

_NOT_READ: Final = ("charts", "manifests", "files", "repos", "dataInjections")


def read_zarf(found: Found, root: Node) -> None:
    for key, value in pairs_of(root, ""):
        for component in items_of(value, "components") if key.text == "components" else ():
            with found.collected():
                _read_component(found, component)


def _read_component(found: Found, component: Node) -> None:
    for key, value in pairs_of(component, "components"):
        if key.text == "images":
            add_references(found, items_of(value, "components.images"))
        elif key.text in _NOT_READ and not (isinstance(value, yaml_nodes.Sequence) and not value.items):
            found.note(key, f"zarf's `{key.text}` are not read, only images are")
