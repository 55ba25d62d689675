"""The command sync."""

from typing import Annotated

import typer

from regwrap.cli.cluster import Cluster, ClusterOption, InsecureClusterOption, registries_of, with_cluster
from regwrap.cli.options import (
    ArchiveOption,
    ConfigOption,
    DryRunOption,
    EngineOption,
    FailedOption,
    JobsOption,
    JsonOption,
    JunitOption,
    ListArgument,
    LockedOption,
    LockFileOption,
    QuietOption,
    ReferrersOption,
    ReportOption,
    ShardOption,
    SourceOption,
    VerboseOption,
    VolumesFromOption,
)
from regwrap.cli.output import echo, show_plan
from regwrap.cli.records import RecordFiles, failed_file, finish_sync, source_of
from regwrap.cli.session import opened_session
from regwrap.cli.settings import load, parsed
from regwrap.cli.wanted import images_of, lock_of, wanted_of
from regwrap.commands.sync import SyncOptions, sync_images
from regwrap.core.errors import UsageError
from regwrap.lists.shards import Shard, shard_images
from regwrap.report.record_text import tables_text

_HashedOption = Annotated[bool, typer.Option("--hash", help="Hash every blob in the archive; copy damaged ones again.")]
_LockOption = Annotated[
    bool,
    typer.Option("--lock", help="Update the lock file first, then use it (same as regwrap lock followed by --locked)."),
]


def sync(
    images_list: ListArgument,
    source: SourceOption = None,
    archive: ArchiveOption = None,
    jobs: JobsOption = None,
    engine: EngineOption = None,
    dry_run: DryRunOption = False,
    hashed: _HashedOption = False,
    failed: FailedOption = None,
    lock: _LockOption = False,
    locked: LockedOption = False,
    lock_file: LockFileOption = None,
    shard: ShardOption = None,
    report_file: ReportOption = None,
    junit: JunitOption = None,
    referrers: ReferrersOption = False,
    cluster: ClusterOption = None,
    insecure_cluster: InsecureClusterOption = False,
    volumes_from: VolumesFromOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    json: JsonOption = False,
) -> None:
    if dry_run and (lock or report_file or junit):
        raise UsageError("--dry-run writes nothing: it cannot be combined with --lock, --report or --junit")
    settings = load(config, source, archive, jobs, engine=engine)
    part = None if shard is None else parsed("--shard", Shard.parse, shard)
    lock_used = lock_of(images_list, lock_file, locked=locked or lock)
    files = RecordFiles.now("sync", images_list, part, report_file, junit)
    with opened_session(quiet=quiet, verbose=verbose) as session:
        wanted = wanted_of(images_list, settings, session.progress)
        if lock and lock_used:
            from regwrap.cli.lock import written_lock  # imports the rules, and is seldom asked for

            written_lock(session, settings, wanted, lock_used)
        images = images_of(wanted, session.progress, lock_used)
        images = shard_images(images, part) if part else images
        options = SyncOptions(hashed=hashed, dry_run=dry_run, referrers=referrers)
        job = session.job(settings)
        places, workers = registries_of(job, images), Cluster.of(cluster, config, insecure=insecure_cluster)
        with with_cluster(session, job, workers, places) as job:
            result = sync_images(job, images, options)
    if result.report is None:
        raise show_plan(result.plan, json=json)
    record = files.write([result.report], images.name, source_of(settings))
    if not quiet:
        echo(tables_text(record), err=True)
    finish_sync(result.report, failed_file(failed, part), images.name, json=json, quiet=quiet)
