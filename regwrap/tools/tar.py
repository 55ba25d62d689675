"""GNU tar: the reproducible flags, in one place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import OUR_DISK_HINT, IntegrityError, ToolError
from regwrap.core.writing import write_file
from regwrap.tools.answers import TAR_READ_ERROR, TAR_SHORT_WRITE
from regwrap.tools.runner import Command, Runner, Tool

if TYPE_CHECKING:
    from collections.abc import Sequence

RECORD_BLOCKS: Final = 128  # 64 KiB records write at the speed of cat; the padding makes them part of the format


def create_tar(
    runner: Runner, output: int, parts: Sequence[tuple[Path, Sequence[str]]], *, scratch: Path, stall: float
) -> None:
    """Write the members `(directory, names below it)` to the open file `output`, in exactly that order.

    The bytes depend on names and contents alone. Raises IntegrityError where a file cannot be read; its place is filled
    up, and so are those behind it. Raises ToolError, too; a warning (a file that changed while it was
    read) is a failure too, since GNU tar pads what shrank with zeros and exits with 1.
    """
    places: list[str] = []
    for number, (directory, names) in enumerate(parts):
        names_file = scratch / f"members-{number}"
        write_file(names_file, b"".join(os.fsencode(name) + b"\0" for name in names))
        places += ["-C", f"{directory}", "-T", f"{names_file}"]
    command = Command(
        tool=Tool.TAR,
        args=(
            "--create", "--file", f"/proc/self/fd/{output}",
            "--format=gnu",
            "--blocking-factor", f"{RECORD_BLOCKS}",
            "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0",
            "--mode=a-st,u=rw,go=r",
            "--hard-dereference",
            # these three have to stand before -T to have an effect on it
            "--no-recursion", "--null", "--verbatim-files-from",
            *places,
        ),
        stall=stall,
        inherit=(output,),
    )  # fmt: skip
    try:
        runner.run(command)
    except ToolError as error:
        if TAR_READ_ERROR in error.detail:
            raise IntegrityError("tar could not read each file to its end", detail=error.detail) from error
        if TAR_SHORT_WRITE not in error.detail:
            raise
        hint = f"{OUR_DISK_HINT}, or write the bundle to another disk with -o"
        path = Path(f"/proc/self/fd/{output}").readlink()
        raise ToolError(f"no space left on device for {path}", detail=error.detail, hint=hint) from error
