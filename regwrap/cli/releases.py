"""The command releases."""

from pathlib import Path
from typing import Annotated

import typer

from regwrap.cli.options import ConfigOption, JsonOption, QuietOption
from regwrap.cli.output import show, told
from regwrap.cli.session import load
from regwrap.commands.releases import adopt_release, list_releases
from regwrap.report.site_text import releases_text


def releases(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Root directory of the storage.")],
    adopt: Annotated[
        Path | None,
        typer.Option(
            "--adopt", metavar="BUNDLE.TAR", help="First note the release of this bundle, whose images are all there."
        ),
    ] = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    timeout = load(config).timeouts.lock
    with told(quiet=quiet) as progress:
        if adopt is not None:
            adopt_release(adopt, directory, lock_timeout=timeout, listener=progress)
        result = list_releases(directory, lock_timeout=timeout, listener=progress)
        for note in result.notes:
            progress.say(f"note: {note}")
    show(result, releases_text(result), json=json)
