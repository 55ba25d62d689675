"""The command release."""

from dataclasses import replace
from functools import partial

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
    VolumeSizeOption,
)
from regwrap.cli.output import show
from regwrap.cli.records import RecordFiles, failed_file, source_of, tell_moved, write_failed
from regwrap.cli.session import images_of, load, lock_of, opened_session, release_name, wanted_of
from regwrap.cli.signing import check_signing, signed
from regwrap.cli.sizes import SizeOptions, has_summary, older_of, parity_of, planned, protected, target_of, told_total
from regwrap.commands.doctor import tool_versions
from regwrap.commands.package import PackageOptions, Strategy
from regwrap.commands.release import release_images
from regwrap.core.release_id import ReleaseId
from regwrap.report import text as report
from regwrap.transfer.run import SyncReport


def release(
    images_list: ListArgument,
    output: OutputOption,
    name: NameOption = None,
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
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    json: JsonOption = False,
) -> None:
    check_signing(sign_key, output, signature)
    percent = parity_of(parity, output, volume)
    settings = load(config, source, archive, jobs, engine=engine)
    files = RecordFiles.now("release", images_list, None, report_file, junit)
    options = PackageOptions(
        hashed=True,
        strategy=Strategy.SELECT,
        name=release_name(name),
        referrers=referrers,
        since=older_of(since),
        target=target_of(output, volume_size, volume),
    )
    sizes = SizeOptions.parse(since, max_size)
    synced = list[SyncReport]()
    with opened_session(quiet=quiet, verbose=verbose) as session:
        wanted = wanted_of(images_list, settings, session.progress)
        images = images_of(wanted, session.progress, lock_of(images_list, lock_file, locked=locked))
        job, versions = session.job(settings), tool_versions(session.runner)
        if sizes.limit is not None:  # with what is still to come from the sources
            coming = replace(options, strategy=Strategy.AUTO)
            planned(job, images, coming, sizes, partial(told_total, progress=session.progress))
        label = ReleaseId(options.name, None)
        try:
            result = release_images(job, images, output, options, tools=versions, on_sync=synced.append)
            label = result.package.release
            if volume is None:  # what stands beside the others is still right
                signed(session.runner, sign_key, output, signature, result.package.id)
                protected(job, output, percent)
        finally:
            if synced:
                files.write([replace(item, release=label) for item in synced], images.name, source_of(settings))
                tell_moved(synced[-1], quiet=quiet)
                write_failed(synced[-1], failed_file(failed, None), images.name)
        if has_summary() and sizes.limit is None:
            planned(job, images, options, sizes, lambda _plan: None)
    show(result, report.release_text(result), json=json)
