"""What the reader of the log is: a terminal with a live line and colours, or a CI's log with sections that fold.

`CI`, `NO_COLOR` and `TERM=dumb` are respected. All decisions are pure; the environment is passed in.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROOM: Final = 80  # columns, where a terminal does not say
_CLEAR: Final = "\x1b[0K"


class Folds(Enum):
    """How a CI's log is told what belongs together."""

    NONE = "none"
    GITHUB = "github"  # docs of GitHub Actions: workflow commands, grouping log lines
    GITLAB = "gitlab"  # docs of GitLab CI/CD: job logs, custom collapsible sections


@dataclass(frozen=True, slots=True)
class Reader:
    """`live`: one line that is drawn again and again; `colours`: failures are red."""

    live: bool
    colours: bool
    folds: Folds


def reader_of(stream: TextIO, environ: Mapping[str, str]) -> Reader:
    """Live lines and colours only on a real terminal that is no CI's; sections only in a log that knows them."""
    terminal = stream.isatty() and environ.get("TERM", "dumb") != "dumb" and not environ.get("CI")
    return Reader(live=terminal, colours=terminal and not environ.get("NO_COLOR"), folds=folds_of(environ))


def folds_of(environ: Mapping[str, str]) -> Folds:
    if environ.get("GITHUB_ACTIONS") == "true":
        return Folds.GITHUB
    return Folds.GITLAB if environ.get("GITLAB_CI") == "true" else Folds.NONE


def opening(folds: Folds, name: str, title: str, *, seconds: float) -> str:
    """The line that begins a section; `name` is its only one in the log. Empty where nothing folds."""
    match folds:
        case Folds.GITHUB:
            return f"::group::{title}"
        case Folds.GITLAB:
            return f"{_CLEAR}section_start:{seconds:.0f}:{name}[collapsed=true]\r{_CLEAR}{title}"
        case Folds.NONE:
            return ""


def closing(folds: Folds, name: str, *, seconds: float) -> str:
    match folds:
        case Folds.GITHUB:
            return "::endgroup::"
        case Folds.GITLAB:
            return f"{_CLEAR}section_end:{seconds:.0f}:{name}\r{_CLEAR}"
        case Folds.NONE:
            return ""


def red(text: str, reader: Reader) -> str:
    return f"\x1b[31m{text}\x1b[0m" if reader.colours else text


def columns(stream: TextIO) -> int:
    """How much fits on a line: what is longer would wrap, and could not be drawn over."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or _ROOM
    except (OSError, ValueError):
        return _ROOM
