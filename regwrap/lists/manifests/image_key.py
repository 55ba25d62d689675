"""`image:` and its like: a text, or a mapping, completed by what stands beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from regwrap.lists import yaml_nodes
from regwrap.lists.manifests.mapping import NO_TAG, Context, Fields, Mention, fields_of
from regwrap.lists.manifests.parts import NAMES, REGISTRIES, REPOSITORIES, TAGS, Parts, parts_of
from regwrap.lists.manifests.reference import has_host, is_picture
from regwrap.lists.yaml_nodes import Scalar, Sequence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regwrap.lists.yaml_nodes import Node

_KEYS: Final = (*NAMES, "imagerepository", "imagerepo")
_EMPTY: Final = "its tag is empty: render it first (helm template)"
_NOTHING: Final = "is not a complete image: render it first (helm template)"
_UNCLEAR: Final = "repository and name could be one name or two: add the image to the list yourself"
_BUILT: Final = "is built where it runs (build:): push it to a registry, and add that to the list"
_GO: Final = "is a path of Go sources that ko builds: add the image that it pushes to the list"
_TRIGGERED: Final = "is filled in by an ImageStream of the cluster (triggers:): add the image to the list yourself"
_INJECTED: Final = "is a placeholder for Istio's injector: add the injected image to the list"


def image_key(fields: Fields) -> Iterator[Mention]:
    """`image: a/b:1`, `image: a/b` beside `tag: 1`, `image: {registry: …, repository: …, tag: …}`."""
    for key in _KEYS:
        value = fields.values.get(key)
        if isinstance(value, yaml_nodes.Mapping):
            yield from _mapped(key, value, fields)
        elif isinstance(value, Scalar) and not is_picture(value.text or ""):
            yield from _text(key, value, fields)
            return


def _text(key: str, value: Scalar, fields: Fields) -> Iterator[Mention]:
    said = (value.text or "").strip()
    if not said and fields.scalar(*REPOSITORIES) is None:
        if key == "image":
            yield Mention(key=key, node=value, text="", why=_NOTHING, is_sure=True)
        return
    if fields.context.is_container and said:
        yield _of_container(key, value, said, fields)
        return
    parts = parts_of(fields)
    if key != "image" and not parts.tag and not parts.digest and "/" not in parts.name:
        return  # imageName: web says something else more often than not
    yield from _mentions(key, value, parts)


def _of_container(key: str, value: Scalar, text: str, fields: Fields) -> Mention:
    is_built = fields.context.is_service and fields.has(("build",)) and not has_host(text)
    is_filled_in = not set(text) & set("/:@") and _is_triggered(fields)
    is_go = text.startswith(("github.com/", "ko://"))
    why = _GO if is_go else _INJECTED if text == "auto" else _BUILT if is_built else _TRIGGERED if is_filled_in else ""
    if why:
        return Mention(key=key, node=value, text="", why=why, is_sure=True)
    return Mention(key=key, node=value, text=text, is_sure=True, is_latest=True)


def _is_triggered(fields: Fields) -> bool:
    """Whether it is a container of an OpenShift DeploymentConfig that waits for an image."""
    above: Fields | None = fields
    while above is not None:
        triggers = above.values.get("triggers")
        if isinstance(triggers, Sequence):
            items = (item for item in triggers.items if isinstance(item, yaml_nodes.Mapping))
            return any(key.text == "imageChangeParams" for item in items for key, _value in item.pairs)
        above = above.context.above
    return False


def _mentions(key: str, node: Node, parts: Parts) -> Iterator[Mention]:
    if parts.other_tag:
        why = f"has the tag {parts.own_tag}, which counts, and {parts.other_tag} beside it"
        yield Mention(key=key, node=Scalar(parts.name, node.line, node.column), text="", why=why, is_sure=True)
    why = _EMPTY if parts.has_tag_key else NO_TAG
    yield Mention(key=key, node=node, text=parts.text, used=parts.used, is_sure=True, why=why)


def _mapped(key: str, value: yaml_nodes.Mapping, above: Fields) -> Iterator[Mention]:
    fields = fields_of(value, Context(key=key, above=above))
    if reference := fields.scalar("reference"):  # a volume of a Pod that is an image
        yield Mention(key="image.reference", node=reference, text=f"{reference.text}", is_sure=True, is_latest=True)
        return
    parts = parts_of(fields, names=(*NAMES, "name"))
    is_placed = not fields.has(("repository", "repo")) or fields.scalar(*REPOSITORIES, *REGISTRIES)
    if not is_placed and "/" not in fields.text(*NAMES, "name"):
        parts = replace(parts, name="")  # the chart fills in where the name belongs
    if not parts.name:
        if parts.has_tag_key and parts.used:  # where all is empty, nothing is named: others fill it in, or nobody
            why = _UNCLEAR if fields.scalar(*REPOSITORIES) else _NOTHING
            yield Mention(key=key, node=value, text="", used=(value, *parts.used), why=why, is_sure=True)
        return
    if not parts.has_tag_key and fields.has((*REPOSITORIES, *NAMES)):  # the tag may stand beside the mapping
        beside = above.scalar(*TAGS)
        tag = f"{beside.text}".strip() if beside else ""
        used = (*parts.used, beside) if beside else parts.used
        parts = Parts(parts.name, tag, parts.digest, used, beside is not None)
    parts = replace(parts, used=(value, *parts.used))  # the mapping itself: no other form takes it
    yield from _mentions(key, parts.used[1], parts)
