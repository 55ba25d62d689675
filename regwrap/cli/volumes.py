"""A bundle that comes as a stream: through a pipe, or in volumes, whose media may be mounted one by one."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from regwrap.bundle.volume_places import named_directories, volumes_of
from regwrap.core.pipes import widen
from regwrap.core.text import printable
from regwrap.core.writing import is_there

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from regwrap.report.progress import Progress

_PIPED: Final = Path("-")


@contextmanager
def incoming(bundle: Path, progress: Progress) -> Iterator[IO[bytes] | None]:
    """Its bytes from the first to the last; None where it is a file. Raises UsageError where volumes are missing."""
    if bundle == _PIPED:
        widen(sys.stdin.buffer)
        yield sys.stdin.buffer
        return
    media = named_directories()
    if is_there(bundle) or not (media or volumes_of(bundle)):
        yield None
        return
    from regwrap.bundle.volume_stream import never, volume_stream  # most bundles are files

    def ask(name: str, directories: Sequence[Path]) -> bool:
        places = ", ".join(map(str, directories))
        question = printable(f"{name} is not in {places}: insert its medium and press Enter; Ctrl-D to give up")
        with progress.asking(question):
            return sys.stdin.readline() != ""

    with volume_stream(bundle, ask if media and sys.stdin.isatty() else never) as file:
        yield file


def name_of(bundle: Path) -> Path:
    """What messages call it."""
    return Path("standard input") if bundle == _PIPED else bundle
