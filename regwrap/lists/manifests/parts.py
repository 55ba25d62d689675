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

REGISTRIES: Final = ("registry", "imageregistry", "hub", "imagehub", "imageprefix", "registryprefix")
REPOSITORIES: Final = ("repository", "imagerepository", "repo", "imagerepo")
NAMES: Final = ("image", "imagename")
TAGS: Final = ("tag", "imagetag", "version", "imageversion")
DIGESTS: Final = ("digest", "imagedigest", "sha", "sha256")
_GLOBAL: Final = "global"
# Of all images of a chart, wherever they stand below
_SHARED: Final = ("imageregistry", "defaultimageregistry", "defaultregistry", "systemdefaultregistry", "imagehub")
# Keys in other spellings (registryName, dockerRegistry, registryHost) say a registry where the value can be one
_ODD_REGISTRY: Final = re.compile(r"(?!.*(?:secret|cred|user|pass|auth|cert|mirror|policy|type|proxy)).*registry.*")
_PLACE: Final = re.compile(r"(?:https?://)?(?:[\w-]+(?:\.[\w-]+)+|localhost|[\w.-]+:[0-9]+)(?::[0-9]+)?(?:/[\w./-]*)?")
_VERSIONS: Final = ("version", "imageversion")
_HEX: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Parts:
    """`has_tag_key`: there is a key for the tag, though it may be empty. `tag_key` is the one that says something."""

    name: str
    tag: str
    digest: str
    used: tuple[Node, ...]
    has_tag_key: bool
    tag_key: str = ""

    @property
    def own_tag(self) -> str:
        """The tag that the name has itself."""
        return self.name.partition("@")[0].rpartition("/")[2].partition(":")[2]

    @property
    def other_tag(self) -> str:
        """A tag beside the name that is not its own; a version may be the product's."""
        is_tag = self.tag_key not in _VERSIONS and bool(self.own_tag)
        return self.tag if is_tag and self.tag != self.own_tag else ""

    @property
    def text(self) -> str:
        """The reference. A tag or digest that the name has itself counts more than what stands beside it."""
        has_digest = "@" in self.name
        tag = "" if self.own_tag or has_digest or not self.tag else f":{self.tag}"
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
    registry = text["registry"] or _odd_registry(fields) or _shared_registry(fields)
    is_unclear = found["name"] is not None and found["name"] is fields.values.get("name") and not text["registry"]
    tag, digest = _tag_and_digest(text["tag"], text["digest"])
    return Parts(
        name=_within(registry, _joined(text["repository"], text["name"], is_unclear=is_unclear)),
        tag=tag,
        digest=digest,
        used=tuple(scalar for scalar in found.values() if scalar is not None),
        has_tag_key=fields.has((*keys(TAGS), *keys(DIGESTS))),
        tag_key=next((key for key in keys(TAGS) if fields.scalar(key)), "").removeprefix(prefix),
    )


def _tag_and_digest(tag: str, digest: str) -> tuple[str, str]:
    """Digests stand in keys for tags too, and without the name of their algorithm."""
    if tag.removeprefix("@").startswith("sha256:"):
        tag, digest = "", tag.removeprefix("@")
    return tag, f"sha256:{digest}" if _HEX.fullmatch(digest) else digest


def _odd_registry(fields: Fields) -> str:
    found = (_text(value) for key, value in fields.values.items() if _ODD_REGISTRY.fullmatch(key))
    return next((text for text in found if _PLACE.fullmatch(text)), "")


def _shared_registry(fields: Fields) -> str:
    """Beside a mapping `image:`, or of all images of a chart: `imageRegistry: …`, `global: {hub: …}`,
    `global: {imageRegistry: …}`, `global: {image: {registry: …}}`."""
    above: Fields | None = fields.context.above
    if above is not None and plain(fields.context.key) in NAMES and (beside := above.text(*REGISTRIES)):
        return beside
    above = fields
    while above is not None:
        if own := above.text(*_SHARED):
            return own
        shared = _values(above.values.get(_GLOBAL))
        for values in (shared, _values(shared.get("image"))):
            if found := next((text for key in REGISTRIES if (text := _text(values.get(key)))), ""):
                return found
        above = above.context.above
    return ""


def _values(node: Node | None) -> dict[str, Node]:
    return {plain(key.text or ""): value for key, value in node.pairs} if isinstance(node, Mapping) else {}


def _text(node: Node | None) -> str:
    return (node.text or "").strip() if isinstance(node, Scalar) else ""


def _joined(repository: str, name: str, *, is_unclear: bool) -> str:
    """`repository: r.example/vendor, image: toolkit` is one name; where one part holds the other, it is that.

    `is_unclear`: the key `name` says it, which may be the name of something else than the image."""
    if is_unclear and repository and name and not f"/{repository}".endswith(f"/{name}"):
        path = repository.partition("/")[2] if _has_host(repository) else repository
        return "" if "/" in path else f"{repository}/{name}"
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
