"""The command doctor."""

from pathlib import Path

import typer

from regwrap.cli.options import ArchiveOption, ConfigOption, JsonOption
from regwrap.cli.output import show
from regwrap.cli.session import load, opened_session
from regwrap.commands.doctor import DoctorPlaces, examine_machine
from regwrap.config.outside import look_outside
from regwrap.core.errors import ExitCode
from regwrap.report import text as report


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
