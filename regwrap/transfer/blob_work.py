"""What a run of blobs is given, and what comes of it: where they go, what of that is on this machine, who fetches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from regwrap.core.errors import ToolError
    from regwrap.core.manifest import Descriptor
    from regwrap.core.model import Destination
    from regwrap.tools.retry import Retry
    from regwrap.transfer.by_curl import BlobSource, Fetcher
    from regwrap.transfer.job import Events
    from regwrap.transfer.needs import Need
    from regwrap.transfer.plan import Copy
    from regwrap.transfer.run import Copied, Failed


class BlobDestination(Protocol):
    """Where the blobs go. Called from several threads; what asks or writes raises ToolError, IntegrityError where
    something is damaged, and UnsureError where only skopeo can ask."""

    @property
    def alone(self) -> bool:
        """Whether each image is made visible by itself, else those of a lane that are ready at the same time."""

    def keep(self) -> None:
        """What has come is for the next run: this one does not finish all of it."""

    def wanted(self, copy: Copy) -> Sequence[Descriptor]:
        """The blobs that have to be there before the image is."""

    def sources_of(self, need: Need) -> Iterable[tuple[BlobSource, str]]:
        """Where a blob can be had, with the repository there."""

    def check_room(self, copy: Copy) -> None: ...

    def lane(self, copy: Copy, /) -> str:
        """Images of one lane are made visible one after the other."""

    def finish(self, copies: Sequence[Copy]) -> None:
        """Make images visible whose blobs are all there. The same call again is harmless."""

    def prove(self, copy: Copy) -> None: ...


class Here(Protocol):
    """What of a destination is on this machine: blobs come into a stage, and are hashed before they count. Raises
    ToolError, and IntegrityError where something is damaged."""

    def may_have(self, need: Need) -> bool:
        """A quick look, whether a blob seems to be there already."""

    def has(self, need: Need) -> bool:
        """Whether it is there, by its bytes; what is wrong is removed."""

    def accept(self, blob: Descriptor) -> bool:
        """Whether what has come of the blob is all of it, and right: then it counts, else it is removed."""

    def copy_here(self, source: BlobSource, blob: Descriptor) -> int:
        """From what lies on this machine; how many bytes count as sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobWork:
    """What a run works with. `here` is None for a registry: `fetcher` fetches what lies on this machine, too. `gave_up`
    says whether a host is down, when a blob was tried to the end. `in_order`: blobs are wanted in the order of their
    digests, not of their sizes."""

    dest: BlobDestination
    here: Here | None
    fetcher: Fetcher
    jobs: int
    retry: Retry
    events: Events
    gave_up: Callable[[ToolError], ToolError]
    in_order: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobReport:
    """`left` are images that only skopeo can fetch: it alone knows how to ask their registry. Of some a part was
    copied: `sent` bytes."""

    outcomes: tuple[Copied | Failed, ...]
    left: tuple[Copy, ...]
    sent: Mapping[Destination, int]
