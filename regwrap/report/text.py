"""Results as text or JSON: what stdout gets."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Mapping
from enum import Enum
from itertools import chain
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from regwrap.core.counts import counted
from regwrap.core.model import Destination, Digest, ImageRef, Platform
from regwrap.core.moves import TagMove
from regwrap.core.text import human_bytes, printable, short_digests, table
from regwrap.report.progress import SHOWN_IMAGES, cause_of, failure_text

if TYPE_CHECKING:
    from regwrap.bundle.examine import VerifyReport
    from regwrap.bundle.inspection import Inspection
    from regwrap.commands.bake import BakeReport
    from regwrap.commands.deploy import DeployReport
    from regwrap.commands.doctor import CommandCheck, DoctorReport
    from regwrap.commands.doctor_registries import RegistryHealth
    from regwrap.commands.export import ExportReport
    from regwrap.commands.import_tree import ImportReport
    from regwrap.commands.join import JoinReport
    from regwrap.commands.lock import LockCheck, LockReport
    from regwrap.commands.package import PackageReport
    from regwrap.commands.release import ReleaseReport
    from regwrap.lists.imagelist import ImageEntry
    from regwrap.lists.lock import Change
    from regwrap.transfer.plan import Drifted, Plan, Unseen
    from regwrap.transfer.run import Failed, SyncReport


_COLUMNS: Final = 100  # of a terminal, for what people look at
_ROOM: Final = 80  # for what is missing and how to get it, beside the names of commands


def plan_text(plan: Plan, *, full: bool = True) -> str:
    """What a sync would do, a line an image, each with its reason. `full`: digests as they are, and not only as much
    of them as tells them apart; else what is longer than a terminal is wide goes on below, at a blank."""
    shown = str if full else short_digests
    rows = [("copy", c.entry, human_bytes(c.bytes_missing), str(c.reason)) for c in plan.copies]
    rows += [("skip", s.entry, "", str(s.reason)) for s in plan.skips]
    rows += [("fail", u.entry, "", u.error) for u in plan.unseen]
    cells = [(action, shown(_arrow(entry)), size, shown(reason)) for action, entry, size, reason in rows]
    lines = table(cells)
    if not full and any(len(line) > _COLUMNS for line in lines):
        lines = [printable("  ".join(filter(None, row))) for row in cells]
    moves = (TagMove(image=f"{c.entry.dest}", old=c.replaced, new=c.digest) for c in plan.copies if c.replaced)
    notes = _tag_lines(tuple(sorted(moves, key=lambda move: move.image)), (), dry_run=True)
    if plan.moved:
        notes.append(f"{counted(len(plan.moved), 'tag has', 'tags have')} drifted at the source:")
        notes += [
            f"  {moved.entry.dest}: copying {moved.digest}; the source's {_tag_now(moved)}" for moved in plan.moved
        ]
    lines += map(shown, notes)
    total = f"{len(plan.copies)} to copy ({human_bytes(plan.bytes_missing)}), {len(plan.skips)} already there"
    engine = [f"engine: {plan.way.engine} ({plan.way.why})"] if plan.way and plan.copies else []
    lines = [*lines, *engine, total + (f", {len(plan.unseen)} cannot be read" if plan.unseen else "")]
    return "\n".join(lines if full else chain.from_iterable(map(_folded, lines)))


def _folded(line: str) -> list[str]:
    return textwrap.wrap(line, _COLUMNS, subsequent_indent="      ", break_long_words=False, break_on_hyphens=False)


def _arrow(entry: ImageEntry) -> str:
    source, dest = str(entry.source), str(entry.dest)
    return source if source.partition("@")[0] == dest else f"{source} -> {dest}"


def sync_text(report: SyncReport) -> str:
    counts = f"{len(report.copied)} copied, {len(report.skipped)} already there, {len(report.failed)} failed"
    retries = sum(item.attempts - 1 for item in report.copied)
    again = f", {counted(retries, 'retry', 'retries')}" if retries else ""
    moved = f", {counted(len(report.moved), 'tag')} drifted at the source" if report.moved else ""
    replaced = f", {counted(len(report.replaced), 'tag')} REPLACED" if report.replaced else ""
    release = f"\nrelease {report.release}" if report.release else ""
    return f"{counts}; {human_bytes(report.sent)} sent in {report.seconds:.1f} s{again}{moved}{replaced}{release}"


def replaced_text(replaced: tuple[TagMove, ...]) -> str:
    """A section for the tags that now mean another image; empty where there is none."""
    return "\n".join(_tag_lines(replaced, (), dry_run=False))


def drift_text(moved: tuple[Drifted, ...]) -> str:
    """A line for each tag that points to another image at the source than the one that was copied."""
    lines = (f"{m.entry.dest}: drifted: copied {m.digest}; the source's {_tag_now(m)}" for m in moved)
    return "\n".join(lines)


def _tag_now(moved: Drifted) -> str:
    return f"tag is now {moved.now}" if moved.now else "tag is gone"


def lock_text(report: LockReport) -> str:
    """What has changed in the lock, a line an image; and the total."""
    size = sum(image.size or 0 for image in report.images)
    images = counted(len(report.images), "image")
    total = f"{report.path}: {images}, {len(report.changes)} changed; {human_bytes(size)} in all"
    is_first = len(report.changes) == len(report.images) and all(change.old is None for change in report.changes)
    return "\n".join([*(() if is_first else _changes(report.changes)), total])


def lock_check_text(check: LockCheck) -> str:
    """Each image that is not as locked, with its digests; and the total."""
    same = f"{check.path}: {counted(check.images, 'image')}, all as locked"
    return "\n".join(_changes(check.changes)) if check.changes or check.failed else same


def _changes(changes: tuple[Change, ...]) -> list[str]:
    rows = [(c.what, str(c.image), f"{c.old or '-'} -> {c.new or '-'}") for c in changes]
    return table(rows)


def unseen_text(unseen: tuple[Unseen, ...]) -> str:
    """What could not be looked at, as failures are told."""
    return "\n".join(failure_text(item.entry, item.error, item.hint) for item in unseen)


def failures_text(report: SyncReport) -> str:
    """Each failure; those of a host that is down, and many with one cause, together."""
    causes: dict[str, list[Failed]] = {}
    of_down = {cause_of(failed): failed.down for failed in report.failed if failed.down}
    for failed in report.failed:  # the first that fail are not known yet to have failed as the host is down
        cause = cause_of(failed)
        causes.setdefault(failed.down or of_down.get(cause, cause), []).append(failed)
    lines: list[str] = []
    for concerned in causes.values():
        if any(failed.down for failed in concerned) or len(concerned) > SHOWN_IMAGES:
            lines.append(_together(concerned))
        else:
            lines += [failure_text(f.entry, f.error, f.hint, f.attempts) for f in concerned]
    return "\n".join(lines)


def _together(concerned: list[Failed]) -> str:
    notes = next((failed for failed in concerned if failed.down), concerned[0])
    names = " ".join(str(failed.entry.dest) for failed in concerned[:SHOWN_IMAGES])
    more = f" and {len(concerned) - SHOWN_IMAGES} more" if len(concerned) > SHOWN_IMAGES else ""
    hint = f"\n    {notes.hint}" if notes.hint else ""
    return f"{counted(len(concerned), 'image')} FAILED ({names}{more}): {notes.error}{hint}"


def package_text(report: PackageReport) -> str:
    images, blobs = counted(report.images, "image"), counted(report.blobs, "blob")
    total = f"{images}, {blobs}, {human_bytes(report.file_bytes)} in {report.seconds:.1f} s"
    path = f"{report.path} ({report.name})" if report.name else f"{report.path}"
    if report.required:
        needed = human_bytes(report.required_bytes)
        total += f"; a delta: {counted(report.required, 'blob')} ({needed}) must be at the site"
    if not report.fetches:
        return f"{path}: {total}"
    reused = report.blob_bytes - report.brought_bytes
    return f"{path}: {total}; {human_bytes(reused)} from history, {human_bytes(report.brought_bytes)} fetched"


def join_text(report: JoinReport) -> str:
    name = f"{report.path} ({report.name})" if report.name else f"{report.path}"
    counts = f"{counted(report.images, 'image')}, {counted(report.blobs, 'blob')}"
    total = f"{counts}, {human_bytes(report.file_bytes)} in {report.seconds:.1f} s"
    return (
        f"{name}: {total};"
        f" {human_bytes(report.base_bytes)} from what was there, {human_bytes(report.delta_bytes)} from the delta"
    )


def release_text(report: ReleaseReport) -> str:
    lines = [f"sync:    {sync_text(report.sync)}", f"package: {package_text(report.package)}"]
    if report.verify is not None:
        found = f"{counted(report.verify.images, 'image')} and {counted(report.verify.blobs, 'blob')}"
        lines.append(f"verify:  {found} are valid")
    if report.sha256:
        lines.append(f"sha256:  {report.sha256}")
    lines.append(f"release: {report.package.release}")
    return "\n".join(lines)


def deploy_text(report: DeployReport, root: Path, *, dry_run: bool) -> str:
    moves = _tag_lines(report.tags_replaced, report.tags_kept, dry_run=dry_run)
    if dry_run:
        new, moved = len(report.tags_added), len(report.tags_replaced)
        images = f"{counted(report.images, 'image')}{_of(report.name)}"
        parts = [f"would deploy {images} to {root}: {counted(new, 'new tag')}", counted(moved, "replaced tag")]
        parts += [f"{counted(report.blobs_added, 'blob')} to add ({human_bytes(report.bytes_added)})"]
        parts += [f"{counted(report.mended, 'damaged blob')} to repair"] if report.mended else []
        return "\n".join([*moves, ", ".join(parts)])
    name = _of(report.name)
    parts = [
        f"{counted(report.images, f'image{name} is', f'images{name} are')} in {root}:"
        f" {counted(len(report.tags_added), 'new tag')}",
        f"{len(report.tags_replaced)} replaced",
        f"{counted(report.blobs_added, 'blob')} added ({human_bytes(report.bytes_added)})",
        *([f"{counted(report.mended, 'damaged blob')} repaired"] if report.mended else []),
    ]
    return "\n".join([*moves, ", ".join(parts)])


def _of(name: str) -> str:
    return f" of {name}" if name else ""


def _tag_lines(replaced: tuple[TagMove, ...], kept: tuple[TagMove, ...], *, dry_run: bool) -> list[str]:
    """Tags that now mean another image, and those that were left as they are, each with both digests."""
    now = ("tag now means", "tags now mean")
    heading = f"{counted(len(replaced), *(('tag would mean', 'tags would mean') if dry_run else now))} another image:"
    lines = [
        heading,
        *(f"  {line}" for line in table([(move.image, f"{move.old} -> {move.new}") for move in replaced])),
    ]
    rows = [(move.image, f"stays {move.old}, not {move.new}") for move in kept]
    others = [
        f"{counted(len(kept), 'tag points to another image and is kept', 'tags point to other images and are kept')}:",
        *(f"  {line}" for line in table(rows)),
    ]
    return [*(lines if replaced else ()), *(others if kept else ())]


def export_text(report: ExportReport) -> str:
    """With `dry_run` an image a line before the total."""
    total = f"{counted(len(report.images), 'image')}, {counted(report.files, 'file')}, {human_bytes(report.bytes)}"
    if report.there:
        return f"{report.path}: {total}: already there"
    if report.dry_run:
        return "\n".join([*report.images, f"would write {report.path}: {total}"])
    return f"{report.path}: {total}"


def import_text(report: ImportReport) -> str:
    parts = (
        f"{'would import ' if report.dry_run else ''}{counted(len(report.images), 'image')}",
        counted(len(report.tags_added), "new tag"),
        f"{len(report.tags_replaced)} replaced",
        f"{counted(report.blobs_added, 'blob')} ({human_bytes(report.bytes_added)})",
        *(
            [f"{counted(report.omitted, 'index entry was', 'index entries were')} missing and not imported"]
            if report.omitted
            else []
        ),
    )
    moves = _tag_lines(report.tags_replaced, report.tags_kept, dry_run=report.dry_run)
    return "\n".join([*moves, f"{report.path}: {', '.join(parts)}"])


def bake_text(report: BakeReport) -> str:
    what = counted(report.images, "image") if report.images else "history without images"
    total = f"{what}, {counted(report.blobs, 'blob')}, {human_bytes(report.blob_bytes)}"
    if report.digest is None:
        start = " ".join(report.entrypoint) or "nothing: it contains only the storage"
        return f"would bake {report.image}: {total}; a container of it runs {start}"
    there = "already there" if report.there else f"a layer of {human_bytes(report.layer_bytes)}"
    return f"{report.image}@{report.digest}: {total}, {there}"


def verify_text(report: VerifyReport) -> str:
    if report.problems or report.differences:
        return "\n".join([*report.problems, *report.differences])
    path = f"{report.path} ({report.name})" if report.name else f"{report.path}"
    counts = f"{counted(report.images, 'image')}, {counted(report.blobs, 'blob')}"
    total = f"{path}: {counts}, {human_bytes(report.bytes)}: valid"
    others = counted(report.others, "other image is", "other images are")
    return total + (f"; {others} not in the list" if report.others else "")


def inspect_text(inspection: Inspection, *, full: bool = True) -> str:
    """`full`: digests as they are, and not only as much of them as tells them apart."""
    rows = [("IMAGE", "DIGEST", "KIND", "PLATFORMS", "SIZE", "ALONE")]
    unseen = set(inspection.unseen)
    for image in inspection.images:
        platforms = ",".join(image.platforms) + (f" (-{image.omitted})" if image.omitted else "")
        size, alone = ("?", "?") if image.image in unseen else (human_bytes(image.size), human_bytes(image.alone))
        digest = image.digest if full else short_digests(image.digest)
        rows.append((image.image, digest, image.kind, platforms or "-", size, alone))
    total = (
        f"{counted(len(inspection.images), 'image')}, {counted(inspection.blobs, 'blob')}"
        f" with {human_bytes(inspection.blob_bytes)},"
        f" file {human_bytes(inspection.file_bytes)}"
    )
    release = f"release {inspection.name or '(without a name)'}, id {inspection.id}"
    return "\n".join([*table(rows), total, *_required_lines(inspection), release])


def _required_lines(inspection: Inspection) -> list[str]:
    """What a delta leaves out."""
    if not inspection.required:
        return []
    size, since = human_bytes(inspection.required_bytes), ", ".join(inspection.since)
    return [f"delta: {inspection.required} of the blobs ({size}) are not in it{f', but in {since}' if since else ''}"]


def doctor_text(report: DoctorReport) -> str:
    """Commands first: what works, what is missing, how to get it; then what was found, the registries, and what counts
    outside."""
    rows, notes = _command_rows(report.commands)
    commands = [("COMMAND", "HERE", "MISSING", "HOW TO GET IT"), *rows]
    found = [("FOUND", "")] + [(check.name, check.found) for check in report.checks]
    outside = [("FOR REGISTRIES OUTSIDE", "", "", "INSTEAD")]
    outside += [(f.what, "counts" if f.counts else "-", f.means, f.instead) for f in report.outside]
    nothing = ["No configuration of skopeo or docker was found; regwrap's own applies."]
    return "\n".join(
        [
            *table(commands),
            *notes,
            "",
            *table(found),
            "",
            *([registries_text(report.registries), ""] if report.registries else []),
            *_workers(report),
            *(table(outside) if report.outside else nothing),
        ],
    )


def registries_text(registries: tuple[RegistryHealth, ...]) -> str:
    """A line for each, and what to do where something is wrong."""
    rows = [("REGISTRY", "HOST", "CERTIFICATE", "PUSHING", "LOGIN", "")]
    rows += [(r.name, r.host, r.certificate, r.pushing, r.login, r.access) for r in registries]
    return "\n".join([*table(rows), *(f"{r.name}: {r.advice}" for r in registries if r.advice)])


def _workers(report: DoctorReport) -> list[str]:
    rows = [("WORKER", "MACHINE", "REGWRAP", "PYTHON", "SKOPEO", "CURL", "LOGINS", "FIT")]
    for one in report.workers:
        fit = "no" if one.problems else "yes"
        rows.append((one.worker, one.machine, one.regwrap, one.python, one.skopeo, one.curl, f"{one.logins}", fit))
    problems = [f"{one.machine} ({one.worker}): {problem}" for one in report.workers for problem in one.problems]
    return [*table(rows), *problems, ""] if report.workers else []


def _command_rows(commands: tuple[CommandCheck, ...]) -> tuple[list[tuple[str, ...]], list[str]]:
    """A line for each missing thing, the command on the first of them. How to get a thing is said once; what is too
    long for a column is said below the table."""
    rows, notes, explained = list[tuple[str, ...]](), list[str](), set[str]()
    for command in commands:
        lacking = []
        for missing, how in zip(command.missing, command.how, strict=True):
            name = missing.partition(":")[0]
            if missing in explained:
                lacking.append((name, "as above"))
            elif len(missing) + len(how) > _ROOM:
                lacking.append((name, "see below"))
                notes.append(f"{missing}\n  -> {how}")
            else:
                lacking.append((missing, how))
            explained.add(missing)
        first, *more = lacking or [("", "")]
        rows.append((command.command, "works" if command.works else "no", *first))
        rows += [("", "", *line) for line in more]
    return rows, notes


def to_json(result: object) -> str:
    """One JSON document of a result; digests, platforms and paths as text."""
    return json.dumps(_plain(result), indent=1, sort_keys=True)


@runtime_checkable
class Outlined(Protocol):
    """What is told in JSON with less than all its fields."""

    def outline(self) -> Mapping[str, object]: ...


def _plain(value: object) -> object:
    if isinstance(value, Destination | Digest | ImageRef | Platform | PurePath | Enum):
        return str(value)
    if isinstance(value, Outlined):
        return _plain(value.outline())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
