"""The command verify."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from regwrap.bundle.base import refuse_bases
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
    from collections.abc import Sequence

    from regwrap.bundle.signature import Trust
    from regwrap.lists.imagelist import ImageEntry
    from regwrap.report.progress import Progress

    _Checked = tuple[VerifyReport, tuple[ImageEntry, ...] | None]

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
    registry, workers = is_registry(target, config), Cluster.of(cluster, config, insecure=insecure_cluster)
    asked = _Asked(target, images_list, exact, hashed, base or [], signers, signature, config, quiet)
    asked.refuse_contradictions(registry=registry, cluster=workers is not None)
    result, entries = _checked(asked, workers, registry=registry)
    if signed_by:
        from regwrap.cli.verify_signed import checked_signatures

        result = checked_signatures(
            result, target, signed_by, asked.bases, registry=registry, config=config, quiet=quiet
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
class _Asked:
    """What is checked, and how: against a list, where one is named; `bases` have what a delta requires."""

    target: str
    images_list: str | None
    exact: bool
    hashed: bool
    bases: list[Path]
    signers: Path | None
    signature: Path | None
    config: Path | None
    quiet: bool

    @property
    def path(self) -> Path:
        return Path(self.target)

    def refuse_contradictions(self, *, registry: bool, cluster: bool) -> None:
        """Raises UsageError for options that do not fit each other, or the target."""
        if cluster:
            need_storage(self.path, hint="--cluster hashes a storage that all workers share")
        if self.exact and self.images_list is None:
            raise UsageError("--exact compares with a list", hint="give --list too")
        if registry or self.path.is_dir():
            refuse_signers(self.target, self.signers, self.signature)
            refuse_bases(self.target, self.bases)


def _checked(asked: _Asked, workers: Cluster | None, *, registry: bool) -> "_Checked":
    images_list, exact, config, quiet = asked.images_list, asked.exact, asked.config, asked.quiet
    if workers is not None:
        from regwrap.cli.verify_cluster import checked_storage

        return checked_storage(asked.path, images_list, workers, exact=exact, quiet=quiet)
    if registry:
        from regwrap.cli.verify_registry import checked_registry  # files need nothing of registries

        hashed = asked.hashed
        return checked_registry(asked.target, images_list, exact=exact, hashed=hashed, config=config, quiet=quiet)
    return _checked_file(asked)


def _checked_file(asked: _Asked) -> "_Checked":
    path, config = asked.path, asked.config
    with shown_progress(quiet=asked.quiet) as progress:
        entries = None
        if (
            asked.images_list is not None
        ):  # lists and their configuration are a third of the start, and most checks have none
            from regwrap.cli.settings import load
            from regwrap.cli.wanted import listed

            # only its rewrite: and images: count here
            entries = listed(asked.images_list, load(config), progress).entries
        if path.is_dir():
            result = verify_storage(path, entries, progress, exact=asked.exact)
        else:
            known = asked.signers or configured_signers(config)
            with trusting(path, asked.signers, asked.signature, progress, configured=known) as trust:
                result = _checked_bundle(path, asked.bases, entries, progress, trust)
        for note in result.notes:
            progress.log(f"note: {note}")
    return result, entries


def _checked_bundle(
    path: Path,
    bases: "Sequence[Path]",
    entries: "tuple[ImageEntry, ...] | None",
    progress: "Progress",
    trust: "Trust | None",
) -> VerifyReport:
    """A file; or a delta, volumes, what comes through a pipe."""
    if path.is_file() and not bases:
        return verify_bundle(path, entries, progress, trust=trust)
    from regwrap.bundle.examine_incoming import Arrival, verify_incoming  # all of them now and then
    from regwrap.bundle.opened import opened_bases
    from regwrap.bundle.volumes import damaged_volumes
    from regwrap.cli.volumes import incoming, name_of

    with (
        opened_bases(bases, lock_timeout=None, listener=progress) as opened,
        incoming(path, progress) as file,
    ):
        if file is None:
            return verify_bundle(path, entries, progress, bases=opened, trust=trust)
        report = verify_incoming(file, entries, progress, opened, Arrival(name_of(path), trust))
        to_blame = damaged_volumes(path) if report.problems and path != Path("-") else ()
        return replace(report, problems=(*to_blame, *report.problems))
