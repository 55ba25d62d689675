"""The command releases."""

import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from regwrap.bundle.receipt import MAX_RECEIPT_BYTES, parse_summary
from regwrap.cli.options import ConfigOption, HtmlOption, JsonOption, QuietOption, VolumesFromOption
from regwrap.cli.output import show, shown_progress, write_page
from regwrap.cli.settings import load
from regwrap.commands.releases import adopt_release, list_releases, look_at_site
from regwrap.core.bounded import read_bounded
from regwrap.core.errors import UsageError
from regwrap.report.site_text import releases_text


def releases(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Root directory of the storage.")],
    adopt: Annotated[
        Path | None,
        typer.Option(
            "--adopt", metavar="BUNDLE.TAR", help="First note the release of this bundle, whose images are all there."
        ),
    ] = None,
    html: HtmlOption = None,
    receipts: Annotated[
        list[Path] | None,
        typer.Option("--receipt", metavar="FILE", help="A receipt of verify, for the page; repeatable."),
    ] = None,
    volumes_from: VolumesFromOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    if receipts and html is None:
        raise UsageError("--receipt needs --html", hint="give --html FILE too")
    found = [parse_summary(read_bounded(file, MAX_RECEIPT_BYTES), f"{file}") for file in receipts or ()]
    timeout = load(config).timeouts.lock
    with shown_progress(quiet=quiet) as progress:
        if adopt is not None:
            adopt_release(adopt, directory, lock_timeout=timeout, listener=progress)
        if html is None:
            result = list_releases(directory, lock_timeout=timeout, listener=progress)
        else:
            from regwrap.report.page_site import SiteFacts, site_page  # pages are asked for now and then

            site = look_at_site(directory, lock_timeout=timeout, listener=progress)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            facts = SiteFacts(directory=f"{directory.absolute()}", host=socket.gethostname(), time=now)
            write_page(html, directory, site_page(site, facts, found))
            result = site.releases
        for note in result.notes:
            progress.log(f"note: {note}")
    show(result, releases_text(result), json=json)
