"""The command release."""

from dataclasses import replace

from regwrap.cli.options import (
    ArchiveOption,
    ConfigOption,
    EngineOption,
    JobsOption,
    JsonOption,
    JunitOption,
    ListArgument,
    LockedOption,
    LockFileOption,
    NameOption,
    OutputOption,
    QuietOption,
    ReferrersOption,
    ReportOption,
    SinceOption,
    SourceOption,
    VerboseOption,
)
from regwrap.cli.output import show
from regwrap.cli.records import RecordFiles, source_of, tell_moved
from regwrap.cli.session import images_of, load, lock_of, opened_session, release_name, wanted_of
from regwrap.cli.sizes import older_of
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
    report_file: ReportOption = None,
    junit: JunitOption = None,
    referrers: ReferrersOption = False,
    since: SinceOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    json: JsonOption = False,
) -> None:
    settings = load(config, source, archive, jobs, engine=engine)
    files = RecordFiles.now("release", images_list, None, report_file, junit)
    options = PackageOptions(
        hashed=True,
        strategy=Strategy.SELECT,
        name=release_name(name),
        referrers=referrers,
        since=older_of(since),
    )
    synced = list[SyncReport]()
    with opened_session(quiet=quiet, verbose=verbose) as session:
        wanted = wanted_of(images_list, settings, session.progress)
        images = images_of(wanted, session.progress, lock_of(images_list, lock_file, locked=locked))
        versions = tool_versions(session.runner)
        label = ReleaseId(options.name, None)
        try:
            result = release_images(
                session.job(settings), images, output, options, tools=versions, on_sync=synced.append
            )
            label = result.package.release
        finally:
            if synced:
                files.write([replace(item, release=label) for item in synced], images.name, source_of(settings))
                tell_moved(synced[-1], quiet=quiet)
    show(result, report.release_text(result), json=json)
