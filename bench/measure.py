"""Runs contenders side by side: interleaved rounds, only the work itself on the clock.

A contender that cannot run or that did the wrong thing is a value with its reason, so one missing
or broken program never costs the figures of the others.
"""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from shell import ProgramFailedError


class WrongResultError(Exception):
    """A program ended with 0 and did not do what it was asked for: its time means nothing."""


def nothing() -> None:
    """For a contender that needs no preparation or proof."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One way to do the work of a case; `prepare` and `prove` are not timed. `clock` may count other seconds."""

    name: str
    run: Callable[[], None]
    prepare: Callable[[], None] = nothing
    prove: Callable[[], None] = nothing
    clock: Callable[[], float] = time.perf_counter
    missing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The first contender is regwrap, the second is what it is measured against."""

    name: str
    contenders: tuple[Contender, ...]
    rounds: int
    target: str = ""
    limit: float | None = None


@dataclass(slots=True)
class Result:
    """What the rounds of one contender gave."""

    contender: str
    seconds: list[float] = field(default_factory=list)
    problem: str = ""
    failed: bool = False

    @property
    def median(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A case with the results of its contenders, in their order."""

    case: Case
    results: tuple[Result, ...]

    def ratio(self, result: Result) -> float | None:
        """To the contender that regwrap is measured against."""
        mine, other = result.median, self.results[1].median
        return mine / other if mine and other else None

    @property
    def verdict(self) -> str:
        ratio = self.ratio(self.results[0])
        if self.case.limit is None or ratio is None:
            return self.case.target
        return f"{self.case.target} {'met' if ratio <= self.case.limit else 'MISSED'}"


def measure(case: Case, say: Callable[[str], None]) -> Outcome:
    """Rounds in turn; every second round in reverse, so nobody always runs in another's wake."""
    results = tuple(Result(contender.name, problem=contender.missing) for contender in case.contenders)
    pairs = list(zip(case.contenders, results, strict=True))
    for number in range(case.rounds):
        for contender, result in pairs if number % 2 == 0 else reversed(pairs):
            if not result.problem:
                _run_once(contender, result)
                say(f"{case.name}, round {number + 1}: {contender.name}: {_last(result)}")
    return Outcome(case, results)


def _run_once(contender: Contender, result: Result) -> None:
    try:
        contender.prepare()
        # Writeback of what ran before must not be paid by what runs now.
        os.sync()
        begin = contender.clock()
        contender.run()
        seconds = contender.clock() - begin
        contender.prove()
    except (ProgramFailedError, WrongResultError, OSError) as error:
        result.problem, result.failed = f"failed: {error}", True
        result.seconds.clear()
    else:
        result.seconds.append(seconds)


def _last(result: Result) -> str:
    return result.problem or f"{result.seconds[-1]:.2f} s"
