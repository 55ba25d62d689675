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
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Final, Protocol

from tests.torture import children, failures, kills, network
from tests.torture.ground import Ground, made_ground
from tests.torture.judge import Verdict
from tests.torture.programs import started_zygote


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
}
"""Each group with its share of the time."""


@dataclass(frozen=True)
class Order:
    """What is to be run."""

    seconds: float
    seed: int
    groups: tuple[str, ...]
    case: str
    workers: int

    def argv(self, worker: int) -> list[str]:
        return [
            sys.executable, "-m", "tests.torture", "--worker", f"{worker}", "--workers", f"{self.workers}",
            "--seconds", f"{self.seconds}", "--seed", f"{self.seed}", "--groups", ",".join(self.groups),
            "--case", self.case,
        ]  # fmt: skip


def new_seed() -> int:
    return random.SystemRandom().randrange(1_000_000)


def verdicts(order: Order) -> Iterator[Verdict]:
    """Run the workers; each verdict as it comes. A worker has a mount namespace of its own where it may, so that all its
    mounts and its memory go with it, whatever happens."""
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
        if order.case:
            _tell(_run(ground, order.case))
            return 0
        deadline = time.monotonic() + order.seconds
        for name in _Turns.made(ground, order, number):
            _tell(_run(ground, name))
            if time.monotonic() > deadline:
                break
    return 0


class worker_ground:  # noqa: N801  a context manager
    """A ground in memory, private where the rights are there."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Ground:
        private = os.geteuid() == 0 and _is_unshared()
        place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        if private:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3G", "torture", "/dev/shm"], check=True)
        base = Path(tempfile.mkdtemp(prefix="torture-", dir=place))
        self._stack.callback(shutil.rmtree, base, ignore_errors=True)
        zygote = self._stack.enter_context(started_zygote(base / "said"))
        return self._stack.enter_context(made_ground(base, zygote, private_memory=private))

    def __exit__(self, *_error: object) -> None:
        self._stack.close()


def _is_unshared() -> bool:
    return os.readlink("/proc/self/ns/mnt") != os.readlink(f"/proc/{os.getppid()}/ns/mnt")


def _run(ground: Ground, name: str) -> Verdict:
    started = time.monotonic()
    try:
        verdict = GROUPS[name.partition("/")[0]][0].run(ground, name)
    except Exception as error:  # noqa: BLE001  the campaign goes on, and shows it
        verdict = Verdict(name, lies=[f"the campaign itself failed: {error!r}"])
    return dataclasses.replace(verdict, seconds=round(time.monotonic() - started, 2))


def _tell(verdict: Verdict) -> None:
    sys.stdout.write(json.dumps(dataclasses.asdict(verdict)) + "\n")
    sys.stdout.flush()


@dataclass
class _Turns:
    """The cases of each group, and the time that each group has had."""

    waiting: dict[str, Iterator[str]]
    spent: dict[str, float] = field(default_factory=dict)

    @classmethod
    def made(cls, ground: Ground, order: Order, number: int) -> Iterator[str]:
        waiting = {name: _mixed(ground, GROUPS[name][0], order, number) for name in order.groups}
        return cls(waiting, dict.fromkeys(waiting, 0.0))._turns()

    def _turns(self) -> Iterator[str]:
        while self.waiting:
            group = min(self.waiting, key=lambda name: self.spent[name] / GROUPS[name][1])
            started = time.monotonic()
            name = next(self.waiting[group], None)
            if name is None:
                del self.waiting[group]
                continue
            yield name  # returns when the case is done
            self.spent[group] += time.monotonic() - started


def _mixed(ground: Ground, group: Group, order: Order, number: int) -> Iterator[str]:
    """This worker's cases of a group: shuffled by the seed, one of each kind in turn."""
    kinds: dict[str, list[str]] = {}
    for kind, name in group.cases(ground):
        if zlib.crc32(name.encode()) % order.workers == number:
            kinds.setdefault(kind, []).append(name)
    dice = random.Random(f"{order.seed} {group.GROUP}")
    lists = list(kinds.values())
    for names in lists:
        dice.shuffle(names)
    dice.shuffle(lists)
    for turn in zip_longest(*lists):
        yield from (name for name in turn if name is not None)
