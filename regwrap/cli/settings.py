"""The configuration, and options that have a form."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from regwrap.config import Config, Flags, load_config
from regwrap.errors import UsageError
from regwrap.model import ParseError

T = TypeVar("T")


def load(
    config: Path | None,
    source: str | None = None,
    archive: str | None = None,
    jobs: int | None = None,
    upper: Path | None = None,
    engine: str | None = None,
) -> Config:
    flags = Flags(config=config, source=source, archive=archive, jobs=jobs, upper=upper, engine=engine)
    return load_config(flags, environ=os.environ, cwd=Path.cwd())


def parsed(option: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ParseError as error:
        raise UsageError(f"{option}: {error}") from error
