"""Commands that look at a bundle: verify, inspect."""

from pathlib import Path
from typing import Annotated, Final

import typer

from regwrap.bundle.examine import inspect_bundle, verify_bundle, verify_storage
from regwrap.cli.options import ConfigOption, HtmlOption, JsonOption, QuietOption
from regwrap.cli.output import show, told, write_page
from regwrap.core.errors import ImagesFailedError, IntegrityError, UsageError
from regwrap.report import text as report

_DIFFERS: Final = (
    "bring what is missing with deploy, push or sync; or compare with the list of the release that is there"
)


def verify(
    target: Annotated[
        Path, typer.Argument(metavar="BUNDLE.TAR|DIR", help="A bundle, or the root directory of a storage.")
    ],
    images_list: Annotated[
        str | None,
        typer.Option(
            "--list", metavar="LIST|BUNDLE.TAR", help="A bundle holds exactly these images, a storage at least."
        ),
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="With --list: the storage holds no other images.")] = False,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    if exact and images_list is None:
        raise UsageError("--exact compares with a list", hint="give --list too")
    with told(quiet=quiet) as progress:
        entries = None
        if images_list is not None:  # lists and their configuration are a third of the start, and most checks have none
            from regwrap.cli.session import images_of, load, wanted_of

            # only its rewrite: and images: count here
            entries = images_of(wanted_of(images_list, load(config), progress), progress).entries
        progress.expect("verify", _bytes_of(target))
        if target.is_dir():
            result = verify_storage(target, entries, progress.on_bytes, exact=exact)
        else:
            result = verify_bundle(target, entries, progress.on_bytes)
        for note in result.notes:
            progress.say(f"note: {note}")
    show(result, report.verify_text(result), json=json)
    if result.problems:
        raise IntegrityError(f"{target}: {len(result.problems)} problems")
    if result.differences:
        raise ImagesFailedError(
            f"{target} is undamaged and not what the list says: {len(result.differences)} differences", hint=_DIFFERS
        )


def _bytes_of(target: Path) -> int:
    return target.stat().st_size if target.is_file() else 0


def inspect(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE.TAR", help="The bundle.")],
    html: HtmlOption = None,
    json: JsonOption = False,
) -> None:
    result = inspect_bundle(bundle)
    if html:
        from regwrap.report.page_bundle import bundle_page  # pages are asked for now and then

        write_page(html, bundle, bundle_page(result))
    show(result, report.inspect_text(result), json=json)
