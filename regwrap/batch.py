"""Registry to registry by `skopeo sync`: one start for all images that one directory of names there gets from here.

It keeps only the last part of a name, takes tags and no digests, and its exit code says little. So only images that
keep their tag and the last part of their name go this way, each is asked for afterwards, and what did not come, or came
as another image because its tag has moved, is copied by its digest.
"""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from regwrap.errors import ImagesFailedError, IntegrityError, ToolError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from regwrap.carry import RegistryCarrier
    from regwrap.imagelist import ImageEntry
    from regwrap.model import ImageRef
    from regwrap.plan import Copy
    from regwrap.tools.access import Registry

_FEW: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Images of one source that get below one `prefix` at the destination (empty: at its top)."""

    source: Registry
    prefix: str
    copies: tuple[Copy, ...]

    @property
    def images(self) -> dict[str, list[str]]:
        """Repositories of the source, with the tags to take."""
        images: dict[str, list[str]] = defaultdict(list)
        for copy in self.copies:
            images[copy.entry.source.repository].append(copy.entry.source.tag or "")
        return images


def make_batches(copies: Sequence[Copy], served: Callable[[ImageEntry], Registry]) -> tuple[Batch, ...]:
    """What can go together; the rest is in none."""
    together: dict[tuple[Registry, str], list[Copy]] = defaultdict(list)
    for copy in copies:
        source, dest = copy.entry.source, copy.entry.dest
        prefix, _, name = dest.repository.rpartition("/")
        kept = source.tag == dest.tag and source.repository.rpartition("/")[2] == name
        if kept and source.tag and not copy.entry.platforms:
            together[served(copy.entry), prefix].append(copy)
    return tuple(
        Batch(source=source, prefix=prefix, copies=tuple(group))
        for (source, prefix), group in together.items()
        if len(group) >= _FEW
    )


@dataclass(slots=True, kw_only=True)
class BatchCarrier:
    """`registry` proves, and copies what no batch has brought. Call `run` first."""

    registry: RegistryCarrier
    exclusive_repositories: bool = True
    _tried: set[ImageRef] = field(default_factory=set)

    def run(self, batches: Sequence[Batch], jobs: int) -> None:
        """All batches, those of one prefix one after the other: they may write into the same repository. What a batch
        fails with is left to the images that it did not bring."""
        prefixes: dict[str, list[Batch]] = defaultdict(list)
        for batch in batches:
            prefixes[batch.prefix].append(batch)
            self._tried |= {copy.entry.dest for copy in batch.copies}
        with ThreadPoolExecutor(jobs, thread_name_prefix="batch") as pool:
            try:
                list(pool.map(self._run_all, prefixes.values()))
            except BaseException:
                self.registry.dest.skopeo.runner.stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _run_all(self, batches: Sequence[Batch]) -> None:
        dest = self.registry.dest
        for batch in batches:
            try:
                dest.skopeo.sync(batch.source, batch.images, dest.registry, batch.prefix)
            except ToolError:
                if dest.skopeo.runner.stopping.is_set():
                    raise

    def carry(self, copy: Copy) -> int:
        if copy.entry.dest in self._tried:
            try:
                self.registry.prove(copy)
            except (IntegrityError, ImagesFailedError, ToolError):
                pass
            else:
                return self.registry.arrived(copy)
        return self.registry.carry(copy)

    def bytes_under_way(self) -> int:
        return 0
