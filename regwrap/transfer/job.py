"""What every step is given: programs, the two ends, limits, and who hears how it goes."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regwrap.core.place import Engine
from regwrap.storage.lock import locked_storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from regwrap.core.place import Place, Timeouts
    from regwrap.tools.retry import RetryPolicy
    from regwrap.tools.runner import Runner
    from regwrap.transfer.run import Events


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Who hears how it goes: `say` a line for the user, `events` of a sync, `expect` the bytes of a step that begins,
    `on_bytes` those that are done, `watch` a function that gives the bytes under way."""

    say: Callable[[str], None]
    events: Events
    expect: Callable[[str, int], None]
    on_bytes: Callable[[int], None]
    watch: Callable[[Callable[[], int]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every step needs. `place_of` gives the place of a registry that a list line names."""

    runner: Runner
    scratch: Path
    source: Place | None
    archive: Place
    place_of: Callable[[str], Place]
    jobs: int
    retry: RetryPolicy
    timeouts: Timeouts
    environment: tuple[tuple[str, str], ...]
    listener: Listener
    engine: Engine = Engine.AUTO

    @contextmanager
    def locked(self, root: Path, *, exclusive: bool, untouched: bool = False) -> Iterator[int | None]:
        """The lock of a storage, for the block; see `locked_storage`."""
        with locked_storage(
            root,
            exclusive=exclusive,
            timeout=self.timeouts.lock,
            on_wait=self.listener.say,
            untouched=untouched,
        ) as descriptor:
            yield descriptor
