"""The command package."""

from typing import Annotated

import typer

from regwrap.cli.options import (
    ConfigOption,
    HistoryOption,
    JobsOption,
    JsonOption,
    ListArgument,
    LockedOption,
    LockFileOption,
    NameOption,
    OutputOption,
    QuietOption,
    ReferrersOption,
    SourceOption,
    UpperOption,
    VerboseOption,
)
from regwrap.cli.output import show
from regwrap.cli.session import images_of, load, lock_of, opened_session, release_name, wanted_of
from regwrap.commands.package import PackageOptions, Strategy, package_images
from regwrap.report import text as report


def package(
    images_list: ListArgument,
    output: OutputOption,
    name: NameOption = None,
    history: HistoryOption = None,
    strategy: Annotated[
        Strategy,
        typer.Option(
            "--strategy",
            help="Pack from the storage, or from an overlay that adds missing images; auto decides by the list.",
        ),
    ] = Strategy.AUTO,
    source: SourceOption = None,
    upper: UpperOption = None,
    jobs: JobsOption = None,
    hashed: Annotated[bool, typer.Option("--hash/--no-hash", help="Hash every blob, or trust the archive.")] = True,
    locked: LockedOption = False,
    lock_file: LockFileOption = None,
    referrers: ReferrersOption = False,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    json: JsonOption = False,
) -> None:
    settings = load(config, source, history, jobs, upper)
    options = PackageOptions(
        hashed=hashed,
        strategy=strategy,
        name=release_name(name),
        upper=settings.scratch,
        referrers=referrers,
    )
    with opened_session(quiet=quiet, verbose=verbose) as session:
        wanted = wanted_of(images_list, settings, session.progress)
        images = images_of(wanted, session.progress, lock_of(images_list, lock_file, locked=locked))
        result = package_images(session.job(settings), images, output, options)
    show(result, report.package_text(result), json=json)
