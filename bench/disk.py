"""A disk of the benchmark's own: a file system in a file whose blocks were all written before.

Disks of virtual machines are often thin. A block gets its place on the host when it is first written, which took four
times as long as writing it again on the machine of docs/benchmarks.md, and a file system that is mounted with `discard`
gives the place back with every file that is removed. Which contender meets new blocks would be chance.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from shell import ProgramFailedError, Shell, find_program

OWN: Final = "ext4 in a file of its own, every block written before, direct I/O"
_TOOLS: Final = ("mkfs.ext4", "losetup", "mount", "umount")
_CHUNK: Final = 4 << 20
# Without lazy_…=0 the kernel writes the tables beside the measurements, after the mount.
_WHOLE: Final = "nodiscard,lazy_itable_init=0,lazy_journal_init=0"


def why_no_disk() -> str:
    """What is missing for a disk of one's own; empty if nothing is."""
    if os.geteuid():
        return "only root can mount one"
    absent = [name for name in _TOOLS if find_program(name) is None]
    return f"not found: {', '.join(absent)}" if absent else ""


def has_disk(place: Path, size: int) -> bool:
    image = _image(place)
    return image.exists() and image.stat().st_size >= size


@contextlib.contextmanager
def own_disk(place: Path, size: int, say: Callable[[str], None]) -> Iterator[Path]:
    """The directory where it is mounted. It is kept with what is on it, and made again where it is smaller than `size`
    bytes. Raises ProgramFailedError where this machine can't have one."""
    image, there, shell = _image(place), place / "disk", Shell(place)
    there.mkdir(exist_ok=True)
    with contextlib.suppress(ProgramFailedError):
        if there.is_mount():  # of a run that was killed
            shell.run(["umount", f"{there}"])
    if not has_disk(place, size):
        say(f"a disk of {size / 1e9:.0f} GB: each block is written once")
        _make(shell, image, size)
    device = _attached(shell, image)
    try:
        shell.run(["mount", "-o", "nodiscard", device, f"{there}"])
    finally:
        shell.run(["losetup", "-d", device])  # goes with the last mount of it
    try:
        yield there
    finally:
        try:
            shell.run(["umount", f"{there}"])
        except ProgramFailedError as error:  # the next run does it; the figures of this one are right
            say(f"{there.name}: {error}")


def _image(place: Path) -> Path:
    return place / "disk.img"


def _attached(shell: Shell, image: Path) -> str:
    device = shell.first_line(["losetup", "--find", "--show", "--direct-io=on", f"{image}"])
    if not device:
        raise ProgramFailedError(f"losetup gives no loop device for {image.name}")
    return device


def _make(shell: Shell, image: Path, size: int) -> None:
    """It has its name when it is whole."""
    part = image.with_name(f"{image.name}.part")
    chunk = bytes(_CHUNK)
    with part.open("wb", buffering=0) as file:
        for _ in range(-(-size // _CHUNK)):
            file.write(chunk)
        os.fsync(file.fileno())
    shell.run(["mkfs.ext4", "-q", "-F", "-m", "0", "-i", "8192", "-E", _WHOLE, f"{part}"])
    part.rename(image)
