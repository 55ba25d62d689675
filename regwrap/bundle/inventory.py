"""What a check has found: images with all that belongs to them, and every blob with its size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from regwrap.core.model import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundImage:
    """`image` is REPOSITORY:TAG, `blobs` are its manifests, configs and layers. `partial`: some of its index's
    manifests are left out."""

    image: str
    digest: Digest
    platforms: tuple[str, ...]
    partial: bool
    blobs: frozenset[Digest]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """`damaged` are those of the blobs that are not what their digests say, or not there."""

    images: tuple[FoundImage, ...]
    blobs: Mapping[Digest, int]
    damaged: frozenset[Digest]


NOTHING: Final = Inventory(images=(), blobs={}, damaged=frozenset())
