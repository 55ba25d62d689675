"""The command join."""

from pathlib import Path
from typing import Annotated

import typer

from regwrap.cli.options import ConfigOption, JsonOption, OutputOption, QuietOption, VolumesFromOption
from regwrap.cli.output import show, shown_progress
from regwrap.cli.settings import load
from regwrap.commands.join import join_bundles
from regwrap.core.errors import UsageError
from regwrap.report import text as report


def join(
    bundles: Annotated[
        list[Path],
        typer.Argument(
            metavar="BASE... DELTA", help="Bundles or a storage that the delta was made since, and the delta."
        ),
    ],
    output: OutputOption,
    volumes_from: VolumesFromOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    *bases, delta = bundles
    if not bases:
        raise UsageError(f"{delta} has to be joined with something", hint="regwrap join BASE... DELTA -o OUTPUT")
    timeout = load(config).timeouts.lock
    with shown_progress(quiet=quiet) as progress:
        result = join_bundles(bases, delta, output, lock_timeout=timeout, listener=progress)
    show(result, report.join_text(result), json=json)
