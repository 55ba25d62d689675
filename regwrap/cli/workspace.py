"""The command workspace."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from regwrap.cli.options import (
    ConfigOption,
    HistoryOption,
    JobsOption,
    ListArgument,
    QuietOption,
    SourceOption,
    UpperOption,
    VerboseOption,
    VolumesFromOption,
)
from regwrap.cli.session import Session, opened_session
from regwrap.cli.settings import load
from regwrap.cli.wanted import listed
from regwrap.commands.workspace import Workspace, WorkspaceOptions, writable_workspace
from regwrap.core.errors import ExitCode, Interrupted
from regwrap.report import text as report
from regwrap.tools.scratch import temporary_place


def workspace(
    images_list: ListArgument,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- COMMAND", help="Command to run with $REGWRAP_REGISTRY and $REGWRAP_STORAGE set."),
    ] = None,
    history: HistoryOption = None,
    source: SourceOption = None,
    upper: UpperOption = None,
    jobs: JobsOption = None,
    volumes_from: VolumesFromOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    settings = load(config, source, history, jobs, upper)
    with opened_session(quiet=quiet, verbose=verbose) as session:
        images = listed(images_list, settings, session.progress)
        places = (settings.scratch,) if settings.scratch else (Path.cwd(), temporary_place())
        options = WorkspaceOptions(places=places, hashed=True)
        with writable_workspace(session.job(settings), images, options) as space:
            code = _stay(session, space, tuple(command or ()))
    raise typer.Exit(code)


def _stay(session: Session, space: Workspace, command: tuple[str, ...]) -> int:
    host = space.registry.host
    session.progress.log(f"{report.sync_text(space.sync)}; the registry is {host}, its storage {space.merged}")
    if command:
        environment = {**os.environ, "REGWRAP_REGISTRY": host, "REGWRAP_STORAGE": f"{space.merged}"}
        return session.runner.foreground(command, environment)
    typer.echo(host)
    sys.stdout.flush()
    try:
        space.server.wait()
    except Interrupted:
        session.progress.log("stopped")
    return ExitCode.DONE
