"""The command repair."""

from pathlib import Path
from typing import Annotated

import typer

from regwrap.cli.options import ConfigOption, JsonOption, QuietOption, VerboseOption
from regwrap.cli.output import show
from regwrap.cli.session import opened_session
from regwrap.cli.settings import load
from regwrap.commands.repair import repair_bundle
from regwrap.report.repair_text import repair_text
from regwrap.tools.par2 import Par2


def repair(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE.TAR", help="The bundle, or the name of its volumes.")],
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    json: JsonOption = False,
) -> None:
    stall = load(config).timeouts.disk_stall
    with opened_session(quiet=quiet, verbose=verbose) as session:
        result = repair_bundle(Par2(session.runner, stall), bundle, session.progress)
    show(result, repair_text(result), json=json)
