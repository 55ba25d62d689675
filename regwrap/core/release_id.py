"""What tells one release from another, in every report, page and message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regwrap.core.model import Digest


@dataclass(frozen=True, slots=True)
class ReleaseId:
    """`name` is empty where it has none. `id` is the sha256 of its bundle.json; None before there is one."""

    name: str
    id: Digest | None

    def __str__(self) -> str:
        name = self.name or "(without a name)"
        return name if self.id is None else f"{name}, id {self.id}"
