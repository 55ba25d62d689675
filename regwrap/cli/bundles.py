"""The command inspect."""

from pathlib import Path
from typing import Annotated

import typer

from regwrap.bundle.examine import inspect_bundle
from regwrap.cli.options import HtmlOption, JsonOption
from regwrap.cli.output import show, write_page
from regwrap.report import text as report


def inspect(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE.TAR", help="The bundle.")],
    html: HtmlOption = None,
    json: JsonOption = False,
) -> None:
    result = inspect_bundle(bundle)
    if html:
        from regwrap.report.page_bundle import bundle_page  # pages are asked for now and then

        write_page(html, bundle, bundle_page(result))
    show(result, report.inspect_text(result), json=json)
