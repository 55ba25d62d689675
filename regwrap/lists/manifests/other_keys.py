"""Keys with `image` at their end, in whatever spelling: `sidecarImage`, `SIDECAR_IMAGE`, `sidecar-image-name`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from regwrap.lists.manifests.mapping import Fields, Mention, plain
from regwrap.lists.manifests.parts import parts_of
from regwrap.lists.manifests.reference import has_host, references_in
from regwrap.lists.yaml_nodes import Scalar

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENDINGS: Final = ("imagerepository", "imagename", "imagerepo", "image")


def other_keys(fields: Fields) -> Iterator[Mention]:
    """With a tag in the text or beside it (`sidecarTag`). Without one only what has a host is worth a note: the others
    are pictures, names, switches."""
    for name, value in fields.node.pairs:
        key = plain(name.text or "")
        ending = next((ending for ending in _ENDINGS if key.endswith(ending)), None)
        if ending is None or key == ending or not isinstance(value, Scalar) or not value.text:
            continue
        parts = parts_of(fields, prefix=key.removesuffix(ending))
        if references_in(parts.text, says_image=True) or (not parts.has_tag_key and has_host(parts.text)):
            yield Mention(key=f"{name.text}", node=value, text=parts.text, used=(value, *parts.used))
