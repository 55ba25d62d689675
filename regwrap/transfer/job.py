"""What every step is given: programs, the two ends, limits, and who hears how it goes."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from regwrap.core.errors import UsageError
from regwrap.core.listener import Listener, Outlook
from regwrap.core.location import Engine
from regwrap.core.pool import map_waiting
from regwrap.storage.lock import locked_storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from threading import Event

    from regwrap.core.errors import ToolError
    from regwrap.core.location import Location, Timeouts
    from regwrap.core.signed_rule import SignedRule
    from regwrap.storage.tree import Tree
    from regwrap.tools.retry import Retry
    from regwrap.tools.runner import Runner
    from regwrap.transfer.plan import Copy
    from regwrap.transfer.run import Copied, Failed
    from regwrap.transfer.workers import Workers


QUESTIONS: Final = 64
"""So many questions are asked at the same time at most, and so many connections kept; a host's rate limit may allow
fewer."""
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Events(Protocol):
    """What a run tells while it goes on; called from several threads."""

    def started(self, copy: Copy) -> None: ...
    def retrying(self, copy: Copy, attempt: int, error: ToolError) -> None: ...
    def copied(self, outcome: Copied) -> None: ...
    def failed(self, outcome: Failed) -> None: ...
    def watch(self, look: Callable[[], Outlook], /) -> None: ...


class TransferListener(Listener, Events, Protocol):
    """Who hears how it goes: the steps, their bytes, and what comes of each image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every step needs. `location_of` gives the location of a registry that a list line names. `signed` says which
    images have to be signed; `workers` are a cluster's, where blobs are theirs to fetch."""

    runner: Runner
    scratch: Path
    source: Location | None
    archive: Location
    location_of: Callable[[str], Location]
    jobs: int
    retry: Retry
    timeouts: Timeouts
    environment: tuple[tuple[str, str], ...]
    listener: TransferListener
    helper_environment: tuple[tuple[str, str], ...] = ()
    engine: Engine = Engine.AUTO
    signed: tuple[SignedRule, ...] = ()
    workers: Workers | None = None

    @property
    def stopping(self) -> Event:
        """Set once the run is to stop."""
        return self.retry.stopping

    def ask(self, question: Callable[[_Item], _Result], items: Iterable[_Item]) -> tuple[_Result, ...]:
        """What a registry says of each, in their order: `jobs` at a time, and more where the answers take long. Raises
        the first error."""
        most = max(self.jobs, QUESTIONS)
        return map_waiting(question, items, workers=self.jobs, most=most, stopping=self.stopping)

    def without_archive(self) -> tuple[Job, Path]:
        """The same with an empty directory as its archive, and that."""
        empty = self.scratch / "no-archive"
        empty.mkdir(exist_ok=True)
        return replace(self, archive=replace(self.archive, registry=None, storage=empty, image=None)), empty

    def archive_directory(self, hint: str) -> Path:
        """Where the archive's storage lies. Raises UsageError, with `hint`, for a registry of which no directory is
        known."""
        if self.archive.storage is None:
            raise UsageError(f"the archive {self.archive.name} is a registry without a storage directory", hint=hint)
        return self.archive.storage

    @contextmanager
    def locked(self, tree: Tree, *, exclusive: bool, untouched: bool = False) -> Iterator[int | None]:
        """The lock of a storage, for the block; see `locked_storage`."""
        with locked_storage(
            tree,
            exclusive=exclusive,
            timeout=self.timeouts.lock,
            on_wait=self.listener.log,
            untouched=untouched,
        ) as descriptor:
            yield descriptor
