"""The command push."""

from typing import Annotated

import typer

from regwrap import report
from regwrap.cli.options import (
    ConfigOption,
    JobsOption,
    JsonOption,
    QuietOption,
    StockArgument,
    VerboseOption,
    VerifyOption,
)
from regwrap.cli.outcome import show, show_plan
from regwrap.cli.session import load, opened_session
from regwrap.config import push_place
from regwrap.errors import ExitCode
from regwrap.pipeline.push import PushOptions, push_images
from regwrap.publish import Naming


def push(
    source: StockArgument,
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
    settings = load(config, None, None, jobs)
    registry, prefix = push_place(dest, settings)
    naming = Naming(prefix=prefix, flat=flat)
    options = PushOptions(naming=naming, create_projects=create_projects, hashed=verified, dry_run=dry_run)
    with opened_session(quiet=quiet, verbose=verbose, stopping=settings.retry.stopping) as session:
        result = push_images(session.job(settings), source, registry, options)
    if result.report is None:
        raise show_plan(result.plan, json=json)
    if result.report.failed:
        typer.echo(report.failures_text(result.report), err=True)
    show(result.report, report.sync_text(result.report), json=json)
    if result.report.failed:
        raise typer.Exit(ExitCode.IMAGES_FAILED)
