"""What the command line says: the configuration with its flags, values of options."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from regwrap.bundle.contents import parse_name
from regwrap.config.load import Config, Flags, load_config
from regwrap.core.errors import UsageError
from regwrap.core.model import ParseError

T = TypeVar("T")


def load(
    config: Path | None,
    source: str | None = None,
    archive: str | None = None,
    jobs: int | None = None,
    upper: Path | None = None,
    engine: str | None = None,
) -> Config:
    where = None if upper is None else f"{upper}"
    flags = Flags(config=config, source=source, archive=archive, jobs=jobs, upper=where, engine=engine)
    return load_config(flags, environ=os.environ, cwd=Path.cwd())


def parsed(option: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ParseError as error:
        raise UsageError(f"{option}: {error}") from error


def release_name(text: str | None, option: str = "--name") -> str:
    """What the option says; empty where it was not given."""
    return "" if text is None else parsed(option, parse_name, text)
