"""Commands that make a list: list from-manifests, list from-registry."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from regwrap.cli.options import ConfigOption, QuietOption
from regwrap.cli.session import load, opened_session
from regwrap.commands.beside import write_beside
from regwrap.commands.list_registry import list_place
from regwrap.config.places import listed_place
from regwrap.core.errors import UsageError
from regwrap.lists.imagelist import list_text
from regwrap.lists.manifests import MAX_MANIFEST_BYTES, find_images

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
    quiet: QuietOption = False,
) -> None:
    text, notes = list_of_manifests(files or [Path("-")])
    _tell(notes, quiet=quiet)
    _give(text, output)


def from_registry(
    place: Annotated[
        str, typer.Argument(metavar="NAME[/PREFIX]|HOST[:PORT][/PREFIX]|DIR", help="A registry, or a storage.")
    ],
    output: ListOutputOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
) -> None:
    text, notes = list_of_registry(place, config)
    _tell(notes, quiet=quiet)
    _give(text, output)


def list_of_manifests(files: list[Path]) -> tuple[str, tuple[str, ...]]:
    """A list's text, and notes. Raises UsageError where there is no image."""
    names = [f"{file}" for file in files]
    found = find_images([("<stdin>" if name == "-" else name, _bytes_of(name)) for name in names])
    if not found.images:
        raise UsageError(
            f"{', '.join(names)}: no images found",
            detail="\n".join(found.notes),
            hint="give rendered manifests: helm template CHART, kustomize build DIR, kubectl get pods -A -o yaml",
        )
    return list_text(found.images, f"{len(found.images)} images, by regwrap list from-manifests"), found.notes


def _bytes_of(name: str) -> bytes:
    try:
        if name == "-":
            return sys.stdin.buffer.read(MAX_MANIFEST_BYTES + 1)
        with Path(name).open("rb") as file:
            return file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from error


def list_of_registry(place: str, config: Path | None) -> tuple[str, tuple[str, ...]]:
    """A list's text, and notes."""
    settings = load(config)
    home = Path(os.environ.get("HOME") or Path.home())
    where, prefix = listed_place(place, settings, base=Path.cwd(), home=home)
    with opened_session(quiet=True) as session:
        listing = list_place(session.job(settings), where, prefix)
    needs_source = "" if listing.images[0].registry else f"; read it with --source {place}"
    heading = f"{len(listing.images)} images, by regwrap list from-registry {place}{needs_source}"
    return list_text(listing.images, heading), listing.notes


def _tell(notes: tuple[str, ...], *, quiet: bool) -> None:
    if not quiet:
        for note in notes:
            typer.echo(f"note: {note}", err=True)


def _give(text: str, output: Path | None) -> None:
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_beside(output, text)
        typer.echo(f"{output}: {text.count(chr(10)) - 1} images", err=True)
