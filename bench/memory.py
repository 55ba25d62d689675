"""A page cache that is full, as on a machine that has been up for a day.

A virtual machine may give what is free back to its host. The next touch of such a page took 8 microseconds on the
machine of docs/benchmarks.md: two seconds more for each gigabyte that is read or written first, for whoever comes after
others removed their files. Pages of the cache are not given back; that they make room for new ones costs all alike.
"""

import re
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_MEMINFO: Final = Path("/proc/meminfo")
_HOLE: Final = 1 << 40  # never read twice in one run, so each byte of it needs a page
_STEP: Final = 64 << 20
_LEFT_FREE: Final = 1 / 50


class FullMemory:
    """Fills what is free with pages of a file that is one hole, which reads no disk; it lasts as long as the `with`. At
    first at most `size` bytes, which is what a run will need."""

    def __init__(self, directory: Path, size: int) -> None:
        self._path = directory / "hole"
        self._file = self._path.open("w+b", buffering=0)
        self._file.truncate(_HOLE)
        self._buffer = bytearray(4 << 20)
        self._least = int(_bytes_of("MemTotal") * _LEFT_FREE)
        if not self._filled(size):
            self._least = _bytes_of("MemFree")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def refill(self) -> None:
        """What has become free since."""
        self._filled(2 * (_bytes_of("MemFree") - self._least))  # the kernel frees some meanwhile

    def _filled(self, most: int) -> bool:
        """Whether no more than the least is free; false after `most` bytes."""
        for _ in range(0, most, _STEP):
            if _bytes_of("MemFree") <= self._least:
                return True
            for _ in range(_STEP // len(self._buffer)):
                self._file.readinto(self._buffer)
        return _bytes_of("MemFree") <= self._least


def _bytes_of(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", _MEMINFO.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
