"""Outcomes as a table for people and as records for JSON."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from measure import Outcome, Result

_ROW: Final = "{:<24} {:<22} {:>8} {:>8} {:>8} {:>6}  {}"


def table_text(facts: Mapping[str, object], outcomes: Sequence[Outcome]) -> str:
    lines = [f"{name}: {value}" for name, value in facts.items()]
    head = _ROW.format("case", "contender", "median", "min", "max", "ratio", "target")
    rows = [row for outcome in outcomes for row in _rows(outcome)]
    return "\n".join([*lines, "", head, *rows]) + "\n"


def outcome_record(outcome: Outcome) -> dict[str, object]:
    return {
        "case": outcome.case.name,
        "target": outcome.verdict,
        "contenders": [_record(outcome, result) for result in outcome.results],
    }


def _rows(outcome: Outcome) -> Iterator[str]:
    for number, result in enumerate(outcome.results):
        name = "" if number else outcome.case.name
        verdict = "" if number else outcome.verdict
        if result.seconds:
            yield _ROW.format(name, result.contender, *_figures(outcome, result), verdict).rstrip()
        else:
            yield f"{name:<24} {result.contender:<22} {result.problem}"


def _figures(outcome: Outcome, result: Result) -> Iterator[str]:
    for seconds in (result.median, min(result.seconds), max(result.seconds)):
        yield f"{seconds:.2f}"
    ratio = outcome.ratio(result)
    yield "" if ratio is None else f"{ratio:.2f}"


def _record(outcome: Outcome, result: Result) -> dict[str, object]:
    return {
        "name": result.contender,
        "seconds": [_rounded(seconds) for seconds in result.seconds],
        "median": _rounded(result.median),
        "ratio": _rounded(outcome.ratio(result)),
        "problem": result.problem,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
