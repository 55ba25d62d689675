"""Which images have to be signed, and by whom."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class SignedRule:
    """Images of repositories that fit `match` (* and ?) are signed by one of the `keys`, cosign's public keys."""

    match: str
    keys: tuple[Path, ...]

    def concerns(self, *names: str) -> bool:
        return any(fnmatchcase(name, self.match) for name in names)
