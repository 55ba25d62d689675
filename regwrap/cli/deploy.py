"""The command deploy."""

from pathlib import Path
from typing import Annotated

import typer

from regwrap.bundle.merge import ImportOptions
from regwrap.cli.options import (
    ConfigOption,
    ExistingOption,
    JsonOption,
    QuietOption,
    ReplaceTagsOption,
    SignatureOption,
    SignersOption,
    VolumesFromOption,
    existing_of,
)
from regwrap.cli.output import show, shown_progress
from regwrap.cli.settings import load
from regwrap.cli.signing import trusting
from regwrap.cli.volumes import incoming
from regwrap.commands.deploy import DeployReport, deploy_bundle, deploy_incoming
from regwrap.core.counts import counted
from regwrap.report import text as report
from regwrap.report.progress import Progress


def deploy(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE.TAR|-", help="The bundle; - reads a pipe.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Root directory of the storage, new or existing.")],
    existing: ExistingOption = None,
    replace_tags: ReplaceTagsOption = False,
    hashed: Annotated[
        bool, typer.Option("--hash", help="Of a delta: hash the blobs that it requires, not only compare their sizes.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check the bundle's structure, name the tags that would move; change nothing."),
    ] = False,
    volumes_from: VolumesFromOption = None,
    signers: SignersOption = None,
    signature: SignatureOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    settings, chosen = load(config), existing_of(existing, replace_tags=replace_tags)
    with (
        shown_progress(quiet=quiet) as progress,
        trusting(bundle, signers, signature, progress, configured=settings.signers) as trust,
    ):
        options = ImportOptions(
            existing=chosen, dry_run=dry_run, lock_timeout=settings.timeouts.lock, hashed=hashed, trust=trust
        )
        result = _deployed(bundle, directory, options, progress)
        if result.mended and not dry_run:
            progress.log(_repaired(result.mended))
    show(result, report.deploy_text(result, directory, dry_run=dry_run), json=json)


def _repaired(count: int) -> str:
    from regwrap.tools.docker_registry import runs_here  # damage is rare

    repaired = f"{counted(count, 'damaged blob was', 'damaged blobs were')} repaired"
    if not runs_here():
        return repaired
    return (
        f"{repaired}: restart the registry if it runs on this directory and keeps an in-memory blob cache"
        " (docker-registry's packaged configuration does)"
    )


def _deployed(bundle: Path, directory: Path, options: ImportOptions, progress: Progress) -> DeployReport:
    if options.dry_run and bundle != Path("-"):
        return deploy_bundle(bundle, directory, options, progress, for_good=True)
    with incoming(bundle, progress) as file:
        if file is None:
            return deploy_bundle(bundle, directory, options, progress, for_good=True)
        return deploy_incoming(file, bundle, directory, options, progress)
