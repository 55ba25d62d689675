"""The command diff."""

import sys
from enum import StrEnum
from typing import Annotated

import typer

from regwrap.cli.options import ConfigOption, VolumesFromOption
from regwrap.cli.settings import load
from regwrap.commands.diff import diff_listings
from regwrap.report import text as report
from regwrap.report.diff_text import diff_markdown, diff_text


class DiffFormat(StrEnum):
    """Who reads it."""

    TEXT = "text"
    MARKDOWN = "markdown"
    JSON = "json"


def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A list, a lock, a bundle, a bundle.json or a receipt.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The same.")],
    form: Annotated[
        DiffFormat, typer.Option("--format", help="For a terminal, for release notes, or for programs.")
    ] = DiffFormat.TEXT,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with exit code 1 if anything differs.")] = False,
    volumes_from: VolumesFromOption = None,
    config: ConfigOption = None,
) -> None:
    result = diff_listings(old, new, sys.stdin.buffer, load(config).rewrite)
    texts = {DiffFormat.TEXT: diff_text, DiffFormat.MARKDOWN: diff_markdown, DiffFormat.JSON: report.to_json}
    typer.echo(texts[form](result))
    if exit_code and not result.is_empty:
        raise typer.Exit(1)
