"""The command rollback."""

from pathlib import Path
from typing import Annotated

import typer

from regwrap.cli.options import ConfigOption, JsonOption, QuietOption
from regwrap.cli.output import show, shown_progress
from regwrap.cli.settings import load
from regwrap.commands.rollback import RollbackOptions, rollback
from regwrap.report.site_text import rollback_text


def roll_back(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Root directory of the storage.")],
    release: Annotated[
        str, typer.Argument(metavar="RELEASE", help="Name or id of the release, as regwrap releases DIR shows it.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Look at every image, show the old and the new digest of each tag.")
    ] = False,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    options = RollbackOptions(dry_run=dry_run, lock_timeout=load(config).timeouts.lock, for_good=True)
    with shown_progress(quiet=quiet) as progress:
        result = rollback(directory, release, options, progress)
        for note in result.notes:
            progress.log(f"note: {note}")
    show(result, rollback_text(result), json=json)
