"""Changes that change nothing a user could notice: `equivalent.toml`, each with the reason.

An entry names its place by the module, the function and what stands there, not by a line, so it stays true while code
around it moves, and is an error when what it speaks of has gone.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutants.changes import Mutant

FILE: Final = Path(__file__).with_name("equivalent.toml")

_Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Equivalent:
    module: str
    function: str
    was: str
    becomes: str
    why: str

    @property
    def key(self) -> _Key:
        return self.module, self.function, self.was, self.becomes


def read_equivalents(path: Path = FILE) -> tuple[Equivalent, ...]:
    """One table `[[mutant]]` for each."""
    if not path.exists():
        return ()
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    return tuple(Equivalent(**entry) for entry in document.get("mutant", []))


def key_of(mutant: Mutant) -> _Key:
    return mutant.module, mutant.function, mutant.was, mutant.becomes


def outdated(entries: Sequence[Equivalent], mutants: Sequence[Mutant]) -> list[Equivalent]:
    """What no change of the code fits any more."""
    known = {key_of(mutant) for mutant in mutants}
    return [entry for entry in entries if entry.key not in known]
