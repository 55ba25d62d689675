"""A value whose name says what it is: variables of containers, parameters of Tekton and Argo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regwrap.lists.manifests.mapping import Fields, Mention, plain
from regwrap.lists.manifests.reference import has_host, references_in
from regwrap.lists.yaml_nodes import Node, Scalar, Sequence

if TYPE_CHECKING:
    from collections.abc import Iterator


def named_value(fields: Fields) -> Iterator[Mention]:
    """`{name: SIDECAR_IMAGE, value: busybox:1.36}`, `{name: builder-image, default: r.example/b:1}`."""
    name = fields.text("name", "key")
    if "image" not in plain(name):
        return
    for key in ("value", "default"):
        for value in _scalars(fields.values.get(key)):
            text = f"{value.text or ''}".strip()
            found = references_in(text, says_image=not _is_in_template(fields))
            if found or has_host(text):
                yield from (Mention(key=name, node=value, text=each) for each in found or (text,))


def _is_in_template(fields: Fields) -> bool:
    """Whether it is a parameter of OpenShift's templates, where a name alone is an ImageStream of the cluster."""
    above: Fields | None = fields
    while above is not None:
        if above.text("kind") == "Template":
            return True
        above = above.place.above
    return False


def _scalars(node: Node | None) -> tuple[Scalar, ...]:
    items = node.items if isinstance(node, Sequence) else (node,)
    return tuple(item for item in items if isinstance(item, Scalar))
