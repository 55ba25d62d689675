"""Kustomize's `images:`, which give names and tags to the images of other files."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from regwrap.lists.manifests.mapping import Fields, Mention
from regwrap.lists.manifests.parts import parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_OF_THE_BASE: Final = "its tag comes from the manifests it changes: give the output of kustomize build"


def kustomize(fields: Fields) -> Iterator[Mention]:
    """`{name: app, newName: r.example/app, newTag: v1}`; newTag or digest."""
    if not fields.has(("newname", "newtag")):
        return
    names = ("newname",) if fields.scalar("newname") else ("name",)
    parts = parts_of(fields, names=names)
    tag = fields.scalar("newtag")
    used = (*parts.used, *(node for node in (tag, fields.scalar("name")) if node))
    name = parts.name.removesuffix(f":{parts.own_tag}") if tag else parts.name
    parts = replace(parts, name=name, tag=f"{tag.text}".strip() if tag else "")
    if parts.name:
        yield Mention(key="images", node=used[0], text=parts.text, used=used, is_sure=True, why=_OF_THE_BASE)
