"""Real file systems on loop devices: full in bytes, in inodes, by quota; read-only or dead half way; another owner and
umask; and power cuts, for which the device's image is copied while it is mounted."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Final

from tests.torture.ground import Ground, Place, snapshot
from tests.torture.judge import CAUSES, Expected, Verdict, differences, judge, left, lost, unverified
from tests.torture.programs import processes_in
from tests.torture.scenarios import BY_NAME, Scenario

GROUP: Final = "disk"
_WRITERS: Final = (
    *(
        "sync",
        "package-select",
        "package-overlay",
        "package-direct",
        "deploy",
        "import",
        "export",
        "gc",
        "release",
        "bake",
    ),
    *("join", "package-volumes", "deploy-volumes", "deploy-delta", "deploy-pipe", "deploy-package", "direct-volumes"),
)
_MEGABYTE: Final = 1 << 20
_MAKE: Final = {
    "ext4": (16, ("mkfs.ext4", "-q", "-F", "-m", "0")),
    "ext4-inodes": (16, ("mkfs.ext4", "-q", "-F", "-m", "0", "-N", "2000")),
    "xfs": (64, ("mkfs.xfs", "-q", "-f")),
    "btrfs": (48, ("mkfs.btrfs", "-q", "--mixed")),
}
_KINDS: Final = ("ext4", "xfs", "btrfs", "tmpfs")
_OTHER_LIMITS: Final = (("inodes", "ext4-inodes"), ("inodes", "tmpfs"), ("quota", "btrfs"))
_FULL: Final = rf"{CAUSES['ENOSPC']}|{CAUSES['EDQUOT']}"
_MOMENTS: Final = tuple(range(2, 100, 4))


@dataclass(frozen=True)
class Disk:
    """A file system in a file."""

    kind: str
    image: Path
    point: Path

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self.image, self.point], check=True, capture_output=True)

    def unmount(self) -> None:
        subprocess.run(["umount", self.point], check=True, capture_output=True)


@contextmanager
def made_disk(ground: Ground, kind: str) -> Iterator[Disk]:
    point = ground.base / "mounted"
    point.mkdir(exist_ok=True)
    if kind == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3M,nr_inodes=3000", "torture", point], check=True)
        disk = Disk(kind, Path("/nonexistent"), point)
    else:
        size, command = _MAKE[kind]
        disk = Disk(kind, ground.base / "disk.img", point)
        disk.image.unlink(missing_ok=True)
        with disk.image.open("wb") as file:
            file.truncate(size * _MEGABYTE)
        # mkfs.xfs makes file systems below 300 MB only for its own tests, which it knows by these three
        environment = {**os.environ, "TEST_DIR": "/x", "TEST_DEV": "/x", "QA_CHECK_FS": "/x"}
        subprocess.run([*command, disk.image], check=True, capture_output=True, env=environment)
        disk.mount()
    try:
        yield disk
    finally:
        subprocess.run(["umount", point], check=False, capture_output=True)


def cases(ground: Ground) -> Iterator[tuple[str, str]]:
    """Needs root, and a mount namespace of its own."""
    if not ground.private_memory:
        return
    for work, part in product(_WRITERS, range(0, 100, 5)):
        for how, kind in (*(("bytes", kind) for kind in _KINDS), *_OTHER_LIMITS):
            yield f"{how}/{kind}", f"{GROUP}/{work}/{how}/{kind}/{part}"
    for work, moment in product(_WRITERS, _MOMENTS):
        cuts = product(("cut", "cut-later"), ("ext4", "xfs", "btrfs"))
        for how, kind in (("read-only", "ext4"), ("dead", "xfs"), *cuts):
            yield f"{how}/{kind}", f"{GROUP}/{work}/{how}/{kind}/{moment}"
    for work, part in product(("sync-registry", "push"), range(0, 100, 5)):
        yield "bytes", f"{GROUP}/{work}/bytes/ext4/{part}"
        yield "inodes", f"{GROUP}/{work}/inodes/ext4-inodes/{part}"
    for work, how in product(_WRITERS, ("other-owner", "other-umask", "refused")):
        if how != "other-umask" or BY_NAME[work].storages:  # new directories follow the umask, as is usual
            yield how, f"{GROUP}/{work}/{how}/tmpfs/0"


def run(ground: Ground, name: str) -> Verdict:
    _group, work, how, kind, number = name.split("/")
    scenario, verdict = BY_NAME[work], Verdict(name)
    ground.result_of(scenario)
    with made_disk(ground, kind) as disk:
        if how.startswith("cut"):
            _power_cut(ground, scenario, disk, verdict, int(number), later=how == "cut-later")
            return verdict
        with ground.place(scenario, at=disk.point) as place:
            outside = ground.base / "outside"
            shutil.rmtree(outside, ignore_errors=True)
            outside.mkdir(mode=0o777)
            if int(number) % 2:  # stage and storage on one disk, all else on another
                place.environment |= {"TMPDIR": f"{outside}", "HOME": f"{outside}"}
            subprocess.run(["sync", "-f", disk.point], check=True)
            _WAYS[how](ground, scenario, place, disk, verdict, int(number))
    return verdict


def _filled(ground: Ground, scenario: Scenario, place: Place, disk: Disk, verdict: Verdict, number: int) -> None:
    """A part of what the work needs is free."""
    status = os.statvfs(disk.point)
    needed = 700_000 * number // 100
    filler = place.root / "lost+found"
    filler.mkdir(exist_ok=True)
    with suppress(OSError), (filler / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, status.f_bavail * status.f_frsize - needed))
    with suppress(OSError), (filler / "rest").open("wb", buffering=0) as file:
        while os.statvfs(disk.point).f_bavail * status.f_frsize > needed + 8192:
            file.write(b"x" * 4096)
    _until_full(ground, scenario, place, verdict, filler)


def _without_inodes(
    ground: Ground, scenario: Scenario, place: Place, disk: Disk, verdict: Verdict, number: int
) -> None:
    needed = 260 * number // 100
    filler = place.root / "lost+found"
    filler.mkdir(exist_ok=True)
    for name in range(os.statvfs(disk.point).f_favail - needed):
        with suppress(OSError):
            (filler / f"{name}").touch()
    _until_full(ground, scenario, place, verdict, filler)


def _quota(ground: Ground, scenario: Scenario, place: Place, disk: Disk, verdict: Verdict, number: int) -> None:
    """A qgroup's limit, which statvfs does not show."""
    for command in (("enable",), ("rescan", "-w")):
        subprocess.run(["btrfs", "quota", *command, disk.point], check=True, capture_output=True)
    used = subprocess.run(["du", "-sb", disk.point], check=True, capture_output=True, text=True).stdout.split()[0]
    limit = int(used) + 150_000 + 700_000 * number // 100
    subprocess.run(["btrfs", "qgroup", "limit", f"{limit}", disk.point], check=True, capture_output=True)

    def mend() -> None:
        subprocess.run(["btrfs", "qgroup", "limit", "none", disk.point], check=True, capture_output=True)

    _run_once(ground, scenario, place, verdict, Expected(cause=_FULL, foreign=scenario.dest, mend=mend))


def _until_full(ground: Ground, scenario: Scenario, place: Place, verdict: Verdict, filler: Path) -> None:
    _run_once(
        ground,
        scenario,
        place,
        verdict,
        Expected(cause=_FULL, foreign=scenario.dest, mend=lambda: shutil.rmtree(filler)),
    )


def _run_once(ground: Ground, scenario: Scenario, place: Place, verdict: Verdict, expected: Expected) -> None:
    ended = place.start(*scenario.args(place)).ended()
    verdict.hit = ended.code != 0
    judge(ground, scenario, place, ended, verdict, expected)


def _dying(command: tuple[str, ...], cause: str) -> Callable[[Ground, Scenario, Place, Disk, Verdict, int], None]:
    def run(ground: Ground, scenario: Scenario, place: Place, disk: Disk, verdict: Verdict, number: int) -> None:
        """The disk stops to be written to while the work goes on."""
        started = place.start(*scenario.args(place))
        verdict.hit = not started.ends_within(ground.moment(scenario, number))
        subprocess.run([*command, disk.point], check=True, capture_output=True)
        ended = started.ended()
        verdict.hit = verdict.hit and ended.code != 0
        disk.unmount()
        disk.mount()
        judge(ground, scenario, place, ended, verdict, Expected(cause=cause, untidy=True))

    return run


def _owned(ground: Ground, scenario: Scenario, place: Place, disk: Disk, verdict: Verdict, number: int) -> None:
    """All is of another user, who runs regwrap."""
    place.uid = 4242 + number
    for directory, names, files in os.walk(place.root):
        for name in (".", *names, *files):
            os.chown(Path(directory, name), place.uid, place.uid)
    os.chown(disk.point, place.uid, place.uid)
    ended = place.start(*scenario.args(place)).ended()
    judge(ground, scenario, place, ended, verdict, Expected(cause="never"))
    for name in scenario.storages:
        strange = [path for path in (place.root / name).rglob("*") if path.lstat().st_uid != place.uid]
        verdict.lost += [f"{path} has another owner" for path in strange[:3]]


def _masked(ground: Ground, scenario: Scenario, place: Place, _disk: Disk, verdict: Verdict, _number: int) -> None:
    """What a storage gets fits its root, and a bundle can be read by all."""
    place.umask = 0o077
    ended = place.start(*scenario.args(place)).ended()
    place.umask = 0o022
    judge(ground, scenario, place, ended, verdict, Expected(cause="never"))


def _refused(ground: Ground, scenario: Scenario, place: Place, disk: Disk, verdict: Verdict, number: int) -> None:
    """Another user may read all and write nothing."""
    place.uid = 4242 + number
    disk.point.chmod(0o755)
    (place.root / "home").chmod(0o777)
    (place.root / "scratch").chmod(0o777)
    for path in (place.root / "regwrap.yaml", place.root / "auth.json"):
        path.chmod(0o644)

    def mend() -> None:
        place.uid = 0

    ended = place.start(*scenario.args(place)).ended()
    verdict.hit = ended.code != 0
    judge(ground, scenario, place, ended, verdict, Expected(cause=CAUSES["EACCES"], mend=mend))


_WAYS: Final = {
    "bytes": _filled,
    "inodes": _without_inodes,
    "quota": _quota,
    # "abort": ext4's own way to try what it does after an error (ext4(5))
    "read-only": _dying(("mount", "-o", "remount,abort"), rf"{CAUSES['EROFS']}|{CAUSES['EIO']}"),
    "dead": _dying(("xfs_io", "-x", "-c", "shutdown"), CAUSES["EIO"]),
    "other-owner": _owned,
    "other-umask": _masked,
    "refused": _refused,
}


def _power_cut(ground: Ground, scenario: Scenario, disk: Disk, verdict: Verdict, number: int, *, later: bool) -> None:
    """What lies on the device at a moment is mounted and judged as after a kill. `later`: something else there was
    synced before, which takes along what the journal has of names."""
    copy = Disk(disk.kind, ground.base / "copy.img", ground.base / "copied")
    copy.point.mkdir(exist_ok=True)
    with ground.place(scenario, at=disk.point) as place:
        os.sync()
        started = place.start(*scenario.args(place))
        verdict.hit = not started.ends_within(ground.moment(scenario, number))
        with _stopped(place):
            if later:
                with (place.root / "lost+found-other").open("wb") as file:
                    os.fsync(file.fileno())
            subprocess.run(["cp", "--sparse=always", disk.image, copy.image], check=True)
        (place.root / "lost+found-other").unlink(missing_ok=True)
        ended = started.ended()
    disk.unmount()  # btrfs mounts no second device of one identity
    copy.mount()
    with ExitStack() as stack:
        stack.callback(copy.unmount)
        place = replace(place, root=copy.point, environment=ground.environment(copy.point))
        (place.root / "lost+found-other").unlink(missing_ok=True)
        verdict.code, verdict.said = ended.code, ended.said[-1000:]
        verdict.lost += [f"after the power cut: {text}" for text in lost(ground, scenario, place)]
        wanted = ground.result_of(scenario)
        if scenario.once and snapshot(place.root, scenario.results) == wanted:
            return
        again = place.run(*scenario.args(place))
        if again.code != 0:
            verdict.lost.append(f"run again it ends with {again.code}: {again.err[-600:]}")
            return
        verdict.lost += [f"run again: {text}" for text in differences(wanted, snapshot(place.root, scenario.results))]
        verdict.lost += list(unverified(scenario, place))
        verdict.left += list(left(scenario, place, gone=False))


@contextmanager
def _stopped(place: Place) -> Iterator[None]:
    """Nothing of the run goes on for the length of the block."""
    pids = [int(line.split()[0]) for line in processes_in(place.root, place.spared)]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    time.sleep(0.002)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
