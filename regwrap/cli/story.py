"""The story on stderr, for the length of a command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from regwrap.progress import Progress
from regwrap.terminal import reader_of


@contextmanager
def told(*, quiet: bool) -> Iterator[Progress]:
    """Progress is shown while the block runs."""
    with Progress(sys.stderr, quiet=quiet, reader=reader_of(sys.stderr, os.environ)).shown() as progress:
        yield progress
