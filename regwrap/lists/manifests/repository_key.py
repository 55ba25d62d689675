"""`repository:` beside a tag, a version, a digest or a registry, where no key says `image`."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from regwrap.lists.manifests.mapping import NO_TAG, Fields, Mention, plain
from regwrap.lists.manifests.parts import DIGESTS, NAMES, REGISTRIES, REPOSITORIES, TAGS, parts_of
from regwrap.lists.manifests.reference import has_host
from regwrap.lists.yaml_nodes import Scalar, Sequence

if TYPE_CHECKING:
    from collections.abc import Iterator

# On these registries the first part of a path is who owns it, never an image
_ORGANISATION: Final = re.compile(r"(?:quay\.io|ghcr\.io|gcr\.io|nvcr\.io|xpkg\.upbound\.io)/[^/]+")
_NO_IMAGE: Final = "is an organisation, and its images stand elsewhere: add them to the list yourself"
_EMPTY: Final = "its tag is empty: render it first (helm template)"


def repository_key(fields: Fields) -> Iterator[Mention]:
    """`{repository: a/b, tag: 1}`; below a key that names images also `{registry: r.example, name: b, tag: 1}`."""
    says_image = fields.context.says_image
    names = (*NAMES, "name") if says_image else NAMES
    has_name = fields.scalar(*REPOSITORIES, *(names if says_image else ())) is not None
    if not has_name or fields.has(NAMES) or not fields.has((*TAGS, *DIGESTS, *REGISTRIES)) or _is_chart(fields):
        return
    if plain(fields.context.key) == "global":
        return  # where the images of a chart are, not one of them
    parts = parts_of(fields, names=names)
    if _ORGANISATION.fullmatch(parts.name):
        yield Mention(key="repository", node=parts.used[0], text="", used=parts.used, is_sure=True, why=_NO_IMAGE)
    elif "://" not in parts.name and not parts.name.startswith("git@"):
        why = _EMPTY if parts.has_tag_key else NO_TAG
        yield Mention(key="repository", node=parts.used[0], text=parts.text, used=parts.used, is_sure=True, why=why)


def repository_tags(fields: Fields) -> Iterator[Mention]:
    """`{repository: r.example/a, tags: [v1, v2]}`; below a key that names images also `{name: a, tags: [v1]}`."""
    tags = fields.values.get("tags")
    name = fields.scalar(*REPOSITORIES, *((*NAMES, "name") if fields.context.says_image else ()))
    if not isinstance(tags, Sequence) or name is None or fields.has(TAGS):
        return
    parts = parts_of(fields, names=(*NAMES, "name"))
    if not (fields.context.says_image or has_host(parts.name)) or "://" in parts.name:
        return
    for tag in tags.items:
        if isinstance(tag, Scalar) and tag.text:
            text = replace(parts, tag=tag.text.strip()).text
            yield Mention(key="tags", node=tag, text=text, used=parts.used, is_sure=True)


def _is_chart(fields: Fields) -> bool:
    """What a chart depends on: its repository is one of charts."""
    repository = fields.text(*REPOSITORIES)
    is_place = "/" not in repository or "://" in repository or repository.startswith("@")
    is_named = fields.has(("chart",)) or (fields.has(("name",)) and is_place)
    return is_named and not fields.has(("tag", "imagetag", *DIGESTS)) and not fields.context.says_image
