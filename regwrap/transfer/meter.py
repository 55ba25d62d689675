"""How many bytes travelled for each image, in all its tries."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regwrap.core.model import Destination
    from regwrap.transfer.plan import Copy


@dataclass(frozen=True, slots=True)
class Meter:
    """Safe to use from several threads."""

    _sent: Counter[Destination] = field(default_factory=Counter)
    _lock: Lock = field(default_factory=Lock)

    def add(self, copy: Copy, count: int) -> None:
        with self._lock:
            self._sent[copy.entry.dest] += count

    def of(self, copy: Copy) -> int:
        return self._sent[copy.entry.dest]
