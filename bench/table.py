"""Outcomes as a table for people and as records for JSON."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from measure import Outcome, Result, Verdict

_ROW: Final = "{:<30} {:<32} {:>8} {:>8} {:>8} {:>6}"


def table_text(facts: Mapping[str, object], outcomes: Sequence[Outcome]) -> str:
    lines = [f"{name}: {value}" for name, value in facts.items()]
    head = _ROW.format("case", "contender", "median", "min", "max", "ratio")
    rows = [row for outcome in outcomes for row in _rows(outcome)]
    verdicts = [_verdict_line(verdict) for outcome in outcomes for verdict in outcome.verdicts()]
    return "\n".join([*lines, "", head, *rows, "", *verdicts]) + "\n"


def outcome_record(outcome: Outcome) -> dict[str, object]:
    case = outcome.case
    return {
        "case": case.name,
        "note": case.note,
        "axis": case.axis,
        "images": case.images,
        "contenders": [_record(outcome, result) for result in outcome.results],
        "targets": [_verdict_record(verdict) for verdict in outcome.verdicts()],
    }


def _rows(outcome: Outcome) -> Iterator[str]:
    for number, result in enumerate(outcome.results):
        name = "" if number else outcome.case.name
        x = result.contender.x
        label = result.contender.name if x is None else f"{result.contender.name} {x:g}"
        if result.runs:
            yield _ROW.format(name, label, *_figures(outcome, result)).rstrip()
        else:
            yield f"{name:<30} {label:<32} {result.problem}"


def _figures(outcome: Outcome, result: Result) -> Iterator[str]:
    seconds = result.figures("seconds")
    for value in (statistics.median(seconds), min(seconds), max(seconds)):
        yield f"{value:.2f}"
    ratio = None if outcome.case.axis else outcome.ratio(result)
    yield "" if ratio is None else f"{ratio.value:.2f}"


def _verdict_line(verdict: Verdict) -> str:
    if verdict.figure is None:
        return f"unknown  {verdict.target.text}: nothing to compare with"
    word = "holds " if verdict.holds else "MISSED"
    return f"{word}   {verdict.target.text}: {verdict.figure.value:.3g}, at worst {verdict.worst:.3g}"


def _record(outcome: Outcome, result: Result) -> dict[str, object]:
    contender, ratio = result.contender, outcome.ratio(result)
    return {
        "name": contender.name,
        "x": contender.x,
        "units": contender.units,
        "problem": result.problem,
        "ratio": None if ratio is None or outcome.case.axis else _rounded(ratio.value, ratio.low, ratio.high),
        "runs": [run.record() for run in result.runs],
    }


def _verdict_record(verdict: Verdict) -> dict[str, object]:
    target, figure = verdict.target, verdict.figure
    return {
        "key": target.key,
        "text": target.text,
        "limit": target.limit,
        "against": verdict.other,
        "turned": bool(target.against) and target.limit < 0.2,
        "figure": None if figure is None else _rounded(figure.value, figure.low, figure.high),
        "worst": None if verdict.worst is None else round(verdict.worst, 5),
        "holds": verdict.holds,
        "always": verdict.always_holds,
    }


def _rounded(*values: float) -> list[float]:
    return [round(value, 5) for value in values]
