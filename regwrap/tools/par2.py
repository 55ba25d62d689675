"""par2: recovery files of a bundle or its volumes, and repair with them (par2(1), par2cmdline)."""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regwrap.core.writing import named_on_error
from regwrap.tools.runner import Command, Runner, Tool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_REPAIRED, _TOO_MUCH = 0, 2
_CODES: Final = tuple(range(9))  # par2 tells with them how it went
# a packet that describes a file: its header with the packet's length, three hashes and a length; then the name. What
# looks like one may have a packet inside, which par2 finds
_FILE: Final = re.compile(rb"PAR2\0PKT(?=(.{8}).{32}PAR 2\.0\0FileDesc.{56})", re.DOTALL)
_NAME_AT: Final = 120
_MOST_NAME: Final = 4096


@dataclass(frozen=True, slots=True)
class Par2:
    """`stall`: seconds without progress after which it is ended."""

    runner: Runner
    stall: float

    def create(self, index: Path, files: Sequence[Path], percent: int) -> None:
        """Write `index` and the recovery data beside it, so many percent of the files' size. Raises ToolError."""
        args = ("create", "-q", "-q", f"-r{percent}", "-n1", *_places(index, files))
        self.runner.run(Command(tool=Tool.PAR2, args=args, stall=self.stall))

    def repair(self, index: Path, files: Sequence[Path]) -> str:
        """Make the files right again; what was wrong with them is kept beside them. Says why it could not."""
        args = ("repair", "-q", "-q", *_places(index, files))
        result = self.runner.run(Command(tool=Tool.PAR2, args=args, stall=self.stall, ok_codes=_CODES))
        if result.exit_code == _REPAIRED:
            return ""
        said = result.stdout.decode(errors="replace") + result.stderr
        return "more is damaged than the recovery data can repair" if result.exit_code == _TOO_MUCH else said.strip()


def recovery_files(bundle: Path) -> tuple[Path, ...]:
    """The index of a bundle's recovery data first; par2 reads the others by itself."""
    index = bundle.with_name(f"{bundle.name}.par2")
    beside = (path for path in bundle.parent.iterdir() if path.name.startswith(f"{bundle.name}."))
    others = (path for path in beside if path.suffix.lower() == ".par2" and path.is_file())
    return tuple(sorted(others, key=lambda path: (path != index, path.name)))


def named_files(paths: Iterable[Path]) -> Iterator[str]:
    """Which files the recovery data says it is of: par2 makes a file of each such name, whatever the name is."""
    for path in paths:
        with named_on_error(path.open("rb")) as file:
            if file.seek(0, 2):
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    yield from (_name_in(data, match) for match in _FILE.finditer(data))


def _name_in(data: mmap.mmap, packet: re.Match[bytes]) -> str:
    """Filled up with zeros to the packet's end."""
    start, end = packet.start() + _NAME_AT, packet.start() + int.from_bytes(packet[1], "little")
    return data[start : min(end, start + _MOST_NAME)].rstrip(b"\0").decode(errors="backslashreplace")


def _places(index: Path, files: Sequence[Path]) -> tuple[str, ...]:
    """Absolute, since a path below a relative base path is not found by par2 0.8."""
    return ("-B", f"{index.parent.absolute()}", f"{index.absolute()}", *(f"{file.absolute()}" for file in files))
