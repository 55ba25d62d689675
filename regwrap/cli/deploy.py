"""The command deploy."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from regwrap.bundle.merge import ImportOptions
from regwrap.cli.options import (
    ConfigOption,
    ExistingOption,
    JsonOption,
    QuietOption,
    ReplaceTagsOption,
    existing_of,
)
from regwrap.cli.output import show, told
from regwrap.cli.session import load
from regwrap.commands.deploy import deploy_bundle, deploy_incoming
from regwrap.report import text as report


def deploy(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE.TAR|-", help="The bundle; - reads a pipe.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Root directory of the storage, new or existing.")],
    existing: ExistingOption = None,
    replace_tags: ReplaceTagsOption = False,
    hashed: Annotated[
        bool, typer.Option("--hash", help="Of a delta: hash the blobs that it requires, not only compare their sizes.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check the bundle's structure, name the tags that would move; change nothing."),
    ] = False,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    settings, chosen = load(config), existing_of(existing, replace_tags=replace_tags)
    with told(quiet=quiet) as progress:
        options = ImportOptions(existing=chosen, dry_run=dry_run, lock_timeout=settings.timeouts.lock, hashed=hashed)
        if bundle == Path("-"):
            result = deploy_incoming(sys.stdin.buffer, directory, options, progress, for_good=True)
        else:
            result = deploy_bundle(bundle, directory, options, progress, for_good=True)
        if not dry_run:
            progress.say(
                "a registry running on this directory serves the new tags at once; restart it if it keeps an in-memory"
                " blob cache (docker-registry's packaged configuration does) and damaged blobs were repaired"
            )
    show(result, report.deploy_text(result, directory, dry_run=dry_run), json=json)
