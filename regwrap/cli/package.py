"""The command package."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from regwrap.cli.finishing import Finishing
from regwrap.cli.options import (
    ConfigOption,
    HistoryOption,
    JobsOption,
    JsonOption,
    ListArgument,
    LockedOption,
    LockFileOption,
    MaxSizeOption,
    NameOption,
    ParityOption,
    QuietOption,
    ReferrersOption,
    SignatureOption,
    SignKeyOption,
    SinceOption,
    SourceOption,
    UpperOption,
    VerboseOption,
    VolumeOption,
    VolumesFromOption,
    VolumeSizeOption,
)
from regwrap.cli.output import has_summary, show
from regwrap.cli.session import opened_session
from regwrap.cli.settings import load, release_name
from regwrap.cli.sizes import SizeOptions, log_total, older_of, planned, shown_sizes, target_of
from regwrap.cli.wanted import listed, lock_of
from regwrap.commands.package import PackageOptions, PackageReport, Strategy, package_images
from regwrap.core.errors import UsageError
from regwrap.report import text as report

if TYPE_CHECKING:
    from collections.abc import Callable

    from regwrap.commands.size import BundlePlan
    from regwrap.lists.imagelist import ImageList
    from regwrap.transfer.job import Job

_PIPE: Final = Path("-")
_OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE|-", help="Bundle to write, - into a pipe; not with --dry-run."),
]
_StrategyOption = Annotated[
    Strategy,
    typer.Option(
        "--strategy",
        help="select: from the archive; direct: missing images straight from their source into the bundle; overlay:"
        " missing images on top of the archive, for an engine that direct cannot use."
        " auto: select where the archive has all of the list, else direct where the engine can.",
    ),
]
_DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show the size of the bundle and of each image in it; write nothing.")
]
_HashedOption = Annotated[bool, typer.Option("--hash/--no-hash", help="Hash every blob, or trust the archive.")]


def package(
    images_list: ListArgument,
    output: _OutputOption = None,
    name: NameOption = None,
    history: HistoryOption = None,
    strategy: _StrategyOption = Strategy.AUTO,
    source: SourceOption = None,
    upper: UpperOption = None,
    dry_run: _DryRunOption = False,
    since: SinceOption = None,
    max_size: MaxSizeOption = None,
    volume_size: VolumeSizeOption = None,
    volume: VolumeOption = None,
    parity: ParityOption = None,
    sign_key: SignKeyOption = None,
    signature: SignatureOption = None,
    jobs: JobsOption = None,
    hashed: _HashedOption = True,
    locked: LockedOption = False,
    lock_file: LockFileOption = None,
    referrers: ReferrersOption = False,
    volumes_from: VolumesFromOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    json: JsonOption = False,
) -> None:
    _check_output(output, dry_run=dry_run, json=json)
    finishing = Finishing.parse(output, sign_key, signature, parity, volume)
    settings = load(config, source, history, jobs, upper)
    sizes = SizeOptions.parse(since, max_size)
    options = PackageOptions(
        hashed=hashed,
        strategy=strategy,
        name=release_name(name),
        upper=settings.scratch,
        referrers=referrers,
        since=() if dry_run else older_of(since),
        target=None if dry_run or output is None else target_of(output, volume_size, volume),
    )
    with opened_session(quiet=quiet, verbose=verbose) as session:
        images = listed(images_list, settings, session.progress, lock_of(images_list, lock_file, locked=locked))
        job = session.job(settings)
        _size_first(job, images, options, sizes, shown=partial(shown_sizes, json=json) if dry_run else None)
        if output is None or dry_run:
            return
        result = _packed(job, images, output, options, finishing)
    if output != _PIPE:
        show(result, report.package_text(result), json=json)


def _packed(
    job: "Job", images: "ImageList", output: Path, options: PackageOptions, finishing: Finishing
) -> PackageReport:
    options = replace(options, target=finishing.ahead(job, options.target))
    result = package_images(job, images, output, options)
    finishing.finish(job, result.id)
    if output == _PIPE:  # which stdout is
        job.listener.log(report.package_text(replace(result, path=Path("standard output"))))
    return result


def _check_output(output: Path | None, *, dry_run: bool, json: bool) -> None:
    if output == _PIPE and json and not dry_run:
        raise UsageError("-o - and --json both write to standard output", hint="give one of them")
    if output is None and not dry_run:
        raise UsageError("package needs --output FILE", hint="give -o FILE, or --dry-run to see the sizes")


def _size_first(
    job: "Job",
    images: "ImageList",
    options: PackageOptions,
    sizes: SizeOptions,
    *,
    shown: "Callable[[BundlePlan], None] | None",
) -> None:
    """All of it on stdout where that is asked for; else a line, where there is a limit or a summary."""
    if shown is not None:
        planned(job, images, options, sizes, shown)
    elif sizes.limit is not None or has_summary():
        planned(job, images, options, sizes, partial(log_total, progress=job.listener))
