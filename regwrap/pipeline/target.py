"""Where images go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regwrap.errors import UsageError
from regwrap.observe import RegistryEnd, StorageEnd
from regwrap.plan import Engine, Way

if TYPE_CHECKING:
    from pathlib import Path

    from regwrap.pipeline.ends import Ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where images go. `descriptor` of the lock that writers inherit."""

    dest: RegistryEnd | StorageEnd
    ends: Ends
    descriptor: int | None = None
    increment: Increment | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Increment:
    """What is added to a storage that is only read, for one run: blobs go to `blobs`, links to the storage's root.

    A crash throws it away, so nothing has to be on the disk early, and no order has to be kept. Blobs that are there
    count by their size, since what is made of them is hashed as a whole.
    """

    blobs: Path


def check_way(target: Target, way: Way) -> None:
    """Raises UsageError where the engine can't bring anything to such an end."""
    if way.engine is Engine.SYNC and isinstance(target.dest, StorageEnd):
        raise UsageError(
            f"the engine sync goes from registry to registry, and {target.dest.name} is a storage",
            hint="--engine auto, or copy",
        )
