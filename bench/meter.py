"""What a run costs beside time, read from /proc: memory of the process tree, CPU, bytes written, requests, disk.

The registries that a case keeps running are not part of a contender, their work for it is: what the source sent and the
destination wrote while it ran. A Docker daemon belongs to the contender that drives it.
"""

import contextlib
import os
import resource
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from servers import Server

Work = Callable[[], Mapping[str, float] | None]

_SAMPLE_SECONDS: Final = 0.05
_BLOCK: Final = 512  # st_blocks, whatever the file system


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What else is looked at while a contender works. `leaves` is what it leaves on the disk."""

    source: Server | None = None
    dest: Server | None = None
    daemon: Server | None = None
    leaves: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Of one run. `tree_memory` is what the whole process tree had at its largest, `own_memory` the peak of the first
    process alone; `written` is what the tree wrote to disks, `archived` what the destination's registry wrote, `sent`
    what the source's sent; `parts` are seconds of its steps."""

    seconds: float
    cpu: float
    tree_memory: int
    own_memory: int
    written: int
    archived: int | None
    sent: int | None
    requests: int | None
    disk: int | None
    parts: Mapping[str, float]

    def record(self) -> dict[str, object]:
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(self).items()}


def measured(run: Work, watch: Watch, aside: AbstractSet[int]) -> Costs:
    """Run it. `aside` are the processes of this one that do not belong to it."""
    with _sampled(aside, watch.daemon) as sampler:
        before = _Counters.of(watch)
        begin = time.perf_counter()
        parts = run()
        seconds = time.perf_counter() - begin
        after = _Counters.of(watch)
    return Costs(
        seconds=seconds,
        cpu=after.cpu - before.cpu,
        tree_memory=sampler.tree,
        own_memory=sampler.own,
        written=after.written - before.written,
        archived=after.archived - before.archived if watch.dest else None,
        sent=after.sent - before.sent if watch.source else None,
        requests=after.requests - before.requests if watch.source else None,
        disk=sum(map(_disk_bytes, watch.leaves)) if watch.leaves else None,
        parts=dict(parts or {}),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counters:
    """What only grows, at one moment. A process has the counts of the children it has waited for."""

    cpu: float
    written: int
    archived: int
    sent: int
    requests: int

    @classmethod
    def of(cls, watch: Watch) -> "_Counters":
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        ends = [server for server in (watch.source, watch.dest) if server]
        return cls(
            cpu=used.ru_utime + used.ru_stime,
            written=_io("self", "write_bytes") + (_io(f"{watch.daemon.pid}", "write_bytes") if watch.daemon else 0),
            # wchar is exact to the byte; write_bytes counts pages, which links of 71 bytes do not fill.
            archived=_io(f"{watch.dest.pid}", "wchar") if watch.dest else 0,
            sent=_io(f"{watch.source.pid}", "wchar") if watch.source else 0,
            requests=sum(server.requests() for server in ends),
        )


def _io(process: str, name: str) -> int:
    lines = Path("/proc", process, "io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


@dataclass(slots=True)
class _Sampler:
    """A thread that looks at the process tree twenty times a second."""

    aside: AbstractSet[int]
    daemon: Server | None
    tree: int = 0
    own: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def follow(self) -> None:
        while not self.stop.wait(_SAMPLE_SECONDS):
            children = [pid for pid in _children(os.getpid()) if pid not in self.aside]
            roots = [*children, self.daemon.pid] if self.daemon else children
            self.tree = max(self.tree, sum(map(_share, _with_descendants(roots))))
            self.own = max([self.own, *map(_peak, children)])


@contextlib.contextmanager
def _sampled(aside: AbstractSet[int], daemon: Server | None) -> Iterator[_Sampler]:
    sampler = _Sampler(aside, daemon)
    thread = threading.Thread(target=sampler.follow, daemon=True)
    thread.start()
    try:
        yield sampler
    finally:
        sampler.stop.set()
        thread.join()


def _with_descendants(roots: Iterable[int]) -> Iterator[int]:
    for pid in roots:
        yield pid
        yield from _with_descendants(_children(pid))


def _children(pid: int) -> list[int]:
    """Of all its threads: a child belongs to the thread that started it."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return found


def _share(pid: int) -> int:
    """Bytes of memory, of pages that several processes have its share (Pss, proc(5)): a child that was forked and is no
    other program yet seems to have all that its parent has."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
    except OSError:
        return 0


def _peak(pid: int) -> int:
    # Not getrusage: its maximum of a child starts with what this process had when it forked.
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
    except OSError:
        return 0


def _disk_bytes(path: Path) -> int:
    """Like du: a file with several names counts once."""
    seen: dict[tuple[int, int], int] = {}
    for directory, _, names in os.walk(path):
        for name in (".", *names):
            status = os.lstat(f"{directory}/{name}")
            seen[status.st_dev, status.st_ino] = status.st_blocks
    if path.is_file():
        seen[0, 0] = path.stat().st_blocks
    return sum(seen.values()) * _BLOCK
