"""The command gc."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regwrap.cli.options import ConfigOption, JsonOption, QuietOption, VolumesFromOption
from regwrap.cli.output import show, shown_progress
from regwrap.cli.settings import load
from regwrap.commands.gc import GcOptions, GcReport, collect_garbage, keep_of
from regwrap.commands.gc_releases import KeptReleases
from regwrap.core.listener import Listener
from regwrap.report.site_text import gc_text
from regwrap.storage.sweep import RealDisk

if TYPE_CHECKING:
    from regwrap.config.load import Config
    from regwrap.lists.imagelist import ImageList
    from regwrap.report.progress import Progress

_DirectoryArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Root directory of the storage.")]
_KeepOption = Annotated[
    list[str] | None,
    typer.Option(
        "--keep",
        metavar="LIST|BUNDLE.TAR",
        help="Keep these images, by digest where it has digests; may be repeated.",
    ),
]
_KeepReleasesOption = Annotated[
    int | None,
    typer.Option("--keep-releases", metavar="N", min=1, help="Keep the N releases that were deployed last."),
]
_KeepReleaseOption = Annotated[
    list[str] | None,
    typer.Option("--keep-release", metavar="NAME", help="Keep this release, by name or id; may be repeated."),
]
_DropCurrentOption = Annotated[
    bool, typer.Option("--drop-current", help="Do not keep the release in use unless it is asked for.")
]
_KeepLastOption = Annotated[
    int | None, typer.Option("--keep-last", metavar="N", min=1, help="Keep the N newest tags of each repository.")
]
_DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be deleted, and why.")]
_OfflineOption = Annotated[
    bool,
    typer.Option("--offline", help="Confirm that nothing else writes to DIR: its registry is stopped or read-only."),
]


def gc(
    directory: _DirectoryArgument,
    keep: _KeepOption = None,
    keep_releases: _KeepReleasesOption = None,
    keep_release: _KeepReleaseOption = None,
    drop_current: _DropCurrentOption = False,
    keep_last: _KeepLastOption = None,
    dry_run: _DryRunOption = False,
    offline: _OfflineOption = False,
    volumes_from: VolumesFromOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    settings = load(config)
    with shown_progress(quiet=quiet) as progress:
        releases = KeptReleases(last=keep_releases, names=tuple(keep_release or ()), drop_current=drop_current)
        lists = _lists(keep, settings, progress) if keep else []
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
        _log_notes(result, progress, dry_run=dry_run)
    show(result, gc_text(result, directory), json=json)


def _lists(keep: list[str], settings: "Config", progress: "Progress") -> "list[ImageList]":
    from regwrap.cli.wanted import listed  # most runs have no list, and to read one is a fifth of the start

    return [listed(path, settings, progress) for path in keep]


def _log_notes(result: GcReport, listener: Listener, *, dry_run: bool) -> None:
    for note in result.notes:
        listener.log(f"note: {note}")
    if result.blobs and not dry_run:
        listener.log(
            "if a registry with an in-memory blob cache runs on this directory, restart it, or it will accept"
            " pushes without uploading the blobs that were deleted"
        )
