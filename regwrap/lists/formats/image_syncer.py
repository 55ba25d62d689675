"""image-syncer: source -> destination, or a list of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from regwrap.core.model import ImageRef, is_tag
from regwrap.lists.formats.values import BadValueError, Found, pairs_of, quoted, reference_of, shown, text_of
from regwrap.lists.formats.verdicts import _CREDENTIALS, _PATTERN, _READ
from regwrap.lists.yaml_nodes import Node, Sequence

_SYNCER: Final = {"images": _READ, "auth": _CREDENTIALS}


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
                    _add_syncer(found, dest, sources, _references(dest, text_of(dest, f"{key.text}")))


def _add_syncer(found: Found, node: Node, sources: tuple[ImageRef, ...], dests: tuple[ImageRef, ...]) -> None:
    if len(dests) == 1 and not dests[0].tag:
        dests *= len(sources)
    if len(dests) != len(sources):
        raise BadValueError(node, f"the source has {len(sources)} tags, the destination {len(dests)}")
    for source, dest in zip(sources, dests, strict=True):
        found.add(node, source, dest=dest)


def _references(node: Node, text: str) -> tuple[ImageRef, ...]:
    """`name:tag,tag,…`"""
    if ":/" in text.removeprefix("docker://"):
        raise BadValueError(node, f"{quoted(text)} {_PATTERN.why}")
    first, *more = text.split(",")
    image = reference_of(node, first)
    odd = next((tag for tag in more if not is_tag(tag) or not image.tag or image.digest), None)
    if odd is not None:
        raise BadValueError(node, f"not a tag: {shown(odd)}")
    return (image, *(replace(image, tag=tag) for tag in more))
