"""Commands on reports of runs: report show, report merge."""

from pathlib import Path
from typing import Annotated, Final

import typer

from regwrap.cli.options import HtmlOption, JunitOption
from regwrap.cli.output import echo, write_page
from regwrap.cli.records import write_record
from regwrap.core.bounded import read_bounded
from regwrap.core.counts import counted
from regwrap.core.errors import ExitCode, UsageError
from regwrap.report.record import Outcome, merge, parse_record
from regwrap.report.record_text import record_text

_MAX_BYTES: Final = 64 * 1024 * 1024  # of 100,000 images


def show_report(
    file: Annotated[Path, typer.Argument(metavar="REPORT.JSON", help="A report that sync, release or push wrote.")],
    html: HtmlOption = None,
) -> None:
    record = parse_record(_bytes_in(file), f"{file}")
    if html:
        from regwrap.report.page_run import run_page  # pages are asked for now and then

        write_page(html, file, run_page(record))
    echo(record_text(record))
    if record.having(Outcome.FAILED):
        raise typer.Exit(ExitCode.IMAGES_FAILED)


def merge_reports(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="REPORT.JSON...", help="Reports of shards, or of runs in chronological order."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Report to write.")],
    junit: JunitOption = None,
) -> None:
    record = merge([parse_record(_bytes_in(file), f"{file}") for file in files])
    write_record(record, output, junit)
    echo(f"{output}: {counted(len(record.images), 'image')} of {counted(len(files), 'report')}")


def _bytes_in(file: Path) -> bytes:
    try:
        return read_bounded(file, _MAX_BYTES)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
