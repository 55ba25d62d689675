"""Recovery data beside a bundle or its volumes, and repair with it. What was repaired is proved before it counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regwrap.bundle.examine import verify_bundle
from regwrap.bundle.output import forget_parity, parity_path
from regwrap.bundle.releases import known_checksum
from regwrap.bundle.volume_places import is_of_bundle, volumes_in
from regwrap.bundle.volumes import found_volumes
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.fields import shown
from regwrap.core.writing import is_there
from regwrap.storage.hashing import hash_file
from regwrap.tools.par2 import named_files, recovery_files

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence
    from pathlib import Path

    from regwrap.core.listener import Listener
    from regwrap.tools.par2 import Par2

_SHOWN: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairReport:
    """`repaired` are the files that were damaged or missing, and are right now."""

    path: Path
    files: int
    repaired: tuple[str, ...]


def add_parity(par2: Par2, bundle: Path, percent: int) -> None:
    """Recovery data for a bundle that was just written; what is there of an earlier one goes. Raises ToolError."""
    forget_parity(bundle)
    files = sorted(volumes_in(bundle, (bundle.parent,)).values()) if not bundle.is_file() else [bundle]
    try:
        par2.create(parity_path(bundle), files, percent)
    except BaseException:
        forget_parity(bundle)
        raise


def repair_bundle(par2: Par2, bundle: Path, listener: Listener) -> RepairReport:
    """Make damaged and missing files right again. Raises UsageError (no recovery data), IntegrityError (too much is
    damaged, or what was repaired is not what its checksum, or the bundle itself, says)."""
    recovery = recovery_files(bundle)
    if not recovery:
        what = f"there is no {parity_path(bundle)}"
        raise UsageError(what, hint="copy it there, with all volumes that are on media; release --parity 10% writes it")
    _refuse_other_names(bundle, recovery)
    before, there = _sums(bundle, listener), set(bundle.parent.iterdir())
    listener.count("repair", "runs of par2 over all of it", 1)
    why = par2.repair(recovery[0], list(_files(bundle)))
    if why:
        raise IntegrityError(f"{bundle} can't be repaired: {why}", hint="copy what is damaged again")
    after = _sums(bundle, listener)
    kept = [path for path in sorted(bundle.parent.iterdir()) if path not in there and _is_kept(path, after)]
    _prove(bundle, after, kept, listener)
    for path in kept:
        path.unlink()
    repaired = tuple(name for name, sha256 in after.items() if before.get(name) != sha256)
    return RepairReport(path=bundle, files=len(after), repaired=repaired)


def _refuse_other_names(bundle: Path, recovery: Sequence[Path]) -> None:
    """Whoever made the recovery data must not choose which files are written here."""
    others = sorted({name for name in named_files(recovery) if not is_of_bundle(bundle.name, name)})
    if others:
        raise IntegrityError(
            f"{recovery[0]} is of other files than {bundle.name}; nothing was changed",
            problems=tuple(map(shown, others[:_SHOWN])),
            hint="take the recovery data that the vendor made with this bundle",
        )


def _files(bundle: Path) -> tuple[Path, ...]:
    return (bundle,) if is_there(bundle) else tuple(sorted(volumes_in(bundle, (bundle.parent,)).values()))


def _sums(bundle: Path, listener: Listener) -> dict[str, str]:
    files, sums = _files(bundle), dict[str, str]()
    listener.expect("hash", sum(path.stat().st_size for path in files))
    for path in files:
        sums[path.name] = hash_file(path).hex
        listener.on_bytes(path.stat().st_size)
    return sums


def _is_kept(path: Path, names: Container[str]) -> bool:
    """Whether par2 would call so what was damaged of one of these files: NAME.1, or the next number that is free."""
    return path.stem in names and path.suffix[1:].isdecimal()


def _prove(bundle: Path, sums: Mapping[str, str], kept: Sequence[Path], listener: Listener) -> None:
    problems = _problems(bundle, sums, listener)
    if problems:
        as_it_was = f"; what was there is now {', '.join(path.name for path in kept)}" if kept else ""
        raise IntegrityError(
            f"{bundle} is not what it was: the recovery data is of another bundle",
            problems=problems,
            hint=f"take the recovery data that the vendor made with this bundle{as_it_was}",
        )


def _problems(bundle: Path, sums: Mapping[str, str], listener: Listener) -> tuple[str, ...]:
    """By the checksums beside it; where one is missing, by the bundle itself, which says every byte."""
    said = _said(bundle)
    wrong = [name for name, sha256 in said.items() if sha256 not in {"", sums.get(name)}]
    if wrong:
        return tuple(f"{name} has another sha256 than {bundle.name}.sha256 says" for name in wrong)
    if said and all(said.values()):
        return ()
    try:
        return verify_bundle(bundle, None, listener).problems
    except IntegrityError as error:
        return error.problems or (f"{error}",)


def _said(bundle: Path) -> dict[str, str]:
    """The sha256 of each of its files, empty where nobody says it."""
    if bundle.is_file():
        return {bundle.name: known_checksum(bundle)}
    volumes = found_volumes(bundle)
    return {volume.name: volume.sha256 for volume in volumes.volumes} if volumes else {}
