"""`repository:` beside a tag, a version, a digest or a registry, where no key says `image`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from regwrap.lists.manifests.mapping import NO_TAG, Fields, Mention
from regwrap.lists.manifests.parts import DIGESTS, NAMES, REGISTRIES, REPOSITORIES, TAGS, parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_EMPTY: Final = "its tag is empty: render it first (helm template)"


def repository_key(fields: Fields) -> Iterator[Mention]:
    """`{repository: a/b, tag: 1}`; below a key that names images also `{registry: r.example, name: b, tag: 1}`."""
    says_image = fields.place.says_image
    names = (*NAMES, "name") if says_image else NAMES
    has_name = fields.scalar(*REPOSITORIES, *(names if says_image else ())) is not None
    if not has_name or fields.has(NAMES) or not fields.has((*TAGS, *DIGESTS, *REGISTRIES)) or _is_chart(fields):
        return
    parts = parts_of(fields, names=names)
    if "://" not in parts.name and not parts.name.startswith("git@"):
        why = _EMPTY if parts.has_tag_key else NO_TAG
        yield Mention(key="repository", node=parts.used[0], text=parts.text, used=parts.used, is_sure=True, why=why)


def _is_chart(fields: Fields) -> bool:
    """What a chart depends on: its repository is one of charts."""
    return (
        fields.has(("name", "chart")) and not fields.has(("tag", "imagetag", *DIGESTS)) and not fields.place.says_image
    )
