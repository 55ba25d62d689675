"""A value whose name says what it is: variables of containers, parameters of Tekton and Argo."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from regwrap.lists.manifests.mapping import Context, Fields, Mention, fields_of, plain
from regwrap.lists.manifests.other_keys import other_keys
from regwrap.lists.manifests.parts import NAMES, parts_of
from regwrap.lists.manifests.reference import has_host, references_in
from regwrap.lists.yaml_nodes import Mapping, Node, Scalar, Sequence

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


def named_parts(fields: Fields) -> Iterator[Mention]:
    """Parts of an image in a list of names and values: `image.repository` and `image.tag` (parameters for Helm in
    Argo's Applications), SIDECAR_IMAGE and SIDECAR_TAG (variables)."""
    for key, value in fields.values.items():
        named = dict(_named(value))
        groups: dict[str, list[str]] = {}
        for name in named:
            groups.setdefault(name.rpartition(".")[0], []).append(name)
        for group, names in groups.items() if len(named) > 1 else ():
            pairs = tuple((Scalar(name.rpartition(".")[2], *_at(named[name][1])), named[name][1]) for name in names)
            node = Mapping(pairs, value.line, value.column)
            together = fields_of(node, Context(key=group.rpartition(".")[2] or key, above=fields))
            items = {id(named[name][1]): named[name][0] for name in names}
            for mention in _put_together(together, is_group=bool(group)):
                yield replace(mention, key=group or mention.key, used=(*mention.used, *_items(mention, items)))


def _put_together(fields: Fields, *, is_group: bool) -> Iterator[Mention]:
    if not is_group:
        yield from (each for each in other_keys(fields) if len(each.used) > 2)
        return
    parts = parts_of(fields, names=(*NAMES, "name") if fields.context.says_image else NAMES)
    if parts.name and (parts.tag or parts.digest) and "://" not in parts.name:
        yield Mention(key="", node=parts.used[0], text=parts.text, used=parts.used)


def _named(node: Node) -> Iterator[tuple[str, tuple[Mapping, Scalar]]]:
    for item in node.items if isinstance(node, Sequence) else ():
        if isinstance(item, Mapping):
            keys = {key.text: value for key, value in item.pairs}
            name, value = keys.get("name"), keys.get("value")
            if isinstance(name, Scalar) and name.text and isinstance(value, Scalar) and value.text:
                yield name.text, (item, value)


def _items(mention: Mention, items: dict[int, Mapping]) -> Iterator[Mapping]:
    """The items whose values an image was made of: no other form looks at them."""
    return (items[id(node)] for node in mention.used)


def _at(node: Node) -> tuple[int, int]:
    return node.line, node.column


def _is_in_template(fields: Fields) -> bool:
    """Whether it is a parameter of OpenShift's templates, where a name alone is an ImageStream of the cluster."""
    above: Fields | None = fields
    while above is not None:
        if above.text("kind") == "Template":
            return True
        above = above.context.above
    return False


def _scalars(node: Node | None) -> tuple[Scalar, ...]:
    items = node.items if isinstance(node, Sequence) else (node,)
    return tuple(item for item in items if isinstance(item, Scalar))
