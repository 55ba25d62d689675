"""The command lock, and what sync has in common with it."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from regwrap.cli.options import (
    ArchiveOption,
    ConfigOption,
    JobsOption,
    JsonOption,
    ListArgument,
    QuietOption,
    ShardOption,
    SourceOption,
    VerboseOption,
    VolumesFromOption,
)
from regwrap.cli.output import echo, show
from regwrap.cli.session import Session, opened_session
from regwrap.cli.settings import load, parsed
from regwrap.cli.wanted import wanted_of
from regwrap.commands.lock import LockReport, check_lock, write_lock
from regwrap.config.load import Config
from regwrap.core.counts import counted
from regwrap.core.errors import ExitCode, ImagesFailedError, UsageError
from regwrap.lists.lock import lock_path
from regwrap.lists.shards import Shard
from regwrap.lists.wanted import Wanted
from regwrap.report import text as report


def lock(
    images_list: ListArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Lock file to write (default: beside the list, .lock)."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; show changes since the lock and exit with 1.")
    ] = False,
    source: SourceOption = None,
    archive: ArchiveOption = None,
    jobs: JobsOption = None,
    shard: ShardOption = None,
    volumes_from: VolumesFromOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    json: JsonOption = False,
) -> None:
    settings, part, path = (
        load(config, source, archive, jobs),
        None if shard is None else parsed("--shard", Shard.parse, shard),
        lock_path(images_list, output),
    )
    if part and not output and not check:
        raise UsageError("--shard locks only a part of the list: name its lock with -o FILE")
    with opened_session(quiet=quiet, verbose=verbose) as session:
        wanted = replace(wanted_of(images_list, settings, session.progress), shard=part)
        if not check:
            written = written_lock(session, settings, wanted, path)
            show(written, report.lock_text(written), json=json)
            if written.unread:
                raise typer.Exit(ExitCode.IMAGES_FAILED)
            return
        result = check_lock(session.job(settings), wanted, path)
    show(result, report.lock_check_text(result), json=json)
    if result.failed:
        echo(report.unseen_text(result.failed), err=True)
    for text in result.unread:
        echo(f"note: {text}", err=True)
    if result.changes or result.failed or result.unread:
        raise typer.Exit(ExitCode.IMAGES_FAILED)


def written_lock(session: Session, settings: Config, wanted: Wanted, path: Path) -> LockReport:
    result = write_lock(session.job(settings), wanted, path)
    for text in result.unread:
        session.progress.log(f"note: {text}")
    if result.failed:
        raise ImagesFailedError(
            f"{counted(len(result.failed), 'image')} cannot be locked; {path} was not written",
            detail=report.unseen_text(result.failed),
        )
    return result
