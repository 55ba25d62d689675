"""Keys with `image` at their end, in whatever spelling: `sidecarImage`, `SIDECAR_IMAGE`, `sidecar-image-name`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from regwrap.lists.manifests.mapping import Fields, Mention, plain
from regwrap.lists.manifests.parts import NAMES, REPOSITORIES, TAGS, Parts, parts_of
from regwrap.lists.manifests.reference import has_host, references_in
from regwrap.lists.yaml_nodes import Scalar

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENDINGS: Final = ("imagerepository", "imagename", "imagerepo", "image")
_NO_PLACE: Final = "its registry stands elsewhere, or the operator knows it: add the image to the list yourself"
# `dockerImage: a/b` is what `image: a/b` is: the tag beside it is its own
_PLAIN: Final = ("docker", "container", "base", "oci", "main", "default")


def other_keys(fields: Fields) -> Iterator[Mention]:
    """With a tag in the text or beside it (`sidecarTag`). Without one only what has a host is worth a note: the others
    are pictures, names, switches."""
    for name, value in fields.node.pairs:
        key = plain(name.text or "")
        ending = next((ending for ending in _ENDINGS if key.endswith(ending)), None)
        if ending is None or key == ending or not isinstance(value, Scalar) or not value.text:
            continue
        prefix = key.removesuffix(ending)
        if prefix == "default" and ending != "image" and "/" not in value.text:
            continue  # where the images of a chart are, not one of them
        parts = _with_tag(parts_of(fields, prefix=prefix), prefix, fields)
        if fields.context.is_resource and parts.tag and not set(parts.name) & set("/:@"):
            yield Mention(key=f"{name.text}", node=value, text="", used=(value, *parts.used), why=_NO_PLACE)
        elif references_in(parts.text, says_image=True) or (not parts.has_tag_key and has_host(parts.text)):
            yield Mention(key=f"{name.text}", node=value, text=parts.text, used=(value, *parts.used))


def _with_tag(parts: Parts, prefix: str, fields: Fields) -> Parts:
    """With the tag beside it that has no prefix, where it can belong to no other image."""
    if parts.tag or parts.digest or parts.own_tag or fields.has((*NAMES, *REPOSITORIES)):
        return parts
    images = sum(plain(key.text or "").endswith(_ENDINGS) for key, _value in fields.node.pairs)
    beside = fields.scalar(*TAGS) if prefix in _PLAIN else fields.scalar("tag", "imagetag")
    if images != 1 or beside is None:
        return parts
    return replace(parts, tag=f"{beside.text}".strip(), used=(*parts.used, beside), has_tag_key=True)
