"""Measures regwrap side by side with what the work costs without it: `python bench/bench.py --help`.

Figures go to stdout, the log to stderr. Exit code 1 if a contender failed; a missed target is a
figure, not a failure.
"""

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from before import with_before
from cases_cluster import cluster_cases
from cases_delta import delta_cases
from cases_direct import direct_cases
from cases_gc import gc_cases
from cases_overlay import overlay_cases
from cases_package import growth_cases, package_cases
from cases_push import push_cases
from cases_release import release_cases
from cases_start import start_cases
from cases_sync import jobs_cases, sync_cases
from cases_unpack import unpack_cases
from cases_volumes import volumes_cases
from disk import OWN, has_disk, own_disk, why_no_disk
from facts import environment_facts
from measure import Case, Outcome, measure
from memory import FullMemory
from scale import missed, rows_json, rows_text, scale_rows
from scene import Scene, find_regwrap
from shell import ProgramFailedError, Shell
from table import outcome_record, table_text

_GROUPS: Final[dict[str, Callable[[Scene], Generator[Case, None, None]]]] = {
    "start": start_cases,
    "package": package_cases,
    "delta": delta_cases,
    "volumes": volumes_cases,
    "growth": growth_cases,
    "overlay": overlay_cases,
    "unpack": unpack_cases,
    "push": push_cases,
    "gc": gc_cases,
    "sync": sync_cases,
    "direct": direct_cases,
    "jobs": jobs_cases,
    "cluster": cluster_cases,
    "release": release_cases,
}
# What takes long and gets one round stands first, and curves last: what is left of the time are rounds for the others.
_SCALE: Final = "scale"
_ORDER: Final = (
    "release", "sync", "direct", "start", "package", "delta", "volumes", "unpack", "overlay", "push", "gc", "jobs",
    "cluster", "growth",
)  # fmt: skip
_PROJECT: Final = Path(__file__).resolve().parent.parent
_BEGIN: Final = time.monotonic()
_BYTES: Final = 2_000_000_000
# Corpora, an archive for each contender of sync, a bundle, two trees; the small ones are of one size at any scale.
_SPACE_FACTOR: Final = 14
_SMALL_CORPORA: Final = 2_000_000_000
_SMALL: Final = {"start", "jobs", "cluster"}  # groups that take no others


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    given = _parse_arguments()
    if given.only and _SCALE in given.only:
        return _measure_scale(given)
    begin = time.monotonic()
    with _work_directory(given.work) as place, contextlib.ExitStack() as stack:
        size = 0 if _SMALL.issuperset(given.only or _GROUPS) else int(_BYTES * given.scale * _SPACE_FACTOR)
        size += _SMALL_CORPORA
        work, disk = _disk(place, stack, size, own=given.own_disk)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scratch-", dir=work)))
        scene = _make_scene(given, work, scratch)
        deadline = begin + 60 * given.minutes
        groups = [group for group in _ORDER if group in (given.only or _GROUPS)]
        memory = stack.enter_context(FullMemory(scratch, size))
        found = {group: _measure_group(scene, group, deadline, memory) for group in groups}
        outcomes = [outcome for group in _GROUPS for outcome in found.get(group, ())]
        facts = {**environment_facts(scene), "disk": disk}
    minutes = (time.monotonic() - begin) / 60
    _say(f"{minutes:.1f} minutes")
    sys.stdout.write(table_text(facts, outcomes))
    if given.scale < 1:
        _say(f"the targets are meant for scale 1: at {given.scale:g} most of each time is the start of programs")
    _write_json(given, {**facts, "minutes": round(minutes, 1)}, outcomes)
    return int(any(result.failed for outcome in outcomes for result in outcome.results))


def _measure_scale(given: argparse.Namespace) -> int:
    """Of itself alone: nothing is beside it, and it wants no disk. Exit code 1 where a limit is missed."""
    rows = scale_rows()
    sys.stdout.write(rows_text(rows))
    file = given.json.with_name("scale.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(rows_json(rows))
    for problem in missed(rows):
        _say(problem)
    return int(bool(missed(rows)))


def _measure_group(scene: Scene, group: str, deadline: float, memory: FullMemory) -> list[Outcome]:
    def settle() -> None:
        os.sync()  # writeback of what ran before must not be paid by what runs now
        memory.refill()

    # Closed here, also after Ctrl-C: the cases of sync keep registries running while they last.
    with contextlib.closing(_GROUPS[group](scene)) as cases:
        return [measure(with_before(scene, case), scene.shell.servers, deadline, settle, _say) for case in cases]


def _make_scene(given: argparse.Namespace, work: Path, scratch: Path) -> Scene:
    home = scratch / "home"
    home.mkdir()
    return Scene(
        shell=Shell(home),
        work=work,
        scratch=scratch,
        regwrap=find_regwrap(),
        before=(f"{given.before.absolute()}",) if given.before else (),
        rounds=given.rounds,
        scale=given.scale,
        whole=bool(given.only),
    )


@contextlib.contextmanager
def _work_directory(place: Path) -> Iterator[Path]:
    """It keeps the corpora for the next run, so only one run at a time may be in it."""
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another benchmark runs in {place}; give another directory with --work")
        yield place.resolve()


def _disk(place: Path, stack: contextlib.ExitStack, size: int, *, own: bool) -> tuple[Path, str]:
    """Where to work, and what it is."""
    why = why_no_disk() if own else "--no-own-disk"
    if not why:
        if not has_disk(place, size):
            _demand_space(place, size)
        try:
            return stack.enter_context(own_disk(place, size, _say)), OWN
        except ProgramFailedError as error:
            why = f"{error}"
    _say(f"on the machine's file system as it is ({why})")
    _demand_space(place, size)
    return place, "as it is"


def _demand_space(work: Path, wanted: int) -> None:
    free = shutil.disk_usage(work).free
    if free < wanted:
        sys.exit(f"{work}: {free:,} bytes free, about {wanted:,} needed; use --work, REGWRAP_BENCH_DIR or --scale")


def _write_json(given: argparse.Namespace, facts: Mapping[str, object], outcomes: Sequence[Outcome]) -> None:
    document = {
        "environment": facts,
        "parameters": {"scale": given.scale, "rounds": given.rounds},
        "cases": [outcome_record(outcome) for outcome in outcomes],
    }
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(document, indent=1) + "\n")
    _say(f"written: {given.json}")


def _say(text: str) -> None:
    sys.stderr.write(f"{time.monotonic() - _BEGIN:5.0f} s  {text}\n")
    sys.stderr.flush()


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure regwrap side by side with its contenders.")
    parser.add_argument("--scale", type=float, default=1.0, help="1.0: 183 images, 2 GB")
    parser.add_argument(
        "--rounds", type=int, default=3, help="of a case, and more where they differ; until its time is over"
    )
    parser.add_argument("--minutes", type=float, default=12, help="afterwards every case that is left gets one round")
    parser.add_argument(
        "--only", action="append", choices=[*_GROUPS, _SCALE], help="one group of cases; may be repeated"
    )
    parser.add_argument("--before", type=Path, metavar="FILE",
                        help="the regwrap of another checkout, measured beside this one in each round")  # fmt: skip
    parser.add_argument("--work", type=Path, metavar="DIR", default=_work_place(), help="kept, with the corpora")
    parser.add_argument("--own-disk", action=argparse.BooleanOptionalAction, default=True,
                        help="work on a file system in a file that was written before, kept too")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", default=_PROJECT / "results/bench.json")
    return parser.parse_args()


def _work_place() -> Path:
    return Path(os.environ.get("REGWRAP_BENCH_DIR") or _PROJECT / "build/bench")


if __name__ == "__main__":
    sys.exit(main())
