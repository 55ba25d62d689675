"""image-syncer: source -> destination, or a list of them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from regwrap.core.counts import counted
from regwrap.core.model import ImageRef, is_tag
from regwrap.lists import yaml_nodes
from regwrap.lists.formats.values import BadValueError, Found, keys_of, pairs_of, quoted, reference_of, shown, text_of
from regwrap.lists.formats.verdicts import CREDENTIALS, PATTERN, READ
from regwrap.lists.yaml_nodes import Node, Sequence

if TYPE_CHECKING:
    from collections.abc import Callable

_SYNCER: Final = {"images": READ, "auth": CREDENTIALS}


def is_syncer_config(root: Node) -> bool:
    """Below `images:` the keys are references; anything else there is a chart's values, or another tool's."""
    keys = keys_of(root)
    images = keys.get("images")
    if not isinstance(images, yaml_nodes.Mapping) or not keys.keys() <= _SYNCER.keys():
        return False
    return _has_reference(images) or not images.pairs


def is_syncer(root: Node) -> bool:
    return _has_reference(root)


def _has_reference(node: Node) -> bool:
    pairs = keys_of(node).items()
    return any(re.search("[:/]", key) and not isinstance(value, yaml_nodes.Mapping) for key, value in pairs)


def read_syncer_config(found: Found, root: Node) -> None:
    read_syncer(found, found.fields(root, "", _SYNCER)["images"])


def read_syncer(found: Found, root: Node) -> None:
    for key, value in pairs_of(root, "images"):
        with found.collected():
            sources = _references(key, f"{key.text}")
            if not sources[0].tag and not sources[0].digest:
                raise BadValueError(
                    key, f"{quoted(f'{key.text}')} without a tag means all tags: list them (skopeo list-tags)"
                )
            dests = value.items if isinstance(value, Sequence) else (value,)
            if not dests:
                raise BadValueError(value, f"{quoted(f'{key.text}')}: the destination is missing")
            for dest in dests:
                with found.collected():
                    _add_syncer(found, dest, sources, _references(dest, text_of(dest, f"{key.text}"), found.dest))


def _add_syncer(found: Found, node: Node, sources: tuple[ImageRef, ...], dests: tuple[ImageRef, ...]) -> None:
    if len(dests) == 1 and not dests[0].tag:
        dests *= len(sources)
    if len(dests) != len(sources):
        raise BadValueError(node, f"the source has {counted(len(sources), 'tag')}, the destination {len(dests)}")
    for source, dest in zip(sources, dests, strict=True):
        found.add(node, source, dest=dest)


def _references(node: Node, text: str, parse: Callable[[Node, str], ImageRef] = reference_of) -> tuple[ImageRef, ...]:
    """`name:tag,tag,…`"""
    if ":/" in text.removeprefix("docker://"):
        raise BadValueError(node, f"{quoted(text)} {PATTERN.why}")
    first, *more = text.split(",")
    image = parse(node, first)
    odd = next((tag for tag in more if not is_tag(tag) or not image.tag or image.digest), None)
    if odd is not None:
        raise BadValueError(node, f"not a tag: {shown(odd)}")
    return (image, *(replace(image, tag=tag) for tag in more))
