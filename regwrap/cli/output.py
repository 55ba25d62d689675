"""What a command shows: its log on stderr while it runs, its result on stdout, and pages."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from regwrap.bundle.aside import write_atomically
from regwrap.core.errors import ExitCode, UsageError
from regwrap.core.text import printable
from regwrap.core.writing import named_on_error
from regwrap.report import text as report
from regwrap.report.progress import Progress
from regwrap.report.terminal import reader_of

if TYPE_CHECKING:
    from regwrap.transfer.plan import Plan


@contextmanager
def shown_progress(*, quiet: bool) -> Iterator[Progress]:
    """Progress is shown while the block runs."""
    with Progress(sys.stderr, quiet=quiet, reader=reader_of(sys.stderr, os.environ)).shown() as progress:
        yield progress


def show(result: object, text: str, *, json: bool) -> None:
    """The result on stdout, in one form or the other."""
    if json:
        typer.echo(report.to_json(result))
    else:
        echo(text)


def echo(text: str, *, err: bool = False) -> None:
    """Text with foreign words in it: registries', reports', lists'."""
    typer.echo(printable(text, keep="\n\t"), err=err)


def show_plan(plan: Plan, *, json: bool) -> typer.Exit:
    """What --dry-run prints; the exit code that goes with it."""
    show(plan, report.plan_text(plan, full=not sys.stdout.isatty()), json=json)
    return typer.Exit(ExitCode.IMAGES_FAILED if plan.unseen else ExitCode.DONE)


def write_page(file: Path, origin: Path, page: str) -> None:
    """Beside what it shows, never over it."""
    refuse_overwriting(file, [origin])
    write_atomically(file, page)


def refuse_overwriting(file: Path, read: Iterable[Path]) -> None:
    """Raises UsageError where what is to be written is among what was `read`."""
    if file.absolute() in {path.absolute() for path in read}:
        raise UsageError(f"{file} is the input and would be overwritten", hint="choose another name")


def has_summary() -> bool:
    """Whether a CI system wants to know what there is to say of the job."""
    return bool(os.environ.get("GITHUB_STEP_SUMMARY"))


def add_to_summary(text: str) -> None:
    """Behind what the job's other steps have said. Raises OSError with the file's name."""
    with named_on_error(Path(os.environ["GITHUB_STEP_SUMMARY"]).open("a", encoding="utf-8")) as file:
        file.write(text)
