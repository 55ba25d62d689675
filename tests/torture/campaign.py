"""Spreading the cases of all groups over a time: each group gets its share, and within it one of each kind in turn."""

import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Final, Protocol

from tests.forked import started_zygote
from tests.torture import children, company, disks, failures, hostile, kills, liars, network, owners, rot
from tests.torture.ground import Ground, made_ground
from tests.torture.judge import Verdict


class Group(Protocol):
    """A module of cases. `cases` gives each with its kind; a case's name alone is enough to run it."""

    GROUP: str

    def cases(self, ground: Ground) -> Iterator[tuple[str, str]]: ...
    def run(self, ground: Ground, name: str) -> Verdict: ...


GROUPS: Final[dict[str, tuple[Group, float]]] = {
    "failure": (failures, 34),
    "child": (children, 8),
    "kill": (kills, 8),
    "network": (network, 14),
    "company": (company, 6),
    "rot": (rot, 8),
    "disk": (disks, 14),
    "hostile": (hostile, 8),
    "directory": (owners, 6),
    "registry": (liars, 6),
}
"""Each group with its share of the time."""


@dataclass(frozen=True)
class Order:
    """What is to be run. `works`: only what is worked on so, all if there are none."""

    seconds: float
    seed: int
    groups: tuple[str, ...]
    cases: tuple[str, ...]
    workers: int
    works: tuple[str, ...] = ()

    def argv(self, worker: int) -> list[str]:
        return [
            sys.executable, "-m", "tests.torture", "--worker", f"{worker}", "--workers", f"{self.workers}",
            "--seconds", f"{self.seconds}", "--seed", f"{self.seed}", "--groups", ",".join(self.groups),
            "--works", ",".join(self.works),
            *(part for case in self.cases for part in ("--case", case)),
        ]  # fmt: skip


def new_seed() -> int:
    return random.SystemRandom().randrange(1_000_000)


def verdicts(order: Order) -> Iterator[Verdict]:
    """Run the workers; each verdict as it comes. A worker has a mount namespace of its own where it may: all its mounts
    and its memory go with it, whatever happens."""
    alone = ["unshare", "--mount", "--propagation", "private"] if os.geteuid() == 0 else []
    # a common pipe: lines are short enough to be written in one piece each
    reading, writing = os.pipe()
    processes = []
    for number in range(order.workers):
        processes.append(subprocess.Popen([*alone, *order.argv(number)], stdout=writing, stdin=subprocess.DEVNULL))
    os.close(writing)
    try:
        with os.fdopen(reading, encoding="utf-8") as lines:
            for line in lines:
                yield Verdict(**json.loads(line))
    finally:
        for process in processes:
            process.terminate()
            process.wait()
    broken = [process.returncode for process in processes if process.returncode]
    assert not broken, f"workers ended with {broken}"


def work(order: Order, number: int) -> int:
    """One worker: its part of the cases until the time is up."""
    with worker_ground() as ground:
        if order.cases:
            for name in order.cases[number :: order.workers]:
                _tell(_run(ground, name))
            return 0
        deadline = time.monotonic() + order.seconds
        for name in _Turns.made(ground, order, number):
            _tell(_run(ground, name))
            if time.monotonic() > deadline:
                break
    return 0


@contextmanager
def worker_ground() -> Iterator[Ground]:
    """A ground in memory, private where the rights are there."""
    private = os.geteuid() == 0 and _is_unshared()
    if private:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3G", "torture", "/dev/shm"], check=True)
    base = Path(tempfile.mkdtemp(prefix="torture-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    base.chmod(0o755)  # other users run regwrap there too
    try:
        with started_zygote(base / "said") as zygote, made_ground(base, zygote, private_memory=private) as ground:
            yield ground
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _is_unshared() -> bool:
    return Path("/proc/self/ns/mnt").readlink() != Path(f"/proc/{os.getppid()}/ns/mnt").readlink()


def _run(ground: Ground, name: str) -> Verdict:
    started = time.monotonic()
    try:
        verdict = GROUPS[name.partition("/")[0]][0].run(ground, name)
    except Exception as error:  # the campaign goes on, and shows it
        verdict = Verdict(name, lies=[f"the campaign itself failed: {error!r}"])
    return dataclasses.replace(verdict, seconds=round(time.monotonic() - started, 2))


def _tell(verdict: Verdict) -> None:
    sys.stdout.write(json.dumps(dataclasses.asdict(verdict)) + "\n")
    sys.stdout.flush()


@dataclass
class _Turns:
    """The cases of each work of each group, the share of the time that they shall have, and what they have had."""

    waiting: dict[str, Iterator[str]]
    shares: dict[str, float]
    spent: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @classmethod
    def made(cls, ground: Ground, order: Order, number: int) -> Iterator[str]:
        turns = cls({}, {})
        ground.part, ground.works = (number, order.workers), order.works
        for name in order.groups:
            works = _by_work(ground, GROUPS[name][0], order)
            if not works:
                continue
            turns.waiting |= works
            turns.shares |= {work: GROUPS[name][1] / len(works) for work in works}
        return turns._turns()

    def _turns(self) -> Iterator[str]:
        while self.waiting:
            work = min(self.waiting, key=lambda name: self.spent[name] / self.shares[name])
            started = time.monotonic()
            name = next(self.waiting[work], None)
            if name is None:
                del self.waiting[work]
                continue
            yield name  # returns when the case is done
            self.spent[work] += time.monotonic() - started


def _by_work(ground: Ground, group: Group, order: Order) -> dict[str, Iterator[str]]:
    """This worker's cases of a group, by what is worked on: shuffled by the seed, one of each kind in turn."""
    works: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    number, workers = ground.part
    for kind, name in group.cases(ground):
        if order.works and name.split("/")[1] not in order.works:
            continue
        if group.GROUP == failures.GROUP or zlib.crc32(name.encode()) % workers == number:
            works["/".join(name.split("/")[:2])][kind].append(name)
    dice = random.Random(f"{order.seed} {group.GROUP}")
    return {work: _mixed(list(kinds.values()), dice) for work, kinds in sorted(works.items())}


def _mixed(kinds: list[list[str]], dice: random.Random) -> Iterator[str]:
    for names in kinds:
        dice.shuffle(names)
    dice.shuffle(kinds)
    # not a generator of its own: the dice are thrown now, whatever the turns will be
    return (name for turn in zip_longest(*kinds) for name in turn if name is not None)
