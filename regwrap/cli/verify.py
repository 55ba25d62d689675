"""The command verify."""

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from regwrap.bundle.examine import VerifyReport, verify_bundle, verify_storage
from regwrap.cli.options import BaseOption, ConfigOption, HtmlOption, JsonOption, JunitOption, QuietOption
from regwrap.cli.output import show, told
from regwrap.core.counts import counted
from regwrap.core.errors import ImagesFailedError, IntegrityError, UsageError
from regwrap.report import text as report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regwrap.lists.imagelist import ImageEntry
    from regwrap.report.progress import Progress

_DIFFERS: Final = (
    "bring what is missing with deploy, push or sync; or compare with the list of the release that is there"
)
# what can only be a registry: a file that is not there should be said to be missing
_REGISTRY: Final = re.compile(r"[a-z]+://.*|localhost(:[0-9]+)?(/.*)?|[^/.~][^/]*:[0-9]+(/.*)?|[^/.~][^/]*\.[^/]*/.*")


def verify(
    target: Annotated[
        str,
        typer.Argument(
            metavar="BUNDLE.TAR|-|DIR|HOST[/PREFIX]",
            help="A bundle (- reads a pipe), the root directory of a storage, or a registry.",
        ),
    ],
    images_list: Annotated[
        str | None,
        typer.Option(
            "--list", metavar="LIST|BUNDLE.TAR", help="A bundle holds exactly these images, a storage at least."
        ),
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="With --list: there are no other images.")] = False,
    hashed: Annotated[
        bool, typer.Option("--hash", help="Of a registry: fetch and hash every blob. Of files it is done in any case.")
    ] = False,
    base: BaseOption = None,
    receipt: Annotated[
        Path | None,
        typer.Option("--receipt", metavar="FILE", help="Write what was found, image by image, as JSON."),
    ] = None,
    html: HtmlOption = None,
    junit: JunitOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    if exact and images_list is None:
        raise UsageError("--exact compares with a list", hint="give --list too")
    entries: tuple[ImageEntry, ...] | None
    if is_registry(target):
        from regwrap.cli.verify_registry import checked_registry  # files need nothing of registries

        result, entries = checked_registry(target, images_list, exact=exact, hashed=hashed, config=config, quiet=quiet)
    else:
        result, entries = _checked_file(Path(target), images_list, base or (), exact=exact, config=config, quiet=quiet)
    if receipt or html or junit:
        from regwrap.cli.receipts import ReceiptFiles, write_receipt  # asked for now and then

        files = ReceiptFiles(receipt=receipt, html=html, junit=junit)
        write_receipt(result, target, images_list, entries, files, hashed=hashed)
    show(result, report.verify_text(result), json=json)
    if result.problems:
        raise IntegrityError(f"{target}: {counted(len(result.problems), 'problem')}")
    if result.differences:
        raise ImagesFailedError(
            f"{target} is undamaged and not what the list says: {counted(len(result.differences), 'difference')}",
            hint=_DIFFERS,
        )


def is_registry(target: str) -> bool:
    """Whether it can only be a registry: a file that is not there should be said to be missing."""
    return not os.path.lexists(target) and not target.endswith(".tar") and _REGISTRY.fullmatch(target) is not None


def _checked_file(
    target: Path, images_list: str | None, base: "Sequence[Path]", *, exact: bool, config: Path | None, quiet: bool
) -> "tuple[VerifyReport, tuple[ImageEntry, ...] | None]":
    with told(quiet=quiet) as progress:
        entries = None
        if images_list is not None:  # lists and their configuration are a third of the start, and most checks have none
            from regwrap.cli.session import images_of, load, wanted_of

            # only its rewrite: and images: count here
            entries = images_of(wanted_of(images_list, load(config), progress), progress).entries
        progress.expect("verify", target.stat().st_size if target.is_file() else 0)
        if target.is_dir():
            result = verify_storage(target, entries, progress.on_bytes, exact=exact)
        else:
            result = _checked_bundle(target, entries, base, progress)
        for note in result.notes:
            progress.say(f"note: {note}")
    return result, entries


def _checked_bundle(
    target: Path, entries: "tuple[ImageEntry, ...] | None", base: "Sequence[Path]", progress: "Progress"
) -> VerifyReport:
    if not base and target != Path("-"):
        return verify_bundle(target, entries, progress.on_bytes)
    from regwrap.bundle.examine_incoming import verify_incoming  # a delta, or a pipe
    from regwrap.bundle.opened import opened_bases

    with opened_bases(base, lock_timeout=None, listener=progress) as bases:
        if target == Path("-"):
            return verify_incoming(sys.stdin.buffer, entries, progress.on_bytes, bases)
        return verify_bundle(target, entries, progress.on_bytes, bases=bases)
