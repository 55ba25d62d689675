"""par2: recovery files of a bundle or its volumes, and repair with them (par2(1), par2cmdline)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regwrap.tools.runner import Command, Runner, Tool

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_REPAIRED, _TOO_MUCH = 0, 2
_CODES: Final = tuple(range(9))  # par2 tells with them how it went


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
        return "more is damaged than the recovery data makes good" if result.exit_code == _TOO_MUCH else said.strip()


def _places(index: Path, files: Sequence[Path]) -> tuple[str, ...]:
    """Absolute, since a path below a relative base path is not found by par2 0.8."""
    return ("-B", f"{index.parent.absolute()}", f"{index.absolute()}", *(f"{file.absolute()}" for file in files))
