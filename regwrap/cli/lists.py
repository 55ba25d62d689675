"""Commands that make a list: list from-manifests, list from-registry."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from regwrap.bundle.aside import write_atomically
from regwrap.cli.options import ConfigOption, QuietOption
from regwrap.cli.output import echo
from regwrap.cli.session import opened_session
from regwrap.cli.settings import load
from regwrap.commands.check_images import CheckedImages, check_images
from regwrap.commands.list_registry import RegistryListing, list_location
from regwrap.config.load import Config
from regwrap.config.locations import listed_location
from regwrap.core.counts import counted
from regwrap.core.errors import ExitCode, UsageError
from regwrap.lists.imagelist import list_text
from regwrap.lists.manifests.find import MAX_MANIFEST_BYTES, FoundImages, find_images
from regwrap.lists.manifests.text import manifests_text

ListOutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="List to write (default: standard output)."),
]


def from_manifests(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE.YAML", help="Rendered manifests; none, or -: standard input."),
    ] = None,
    output: ListOutputOption = None,
    sure: Annotated[
        bool, typer.Option("--sure", help="Only what image: names; no variables, arguments, ConfigMaps and the like.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Ask each registry for its images; comment out what is not there.")
    ] = False,
    config: ConfigOption = None,
    quiet: QuietOption = False,
) -> None:
    found = found_in_manifests(files or [Path("-")], sure=sure)
    checked = _checked(found, config, quiet=quiet) if check else CheckedImages(absent=frozenset(), unknown=())
    _log_notes((*found.notes, *checked.unknown, *_absent_notes(checked)), quiet=quiet)
    _give(manifests_text(found, checked.absent), output, len(found.all) - len(checked.absent))
    for problem in found.problems:
        echo(f"regwrap: {problem}", err=True)
    if not quiet:
        echo(found.summary, err=True)
    if found.problems or checked.absent or checked.unknown:
        raise typer.Exit(ExitCode.IMAGES_FAILED)


def from_registry(
    place: Annotated[
        str, typer.Argument(metavar="NAME[/PREFIX]|HOST[:PORT][/PREFIX]|DIR", help="A registry, or a storage.")
    ],
    output: ListOutputOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
) -> None:
    text, listing = list_of_registry(place, load(config), quiet=quiet)
    _log_notes((*listing.notes, *listing.unread), quiet=quiet)
    _give(text, output, text.count("\n") - 1)
    if listing.unread:
        raise typer.Exit(ExitCode.IMAGES_FAILED)


def found_in_manifests(files: list[Path], *, sure: bool = False) -> FoundImages:
    """Raises UsageError where there is no image."""
    names = [f"{file}" for file in files]
    found = find_images((("<stdin>" if name == "-" else name, _bytes_of(name)) for name in names), is_sure=sure)
    if not found.all:
        raise UsageError(
            f"{', '.join(names[:5])}: no images found",
            problems=(*found.problems, *found.notes),
            hint="give rendered manifests: helm template CHART, kustomize build DIR, kubectl get pods -A -o yaml",
        )
    return found


def _checked(found: FoundImages, config: Path | None, *, quiet: bool) -> CheckedImages:
    settings = load(config)
    with opened_session(quiet=quiet) as session:
        return check_images(session.job(settings), found.all)


def _absent_notes(checked: CheckedImages) -> list[str]:
    return [f"{image} is not there; its line is commented out" for image in sorted(checked.absent)]


def _bytes_of(name: str) -> bytes:
    try:
        if name == "-":
            return sys.stdin.buffer.read(MAX_MANIFEST_BYTES + 1)
        with Path(name).open("rb") as file:
            return file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from error


def list_of_registry(place: str, settings: Config, *, quiet: bool) -> tuple[str, RegistryListing]:
    """A list's text, and what it was made from."""
    home = Path(os.environ.get("HOME") or Path.home())
    where, prefix = listed_location(place, settings, base=Path.cwd(), home=home)
    with opened_session(quiet=quiet) as session:
        listing = list_location(session.job(settings), where, prefix)
    needs_source = "" if listing.images[0].registry else f"; read it with --source {place}"
    heading = f"{counted(len(listing.images), 'image')}, by regwrap list from-registry {place}{needs_source}"
    return list_text(listing.images, heading), listing


def _log_notes(notes: tuple[str, ...], *, quiet: bool) -> None:
    if not quiet:
        for note in notes:
            echo(f"note: {note}", err=True)


def _give(text: str, output: Path | None, images: int) -> None:
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_atomically(output, text)
        echo(f"{output}: {counted(images, 'image')}", err=True)
