"""Commands on reports of runs, and on the machine: report show, report merge, doctor."""

from pathlib import Path
from typing import Annotated

import typer

from regwrap import report
from regwrap.cli.options import ArchiveOption, ConfigOption, HtmlOption, JsonOption, JunitOption
from regwrap.cli.outcome import show, write_page, write_record
from regwrap.cli.session import load, opened_session
from regwrap.doctor import DoctorPlaces, examine_machine
from regwrap.errors import ExitCode, UsageError
from regwrap.outside import look_outside
from regwrap.page.run import run_page
from regwrap.record.run import FAILED, merge, parse_record
from regwrap.record.text import record_text


def show_report(
    file: Annotated[Path, typer.Argument(metavar="REPORT.JSON", help="What sync --report has written.")],
    html: HtmlOption = None,
) -> None:
    record = parse_record(_bytes_in(file), f"{file}")
    if html:
        write_page(html, file, run_page(record))
    typer.echo(record_text(record))
    if record.having(FAILED):
        raise typer.Exit(ExitCode.IMAGES_FAILED)


def merge_reports(
    files: Annotated[
        list[Path], typer.Argument(metavar="REPORT.JSON...", help="Of shards, or of runs in their order.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The report to write.")],
    junit: JunitOption = None,
) -> None:
    record = merge([parse_record(_bytes_in(file), f"{file}") for file in files])
    write_record(record, output, junit)
    typer.echo(f"{output}: {len(record.images)} images of {len(files)} reports")


def _bytes_in(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}") from error


def doctor(archive: ArchiveOption = None, config: ConfigOption = None, json: JsonOption = False) -> None:
    settings = load(config, None, archive)
    with opened_session(quiet=True) as session:
        places = DoctorPlaces(
            archive=settings.archive.storage,
            uppers=(settings.scratch,) if settings.scratch else (Path.cwd(), session.scratch.parent),
            scratch=session.scratch,
        )
        outside = look_outside(settings.environment, settings.default_authfile, home=Path.home(), etc=Path("/etc"))
        result = examine_machine(session.runner, places, outside)
    show(result, report.doctor_text(result), json=json)
    if not result.ok:
        raise typer.Exit(ExitCode.TOOL)
