"""What came of the mutants: each survivor as it comes on stderr, the table, `results/mutants.json`."""

import json
import os
import platform
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.mutants.changes import Mutant
from tests.mutants.trial import Outcome, Trial

_NOTICED = (Outcome.KILLED, Outcome.TIMEOUT)


@dataclass
class Results:
    """By room, what became of each mutant; `lived` are those that nobody noticed."""

    command: str
    seconds: float = 0.0
    rooms: dict[str, Counter[str]] = field(default_factory=dict)
    lived: list[tuple[Mutant, Outcome]] = field(default_factory=list)

    def add(self, trial: Trial, outcome: Outcome, seconds: float) -> None:
        self.seconds += seconds
        self._count(trial.mutant, outcome)
        if outcome not in _NOTICED:
            self.lived.append((trial.mutant, outcome))
            say(told(trial.mutant, outcome))

    def add_equivalent(self, mutant: Mutant) -> None:
        self._count(mutant, "equivalent")

    def _count(self, mutant: Mutant, what: str) -> None:
        self.rooms.setdefault(_room(mutant), Counter())[what] += 1

    @property
    def total(self) -> Counter[str]:
        return sum(self.rooms.values(), Counter[str]())

    def markdown(self) -> str:
        """The table of docs/reliability.md."""
        head = (
            f"`{self.command}`, {datetime.now(UTC).date().isoformat()}, {os.cpu_count()} cores,"
            f" Linux {platform.release().split('-')[0]}, {self.seconds:.0f} s of CPU.\n\n"
            "| room | mutants | change nothing | killed | by time | survived | of those that change anything |\n"
            "|---|---:|---:|---:|---:|---:|---:|\n"
        )
        rows = [*sorted(self.rooms.items()), ("**all**", self.total)]
        return head + "".join(_row(name, counts) for name, counts in rows)

    def document(self) -> dict[str, Any]:
        return {
            "command": self.command,
            "rooms": self.rooms,
            "lived": [told(mutant, outcome) for mutant, outcome in self.lived],
        }

    def write(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(self.document(), indent=1) + "\n", encoding="utf-8")


def _room(mutant: Mutant) -> str:
    return mutant.module.split("/")[1].removesuffix(".py")


def _row(name: str, counts: Counter[str]) -> str:
    all_of_them, equivalent = counts.total(), counts["equivalent"]
    noticed, real = sum(counts[each] for each in _NOTICED), all_of_them - equivalent
    share = f"{100 * noticed / real:.1f} %" if real else ""
    return (
        f"| {name} | {all_of_them} | {equivalent} | {counts[Outcome.KILLED]} | {counts[Outcome.TIMEOUT]}"
        f" | {real - noticed} | {share} |\n"
    )


def told(mutant: Mutant, outcome: Outcome) -> str:
    how = "no test runs it" if outcome is Outcome.NOT_RUN else str(outcome)
    return f"{mutant.name} {mutant.function}: {mutant.was}  =>  {mutant.becomes}  ({how})"


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
