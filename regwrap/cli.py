"""The commands: read arguments, call one function, show the result, choose the exit code. No decisions.

Only here are errors turned into text: a RegwrapError has an exit code of its own, an OSError is the disk's word, an
interruption is one line, and anything else is a bug with its traceback.
"""

import errno
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Annotated, Final, TypeVar

import typer

from regwrap import __version__, report
from regwrap.config import Config, Flags, load_config, push_place, registry_for
from regwrap.convert.tree import Form
from regwrap.deploy import DeployOptions, deploy_bundle
from regwrap.doctor import examine_machine, tool_versions
from regwrap.errors import ExitCode, ImagesFailedError, Interrupted, RegwrapError, UsageError
from regwrap.examine import inspect_bundle, verify_bundle, verify_storage
from regwrap.imagelist import ImageList, Rewrite, failed_list, read_images
from regwrap.lockfile import lock_path
from regwrap.model import LayoutRef, ParseError, Platform
from regwrap.pipeline.bake import BakeOptions, bake_image
from regwrap.pipeline.beside import write_beside
from regwrap.pipeline.bring import sync_images
from regwrap.pipeline.convert import export_stock, import_tree
from regwrap.pipeline.job import Job, Listener
from regwrap.pipeline.lock import LockReport, Wanted, check_lock, read_locked, refuse_rules, write_lock
from regwrap.pipeline.package import PackageOptions, Strategy, package_images
from regwrap.pipeline.push import PushOptions, opened_contents, push_images
from regwrap.pipeline.release import release_images
from regwrap.pipeline.scratch import scratch_directory
from regwrap.pipeline.workspace import Workspace, WorkspaceOptions, overlay_workspace
from regwrap.publish import Naming
from regwrap.record.github import annotations, summary
from regwrap.record.junit import to_junit
from regwrap.record.run import FAILED, RunFacts, RunRecord, merge, parse_record, record_of, to_text
from regwrap.record.text import hosts_text, record_text
from regwrap.serve.access import check_exposure, parse_address, read_certificate, read_htpasswd
from regwrap.serve.server import ServeOptions, served_contents
from regwrap.shards import Shard, shard_images
from regwrap.storage.gc import Keep
from regwrap.storage.sweep import GcOptions, RealDisk, collect_garbage
from regwrap.sync import SyncReport
from regwrap.tools.access import Place
from regwrap.tools.runner import Runner, ShExecutor

app = typer.Typer(
    name="regwrap",
    help="Turn an images.list into one install package for registries without internet.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

T = TypeVar("T")
report_app = typer.Typer(help="Show and merge what sync --report has written.", no_args_is_help=True)
app.add_typer(report_app, name="report")

_EPILOG: Final = (
    "Exit codes: 0 done, 1 some images failed, 2 usage or configuration, 3 a program, the network or the disk failed,"
    " 4 damaged data, 70 a bug, 130 or 143 interrupted."
)

ListArgument = Annotated[str, typer.Argument(metavar="IMAGES.LIST", help="The list of images; - reads standard input.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Configuration (else $REGWRAP_CONFIG, ./regwrap.yaml, ~/.config)."),
]
SourceOption = Annotated[
    str | None,
    typer.Option(
        "--source", metavar="NAME|HOST[:PORT]|DIR", help="Where lines without a registry come from; DIR is a storage."
    ),
]
ArchiveOption = Annotated[
    str | None,
    typer.Option(
        "--archive", "--dest", metavar="NAME|DIR|HOST[:PORT]", help="Where images are kept (default: embedded)."
    ),
]
HistoryOption = Annotated[
    str | None,
    typer.Option(
        "--history",
        "--archive",
        metavar="NAME|DIR|oci:DIR:TAG",
        help="The storage that is read, never written (default: embedded), or a baked image.",
    ),
]
UpperOption = Annotated[
    Path | None,
    typer.Option("--upper", metavar="DIR", help="Where an overlay's increment goes (else $REGWRAP_SCRATCH, a guess)."),
]
StockArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE.TAR|STORAGE", help="A bundle, or a storage's root directory.")
]
JobsOption = Annotated[int | None, typer.Option("--jobs", "-j", min=1, max=64, help="Images at the same time.")]
OutputOption = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The bundle to write.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Only results and errors.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show each program as it is started (redacted).")]
LockedOption = Annotated[
    bool, typer.Option("--locked", help="Take the digests of the lock, even where a tag has moved since.")
]
LockFileOption = Annotated[
    Path | None,
    typer.Option(
        "--lock-file", metavar="FILE", help="The lock (default: beside the list, images.lock); means --locked."
    ),
]
ShardOption = Annotated[
    str | None, typer.Option("--shard", metavar="K/N", help="Only this part of the list; the N parts are all of it.")
]
ReportOption = Annotated[
    Path | None, typer.Option("--report", metavar="FILE", help="What came of each image, as JSON (docs/report.md).")
]
JunitOption = Annotated[
    Path | None, typer.Option("--junit", metavar="FILE", help="The same as JUnit XML, a test case an image.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="The result as one JSON document on stdout.")]


@dataclass(frozen=True, slots=True)
class _Session:
    """What a command has at hand: the story, the programs, a private directory."""

    progress: report.Progress
    runner: Runner
    scratch: Path

    def job(self, config: Config) -> Job:
        return Job(
            runner=self.runner,
            scratch=self.scratch,
            source=config.source,
            archive=config.archive,
            place_of=lambda host: _place_of(config, host),
            jobs=config.jobs,
            retry=config.retry,
            timeouts=config.timeouts,
            environment=config.environment,
            listener=self.listener(),
        )

    def listener(self) -> Listener:
        progress = self.progress
        return Listener(
            say=progress.say,
            events=progress,
            expect=progress.expect,
            on_bytes=progress.on_bytes,
            watch=progress.watch,
        )


def _place_of(config: Config, host: str) -> Place:
    configured = (place for place in config.registries if place.registry and place.registry.host == host)
    return next(configured, None) or Place(name=host, registry=registry_for(config, host))


@contextmanager
def _session(*, quiet: bool, verbose: bool = False, stopping: threading.Event | None = None) -> Iterator[_Session]:
    progress = report.Progress(sys.stderr, quiet=quiet, live=report.is_live(sys.stderr, dict(os.environ)))
    stopping = stopping or threading.Event()
    with scratch_directory() as scratch:
        runner = Runner(
            executor=ShExecutor(),
            scratch=scratch,
            search_path=os.environ.get("PATH", os.defpath),
            stopping=stopping,
            log=(lambda line: progress.line(f"+ {line}")) if verbose else lambda _line: None,
        )
        try:
            with progress.shown():
                yield _Session(progress, runner, scratch)
        finally:
            stopping.set()


def _load(
    config: Path | None,
    source: str | None = None,
    archive: str | None = None,
    jobs: int | None = None,
    upper: Path | None = None,
) -> Config:
    flags = Flags(config=config, source=source, archive=archive, jobs=jobs, upper=upper)
    return load_config(flags, environ=os.environ, cwd=Path.cwd())


def _read_list(path: str, progress: report.Progress, rewrite: Rewrite) -> ImageList:
    images = read_images(path, sys.stdin.buffer, rewrite)
    for note in images.notes:
        progress.say(f"note: {note}")
    if not images.entries:
        progress.say(f"note: {images.name} lists no images")
    return images


def _wanted(images_list: str, settings: Config, session: _Session) -> Wanted:
    images = _read_list(images_list, session.progress, settings.rewrite)
    return Wanted(images=images, rules=settings.rules, rewrite=settings.rewrite)


def _unlocked_list(path: str, settings: Config, progress: report.Progress) -> ImageList:
    """A list for what knows no lock but the lock itself."""
    images = _read_list(path, progress, settings.rewrite)
    refuse_rules(Wanted(images=images, rules=settings.rules, rewrite=settings.rewrite))
    return images


def _chosen(session: _Session, settings: Config, wanted: Wanted, lock: Path | None) -> ImageList:
    """The list, or what its lock says of it."""
    if lock is None:
        refuse_rules(wanted)
        return wanted.images
    images = read_locked(wanted, lock)
    session.progress.say(f"{lock}: {len(images.entries)} images, by digest")
    return images


def _lock_of(images_list: str, file: Path | None, *, locked: bool) -> Path | None:
    return lock_path(images_list, file) if locked or file else None


def _shard(text: str | None) -> Shard | None:
    try:
        return None if text is None else Shard.parse(text)
    except ParseError as error:
        raise UsageError(f"--shard: {error}") from error


@app.command(epilog=_EPILOG)
def sync(
    images_list: ListArgument,
    source: SourceOption = None,
    archive: ArchiveOption = None,
    jobs: JobsOption = None,
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
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    json: JsonOption = False,
) -> None:
    """Bring the listed images into the archive. What is there already is not sent again."""
    if dry_run and (lock or report_file or junit):
        raise UsageError("--dry-run writes nothing: it goes with no --lock, --report or --junit")
    settings, part = _load(config, source, archive, jobs), _shard(shard)
    lock_used = _lock_of(images_list, lock_file, locked=locked or lock)
    files = _RecordFiles.now("sync", images_list, part, report_file, junit)
    with _session(quiet=quiet, verbose=verbose, stopping=settings.retry.stopping) as session:
        wanted = _wanted(images_list, settings, session)
        if lock and lock_used:
            _write_lock(session, settings, wanted, lock_used)
        images = _chosen(session, settings, wanted, lock_used)
        images = shard_images(images, part) if part else images
        result = sync_images(session.job(settings), images, hashed=hashed, dry_run=dry_run)
    if result.report is None:
        typer.echo(report.to_json(result.plan) if json else report.plan_text(result.plan))
        raise typer.Exit(ExitCode.IMAGES_FAILED if result.plan.unseen else ExitCode.DONE)
    record = files.write([result.report], images.name, settings)
    if not quiet:
        typer.echo(hosts_text(record), err=True)
    _finish_sync(result.report, failed, json=json, quiet=quiet)


def _write_lock(session: _Session, settings: Config, wanted: Wanted, path: Path) -> LockReport:
    result = write_lock(session.job(settings), wanted, path)
    if result.failed:
        raise ImagesFailedError(
            f"{len(result.failed)} images can't be locked; {path} was not written",
            detail=report.unseen_text(result.failed),
        )
    return result


@dataclass(frozen=True, slots=True)
class _RecordFiles:
    """Where the record of a run goes, and what it says of the run."""

    command: str
    shard: Shard | None
    started: str
    report: Path | None
    junit: Path | None

    @classmethod
    def now(
        cls, command: str, images_list: str, shard: Shard | None, report_file: Path | None, junit: Path | None
    ) -> "_RecordFiles":
        for path in (report_file, junit):
            if path and not path.absolute().parent.is_dir():  # said before anything long begins
                raise UsageError(f"{path} can't be written: its directory is missing")
            if path and path.absolute() == Path(images_list).absolute():
                raise UsageError(f"{path} is the list itself")
        return cls(command, shard, datetime.now(UTC).isoformat(timespec="seconds"), report_file, junit)

    def write(self, results: Sequence[SyncReport], name: str, settings: Config) -> RunRecord:
        source = settings.source.registry.host if settings.source and settings.source.registry else None
        facts = RunFacts(
            command=self.command,
            list=name,
            shard=f"{self.shard}" if self.shard else None,
            source=source or (settings.source.name if settings.source else None),
            started=self.started,
        )
        record = merge([record_of(result, facts) for result in results])
        _write_record(record, self.report, self.junit)
        return record


def _write_record(record: RunRecord, file: Path | None, junit: Path | None) -> None:
    """Into files, and to GitHub where that is what runs us."""
    if file:
        write_beside(file, to_text(record))
    if junit:
        write_beside(junit, to_junit(record))
    if os.environ.get("GITHUB_ACTIONS") == "true" and (told := annotations(record)):
        typer.echo(told, err=True)
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(path).open("a", encoding="utf-8") as file_:
            file_.write(summary(record))


def _tell_moved(result: SyncReport, *, quiet: bool) -> None:
    if result.moved and not quiet:
        typer.echo(report.moved_text(result.moved), err=True)


def _finish_sync(result: SyncReport, failed: Path, *, json: bool, quiet: bool) -> None:
    if json:
        typer.echo(report.to_json(result))
    _tell_moved(result, quiet=quiet)
    if result.failed:
        failed.write_text(failed_list(item.entry for item in result.failed), encoding="utf-8")
        typer.echo(report.failures_text(result), err=True)
        typer.echo(f"the lines that failed are in {failed}", err=True)
    if not json:
        typer.echo(report.sync_text(result))
    if result.failed:
        raise typer.Exit(ExitCode.IMAGES_FAILED)


@app.command(epilog=_EPILOG)
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
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    json: JsonOption = False,
) -> None:
    """Write one bundle with exactly the listed images. From a storage that is only read."""
    settings = _load(config, source, history, jobs, upper)
    options = PackageOptions(hashed=hashed, strategy=strategy, upper=settings.scratch)
    with _session(quiet=quiet, verbose=verbose, stopping=settings.retry.stopping) as session:
        wanted = _wanted(images_list, settings, session)
        images = _chosen(session, settings, wanted, _lock_of(images_list, lock_file, locked=locked))
        result = package_images(session.job(settings), images, output, options)
    typer.echo(report.to_json(result) if json else report.package_text(result))


@app.command(epilog=_EPILOG, context_settings={"allow_interspersed_args": True, "ignore_unknown_options": False})
def workspace(
    images_list: ListArgument,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND ...]", help="Runs in it, with $REGWRAP_REGISTRY and $REGWRAP_STORAGE."),
    ] = None,
    history: HistoryOption = None,
    source: SourceOption = None,
    upper: UpperOption = None,
    jobs: JobsOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Serve the listed images on top of a storage that is only read. Until Ctrl-C, or while COMMAND runs.

    A registry on loopback takes pushes too; blobs of the history are there already for the listed repositories. All
    that was added is gone at the end, unless COMMAND has packed it.
    """
    settings = _load(config, source, history, jobs, upper)
    with _session(quiet=quiet, verbose=verbose, stopping=settings.retry.stopping) as session:
        images = _unlocked_list(images_list, settings, session.progress)
        places = (settings.scratch,) if settings.scratch else (Path.cwd(), Path(tempfile.gettempdir()))
        options = WorkspaceOptions(places=places, hashed=True, read_only=False)
        with overlay_workspace(session.job(settings), images, options) as space:
            code = _stay(session, space, tuple(command or ()))
    raise typer.Exit(code)


def _stay(session: _Session, space: Workspace, command: tuple[str, ...]) -> int:
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


@app.command(epilog=_EPILOG)
def release(
    images_list: ListArgument,
    output: OutputOption,
    source: SourceOption = None,
    archive: ArchiveOption = None,
    jobs: JobsOption = None,
    locked: LockedOption = False,
    lock_file: LockFileOption = None,
    report_file: ReportOption = None,
    junit: JunitOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    json: JsonOption = False,
) -> None:
    """Sync, package and verify. Writes FILE, FILE.sha256 and the facts of the run beside it."""
    settings = _load(config, source, archive, jobs)
    files = _RecordFiles.now("release", images_list, None, report_file, junit)
    synced: list[SyncReport] = []
    with _session(quiet=quiet, verbose=verbose, stopping=settings.retry.stopping) as session:
        wanted = _wanted(images_list, settings, session)
        images = _chosen(session, settings, wanted, _lock_of(images_list, lock_file, locked=locked))
        versions = tool_versions(session.runner)
        try:
            result = release_images(session.job(settings), images, output, tools=versions, on_sync=synced.append)
        finally:
            if synced:
                files.write(synced, images.name, settings)
                _tell_moved(synced[-1], quiet=quiet)
    typer.echo(report.to_json(result) if json else report.release_text(result))


@app.command(epilog=_EPILOG)
def deploy(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE.TAR", help="The bundle.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The storage's root directory, in use or new.")],
    replace_tags: Annotated[
        bool, typer.Option("--replace-tags", help="Move tags that are there and point to other images.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the bundle's structure, change nothing.")] = False,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Merge a bundle into a registry's storage. All is checked first; blobs go in first, tags last."""
    settings = _load(config)
    with _session(quiet=quiet) as session:
        session.progress.expect("deploy", bundle.stat().st_size if bundle.is_file() else 0)
        options = DeployOptions(
            replace_tags=replace_tags,
            dry_run=dry_run,
            lock_timeout=settings.timeouts.lock,
            on_wait=session.progress.say,
            on_bytes=session.progress.on_bytes,
        )
        result = deploy_bundle(bundle, directory, options)
        if not dry_run:
            session.progress.say(
                "a registry that runs on this directory serves the new tags at once; if it keeps an in-memory blob"
                " cache (docker-registry's packaged configuration does), restart it after blobs were mended"
            )
    typer.echo(report.to_json(result) if json else report.deploy_text(result, directory, dry_run=dry_run))


SourceArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE.TAR|DIR", help="A bundle, or a storage's root directory.")
]
VerifyOption = Annotated[bool, typer.Option("--verify", help="Hash every blob first, not only the manifests.")]


@app.command(epilog=_EPILOG)
def push(
    source: SourceArgument,
    dest: Annotated[str, typer.Argument(metavar="NAME|HOST[:PORT][/PREFIX]", help="The registry, and where in it.")],
    flat: Annotated[bool, typer.Option("--flat", help="Keep only the last part of each name.")] = False,
    create_projects: Annotated[
        bool, typer.Option("--create-projects", help="Create what projects are missing in Harbor, as private ones.")
    ] = False,
    verified: VerifyOption = False,
    jobs: JobsOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and why.")] = False,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    json: JsonOption = False,
) -> None:
    """Push a bundle into any registry, straight from the tar. What is there already is not sent again."""
    settings = _load(config, None, None, jobs)
    registry, prefix = push_place(dest, settings)
    naming = Naming(prefix=prefix, flat=flat)
    options = PushOptions(naming=naming, create_projects=create_projects, hashed=verified, dry_run=dry_run)
    with _session(quiet=quiet, verbose=verbose, stopping=settings.retry.stopping) as session:
        result = push_images(session.job(settings), source, registry, options)
    if result.report is None:
        typer.echo(report.to_json(result.plan) if json else report.plan_text(result.plan))
        raise typer.Exit(ExitCode.IMAGES_FAILED if result.plan.unseen else ExitCode.DONE)
    if result.report.failed:
        typer.echo(report.failures_text(result.report), err=True)
    typer.echo(report.to_json(result.report) if json else report.sync_text(result.report))
    if result.report.failed:
        raise typer.Exit(ExitCode.IMAGES_FAILED)


@app.command(epilog=_EPILOG)
def serve(
    source: SourceArgument,
    addr: Annotated[
        str, typer.Option("--addr", metavar="HOST:PORT", help="Where to listen; port 0 takes a free one.")
    ] = "127.0.0.1:5000",
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", metavar="FILE", help="Certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="Its key, PEM.")] = None,
    htpasswd: Annotated[
        Path | None, typer.Option("--htpasswd", metavar="FILE", help="Who may pull, with bcrypt hashes (htpasswd -B).")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Other machines may pull without TLS and password.")
    ] = False,
    verified: VerifyOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Serve a bundle as a read-only registry, in place, until Ctrl-C. Prints its URL when it is ready.

    docker and skopeo pull from it; nothing is unpacked or copied. GET /v2/ says whether it is there.
    """
    host, port = parse_address(addr)
    tls, login = read_certificate(tls_cert, tls_key), read_htpasswd(htpasswd) if htpasswd else None
    if not insecure:
        check_exposure(host, tls=tls is not None, login=login is not None)
    with _session(quiet=quiet) as session, ExitStack() as stack:
        contents = stack.enter_context(opened_contents(source, session.listener(), hashed=verified))
        log = session.progress.line if verbose else lambda _line: None
        options = ServeOptions(host=host, port=port, tls=tls, login=login, log=log)
        served = stack.enter_context(served_contents(contents, options))
        try:
            typer.echo(served.url)
            sys.stdout.flush()
            threading.Event().wait()
        except Interrupted:
            session.progress.say("stopped")


@app.command(epilog=_EPILOG)
def verify(
    target: Annotated[Path, typer.Argument(metavar="BUNDLE.TAR|DIR", help="A bundle, or a storage's root directory.")],
    images_list: Annotated[
        str | None, typer.Option("--list", metavar="IMAGES.LIST", help="It must hold exactly these images.")
    ] = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Prove that a bundle or a storage is whole. Every link, every manifest, every blob's size and sha256."""
    with _session(quiet=quiet) as session:
        entries = None
        if images_list is not None:  # only its rewrite: and images: count here
            entries = _unlocked_list(images_list, _load(config), session.progress).entries
        session.progress.expect("verify", _bytes_of(target))
        check = verify_storage if target.is_dir() else verify_bundle
        result = check(target, entries, session.progress.on_bytes)
        for note in result.notes:
            session.progress.say(f"note: {note}")
    typer.echo(report.to_json(result) if json else report.verify_text(result))
    if result.problems:
        typer.echo(f"regwrap: {target}: {len(result.problems)} problems", err=True)
        raise typer.Exit(ExitCode.INTEGRITY)


def _bytes_of(target: Path) -> int:
    return target.stat().st_size if target.is_file() else 0


@app.command(epilog=_EPILOG)
def inspect(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE.TAR", help="The bundle.")], json: JsonOption = False
) -> None:
    """Show what is in a bundle. Images, platforms, digests, sizes, and what each alone adds."""
    result = inspect_bundle(bundle)
    typer.echo(report.to_json(result) if json else report.inspect_text(result))


@app.command(epilog=_EPILOG)
def gc(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The storage's root directory.")],
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="IMAGES.LIST", help="Keep these images; may be repeated."),
    ] = None,
    keep_last: Annotated[
        int | None, typer.Option("--keep-last", metavar="N", min=1, help="Keep the N newest tags of each repository.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would go, and why.")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Nothing else writes into DIR now: its registry is stopped or read-only.")
    ] = False,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Remove from a storage what no kept image needs. Without --keep and --keep-last every tag is kept.

    \b
    regwrap gc DIR --dry-run                          what no tag needs
    regwrap gc DIR --keep v1.1.list --keep v1.0.list  only the images of two releases stay
    regwrap gc DIR --keep v1.1.list --keep-last 3     and the three newest tags of each repository
    """
    settings = _load(config)
    with _session(quiet=quiet) as session:
        progress = session.progress
        lists = None if keep is None else [_unlocked_list(path, settings, progress) for path in keep]
        names = None if lists is None else frozenset(str(entry.dest) for images in lists for entry in images.entries)
        options = GcOptions(
            dry_run=dry_run,
            offline=offline,
            lock_timeout=settings.timeouts.lock,
            on_wait=progress.say,
            expect=lambda count: progress.expect("gc", count),
            on_bytes=progress.on_bytes,
        )
        result = collect_garbage(directory, Keep(names=names, last=keep_last), options, RealDisk())
        for note in result.notes:
            progress.say(f"note: {note}")
        if result.blobs and not dry_run:
            progress.say(
                "a registry that has run on this directory meanwhile, and keeps an in-memory blob cache, must be"
                " restarted: else it takes pushes of what is gone for done"
            )
    typer.echo(report.to_json(result) if json else report.gc_text(result, directory))


@app.command(epilog=_EPILOG)
def bake(
    source: StockArgument,
    to: Annotated[str, typer.Option("--to", metavar="oci:DIR:TAG", help="The OCI layout, new or in use, and a tag.")],
    base: Annotated[
        str | None,
        typer.Option(
            "--base", metavar="oci:DIR:TAG|HOST/NAME:TAG", help="An image with a registry; else an empty one."
        ),
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Of a storage blobs and layer links alone: spares copies, shows nothing.")
    ] = False,
    path: Annotated[str, typer.Option("--path", metavar="PATH", help="Where the storage is in the image.")] = (
        "/var/lib/registry"
    ),
    program: Annotated[
        str | None,
        typer.Option("--registry", metavar="PATH", help="The registry's program in the base (else looked for)."),
    ] = None,
    platform: Annotated[
        str, typer.Option("--platform", metavar="OS/ARCH", help="Which of a base's platforms; what an empty one says.")
    ] = "linux/amd64",
    compress: Annotated[bool, typer.Option("--compress", help="Compress the layer with gzip.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look at everything, write nothing.")] = False,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    json: JsonOption = False,
) -> None:
    """Make a registry image that has the images inside. No daemon, no root; the same input gives the same digest."""
    settings = _load(config)
    options = BakeOptions(
        base=base,
        platform=_parsed("--platform", Platform.parse, platform),
        root=path,
        program=program,
        compress=compress,
        history=history,
        dry_run=dry_run,
    )
    dest = _parsed("--to", LayoutRef.parse, to)
    with _session(quiet=quiet, verbose=verbose, stopping=settings.retry.stopping) as session:
        result = bake_image(session.job(settings), source, dest, options)
    typer.echo(report.to_json(result) if json else report.bake_text(result))


def _parsed(option: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ParseError as error:
        raise UsageError(f"{option}: {error}") from error


@app.command(epilog=_EPILOG)
def export(
    source: StockArgument,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new directory.")],
    form: Annotated[
        Form, typer.Option("--format", help="A skopeo dir: directory for each image, or one OCI layout.")
    ] = Form.DIR,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be written.")] = False,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Write all images as directories that skopeo reads. Every byte and digest stays as it is."""
    settings = _load(config)
    with _session(quiet=quiet) as session:
        result = export_stock(session.job(settings), source, directory, form=form, dry_run=dry_run)
    typer.echo(report.to_json(result) if json else report.export_text(result))


@app.command("import", epilog=_EPILOG)
def import_(
    source: Annotated[
        str, typer.Argument(metavar="DIR|oci:DIR[:TAG]", help="Directories as skopeo's dir: has them, or a layout.")
    ],
    directory: Annotated[Path, typer.Argument(metavar="STORAGE", help="The storage's root directory, in use or new.")],
    named: Annotated[
        str | None,
        typer.Option("--name", metavar="REPOSITORY[:TAG]", help="For images without a name, or with only a tag."),
    ] = None,
    replace_tags: Annotated[
        bool, typer.Option("--replace-tags", help="Move tags that are there and point to other images.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look at everything, change nothing.")] = False,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Bring such directories, or an OCI layout, into a storage. All is hashed; blobs go in first, tags last."""
    settings = _load(config)
    with _session(quiet=quiet) as session:
        result = import_tree(
            session.job(settings), source, directory, named=named, replace_tags=replace_tags, dry_run=dry_run
        )
    typer.echo(report.to_json(result) if json else report.import_text(result))


@app.command(epilog=_EPILOG)
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
    """Write down what each image is now, by digest. And what the rules of the configuration mean today.

    The lock is a list too, one line an image, made for git diff.
    """
    settings, part, path = _load(config, source, archive, jobs), _shard(shard), lock_path(images_list, output)
    if part and not output and not check:
        raise UsageError("--shard locks a part of the list only: name its lock with -o FILE")
    with _session(quiet=quiet, verbose=verbose, stopping=settings.retry.stopping) as session:
        wanted = replace(_wanted(images_list, settings, session), shard=part)
        if not check:
            written = _write_lock(session, settings, wanted, path)
            typer.echo(report.to_json(written) if json else report.lock_text(written))
            return
        result = check_lock(session.job(settings), wanted, path)
    typer.echo(report.to_json(result) if json else report.lock_check_text(result))
    if result.failed:
        typer.echo(report.unseen_text(result.failed), err=True)
    if result.changes or result.failed:
        raise typer.Exit(ExitCode.IMAGES_FAILED)


@report_app.command("show", epilog=_EPILOG)
def show_report(
    file: Annotated[Path, typer.Argument(metavar="REPORT.JSON", help="What sync --report has written.")],
) -> None:
    """Show a report as text. Exit code 1 if an image failed."""
    record = parse_record(_bytes_in(file), f"{file}")
    typer.echo(record_text(record))
    if record.having(FAILED):
        raise typer.Exit(ExitCode.IMAGES_FAILED)


@report_app.command("merge", epilog=_EPILOG)
def merge_reports(
    files: Annotated[
        list[Path], typer.Argument(metavar="REPORT.JSON...", help="Of shards, or of runs in their order.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The report to write.")],
    junit: JunitOption = None,
) -> None:
    """Make one report of several. Where an image is in more than one, the last outcome counts."""
    record = merge([parse_record(_bytes_in(file), f"{file}") for file in files])
    _write_record(record, output, junit)
    typer.echo(f"{output}: {len(record.images)} images of {len(files)} reports")


def _bytes_in(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}") from error


@app.command(epilog=_EPILOG)
def doctor(archive: ArchiveOption = None, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Say whether this machine can do it. And what to install, for which command."""
    settings = _load(config, None, archive)
    with _session(quiet=True) as session:
        result = examine_machine(session.runner, archive=settings.archive.storage, scratch=session.scratch.parent)
    typer.echo(report.to_json(result) if json else report.doctor_text(result))
    if not result.ok:
        raise typer.Exit(ExitCode.TOOL)


def _show_version(value: bool) -> None:
    if not value:
        return
    with _session(quiet=True) as session:
        versions = tool_versions(session.runner)
    typer.echo("\n".join([f"regwrap {__version__}", *(f"{tool} {version}" for tool, version in versions.items())]))
    raise typer.Exit


@app.callback(epilog=_EPILOG)
def common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Versions, the tools' too."),
    ] = False,
) -> None:
    """Turn an images.list into one install package for registries without internet."""


def main() -> None:
    """The program: exit codes as in `errors.ExitCode`, 128 + n after signal n."""
    _handle_signals()
    sys.exit(_exit_code_of(app))


def _exit_code_of(run: Callable[[], object]) -> int:
    try:
        run()
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else ExitCode.DONE
    except (Interrupted, Exception) as error:  # noqa: BLE001  a bug must not look like "some images failed"
        interruption = _interruption_behind(error)
        if interruption is None:
            return _told(error)
        name = signal.Signals(interruption.signum).name
        typer.echo(f"regwrap: interrupted by {name}; what it had started is ended, run it again to go on", err=True)
        return 128 + interruption.signum
    return ExitCode.DONE


def _interruption_behind(error: BaseException | None) -> Interrupted | None:
    """A signal that comes while Python's own locks are taken or released leaves them undone, and their error, or one of
    the tidying up, is what arrives here (CPython runs handlers between any two instructions of the main thread)."""
    while error is not None and not isinstance(error, Interrupted):
        error = error.__context__
    return error


def _told(error: BaseException) -> int:
    if isinstance(error, BrokenPipeError):
        # the reader of stdout went away; Python would complain once more when it flushes at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    if isinstance(error, OSError):
        error = _disk_error(error)
    if isinstance(error, RegwrapError):
        typer.echo(report.error_text(error), err=True)
        return error.exit_code
    text = "".join(traceback.format_exception(error))
    typer.echo(f"{text}regwrap: this is a bug in regwrap {__version__}; please report it", err=True)
    return ExitCode.BUG


def _disk_error(error: OSError) -> RegwrapError:
    where = f"{error.filename}: " if error.filename else ""
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    hint = "the disk is full (df, df -i, quota): free space and run it again" if full else ""
    return RegwrapError(f"{where}{error.strerror or error}", hint=hint)


def _handle_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _interrupt)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    # a second one ends regwrap at once; its children die with it
    signal.signal(number, signal.SIG_DFL)
    raise Interrupted(number)
