"""The command package."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

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
    VolumeSizeOption,
)
from regwrap.cli.output import show
from regwrap.cli.session import images_of, load, lock_of, opened_session, release_name, wanted_of
from regwrap.cli.signing import check_signing, signed
from regwrap.cli.sizes import (
    SizeOptions,
    has_summary,
    older_of,
    parity_of,
    planned,
    protected,
    shown_sizes,
    target_of,
    told_total,
)
from regwrap.commands.package import PackageOptions, Strategy, package_images
from regwrap.core.errors import UsageError
from regwrap.report import text as report

_OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE|-", help="Bundle to write, - into a pipe; not with --dry-run."),
]
_StrategyOption = Annotated[
    Strategy,
    typer.Option(
        "--strategy",
        help="Pack from the storage, or from an overlay that adds missing images; auto decides by the list.",
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
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    json: JsonOption = False,
) -> None:
    piped = output == Path("-") and not dry_run
    if piped and json:
        raise UsageError("-o - and --json both write to standard output", hint="give one of them")
    if output is None and not dry_run:
        raise UsageError("package needs --output FILE", hint="give -o FILE, or --dry-run to see the sizes")
    check_signing(sign_key, output, signature)
    percent = parity_of(parity, output, volume)
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
        wanted = wanted_of(images_list, settings, session.progress)
        images = images_of(wanted, session.progress, lock_of(images_list, lock_file, locked=locked))
        job = session.job(settings)
        if dry_run:
            planned(job, images, options, sizes, partial(shown_sizes, json=json))
        elif sizes.limit is not None or has_summary():
            planned(job, images, options, sizes, partial(told_total, progress=session.progress))
        if output is None or dry_run:
            return
        result = package_images(job, images, output, options)
        if volume is None:  # what stands beside the others is still right
            signed(session.runner, sign_key, output, signature, result.id)
            if not piped:
                protected(job, output, percent)
        if piped:
            session.progress.say(report.package_text(result))
            return
    show(result, report.package_text(result), json=json)
