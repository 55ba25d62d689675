"""What a run is asked for. Puts a list, its lock and the rules of the configuration together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regwrap.core.errors import UsageError
from regwrap.lists.lock import locked_list, read_lock

if TYPE_CHECKING:
    from pathlib import Path

    from regwrap.lists.imagelist import ImageEntry, ImageList, Rewrite
    from regwrap.lists.rules import ImageRule
    from regwrap.lists.shards import Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A list, the rules of the configuration, and where images without a destination go; of all that one `shard`."""

    images: ImageList
    rules: tuple[ImageRule, ...]
    rewrite: Rewrite
    shard: Shard | None = None

    def has(self, entry: ImageEntry) -> bool:
        return self.shard is None or self.shard.has(entry)

    def under(self, lock: Path | None) -> ImageList:
        """The images of a run: as the list says, or as its lock does. Raises UsageError where there are rules and no
        lock, or the lock is another list's."""
        if lock is None:
            _refuse_rules(self)
            return self.images
        return locked_list(self.images, read_lock(lock), lambda image: any(rule.fits(image) for rule in self.rules))


def _refuse_rules(wanted: Wanted) -> None:
    """Without a lock a rule has no meaning; a list in which each line has a digest is one. Raises UsageError."""
    entries = wanted.images.entries
    is_lock = bool(entries) and all(entry.source.digest for entry in entries)
    if wanted.rules and not is_lock:
        texts = ", ".join(rule.match.text for rule in wanted.rules[:5])
        raise UsageError(
            f"the configuration has rules under images: ({texts}), whose images change over time",
            hint="pin them with regwrap lock, then use --locked or the lock as the list",
        )
