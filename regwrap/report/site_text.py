"""What a site has, as text: its releases, going back to one, and what was collected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regwrap.core.counts import counted
from regwrap.core.text import human_bytes, table
from regwrap.report.progress import SHOWN_IMAGES

if TYPE_CHECKING:
    from pathlib import Path

    from regwrap.commands.gc import GcReport
    from regwrap.commands.gc_releases import GcReleaseReport
    from regwrap.commands.releases import ReleasesReport, ReleaseState
    from regwrap.commands.rollback import RollbackReport


def gc_text(report: GcReport, root: Path) -> str:
    """With `dry_run` an image and its reason a line, then the repositories with their bytes; and the total."""
    manifests, layers = sum(r.manifests for r in report.repositories), sum(r.layers for r in report.repositories)
    pinned = f" and {counted(report.pinned, 'image')} without a tag" if report.pinned else ""
    would = "would be " if report.dry_run else ""
    total = (
        f"{root}: {counted(report.kept, 'tag')}{pinned} {would}kept, {counted(len(report.images), 'image')}"
        f" {would}deleted: {counted(report.blobs, 'blob')} ({human_bytes(report.bytes)}), links to"
        f" {counted(manifests, 'manifest')} and {counted(layers, 'layer')}"
    )
    releases = _gc_releases(report)
    if not report.dry_run:
        return "\n".join([*releases, total])
    images = [(image.image, image.reason) for image in report.images]
    rows = [("REPOSITORY", "TAGS", "MANIFESTS", "LAYERS", "SIZE", "")]
    rows += [
        (
            r.name,
            str(r.tags),
            str(r.manifests),
            str(r.layers),
            human_bytes(r.bytes),
            "repository deleted" if r.gone else "",
        )
        for r in report.repositories
    ]
    return "\n".join([*table(images), *(table(rows) if report.repositories else ()), *releases, total])


def _gc_releases(report: GcReport) -> list[str]:
    """Each release: whether it is kept, and what it alone holds. Without `dry_run` those that have lost images."""
    rows = [("RELEASE", "ID", "DEPLOYED", "IMAGES", "ALONE", "")]
    for item in report.releases:
        if not (report.dry_run or item.lost):
            continue
        loses = "loses" if report.dry_run else "has lost"
        fate = f"{loses} {counted(item.lost, 'image')}" if item.lost else "stays complete"
        facts = _facts(item)
        rows.append((*facts, human_bytes(item.alone_bytes), "kept" if item.kept and not item.lost else fate))
    return table(rows) if len(rows) > 1 else []


def releases_text(report: ReleasesReport) -> str:
    """A line for each release, with what is not as it says."""
    if not report.releases:
        return f"{report.path}: no release is recorded here"
    rows = [("NAME", "ID", "DEPLOYED", "IMAGES", "SIZE", "STATE")]
    for item in report.releases:
        facts = _facts(item)
        names = item.missing or item.replaced
        more = f" and {len(names) - SHOWN_IMAGES} more" if len(names) > SHOWN_IMAGES else ""
        which = f": {', '.join(names[:SHOWN_IMAGES])}{more}" if names else ""
        rows.append((*facts, human_bytes(item.bytes), f"{item.state}{which}"))
    return "\n".join(table(rows))


def rollback_text(report: RollbackReport) -> str:
    """A line for each tag that moves, from what to what; and the total."""
    rows = [(move.image, f"{move.old or 'no such tag'} -> {move.new}") for move in report.moved]
    name, moved = report.name or report.id.removeprefix("sha256:")[:12], len(report.moved)
    rest = f"{report.images - moved} unchanged"
    total = f"{report.path}: {name} is current: {counted(moved, 'tag')} moved, {rest}"
    would = f"{report.path}: {name} would be current: {counted(moved, 'tag')} would move, {rest}"
    return "\n".join([*table(rows), would if report.dry_run else total])


def _facts(item: GcReleaseReport | ReleaseState) -> tuple[str, str, str, str]:
    """Its name, the beginning of its id, when it came, how many images."""
    short = item.id.removeprefix("sha256:")[:12]
    return item.name or "-", short, _to_the_second(item.deployed), str(item.images)


def _to_the_second(time: str) -> str:
    """A time of ISO 8601 without the part of a second."""
    whole, dot, rest = time.partition(".")
    return whole + rest.lstrip("0123456789") if dot else time
