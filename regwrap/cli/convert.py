"""Commands for other forms of a storage: export, import."""

from pathlib import Path
from typing import Annotated

import typer

from regwrap.bundle.merge import ImportOptions
from regwrap.cli.options import (
    BaseOption,
    ConfigOption,
    ExistingOption,
    ImageSetArgument,
    JsonOption,
    QuietOption,
    ReplaceTagsOption,
    SignatureOption,
    SignersOption,
    VolumesFromOption,
    existing_of,
)
from regwrap.cli.output import show
from regwrap.cli.session import opened_session
from regwrap.cli.settings import load, release_name
from regwrap.cli.signing import trusting_tree
from regwrap.commands.export import export_image_set
from regwrap.commands.import_tree import import_tree
from regwrap.forms.tree import Form
from regwrap.report import text as report


def export(
    source: ImageSetArgument,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory to create.")],
    form: Annotated[
        Form, typer.Option("--format", help="One skopeo dir: directory per image, or one OCI layout.")
    ] = Form.DIR,
    base: BaseOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be written.")] = False,
    volumes_from: VolumesFromOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    settings = load(config)
    with opened_session(quiet=quiet) as session:
        result = export_image_set(
            session.job(settings), source, directory, form=form, dry_run=dry_run, bases=base or ()
        )
    show(result, report.export_text(result), json=json)


def import_(
    source: Annotated[
        str, typer.Argument(metavar="DIR|oci:DIR[:TAG]", help="Directories in skopeo's dir: format, or an OCI layout.")
    ],
    directory: Annotated[
        Path, typer.Argument(metavar="STORAGE", help="Root directory of the storage, new or existing.")
    ],
    named: Annotated[
        str | None,
        typer.Option("--name", metavar="REPOSITORY[:TAG]", help="Name for images without one, or with only a tag."),
    ] = None,
    release: Annotated[
        str | None,
        typer.Option(
            "--release", metavar="NAME", help="Name of the release that was exported: its files do not say it."
        ),
    ] = None,
    existing: ExistingOption = None,
    replace_tags: ReplaceTagsOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, change nothing.")] = False,
    signers: SignersOption = None,
    signature: SignatureOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    settings, chosen = load(config), existing_of(existing, replace_tags=replace_tags)
    with (
        opened_session(quiet=quiet) as session,
        trusting_tree(signers or settings.signers, signature, session.progress) as trust,
    ):
        options = ImportOptions(existing=chosen, dry_run=dry_run, lock_timeout=settings.timeouts.lock, trust=trust)
        name = release_name(release, "--release")
        result = import_tree(source, directory, options, session.progress, named=named, release=name)
    show(result, report.import_text(result), json=json)
