"""The command inspect."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from regwrap.bundle.inspection import inspect_bundle
from regwrap.bundle.opened import opened_bases
from regwrap.cli.options import BaseOption, HtmlOption, JsonOption, VolumesFromOption
from regwrap.cli.output import show, write_page
from regwrap.core.listener import Silent
from regwrap.report import text as report


def inspect(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE.TAR", help="The bundle.")],
    base: BaseOption = None,
    volumes_from: VolumesFromOption = None,
    html: HtmlOption = None,
    no_trunc: Annotated[bool, typer.Option("--no-trunc", help="Show full digests (the default in a pipe).")] = False,
    json: JsonOption = False,
) -> None:
    with opened_bases(base or (), lock_timeout=None, listener=Silent()) as bases:
        result = inspect_bundle(bundle, bases)
    if html:
        from regwrap.report.page_bundle import bundle_page  # pages are asked for now and then

        write_page(html, bundle, bundle_page(result))
    full = no_trunc or not sys.stdout.isatty()
    show(result, report.inspect_text(result, full=full), json=json)
