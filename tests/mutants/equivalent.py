"""Changes that change nothing a user could notice: `equivalent.toml`, each with the reason.

An entry names its place by the module, the function and what stands there, not by a line, so it stays true while code
around it moves, and is an error when what it speaks of has gone. Where a function has the same several times, `places`
says which of them are meant, counted from 1.
"""

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutants.changes import Mutant

FILE: Final = Path(__file__).with_name("equivalent.toml")

Key = tuple[str, str, str, str, int]


@dataclass(frozen=True)
class Equivalent:
    module: str
    function: str
    was: str
    becomes: str
    why: str
    places: tuple[int, ...] = ()

    @property
    def keys(self) -> frozenset[Key]:
        return frozenset((self.module, self.function, self.was, self.becomes, place) for place in self.places or (1,))


def read_equivalents(path: Path = FILE) -> tuple[Equivalent, ...]:
    """One table `[[mutant]]` for each."""
    if not path.exists():
        return ()
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    return tuple(
        Equivalent(**{**entry, "places": tuple(entry.get("places", ()))}) for entry in document.get("mutant", [])
    )


def key_of(mutant: Mutant) -> Key:
    return mutant.module, mutant.function, mutant.was, mutant.becomes, mutant.place


def complaints(entries: Sequence[Equivalent], mutants: Sequence[Mutant]) -> Iterator[str]:
    """Of entries that no change of the code fits any more, or that fit several and do not say which."""
    known = {key_of(mutant) for mutant in mutants}
    for entry in entries:
        name = f"{entry.module} {entry.function}: {entry.was}"
        if not entry.keys <= known:
            yield f"{name} is no longer there"
        elif not entry.places and (entry.module, entry.function, entry.was, entry.becomes, 2) in known:
            yield f"{name} is there several times: say places"
