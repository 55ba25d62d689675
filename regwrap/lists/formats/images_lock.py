"""Carvel's ImagesLock (imgpkg, kbld): digests, with kbld's name for each as an annotation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from regwrap.lists.formats.values import BadValueError, Found, items_of, needed, reference_of, scalar_of, text_of
from regwrap.lists.formats.verdicts import READ

if TYPE_CHECKING:
    from regwrap.core.model import ImageRef
    from regwrap.lists.yaml_nodes import Node

_LOCK: Final = dict.fromkeys(("apiVersion", "kind", "images"), READ)


_LOCK_IMAGE: Final = dict.fromkeys(("image", "annotations"), READ)


def read_lock(found: Found, root: Node) -> None:
    fields = found.fields(root, "", _LOCK)
    version = needed(fields, "apiVersion", root, "ImagesLock")
    if not text_of(version, "apiVersion").startswith("imgpkg.carvel.dev/"):
        raise BadValueError(version, "`apiVersion`: expected imgpkg.carvel.dev/v1alpha1")
    for node in items_of(fields["images"], "images") if "images" in fields else ():
        with found.collected():
            entry = found.fields(node, "images", _LOCK_IMAGE)
            name = needed(entry, "image", node, "images")
            image = reference_of(name, text_of(name, "images.image"))
            if not image.digest:
                raise BadValueError(name, "`images.image`: a lock names digests (name@sha256:…)")
            found.add(name, image, tag=_kbld_tag(image, entry.get("annotations")))


def _kbld_tag(image: ImageRef, annotations: Node | None) -> str | None:
    """The tag under which kbld found the image, if it was in the same repository."""
    name = scalar_of(annotations, "kbld.carvel.dev/id") if annotations else None
    try:
        original = reference_of(name, name.text) if name and name.text else None
    except BadValueError:  # any text may stand there: ko://… is none of ours
        return None
    return original.tag if original and original.name == image.name else None
