"""The command bake."""

from pathlib import Path
from typing import Annotated

import typer

from regwrap.bundle.volume_places import volumes_of
from regwrap.cli.options import (
    ConfigOption,
    ImageSetArgument,
    JsonOption,
    QuietOption,
    VerboseOption,
    VolumesFromOption,
)
from regwrap.cli.output import show
from regwrap.cli.session import opened_session
from regwrap.cli.settings import load, parsed
from regwrap.commands.bake import BakeOptions, bake_image
from regwrap.core.errors import UsageError
from regwrap.core.model import LayoutRef, Platform
from regwrap.core.writing import is_there
from regwrap.report import text as report

_ToOption = Annotated[str, typer.Option("--to", metavar="oci:DIR:TAG", help="OCI layout, new or existing, and a tag.")]
_BaseOption = Annotated[
    list[str] | None,
    typer.Option(
        "--base",
        metavar="oci:DIR:TAG|HOST/NAME:TAG|BUNDLE.TAR",
        help="Image with a registry (default: an empty image); of a delta also the bundles or storage it needs.",
    ),
]
_HistoryOption = Annotated[
    bool,
    typer.Option("--history", help="Include only blobs and layer links, no tags, so later pushes can reuse layers."),
]
_PathOption = Annotated[str, typer.Option("--path", metavar="PATH", help="Path of the storage in the image.")]
_ProgramOption = Annotated[
    str | None,
    typer.Option("--registry", metavar="PATH", help="Registry program in the base image (default: searched)."),
]
_PlatformOption = Annotated[
    str,
    typer.Option(
        "--platform",
        metavar="OS/ARCH",
        help="Platform to take from the base image, or to record when there is none.",
    ),
]
_CompressOption = Annotated[bool, typer.Option("--compress", help="Compress the layer with gzip.")]
_DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")]


def bake(
    source: ImageSetArgument,
    to: _ToOption,
    base: _BaseOption = None,
    history: _HistoryOption = False,
    path: _PathOption = ("/var/lib/registry"),
    program: _ProgramOption = None,
    platform: _PlatformOption = "linux/amd64",
    compress: _CompressOption = False,
    dry_run: _DryRunOption = False,
    volumes_from: VolumesFromOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    json: JsonOption = False,
) -> None:
    settings = load(config)
    images, bases = _bases(base or [])
    options = BakeOptions(
        base=images[0] if images else None,
        bases=bases,
        platform=parsed("--platform", Platform.parse, platform),
        root=path,
        program=program,
        compress=compress,
        history=history,
        dry_run=dry_run,
    )
    dest = parsed("--to", LayoutRef.parse, to)
    with opened_session(quiet=quiet, verbose=verbose) as session:
        result = bake_image(session.job(settings), source, dest, options)
    show(result, report.bake_text(result), json=json)


def _bases(texts: list[str]) -> tuple[list[str], tuple[Path, ...]]:
    """The image, and where blobs of a delta are: what is a file or a directory here."""
    there = [text for text in texts if is_there(text) or volumes_of(Path(text))]
    bases, images = tuple(map(Path, there)), [text for text in texts if text not in there]
    if len(images) > 1:
        raise UsageError(f"--base: {images[0]} and {images[1]} are two images", hint="an image has one base")
    return images, bases
