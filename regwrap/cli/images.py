"""Commands that begin with an images.list: sync, lock, package, workspace, release."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from regwrap import report
from regwrap.cli.options import (
    ArchiveOption,
    ConfigOption,
    EngineOption,
    HistoryOption,
    JobsOption,
    JsonOption,
    JunitOption,
    ListArgument,
    LockedOption,
    LockFileOption,
    OutputOption,
    QuietOption,
    ReferrersOption,
    ReportOption,
    ShardOption,
    SourceOption,
    UpperOption,
    VerboseOption,
)
from regwrap.cli.outcome import RecordFiles, finish_sync, show, show_plan, tell_moved
from regwrap.cli.session import Session, chosen, load, lock_of, opened_session, parsed, unlocked_list, wanted_of
from regwrap.config import Config
from regwrap.doctor import tool_versions
from regwrap.errors import ExitCode, ImagesFailedError, Interrupted, UsageError
from regwrap.lockfile import lock_path
from regwrap.pipeline.bring import sync_images
from regwrap.pipeline.lock import LockReport, Wanted, check_lock, write_lock
from regwrap.pipeline.package import PackageOptions, Strategy, package_images
from regwrap.pipeline.release import release_images
from regwrap.pipeline.scratch import temporary_place
from regwrap.pipeline.workspace import Workspace, WorkspaceOptions, overlay_workspace
from regwrap.record.text import hosts_text
from regwrap.shards import Shard, shard_images
from regwrap.sync import SyncReport


def sync(
    images_list: ListArgument,
    source: SourceOption = None,
    archive: ArchiveOption = None,
    jobs: JobsOption = None,
    engine: EngineOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and why.")] = False,
    hashed: Annotated[
        bool, typer.Option("--hash", help="Read every blob in the archive; what is damaged is sent again.")
    ] = False,
    failed: Annotated[Path, typer.Option("--failed", metavar="FILE", help="Where the lines that failed go.")] = Path(
        "failed.list"
    ),
    lock: Annotated[
        bool, typer.Option("--lock", help="Write the lock first, then take its digests: regwrap lock, and --locked.")
    ] = False,
    locked: LockedOption = False,
    lock_file: LockFileOption = None,
    shard: ShardOption = None,
    report_file: ReportOption = None,
    junit: JunitOption = None,
    referrers: ReferrersOption = False,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    json: JsonOption = False,
) -> None:
    if dry_run and (lock or report_file or junit):
        raise UsageError("--dry-run writes nothing: it goes with no --lock, --report or --junit")
    settings, part = (
        load(config, source, archive, jobs, engine=engine),
        _shard_of(shard),
    )
    lock_used = lock_of(images_list, lock_file, locked=locked or lock)
    files = RecordFiles.now("sync", images_list, part, report_file, junit)
    with opened_session(quiet=quiet, verbose=verbose, stopping=settings.retry.stopping) as session:
        wanted = wanted_of(images_list, settings, session)
        if lock and lock_used:
            _write_lock(session, settings, wanted, lock_used)
        images = chosen(session, settings, wanted, lock_used)
        images = shard_images(images, part) if part else images
        result = sync_images(session.job(settings), images, hashed=hashed, dry_run=dry_run, referrers=referrers)
    if result.report is None:
        raise show_plan(result.plan, json=json)
    record = files.write([result.report], images.name, settings)
    if not quiet:
        typer.echo(hosts_text(record), err=True)
    finish_sync(result.report, failed, json=json, quiet=quiet)


def lock(
    images_list: ListArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The lock (default: beside the list, .lock).")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; say what has changed since, with exit code 1.")
    ] = False,
    source: SourceOption = None,
    archive: ArchiveOption = None,
    jobs: JobsOption = None,
    shard: ShardOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    json: JsonOption = False,
) -> None:
    settings, part, path = (
        load(config, source, archive, jobs),
        _shard_of(shard),
        lock_path(images_list, output),
    )
    if part and not output and not check:
        raise UsageError("--shard locks a part of the list only: name its lock with -o FILE")
    with opened_session(quiet=quiet, verbose=verbose, stopping=settings.retry.stopping) as session:
        wanted = replace(wanted_of(images_list, settings, session), shard=part)
        if not check:
            written = _write_lock(session, settings, wanted, path)
            show(written, report.lock_text(written), json=json)
            return
        result = check_lock(session.job(settings), wanted, path)
    show(result, report.lock_check_text(result), json=json)
    if result.failed:
        typer.echo(report.unseen_text(result.failed), err=True)
    if result.changes or result.failed:
        raise typer.Exit(ExitCode.IMAGES_FAILED)


def _shard_of(text: str | None) -> Shard | None:
    return None if text is None else parsed("--shard", Shard.parse, text)


def _write_lock(session: Session, settings: Config, wanted: Wanted, path: Path) -> LockReport:
    result = write_lock(session.job(settings), wanted, path)
    if result.failed:
        raise ImagesFailedError(
            f"{len(result.failed)} images can't be locked; {path} was not written",
            detail=report.unseen_text(result.failed),
        )
    return result


def package(
    images_list: ListArgument,
    output: OutputOption,
    history: HistoryOption = None,
    strategy: Annotated[
        Strategy,
        typer.Option(
            "--strategy", help="From the storage, or an overlay of it with what is brought; auto: as the list needs."
        ),
    ] = Strategy.AUTO,
    source: SourceOption = None,
    upper: UpperOption = None,
    jobs: JobsOption = None,
    hashed: Annotated[
        bool, typer.Option("--hash/--no-hash", help="Hash every blob on the way, or trust the archive.")
    ] = True,
    locked: LockedOption = False,
    lock_file: LockFileOption = None,
    referrers: ReferrersOption = False,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    json: JsonOption = False,
) -> None:
    settings = load(config, source, history, jobs, upper)
    options = PackageOptions(hashed=hashed, strategy=strategy, upper=settings.scratch, referrers=referrers)
    with opened_session(quiet=quiet, verbose=verbose, stopping=settings.retry.stopping) as session:
        wanted = wanted_of(images_list, settings, session)
        images = chosen(session, settings, wanted, lock_of(images_list, lock_file, locked=locked))
        result = package_images(session.job(settings), images, output, options)
    show(result, report.package_text(result), json=json)


def workspace(
    images_list: ListArgument,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- COMMAND", help="Runs in it, with $REGWRAP_REGISTRY and $REGWRAP_STORAGE."),
    ] = None,
    history: HistoryOption = None,
    source: SourceOption = None,
    upper: UpperOption = None,
    jobs: JobsOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    settings = load(config, source, history, jobs, upper)
    with opened_session(quiet=quiet, verbose=verbose, stopping=settings.retry.stopping) as session:
        images = unlocked_list(images_list, settings, session.progress)
        places = (settings.scratch,) if settings.scratch else (Path.cwd(), temporary_place())
        options = WorkspaceOptions(places=places, hashed=True, read_only=False)
        with overlay_workspace(session.job(settings), images, options) as space:
            code = _stay(session, space, tuple(command or ()))
    raise typer.Exit(code)


def _stay(session: Session, space: Workspace, command: tuple[str, ...]) -> int:
    host = space.registry.host
    session.progress.say(f"{report.sync_text(space.sync)}; the registry is {host}, its storage {space.merged}")
    if command:
        environment = {**os.environ, "REGWRAP_REGISTRY": host, "REGWRAP_STORAGE": f"{space.merged}"}
        return session.runner.foreground(command, environment)
    typer.echo(host)
    sys.stdout.flush()
    try:
        space.server.wait()
    except Interrupted:
        session.progress.say("stopped")
    return ExitCode.DONE


def release(
    images_list: ListArgument,
    output: OutputOption,
    source: SourceOption = None,
    archive: ArchiveOption = None,
    jobs: JobsOption = None,
    engine: EngineOption = None,
    locked: LockedOption = False,
    lock_file: LockFileOption = None,
    report_file: ReportOption = None,
    junit: JunitOption = None,
    referrers: ReferrersOption = False,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    json: JsonOption = False,
) -> None:
    settings = load(config, source, archive, jobs, engine=engine)
    files = RecordFiles.now("release", images_list, None, report_file, junit)
    synced = list[SyncReport]()
    with opened_session(quiet=quiet, verbose=verbose, stopping=settings.retry.stopping) as session:
        wanted = wanted_of(images_list, settings, session)
        images = chosen(session, settings, wanted, lock_of(images_list, lock_file, locked=locked))
        versions = tool_versions(session.runner)
        try:
            result = release_images(
                session.job(settings), images, output, tools=versions, on_sync=synced.append, referrers=referrers
            )
        finally:
            if synced:
                files.write(synced, images.name, settings)
                tell_moved(synced[-1], quiet=quiet)
    show(result, report.release_text(result), json=json)
