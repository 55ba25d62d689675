"""Runs contenders side by side: interleaved rounds, only the work itself on the clock.

A contender that cannot run or that did the wrong thing is a value with its reason, so one missing
or broken program never costs the figures of the others.
"""

import statistics
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

from meter import Costs, Watch, Work, measured
from shell import ProgramFailedError
from stats import Ratio, ratio_of, worst_of

_QUICK_SECONDS: Final = 10.0
# of an interval's ends to each other: narrower, and more rounds would say the same
_SETTLED: Final = 1.1
_MOST_TIMES: Final = 3


class WrongResultError(Exception):
    """A program ended with 0 and did not do what it was asked for: its time means nothing."""


def nothing() -> None:
    """For a contender that needs no preparation or proof."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One way to do the work of a case; `prepare` and `prove` are not timed.

    `x` is its place on a curve of `name`, on which seconds are shown divided by `units`.
    """

    name: str
    run: Work
    prepare: Callable[[], None] = nothing
    prove: Callable[[], None] = nothing
    missing: str = ""
    rounds: int | None = None
    x: float | None = None
    units: int = 1
    watch: Watch = field(default_factory=Watch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """`metric` of `contender`, by the least of `against` where there are any, else by `unit`, is at most `limit`.

    `key` finds what is said about a miss in reasons.toml. A contender on a curve is `NAME@X`.
    """

    key: str
    text: str
    contender: str
    limit: float
    against: tuple[str, ...] = ()
    metric: str = "seconds"
    unit: float = 1.0
    least: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Rounds go on until there are enough and each target is settled, or `seconds` are over; the second contender is
    what ratios are shown to. Requests are shown by each of `images`, too."""

    name: str
    contenders: tuple[Contender, ...]
    rounds: int
    seconds: float = 120.0
    note: str = ""
    images: int = 0
    targets: tuple[Target, ...] = ()
    axis: str = ""


@dataclass(slots=True)
class Result:
    """What the rounds of one contender gave."""

    contender: Contender
    runs: list[Costs] = field(default_factory=list)
    problem: str = ""
    failed: bool = False

    def figures(self, metric: str) -> list[float]:
        values = [getattr(run, metric) for run in self.runs]
        return [float(value) for value in values if value is not None]

    @property
    def median(self) -> float | None:
        return statistics.median(self.figures("seconds")) if self.runs else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A target and what came of it; `figure` is None where nothing could be measured. `worst` is that of one round, to
    what the other took in the same one."""

    target: Target
    figure: Ratio | None
    other: str
    worst: float | None = None

    @property
    def holds(self) -> bool | None:
        if self.figure is None:
            return None
        return self._is_within(self.figure.value)

    @property
    def always_holds(self) -> bool:
        """In the worst round, too."""
        return self.worst is not None and self._is_within(self.worst)

    @property
    def is_settled(self) -> bool:
        return self.figure is None or self.figure.high < self.figure.low * _SETTLED

    def _is_within(self, value: float) -> bool:
        return value <= self.target.limit and (self.target.least is None or value >= self.target.least)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A case with the results of its contenders, in their order."""

    case: Case
    results: tuple[Result, ...]

    def ratio(self, result: Result) -> Ratio | None:
        """To the contender that regwrap is measured against."""
        if len(self.results) < 2 or not result.runs or not self.results[1].runs:
            return None
        return ratio_of(result.figures("seconds"), self.results[1].figures("seconds"))

    def verdicts(self) -> list[Verdict]:
        return [self._verdict(target) for target in self.case.targets]

    def _verdict(self, target: Target) -> Verdict:
        mine = self._figures(target.contender, target)
        others = {name: self._figures(name, target) for name in target.against}
        ran = {name: figures for name, figures in others.items() if figures}
        if not mine or (target.against and not ran):
            return Verdict(target=target, figure=None, other="")
        best = min(ran, key=lambda name: statistics.median(ran[name])) if ran else ""
        other = ran[best] if ran else [target.unit]
        return Verdict(target=target, figure=ratio_of(mine, other), other=best, worst=worst_of(mine, other))

    def _figures(self, name: str, target: Target) -> list[float]:
        wanted, _, x = name.partition("@")
        for result in self.results:
            if result.contender.name == wanted and (not x or result.contender.x == float(x)):
                return result.figures(target.metric)
        return []


def measure(
    case: Case, aside: AbstractSet[int], deadline: float, settle: Callable[[], None], say: Callable[[str], None]
) -> Outcome:
    """Rounds in turn; every second round in reverse, so nobody always runs in another's wake. `settle` comes between
    `prepare` and the clock. Rounds beyond `case.rounds` are for targets that are not settled. After the deadline of the
    whole run a case gets one round, and more only while it is quick: what takes a quarter of a second says nothing when
    it runs once."""
    outcome = Outcome(case, tuple(Result(contender, problem=contender.missing) for contender in case.contenders))
    results = outcome.results
    begin = time.monotonic()
    for number in range(case.rounds * _MOST_TIMES):
        now = time.monotonic()
        if number and (now > begin + case.seconds or now > max(deadline, begin + _QUICK_SECONDS)):
            break
        if number >= case.rounds and all(verdict.is_settled for verdict in outcome.verdicts()):
            break
        for result in results if number % 2 == 0 else reversed(results):
            if not result.problem and number < (result.contender.rounds or number + 1):
                _run_once(result, aside, settle)
                say(f"{case.name}, round {number + 1}: {_label(result.contender)}: {_last(result)}")
    return outcome


def _run_once(result: Result, aside: AbstractSet[int], settle: Callable[[], None]) -> None:
    contender = result.contender
    try:
        contender.prepare()
        settle()
        costs = measured(contender.run, contender.watch, aside)
        contender.prove()
    except (ProgramFailedError, WrongResultError, OSError) as error:
        result.problem, result.failed = f"failed: {error}", True
        result.runs.clear()
    else:
        result.runs.append(costs)


def _label(contender: Contender) -> str:
    return contender.name if contender.x is None else f"{contender.name} at {contender.x:g}"


def _last(result: Result) -> str:
    return result.problem or f"{result.runs[-1].seconds:.2f} s"
