"""Writes docs/benchmarks.md and its plots from the results of one run: `python bench/report.py [RESULTS.json]`.

The figures come from the file, what is said about them from reasons.toml. Same file, same report.
"""

import argparse
import json
import re
import statistics
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from plot import bar_chart, line_chart
from stats import exponent_of, slope_of

_PROJECT: Final = Path(__file__).resolve().parent.parent
_SAID: Final = Path(__file__).resolve().parent / "reasons.toml"
_PROGRAMS: Final = ("regwrap", "python", "skopeo", "docker-registry", "docker", "tar", "openssl")


@dataclass(frozen=True, slots=True)
class Contender:
    name: str
    x: float | None
    units: int
    problem: str
    ratio: Sequence[float] | None
    runs: Sequence[Mapping[str, Any]]

    def median(self, metric: str) -> float | None:
        values = [run[metric] for run in self.runs if run[metric] is not None]
        return statistics.median(values) if values else None

    @property
    def seconds(self) -> list[float]:
        return [run["seconds"] for run in self.runs]


@dataclass(frozen=True, slots=True)
class Report:
    """One results file, and where its report goes."""

    results: Mapping[str, Any]
    said: Mapping[str, Any]
    plots: Path

    def text(self) -> str:
        return "\n".join([*self._head(), *self._targets(), *self._cases(), *self._foot()]) + "\n"

    def _head(self) -> Iterator[str]:
        facts = self.results["environment"]
        scale, rounds = (self.results["parameters"][name] for name in ("scale", "rounds"))
        yield "# Benchmarks\n"
        yield "Written by `make bench-report` from the results of one run of `make bench`; do not edit.\n"
        yield f"Run on {facts['date']} in {facts['minutes']} minutes, scale {scale:g}, {rounds} rounds a case or more:"
        yield f"{facts['cores']} cores of {facts['cpu']}, {facts['memory']} of memory, Linux {facts['kernel']},"
        yield f"file system {facts['file system']}; its disk: {facts['disk']}."
        yield "; ".join(f"{name}: {facts[name]}" for name in _PROGRAMS if name in facts) + ".\n"
        yield self.said["introduction"].strip() + "\n"

    def _targets(self) -> Iterator[str]:
        yield "## Targets\n"
        yield "| target | limit | measured | 95 % | worst round | |"
        yield "| --- | --- | --- | --- | --- | --- |"
        found = [target for case in self.results["cases"] for target in case["targets"]]
        yield from map(_target_row, found)
        missed = [target for target in found if target["holds"] is False]
        if missed:
            yield "\nMissed, and why:\n"
        for target in missed:
            said = self.said["missed"].get(target["key"], "not yet looked into.")
            yield f"- *{target['text']}*: {_flat(said)}"
        yield ""

    def _cases(self) -> Iterator[str]:
        for case in self.results["cases"]:
            contenders = [
                Contender(x["name"], x["x"], x["units"], x["problem"], x["ratio"], x["runs"])
                for x in case["contenders"]
            ]
            yield f"## {case['case'][:1].upper()}{case['case'][1:]}\n"
            if case["note"]:
                yield f"{case['note']}\n"
            yield from self._curve(case, contenders) if case["axis"] else self._bars(case, contenders)
            yield from self._said_about(case["case"])

    def _said_about(self, name: str) -> Iterator[str]:
        if said := self.said["cases"].get(name):
            yield f"{said.strip()}\n"

    def _bars(self, case: Mapping[str, Any], contenders: Sequence[Contender]) -> Iterator[str]:
        yield from _table(contenders, case["images"])
        ran = [x for x in contenders if x.runs]
        if len(ran) > 2:
            bars = [(x.name, statistics.median(x.seconds), min(x.seconds), max(x.seconds)) for x in ran]
            yield from self._plot(case, bar_chart(case["case"], bars))

    def _curve(self, case: Mapping[str, Any], contenders: Sequence[Contender]) -> Iterator[str]:
        series: dict[str, list[tuple[float, float]]] = {}
        for x in contenders:
            if x.runs and x.x is not None:
                series.setdefault(x.name, []).append((x.x, statistics.median(x.seconds) / x.units))
        yield from _curve_table(case["axis"], series)
        yield from (f"- {name}: {_growth(points)}" for name, points in series.items())
        absent = sorted({x.problem for x in contenders if x.problem})
        yield from (f"- {problem}" for problem in absent)
        yield ""
        if series:
            yield from self._plot(case, line_chart(case["case"], case["axis"], "seconds", series))

    def _plot(self, case: Mapping[str, Any], svg: str) -> Iterator[str]:
        name = re.sub(r"[^a-z0-9]+", "-", case["case"].lower()).strip("-") + ".svg"
        (self.plots / name).write_text(svg)
        yield f"![{case['case']}]({self.plots.name}/{name})\n"

    def _foot(self) -> Iterator[str]:
        yield self.said["method"].strip()


def _target_row(target: Mapping[str, Any]) -> str:
    if target["figure"] is None:
        return f"| {target['text']} | {_number(target['limit'])} | | | | unknown: nothing to compare with |"
    value, low, high = target["figure"]
    measured = f"{_number(value)} of {target['against']}" if target["against"] else _number(value)
    if target["turned"]:
        measured += f" ({1 / value:.1f}x faster)"
    word = "holds in each round" if target["always"] else "holds" if target["holds"] else "**missed**"
    columns = (measured, f"{_number(low)} to {_number(high)}", _number(target["worst"]), word)
    return f"| {target['text']} | {_number(target['limit'])} | {' | '.join(columns)} |"


def _table(contenders: Sequence[Contender], images: int) -> Iterator[str]:
    """Columns in which nobody has a figure are left out."""
    columns: dict[str, Callable[[Contender], str]] = {
        "seconds": _seconds, "least to most": _spread, "ratio (95 %)": _ratio, "of it": _parts,
        "CPU s": lambda x: _plain(x.median("cpu")), "memory, tree": lambda x: _megabytes(x.median("tree_memory")),
        "own": lambda x: _megabytes(x.median("own_memory")) if x.name.startswith("regwrap") else "",
        "sent by source": lambda x: _megabytes(x.median("sent")),
        "written by archive": lambda x: _megabytes(x.median("archived")),
        "written by tools": lambda x: _megabytes(x.median("written")),
        "requests": lambda x: _plain(x.median("requests")),
        "an image": lambda x: _each(x.median("requests"), images),
        "left on disk": lambda x: _megabytes(x.median("disk")),
    }  # fmt: skip
    ran = [x for x in contenders if x.runs]
    shown = {name: show for name, show in columns.items() if any(show(x) for x in ran)}
    yield "| | " + " | ".join(shown) + " |"
    yield "| --- " * (len(shown) + 1) + "|"
    for x in ran:
        yield f"| {x.name} | " + " | ".join(show(x) for show in shown.values()) + " |"
    yield ""
    absent = [f"{x.name} ({_flat(x.problem)})" for x in contenders if x.problem]
    if absent:
        yield f"Did not run: {', '.join(absent)}.\n"


def _seconds(x: Contender) -> str:
    return _number(statistics.median(x.seconds))


def _spread(x: Contender) -> str:
    few = f" (n={len(x.runs)})"
    return f"{_number(min(x.seconds))} to {_number(max(x.seconds))}{few}" if len(x.runs) > 1 else few.strip()


def _ratio(x: Contender) -> str:
    if x.ratio is None:
        return ""
    value, low, high = map(_number, x.ratio)
    return value if low == high else f"{value} ({low} to {high})"


def _parts(x: Contender) -> str:
    names = dict.fromkeys(name for run in x.runs for name in run["parts"])
    return ", ".join(f"{name} {_number(statistics.median(run['parts'][name] for run in x.runs))}" for name in names)


def _curve_table(axis: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> Iterator[str]:
    if not series:
        return
    places = sorted({x for points in series.values() for x, _ in points})
    yield f"| {axis} | " + " | ".join(f"{x:,.12g}" for x in places) + " |"
    yield "| --- " * (len(places) + 1) + "|"
    for name, points in series.items():
        found = dict(points)
        yield f"| {name}, s | " + " | ".join(_number(found[x]) if x in found else "" for x in places) + " |"
    yield ""


def _growth(points: Sequence[tuple[float, float]]) -> str:
    slope, start = slope_of(points)
    words = f"slope {slope:.3g} s for one more, {start:.2f} s at none"
    if points[0][0] > 0:
        words += f"; grows with the power {exponent_of(sorted(points)):.2f}"
    return words


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _plain(value: float | None) -> str:
    return "" if value is None else _number(value) if value < 100 else f"{value:,.0f}"


def _megabytes(value: float | None) -> str:
    return "" if not value else f"{value / 1e6:,.0f} MB" if value >= 1e7 else f"{value / 1e6:.1f} MB"


def _each(value: float | None, images: int) -> str:
    return "" if value is None or not images else f"{value / images:.1f}"


def _flat(text: str) -> str:
    return " ".join(text.split())


def main() -> None:
    parser = argparse.ArgumentParser(description="Write docs/benchmarks.md from the results of one run.")
    parser.add_argument("results", type=Path, nargs="?", default=_PROJECT / "results/bench.json")
    parser.add_argument("--docs", type=Path, default=_PROJECT / "docs", help="where benchmarks.md and its plots go")
    given = parser.parse_args()
    if not given.results.is_file():
        sys.exit(f"{given.results} is absent; make bench writes it")
    plots = given.docs / "benchmarks"
    plots.mkdir(parents=True, exist_ok=True)
    for stale in plots.glob("*.svg"):
        stale.unlink()
    results = json.loads(given.results.read_text())
    report = Report(results, tomllib.loads(_SAID.read_text()), plots)
    (given.docs / "benchmarks.md").write_text(report.text())
    (plots / "results.json").write_text(given.results.read_text())
    sys.stdout.write(f"written: {given.docs / 'benchmarks.md'}\n")


if __name__ == "__main__":
    main()
