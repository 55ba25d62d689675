"""Measures regwrap side by side with what the work costs without it: `python bench/bench.py --help`.

Figures go to stdout, the story to stderr. Exit code 1 if a contender failed; a missed target is a
figure, not a failure.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Final

from cases_files import package_cases, unpack_cases
from cases_gc import gc_cases
from cases_latency import latency_cases
from cases_overlay import overlay_cases
from cases_push import push_cases
from cases_startup import startup_cases
from cases_sync import sync_cases
from corpus import ensure_corpus
from facts import environment_facts
from family import RELEASES, Parameters
from measure import Case, Outcome, measure
from scene import Scene, find_regwrap
from shell import Shell
from table import outcome_record, table_text

_GROUPS: Final[dict[str, Callable[[Scene], Generator[Case, None, None]]]] = {
    "sync": sync_cases,
    "latency": latency_cases,
    "package": package_cases,
    "overlay": overlay_cases,
    "unpack": unpack_cases,
    "gc": gc_cases,
    "push": push_cases,
    "startup": startup_cases,
}
_IMAGES: Final = 183
_BYTES: Final = 2_000_000_000
# Corpus, bundle and two trees at the same time, and room for what a contender stages.
_SPACE_FACTOR: Final = 6


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    given = _parse_arguments()
    with _work_directory(given.work) as work, contextlib.ExitStack() as stack:
        _demand_space(work, int(_BYTES * given.scale * _SPACE_FACTOR))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scratch-", dir=work)))
        scene = _make_scene(given, work, scratch)
        outcomes = [outcome for group in given.only or _GROUPS for outcome in _measure_group(scene, group)]
        facts = environment_facts(scene)
    sys.stdout.write(table_text(facts, outcomes))
    if given.json:
        _write_json(given, facts, outcomes)
    return int(any(result.failed for outcome in outcomes for result in outcome.results))


def _measure_group(scene: Scene, group: str) -> list[Outcome]:
    # Closed here, also after Ctrl-C: the cases of sync keep registries running while they last.
    with contextlib.closing(_GROUPS[group](scene)) as cases:
        return [measure(case, _say) for case in cases]


def _make_scene(given: argparse.Namespace, work: Path, scratch: Path) -> Scene:
    images = max(10, round(_IMAGES * given.scale))
    parameters = Parameters(images, int(_BYTES * given.scale), seed=1, release=RELEASES[-1])
    _say(f"corpus: {images} images, {parameters.size:,} bytes")
    home = scratch / "home"
    home.mkdir()
    return Scene(
        shell=Shell(home),
        corpus=ensure_corpus(work / "corpus", parameters),
        scratch=scratch,
        regwrap=find_regwrap(),
        rounds=given.rounds,
        cold_rounds=given.cold_rounds,
        scale=given.scale,
    )


@contextlib.contextmanager
def _work_directory(given: Path | None) -> Iterator[Path]:
    """A directory of our own is removed; one that was given keeps the corpus for the next time."""
    if given:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    # Not the default of tempfile: that one is often in memory.
    place = os.environ.get("REGWRAP_BENCH_DIR") or Path("/", "var", "tmp")
    with tempfile.TemporaryDirectory(prefix="regwrap-bench-", dir=place) as made:
        yield Path(made).resolve()


def _demand_space(work: Path, wanted: int) -> None:
    free = shutil.disk_usage(work).free
    if free < wanted:
        sys.exit(f"{work}: {free:,} bytes free, about {wanted:,} needed; use --work, REGWRAP_BENCH_DIR or --scale")


def _write_json(given: argparse.Namespace, facts: dict[str, object], outcomes: Sequence[Outcome]) -> None:
    document = {
        "environment": facts,
        "parameters": {"scale": given.scale, "rounds": given.rounds, "cold rounds": given.cold_rounds},
        "cases": [outcome_record(outcome) for outcome in outcomes],
    }
    given.json.write_text(json.dumps(document, indent=2) + "\n")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure regwrap side by side with its contenders.")
    parser.add_argument("--scale", type=float, default=1.0, help="1.0: 183 images, 2 GB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold-rounds", type=int, default=1, help="rounds of the slow sync into nothing")
    parser.add_argument("--only", action="append", choices=_GROUPS, help="may be repeated")
    parser.add_argument("--work", type=Path, metavar="DIR", help="kept, with the corpus, for the next run")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
