"""The command gc."""

from pathlib import Path
from typing import Annotated

import typer

from regwrap.cli.options import ConfigOption, JsonOption, QuietOption
from regwrap.cli.output import show
from regwrap.cli.session import images_of, load, opened_session, wanted_of
from regwrap.commands.gc import GcOptions, collect_garbage, keep_of
from regwrap.commands.gc_releases import KeptReleases
from regwrap.report import text as report
from regwrap.storage.sweep import RealDisk


def gc(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Root directory of the storage.")],
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            metavar="LIST|BUNDLE.TAR",
            help="Keep these images, by digest where it has digests; may be repeated.",
        ),
    ] = None,
    keep_releases: Annotated[
        int | None,
        typer.Option("--keep-releases", metavar="N", min=1, help="Keep the N releases that were deployed last."),
    ] = None,
    keep_release: Annotated[
        list[str] | None,
        typer.Option("--keep-release", metavar="NAME", help="Keep this release, by name or id; may be repeated."),
    ] = None,
    drop_current: Annotated[
        bool, typer.Option("--drop-current", help="Do not keep the release in use unless it is asked for.")
    ] = False,
    keep_last: Annotated[
        int | None, typer.Option("--keep-last", metavar="N", min=1, help="Keep the N newest tags of each repository.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be deleted, and why.")] = False,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline", help="Confirm that nothing else writes to DIR: its registry is stopped or read-only."
        ),
    ] = False,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    settings = load(config)
    with opened_session(quiet=quiet) as session:
        progress = session.progress
        releases = KeptReleases(last=keep_releases, names=tuple(keep_release or ()), drop_current=drop_current)
        lists = [images_of(wanted_of(path, settings, progress), progress) for path in keep or ()]
        entries = [entry for images in lists for entry in images.entries]
        kept = keep_of(entries if lists or releases.wanted else None, keep_last)
        options = GcOptions(
            dry_run=dry_run,
            offline=offline,
            lock_timeout=settings.timeouts.lock,
            releases=releases,
            for_good=True,
        )
        result = collect_garbage(directory, kept, options, progress, RealDisk())
        for note in result.notes:
            progress.say(f"note: {note}")
        if result.blobs and not dry_run:
            progress.say(
                "if a registry with an in-memory blob cache runs on this directory, restart it, or it will accept"
                " pushes without uploading the blobs that were deleted"
            )
    show(result, report.gc_text(result, directory), json=json)
