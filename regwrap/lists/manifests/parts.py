"""An image put together from what stands in one mapping: registry, repository or name, tag or version, digest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regwrap.core.model import ImageRef, ParseError
from regwrap.lists.manifests.mapping import plain
from regwrap.lists.yaml_nodes import Mapping, Scalar

if TYPE_CHECKING:
    from regwrap.lists.manifests.mapping import Fields
    from regwrap.lists.yaml_nodes import Node

REGISTRIES: Final = ("registry", "imageregistry", "hub", "imagehub")
REPOSITORIES: Final = ("repository", "imagerepository", "repo", "imagerepo")
NAMES: Final = ("image", "imagename")
TAGS: Final = ("tag", "imagetag", "version", "imageversion")
DIGESTS: Final = ("digest", "imagedigest", "sha", "sha256")
_GLOBAL: Final = "global"
_HEX: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Parts:
    """`has_tag_key`: there is a key for the tag, though it may be empty."""

    name: str
    tag: str
    digest: str
    used: tuple[Node, ...]
    has_tag_key: bool

    @property
    def text(self) -> str:
        """The reference. A tag or digest that the name has itself counts more than what stands beside it."""
        has_digest, has_tag = "@" in self.name, ":" in self.name.partition("@")[0].rpartition("/")[2]
        tag = "" if has_tag or has_digest or not self.tag else f":{self.tag}"
        digest = "" if has_digest or "@" in tag or not self.digest else f"@{self.digest}"
        return f"{self.name}{tag}{digest}"


def parts_of(fields: Fields, *, prefix: str = "", names: tuple[str, ...] = NAMES) -> Parts:
    """What the keys with this prefix say together: `sidecarImage` and `sidecarTag` belong to each other."""

    def keys(of: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"{prefix}{key}" for key in of) if prefix else of

    registries = (*keys(REGISTRIES), *REGISTRIES)
    found = {
        part: fields.scalar(*these)
        for part, these in {
            "registry": registries,
            "repository": keys(REPOSITORIES),
            "name": keys(names),
            "tag": keys(TAGS),
            "digest": keys(DIGESTS),
        }.items()
    }
    text = {part: (scalar.text or "").strip() if scalar else "" for part, scalar in found.items()}
    digest = f"sha256:{text['digest']}" if _HEX.fullmatch(text["digest"]) else text["digest"]
    return Parts(
        name=_within(text["registry"] or _shared_registry(fields), _joined(text["repository"], text["name"])),
        tag=text["tag"],
        digest=digest,
        used=tuple(scalar for scalar in found.values() if scalar is not None),
        has_tag_key=fields.has((*keys(TAGS), *keys(DIGESTS))),
    )


def _shared_registry(fields: Fields) -> str:
    """Of all images of a chart: `global: {hub: …}`, `global: {imageRegistry: …}`, `global: {image: {registry: …}}`."""
    above: Fields | None = fields
    while above is not None:
        shared = _values(above.values.get(_GLOBAL))
        for values in (shared, _values(shared.get("image"))):
            if found := next((text for key in REGISTRIES if (text := _text(values.get(key)))), ""):
                return found
        above = above.place.above
    return ""


def _values(node: Node | None) -> dict[str, Node]:
    return {plain(key.text or ""): value for key, value in node.pairs} if isinstance(node, Mapping) else {}


def _text(node: Node | None) -> str:
    return (node.text or "").strip() if isinstance(node, Scalar) else ""


def _joined(repository: str, name: str) -> str:
    """`repository: r.example/vendor, image: toolkit` is one name; where one part holds the other, it is that."""
    if not repository or not name or f"/{repository}".endswith(f"/{name}"):
        return repository or name
    return name if f"/{name}".endswith(f"/{repository}") or _has_host(name) else f"{repository}/{name}"


def _within(registry: str, name: str) -> str:
    registry = registry.removeprefix("https://").removeprefix("http://").rstrip("/")
    return f"{registry}/{name}" if registry and name and not _has_host(name) else name


def _has_host(name: str) -> bool:
    try:
        return ImageRef.parse(name).registry is not None
    except ParseError:
        return False
