"""Commands on storages and other forms of images: gc, bake, export, import."""

from pathlib import Path
from typing import Annotated

import typer

from regwrap import report
from regwrap.cli.options import ConfigOption, JsonOption, QuietOption, StockArgument, VerboseOption
from regwrap.cli.outcome import show
from regwrap.cli.session import load, opened_session, parsed, unlocked_list
from regwrap.convert.tree import Form
from regwrap.model import LayoutRef, Platform
from regwrap.pipeline.bake import BakeOptions, bake_image
from regwrap.pipeline.convert import export_stock, import_tree
from regwrap.storage.gc import Keep
from regwrap.storage.sweep import GcOptions, RealDisk, collect_garbage


def gc(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The storage's root directory.")],
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="IMAGES.LIST", help="Keep these images; may be repeated."),
    ] = None,
    keep_last: Annotated[
        int | None, typer.Option("--keep-last", metavar="N", min=1, help="Keep the N newest tags of each repository.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would go, and why.")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Nothing else writes into DIR now: its registry is stopped or read-only.")
    ] = False,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    settings = load(config)
    with opened_session(quiet=quiet) as session:
        progress = session.progress
        lists = None if keep is None else [unlocked_list(path, settings, progress) for path in keep]
        names = None if lists is None else frozenset(str(entry.dest) for images in lists for entry in images.entries)
        options = GcOptions(
            dry_run=dry_run,
            offline=offline,
            lock_timeout=settings.timeouts.lock,
            on_wait=progress.say,
            expect=lambda count: progress.expect("gc", count),
            on_bytes=progress.on_bytes,
        )
        result = collect_garbage(directory, Keep(names=names, last=keep_last), options, RealDisk())
        for note in result.notes:
            progress.say(f"note: {note}")
        if result.blobs and not dry_run:
            progress.say(
                "a registry that has run on this directory meanwhile, and keeps an in-memory blob cache, must be"
                " restarted: else it takes pushes of what is gone for done"
            )
    show(result, report.gc_text(result, directory), json=json)


def bake(
    source: StockArgument,
    to: Annotated[str, typer.Option("--to", metavar="oci:DIR:TAG", help="The OCI layout, new or in use, and a tag.")],
    base: Annotated[
        str | None,
        typer.Option(
            "--base", metavar="oci:DIR:TAG|HOST/NAME:TAG", help="An image with a registry; else an empty one."
        ),
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Of a storage blobs and layer links alone: spares copies, shows nothing.")
    ] = False,
    path: Annotated[str, typer.Option("--path", metavar="PATH", help="Where the storage is in the image.")] = (
        "/var/lib/registry"
    ),
    program: Annotated[
        str | None,
        typer.Option("--registry", metavar="PATH", help="The registry's program in the base (else looked for)."),
    ] = None,
    platform: Annotated[
        str, typer.Option("--platform", metavar="OS/ARCH", help="Which of a base's platforms; what an empty one says.")
    ] = "linux/amd64",
    compress: Annotated[bool, typer.Option("--compress", help="Compress the layer with gzip.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look at everything, write nothing.")] = False,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    json: JsonOption = False,
) -> None:
    settings = load(config)
    options = BakeOptions(
        base=base,
        platform=parsed("--platform", Platform.parse, platform),
        root=path,
        program=program,
        compress=compress,
        history=history,
        dry_run=dry_run,
    )
    dest = parsed("--to", LayoutRef.parse, to)
    with opened_session(quiet=quiet, verbose=verbose, stopping=settings.retry.stopping) as session:
        result = bake_image(session.job(settings), source, dest, options)
    show(result, report.bake_text(result), json=json)


def export(
    source: StockArgument,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new directory.")],
    form: Annotated[
        Form, typer.Option("--format", help="A skopeo dir: directory for each image, or one OCI layout.")
    ] = Form.DIR,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be written.")] = False,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    settings = load(config)
    with opened_session(quiet=quiet) as session:
        result = export_stock(session.job(settings), source, directory, form=form, dry_run=dry_run)
    show(result, report.export_text(result), json=json)


def import_(
    source: Annotated[
        str, typer.Argument(metavar="DIR|oci:DIR[:TAG]", help="Directories as skopeo's dir: has them, or a layout.")
    ],
    directory: Annotated[Path, typer.Argument(metavar="STORAGE", help="The storage's root directory, in use or new.")],
    named: Annotated[
        str | None,
        typer.Option("--name", metavar="REPOSITORY[:TAG]", help="For images without a name, or with only a tag."),
    ] = None,
    replace_tags: Annotated[
        bool, typer.Option("--replace-tags", help="Move tags that are there and point to other images.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look at everything, change nothing.")] = False,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    settings = load(config)
    with opened_session(quiet=quiet) as session:
        result = import_tree(
            session.job(settings), source, directory, named=named, replace_tags=replace_tags, dry_run=dry_run
        )
    show(result, report.import_text(result), json=json)
