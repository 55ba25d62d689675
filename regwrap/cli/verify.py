"""The command verify."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from regwrap.bundle.examine import VerifyReport, verify_bundle, verify_storage
from regwrap.cli.cluster import Cluster, ClusterOption, InsecureClusterOption
from regwrap.cli.options import (
    BaseOption,
    ConfigOption,
    HtmlOption,
    JsonOption,
    JunitOption,
    QuietOption,
    SignatureOption,
    SignedByOption,
    SignersOption,
    VolumesFromOption,
)
from regwrap.cli.output import show, shown_progress
from regwrap.cli.signing import configured_signers, refuse_signers, trusting
from regwrap.core.counts import counted
from regwrap.core.errors import ImagesFailedError, IntegrityError, UsageError
from regwrap.core.writing import is_there
from regwrap.report import text as report
from regwrap.storage.store import need_storage

if TYPE_CHECKING:
    from regwrap.bundle.signature import Trust
    from regwrap.lists.imagelist import ImageEntry
    from regwrap.report.progress import Progress

_DIFFERS: Final = "add what is missing with deploy, push or sync; or compare with the list of the release that is there"
# what can only be a registry: a file that is not there should be said to be missing
_REGISTRY: Final = re.compile(r"[a-z]+://.*|localhost(:[0-9]+)?(/.*)?|[^/.~][^/]*:[0-9]+(/.*)?|[^/.~][^/]*\.[^/]*/.*")


_TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="BUNDLE.TAR|-|DIR|HOST[/PREFIX]",
        help="A bundle (- reads a pipe), the root directory of a storage, or a registry (a configured name, too).",
    ),
]
_ListOption = Annotated[
    str | None,
    typer.Option("--list", metavar="LIST|BUNDLE.TAR", help="A bundle holds exactly these images, a storage at least."),
]
_ExactOption = Annotated[bool, typer.Option("--exact", help="With --list: fail if there are other images.")]
_HashedOption = Annotated[
    bool, typer.Option("--hash", help="For a registry: fetch and hash every blob. Files are always hashed.")
]
_ReceiptOption = Annotated[
    Path | None, typer.Option("--receipt", metavar="FILE", help="Write what was found, image by image, as JSON.")
]


def verify(
    target: _TargetArgument,
    images_list: _ListOption = None,
    exact: _ExactOption = False,
    hashed: _HashedOption = False,
    base: BaseOption = None,
    signers: SignersOption = None,
    signature: SignatureOption = None,
    volumes_from: VolumesFromOption = None,
    signed_by: SignedByOption = None,
    receipt: _ReceiptOption = None,
    html: HtmlOption = None,
    junit: JunitOption = None,
    cluster: ClusterOption = None,
    insecure_cluster: InsecureClusterOption = False,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    if cluster:
        need_storage(Path(target), hint="--cluster hashes a storage that all workers share")
    if exact and images_list is None:
        raise UsageError("--exact compares with a list", hint="give --list too")
    entries: tuple[ImageEntry, ...] | None
    registry = is_registry(target, config)
    if registry or Path(target).is_dir():
        refuse_signers(target, signers, signature)
    if cluster:
        from regwrap.cli.verify_cluster import checked_storage

        workers = Cluster(cluster, insecure_cluster, config)
        result, entries = checked_storage(Path(target), images_list, workers, exact=exact, quiet=quiet)
    elif registry:
        from regwrap.cli.verify_registry import checked_registry  # files need nothing of registries

        result, entries = checked_registry(target, images_list, exact=exact, hashed=hashed, config=config, quiet=quiet)
    else:
        bundle = _Bundle(Path(target), base or [], signers, signature)
        result, entries = _checked_file(bundle, images_list, exact=exact, config=config, quiet=quiet)
    if signed_by:
        from regwrap.cli.verify_signed import checked_signatures

        result = checked_signatures(
            result, target, signed_by, base or [], registry=registry, config=config, quiet=quiet
        )
    if receipt or html or junit:
        from regwrap.cli.receipts import ReceiptFiles, write_receipt  # asked for now and then

        files = ReceiptFiles(receipt=receipt, html=html, junit=junit)
        write_receipt(result, target, images_list, entries, files, registry=registry, hashed=hashed)
    show(result, report.verify_text(result), json=json)
    _refuse(result, target)


def _refuse(result: VerifyReport, target: str) -> None:
    """Raises IntegrityError for damage, ImagesFailedError for what is undamaged, but differs from the list."""
    if result.problems:
        raise IntegrityError(f"{target}: {counted(len(result.problems), 'problem')}")
    if result.differences:
        raise ImagesFailedError(
            f"{target} is undamaged, but differs from the list: {counted(len(result.differences), 'difference')}",
            hint=_DIFFERS,
        )


def is_registry(target: str, config: Path | None = None) -> bool:
    """Whether it can only be a registry, by its form or by its name in the configuration: a file that is not there
    should be said to be missing."""
    if target == "-" or target.endswith(".tar") or is_there(target):
        return False
    return _REGISTRY.fullmatch(target) is not None or _is_configured(target.partition("/")[0], config)


def _is_configured(name: str, config: Path | None) -> bool:
    if not name[:1].isalnum():  # a path
        return False
    from regwrap.cli.settings import load  # what is there as a file needs no configuration

    return any(location.name == name for location in load(config).registries)


@dataclass(frozen=True, slots=True)
class _Bundle:
    """What is checked: `bases` have what a delta requires."""

    path: Path
    bases: list[Path]
    signers: Path | None
    signature: Path | None


def _checked_file(
    target: _Bundle, images_list: str | None, *, exact: bool, config: Path | None, quiet: bool
) -> "tuple[VerifyReport, tuple[ImageEntry, ...] | None]":
    path = target.path
    with shown_progress(quiet=quiet) as progress:
        entries = None
        if images_list is not None:  # lists and their configuration are a third of the start, and most checks have none
            from regwrap.cli.settings import load
            from regwrap.cli.wanted import listed

            # only its rewrite: and images: count here
            entries = listed(images_list, load(config), progress).entries
        if path.is_dir():
            result = verify_storage(path, entries, progress, exact=exact)
        else:
            known = target.signers or configured_signers(config)
            with trusting(path, target.signers, target.signature, progress, configured=known) as trust:
                result = _checked_bundle(target, entries, progress, trust)
        for note in result.notes:
            progress.log(f"note: {note}")
    return result, entries


def _checked_bundle(
    target: _Bundle, entries: "tuple[ImageEntry, ...] | None", progress: "Progress", trust: "Trust | None"
) -> VerifyReport:
    """A file; or a delta, volumes, what comes through a pipe."""
    if target.path.is_file() and not target.bases:
        return verify_bundle(target.path, entries, progress, trust=trust)
    from regwrap.bundle.examine_incoming import Arrival, verify_incoming  # all of them now and then
    from regwrap.bundle.opened import opened_bases
    from regwrap.bundle.volumes import damaged_volumes
    from regwrap.cli.volumes import incoming, name_of

    path = target.path
    with (
        opened_bases(target.bases, lock_timeout=None, listener=progress) as bases,
        incoming(path, progress) as file,
    ):
        if file is None:
            return verify_bundle(path, entries, progress, bases=bases, trust=trust)
        report = verify_incoming(file, entries, progress, bases, Arrival(name_of(path), trust))
        to_blame = damaged_volumes(path) if report.problems and path != Path("-") else ()
        return replace(report, problems=(*to_blame, *report.problems))
