"""The command push."""

from dataclasses import replace
from typing import Annotated

import typer

from regwrap.cli.cluster import Cluster, ClusterOption, InsecureClusterOption, with_cluster
from regwrap.cli.options import (
    BaseOption,
    ConfigOption,
    DryRunOption,
    ExistingOption,
    ImageSetArgument,
    JobsOption,
    JsonOption,
    JunitOption,
    QuietOption,
    ReplaceTagsOption,
    ReportOption,
    SignatureOption,
    SignersOption,
    VerboseOption,
    VerifyOption,
    VolumesFromOption,
    existing_of,
)
from regwrap.cli.output import echo, show, show_plan
from regwrap.cli.records import RecordFiles, failures_code, log_tag_moves
from regwrap.cli.session import opened_session
from regwrap.cli.settings import load, parsed
from regwrap.cli.signing import trusting
from regwrap.commands.push import PushOptions, push_images
from regwrap.config.locations import push_location
from regwrap.core.errors import UsageError
from regwrap.core.moves import PlatformIndex
from regwrap.lists.naming import Naming, Rename
from regwrap.report import text as report
from regwrap.report.record import RunRecord
from regwrap.report.record_text import tables_text
from regwrap.transfer.run import SyncReport

_DestArgument = Annotated[
    str, typer.Argument(metavar="NAME|HOST[:PORT][/PREFIX]", help="Registry, and a prefix in it.")
]
_FlatOption = Annotated[bool, typer.Option("--flat", help="Keep only the last component of each name.")]
_RenameOption = Annotated[
    list[str] | None,
    typer.Option(
        "--rename",
        metavar="OLD=NEW",
        help="Push OLD and OLD/… as NEW; the first match counts; may be repeated.",
    ),
]
_CreateProjectsOption = Annotated[
    bool, typer.Option("--create-projects", help="Create missing Harbor projects, as private ones.")
]
_PlatformIndexOption = Annotated[
    PlatformIndex,
    typer.Option(
        "--platform-index",
        help="Push the index of a partial image as it is, or one of the platforms that are there: another digest.",
    ),
]


def push(
    source: ImageSetArgument,
    dest: _DestArgument,
    flat: _FlatOption = False,
    rename: _RenameOption = None,
    existing: ExistingOption = None,
    replace_tags: ReplaceTagsOption = False,
    create_projects: _CreateProjectsOption = False,
    platform_index: _PlatformIndexOption = PlatformIndex.KEEP,
    base: BaseOption = None,
    signers: SignersOption = None,
    signature: SignatureOption = None,
    verified: VerifyOption = False,
    jobs: JobsOption = None,
    dry_run: DryRunOption = False,
    report_file: ReportOption = None,
    junit: JunitOption = None,
    cluster: ClusterOption = None,
    insecure_cluster: InsecureClusterOption = False,
    volumes_from: VolumesFromOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    json: JsonOption = False,
) -> None:
    if dry_run and (report_file or junit):
        raise UsageError("--dry-run writes nothing: it cannot be combined with --report or --junit")
    settings = load(config, None, None, jobs)
    registry, prefix = push_location(dest, settings)
    options = PushOptions(
        naming=_naming(prefix, rename, flat=flat),
        existing=existing_of(existing, replace_tags=replace_tags),
        create_projects=create_projects,
        hashed=verified,
        platform_index=platform_index,
        dry_run=dry_run,
        bases=tuple(base or ()),
    )
    workers = Cluster.of(cluster, config, insecure=insecure_cluster)
    files = RecordFiles.now("push", f"{source}", None, report_file, junit)
    with (
        opened_session(quiet=quiet, verbose=verbose) as session,
        trusting(source, signers, signature, session.progress, configured=settings.signers) as trust,
        with_cluster(session, session.job(settings), workers, [registry]) as job,
    ):
        result = push_images(job, source, registry, replace(options, trust=trust))
    if result.report is None:
        raise show_plan(result.plan, json=json)
    record = files.write([result.report], f"{source}", source.name)
    _show(result.report, record, quiet=quiet, json=json)


def _naming(prefix: str, rename: list[str] | None, *, flat: bool) -> Naming:
    renames = tuple(parsed("--rename", Rename.parse, text) for text in rename or ())
    return Naming(prefix=prefix, flat=flat, renames=renames)


def _show(result: SyncReport, record: RunRecord, *, quiet: bool, json: bool) -> None:
    if not quiet:
        echo(tables_text(record), err=True)
    log_tag_moves(result, quiet=quiet)
    if result.failed:
        echo(report.failures_text(result), err=True)
    show(result, report.sync_text(result), json=json)
    if result.failed:
        raise typer.Exit(failures_code(result))
