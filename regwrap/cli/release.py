"""The command release."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regwrap.cli.finishing import Finishing
from regwrap.cli.options import (
    ArchiveOption,
    ConfigOption,
    EngineOption,
    FailedOption,
    JobsOption,
    JsonOption,
    JunitOption,
    ListArgument,
    LockedOption,
    LockFileOption,
    MaxSizeOption,
    NameOption,
    OutputOption,
    ParityOption,
    QuietOption,
    ReferrersOption,
    ReportOption,
    SignatureOption,
    SignKeyOption,
    SinceOption,
    SourceOption,
    VerboseOption,
    VolumeOption,
    VolumesFromOption,
    VolumeSizeOption,
)
from regwrap.cli.output import has_summary, show
from regwrap.cli.records import RecordFiles, failed_file, log_tag_moves, source_of, write_failed
from regwrap.cli.session import opened_session
from regwrap.cli.settings import load, release_name
from regwrap.cli.sizes import SizeOptions, log_total, older_of, planned, target_of
from regwrap.cli.wanted import listed, lock_of
from regwrap.commands.doctor import tool_versions
from regwrap.commands.package import PackageOptions, Strategy
from regwrap.commands.release import ReleaseReport, release_images
from regwrap.core.errors import UsageError
from regwrap.core.release_id import ReleaseId
from regwrap.report import text as report
from regwrap.transfer.run import SyncReport

if TYPE_CHECKING:
    from regwrap.bundle.stream import Target
    from regwrap.lists.imagelist import ImageList
    from regwrap.transfer.job import Job

_StrategyOption = Annotated[
    Strategy,
    typer.Option(
        "--strategy",
        help="select: copy into the archive, then pack from it. direct: straight from the source into the bundle, with"
        " what the archive has; the archive stays as it is.",
    ),
]
_NoArchiveOption = Annotated[
    bool, typer.Option("--no-archive", help="Straight from the source into the bundle; read and keep no archive.")
]
_WithToolOption = Annotated[
    bool,
    typer.Option(
        "--with-tool", help="Also write regwrap.pyz beside the bundle: regwrap for a site that has only python3."
    ),
]


def release(
    images_list: ListArgument,
    output: OutputOption,
    name: NameOption = None,
    strategy: _StrategyOption = Strategy.SELECT,
    no_archive: _NoArchiveOption = False,
    source: SourceOption = None,
    archive: ArchiveOption = None,
    jobs: JobsOption = None,
    engine: EngineOption = None,
    locked: LockedOption = False,
    lock_file: LockFileOption = None,
    failed: FailedOption = None,
    report_file: ReportOption = None,
    junit: JunitOption = None,
    referrers: ReferrersOption = False,
    since: SinceOption = None,
    max_size: MaxSizeOption = None,
    volume_size: VolumeSizeOption = None,
    volume: VolumeOption = None,
    parity: ParityOption = None,
    sign_key: SignKeyOption = None,
    signature: SignatureOption = None,
    with_tool: _WithToolOption = False,
    volumes_from: VolumesFromOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    json: JsonOption = False,
) -> None:
    finishing = replace(Finishing.parse(output, sign_key, signature, parity, volume), with_tool=with_tool)
    settings = load(config, source, archive, jobs, engine=engine)
    files = RecordFiles.now("release", images_list, None, report_file, junit)
    target = target_of(output, volume_size, volume)
    options = replace(
        _options(strategy, target, keep=not no_archive),
        name=release_name(name),
        since=older_of(since),
        referrers=referrers,
    )
    sizes = SizeOptions.parse(since, max_size)
    record = partial(_record, files, source_of(settings), failed_file(failed, None), quiet=quiet)
    with opened_session(quiet=quiet, verbose=verbose) as session:
        images = listed(images_list, settings, session.progress, lock_of(images_list, lock_file, locked=locked))
        job = session.job(settings)
        _check_size(job, images, options, sizes)
        result = _released(job, images, output, options, finishing, record)
        _summarize(job, images, options, sizes)
    show(result, report.release_text(result), json=json)


def _summarize(job: "Job", images: "ImageList", options: PackageOptions, sizes: SizeOptions) -> None:
    """The sizes, for a CI system that wants them and was not told them before by the limit."""
    if has_summary() and sizes.limit is None:
        planned(job, images, options, sizes, lambda _plan: None)


def _record(
    files: RecordFiles,
    source: str | None,
    failed: Path,
    synced: list[SyncReport],
    label: ReleaseId,
    images: str,
    sha256: str,
    *,
    quiet: bool,
) -> None:
    files.write([replace(item, release=label) for item in synced], images, source, sha256)
    log_tag_moves(synced[-1], quiet=quiet)
    write_failed(synced[-1], failed, images)


def _check_size(job: "Job", images: "ImageList", options: PackageOptions, sizes: SizeOptions) -> None:
    """With what is still to come from the sources. Raises ImagesFailedError where the bundle would be too large."""
    if sizes.limit is not None:
        coming = options if options.strategy is Strategy.DIRECT else replace(options, strategy=Strategy.AUTO)
        planned(job, images, coming, sizes, partial(log_total, progress=job.listener))


def _options(strategy: Strategy, target: "Target | None", *, keep: bool) -> PackageOptions:
    if strategy is Strategy.OVERLAY:
        raise UsageError("release makes no overlay", hint="--strategy select or direct; or regwrap package")
    chosen = strategy if keep else Strategy.DIRECT
    return PackageOptions(hashed=True, strategy=chosen, target=target, from_archive=keep)


def _released(
    job: "Job",
    images: "ImageList",
    output: Path,
    options: PackageOptions,
    finishing: Finishing,
    record: Callable[[list[SyncReport], ReleaseId, str, str], None],
) -> ReleaseReport:
    """What came of each sync is recorded also where the release fails after it."""
    synced = list[SyncReport]()
    label, sha256 = ReleaseId(options.name, None), ""
    try:
        tools = tool_versions(job.runner)
        result = release_images(job, images, output, options, tools=tools, on_sync=synced.append)
        label, sha256 = result.package.release, result.sha256
        finishing.finish(job, result.package.id)
    finally:
        if synced:
            record(synced, label, images.name, sha256)
    return result
