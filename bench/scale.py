"""What a list of 1,000, 10,000 and 100,000 images costs the client: `make bench ONLY=scale`.

Each step of each size is a process of its own (scale_steps.py), so that its memory is its own; what is quick is
measured three times, and the least counts. A power is the slope in log-log between the last two sizes: 1.0 is linear,
n log n is 1.10 here.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from scale_steps import STEPS, Cost

SIZES: Final = (1_000, 10_000, 100_000)
_MB: Final = 1_000_000
_MEMORY: Final = 1_500 * _MB
_ROUNDS: Final = 3
_QUICK_SECONDS: Final = 15
_POWER: Final = 1.2  # n log n from 10,000 to 100,000 is 1.10; the rest is what a busy machine adds
_NEEDED: Final = 13_000 * _MB  # of which 7 GB are the files of gc at the largest, and 4 GB those of commits
# A memory of its own for files, which goes when the step ends: /dev/shm has no names for three million of them
_IN_MEMORY: Final = 'mount -t tmpfs -o nr_inodes=0,size=10g tmpfs "$1"; shift; exec "$@"'


@dataclass(frozen=True)
class Row:
    """A step, and what it costs by the number of images."""

    step: str
    costs: Mapping[int, Cost]

    @property
    def power(self) -> float:
        *_, small, large = sorted(self.costs)
        ratio = max(self.costs[large].seconds, 0.001) / max(self.costs[small].seconds, 0.001)
        return round(math.log(ratio) / math.log(large / small), 2)

    @property
    def memory(self) -> int:
        return self.costs[max(self.costs)].memory

    @property
    def cells(self) -> list[str]:
        seconds = (f"{cost.seconds:.2f} s" for cost in self.costs.values())
        return [self.step, *seconds, f"{self.power:.2f}", f"{self.memory / _MB:.0f}"]


def scale_rows(sizes: Sequence[int] = SIZES) -> list[Row]:
    if (available := _available()) < _NEEDED:
        sys.exit(f"this takes {_NEEDED / _MB:.0f} MB of memory, and {available / _MB:.0f} MB are available")
    rows = []
    with tempfile.TemporaryDirectory(prefix="scale-") as place:
        for step in STEPS:
            rows.append(Row(step, {size: _least(step, size, place) for size in sizes}))
            sys.stderr.write(f"{' | '.join(rows[-1].cells)}\n")
    return rows


def _available() -> int:
    """What /proc/meminfo says, in bytes."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def rows_text(rows: Sequence[Row]) -> str:
    head = ["step", *(f"{size:,}" for size in rows[0].costs), "power", "MB at the largest"]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *(row.cells for row in rows)))


def rows_json(rows: Sequence[Row]) -> str:
    document = [
        {"step": row.step, "power": row.power, "costs": {size: asdict(cost) for size, cost in row.costs.items()}}
        for row in rows
    ]
    return json.dumps(document, indent=1) + "\n"


def missed(rows: Sequence[Row]) -> list[str]:
    """What grows faster than n log n, or takes too much memory."""
    fast = [f"{row.step} grows with the power {row.power:.2f}" for row in rows if row.power > _POWER]
    large = [f"{row.step} takes {row.memory / _MB:.0f} MB" for row in rows if row.memory > _MEMORY]
    return [*fast, *large]


def _least(step: str, size: int, place: str) -> Cost:
    """On a machine that others use as well, time only ever comes to it."""
    costs = [_measured(step, size, place)]
    while len(costs) < _ROUNDS and costs[0].seconds < _QUICK_SECONDS:
        costs.append(_measured(step, size, place))
    return min(costs, key=lambda cost: cost.seconds)


def _measured(step: str, size: int, place: str) -> Cost:
    steps = Path(__file__).with_name("scale_steps.py")
    # who is not root gets it in a user namespace
    alone = ["unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)), "sh", "-ec", _IN_MEMORY, "sh"]
    command = [sys.executable, f"{steps}", "--step", step, "--size", f"{size}", "--place", place]
    answer = subprocess.run([*alone, place, *command], check=True, stdout=subprocess.PIPE, text=True)
    return Cost(**json.loads(answer.stdout))
