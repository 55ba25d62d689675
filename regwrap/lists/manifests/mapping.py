"""A mapping of a document as the forms see it: its keys in one spelling, and where it stands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from regwrap.lists.yaml_nodes import Node, Scalar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from regwrap.lists import yaml_nodes

# Of Pods, wherever one is written; Tekton's steps and Argo's templates become containers as well.
_CONTAINERS: Final = {
    "containers", "initcontainers", "ephemeralcontainers", "steps", "steptemplate", "sidecars", "container", "script",
}  # fmt: skip
NO_TAG: Final = "it has no tag beside it, and hub or tag may be elsewhere: add the image to the list yourself"


@dataclass(slots=True)
class Context:
    """Where a node stands. `key` leads to it, or to the list that it is in; `above` is the mapping with that key.

    `is_resource`: within a resource of Kubernetes; `is_service`: a service of a compose file; `is_free`: nothing but
    whole references count here, as in annotations; `is_default`: a schema sets it where nothing is given."""

    key: str = ""
    above: Fields | None = None
    is_resource: bool = False
    is_service: bool = False
    is_free: bool = False
    is_default: bool = False

    @property
    def says_image(self) -> bool:
        """Whether the key names images, or the one above does so for many."""
        above = plain(self.above.context.key) if self.above else ""
        return "image" in plain(self.key) or above.endswith("images")

    @property
    def is_container(self) -> bool:
        """Whether whoever runs it takes the tag latest where there is none."""
        return self.is_service or (self.is_resource and plain(self.key) in _CONTAINERS)


@dataclass(slots=True)
class Fields:
    """A mapping with its values by key, in lower case and without _ and -. Of a key that stands twice the
    last counts."""

    node: yaml_nodes.Mapping
    context: Context
    values: dict[str, Node]

    def scalar(self, *keys: str) -> Scalar | None:
        """The first of these that is a text and says something."""
        found = (self.values.get(key) for key in keys)
        return next((value for value in found if isinstance(value, Scalar) and value.text), None)

    def text(self, *keys: str) -> str:
        found = self.scalar(*keys)
        return found.text.strip() if found and found.text else ""

    def has(self, keys: Iterable[str]) -> bool:
        return any(key in self.values for key in keys)


def fields_of(node: yaml_nodes.Mapping, context: Context) -> Fields:
    return Fields(node=node, context=context, values={plain(key.text or ""): value for key, value in node.pairs})


@lru_cache(maxsize=4096)
def plain(key: str) -> str:
    """`sidecar_image`, `sidecar-image` and `SidecarImage` are one key."""
    return key.lower().replace("_", "").replace("-", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """A place where an image is named. `text` is the reference, put together; where it has neither tag nor
    digest, `why` says why not, and the note says it. `used` are the nodes that it was made of;
    `is_sure`: it is an `image:`."""

    key: str
    node: Node
    text: str
    used: tuple[Node, ...] = ()
    is_sure: bool = False
    is_latest: bool = False
    why: str = NO_TAG
