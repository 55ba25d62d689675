"""A result on stdout, as text or JSON, and the page that shows it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from regwrap import report
from regwrap.errors import ExitCode, UsageError
from regwrap.pipeline.beside import write_beside

if TYPE_CHECKING:
    from regwrap.plan import Plan


def show(result: object, text: str, *, json: bool) -> None:
    """The result on stdout, in one form or the other."""
    typer.echo(report.to_json(result) if json else text)


def show_plan(plan: Plan, *, json: bool) -> typer.Exit:
    """What --dry-run prints; the exit code that goes with it."""
    show(plan, report.plan_text(plan), json=json)
    return typer.Exit(ExitCode.IMAGES_FAILED if plan.unseen else ExitCode.DONE)


def write_page(file: Path, origin: Path, page: str) -> None:
    """Beside what it shows, never over it."""
    if file.absolute() == origin.absolute():
        raise UsageError(f"{file} is what the page would be made of", hint="give the page another name")
    write_beside(file, page)
