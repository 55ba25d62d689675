"""What has to travel for a plan, blob by blob: each once, whoever needs it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from regwrap.core.manifest import Descriptor
    from regwrap.core.model import Digest
    from regwrap.transfer.plan import Copy


@dataclass(frozen=True, slots=True)
class Need:
    """A blob, and the images that need it. The first of them fetches it: it counts as that one's in a report.
    `is_there`: the destination seems to have it; nobody has looked at its bytes."""

    blob: Descriptor
    copies: tuple[Copy, ...]
    is_there: bool

    @property
    def first(self) -> Copy:
        return self.copies[0]


def needs_of(copies: Sequence[Copy], wanted: Callable[[Copy], Sequence[Descriptor]]) -> tuple[Need, ...]:
    """What is `wanted` of each, in the order in which it should travel: the images with the largest blobs first, as
    they take longest, and of an image its largest blob first. An image's small blobs come right behind, so that it can
    soon be seen."""
    ordered = sorted(copies, key=lambda copy: (-_largest(copy), f"{copy.entry.dest}"))
    found: dict[Digest, tuple[Descriptor, list[Copy]]] = {}
    for copy in ordered:
        for blob in sorted(wanted(copy), key=lambda blob: (-blob.size, blob.digest)):
            found.setdefault(blob.digest, (blob, []))[1].append(copy)
    missing = {digest for copy in copies for digest in copy.claims}
    return tuple(Need(blob, tuple(users), digest not in missing) for digest, (blob, users) in found.items())


def _largest(copy: Copy) -> int:
    return max((blob.size for blob in copy.missing), default=0)
