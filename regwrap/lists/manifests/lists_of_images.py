"""Lists of references: `images:` of zarf and others, oc-mirror's `additionalImages:`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from regwrap.lists import yaml_nodes
from regwrap.lists.manifests.mapping import Context, Fields, Mention, fields_of
from regwrap.lists.manifests.reference import has_host, references_in
from regwrap.lists.yaml_nodes import Scalar, Sequence

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOT_WANTED: Final = ("blocked", "exclude", "excluded", "ignore", "ignored", "skip", "skipped", "deny", "denied")


def lists_of_images(fields: Fields) -> Iterator[Mention]:
    """`images: [a/b:1, busybox:1.37]`, `additionalImages: [{name: a/b:1}]`; not what is to be left out."""
    for key, value in fields.values.items():
        if key.endswith("images") and isinstance(value, Sequence) and not is_unwanted(key):
            for item in value.items:
                yield from _item(key, item, fields)


def is_unwanted(key: str) -> bool:
    """Whether a key in plain spelling names what is to be left out."""
    return key.endswith("images") and key.startswith(_NOT_WANTED)


def _item(key: str, item: yaml_nodes.Node, above: Fields) -> Iterator[Mention]:
    if isinstance(item, yaml_nodes.Mapping):
        name = fields_of(item, Context(key=key, above=above)).scalar("name")
        if name and len(item.pairs) == 1:
            yield from _text(key, name)
    elif isinstance(item, Scalar):
        yield from _text(key, item)


def _text(key: str, node: Scalar) -> Iterator[Mention]:
    text = (node.text or "").strip()
    if "=" in text:  # old=new, as Argo gives images to kustomize
        for found in references_in(text, says_image=True):
            yield Mention(key=key, node=node, text=found, used=(node,), is_sure=True)
        return
    if key == "images" or references_in(text, says_image=True) or has_host(text):
        yield Mention(key=key, node=node, text=text, used=(node,), is_sure=True)
