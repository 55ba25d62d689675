"""A diff as text for a terminal, or as Markdown for release notes. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from regwrap.core.counts import counted
from regwrap.core.text import human_bytes, table
from regwrap.report.markdown import cell, table_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from regwrap.commands.diff import DiffReport, ImageDiff

_HEAD: Final = ("Image", "Digest", "Labels", "New")


def diff_text(report: DiffReport) -> str:
    """A section for each kind of difference, and the totals."""
    lines = [f"{_named(report.old, report.old_name)} -> {_named(report.new, report.new_name)}"]
    for title, rows in _sections(report):
        lines += [f"{title}:", *(f"  {line}" for line in table(rows))]
    return "\n".join([*lines, *_totals(report)])


def diff_markdown(report: DiffReport) -> str:
    """Headings and tables."""
    old, new = _named(report.old, report.old_name), _named(report.new, report.new_name)
    lines = [f"## {cell(old)} → {cell(new)}"]
    for title, rows in _sections(report):
        lines += ["", f"### {title[:1].upper()}{title[1:]}", *table_lines(_HEAD[: len(rows[0])], rows)]
    return "\n".join([*lines, "", *(f"- {line}" for line in _totals(report))])


def _named(path: str, name: str) -> str:
    return f"{path} ({name})" if name else path


def _sections(report: DiffReport) -> Iterator[tuple[str, Sequence[tuple[str, ...]]]]:
    if report.added:
        yield f"{len(report.added)} added", [_row(item) for item in report.added]
    if report.removed:
        yield f"{len(report.removed)} removed", [(i.image, _digests(i), _labels(i)) for i in report.removed]
    if report.renamed:
        rows = [(f"{item.old_name} -> {item.image}", _digests(item)) for item in report.renamed]
        yield f"{len(report.renamed)} renamed", rows
    if report.changed:
        yield f"{len(report.changed)} changed", [_row(item) for item in report.changed]


def _row(item: ImageDiff) -> tuple[str, ...]:
    return (item.image, _digests(item), _labels(item), _bytes(item.new_bytes))


def _digests(item: ImageDiff) -> str:
    old, new = (digest.short if digest else "" for digest in (item.old, item.new))
    return f"{old} -> {new}" if old and new and old != new else old or new or "no digest"


def _labels(item: ImageDiff) -> str:
    """Version, revision and created, before and after; platforms that came or went."""
    old, new, parts = dict(item.old_labels), dict(item.new_labels), []
    for key in ("version", "revision", "created"):
        before, after = _shortened(old.get(key, "")), _shortened(new.get(key, ""))
        if before or after:
            parts.append(
                f"{key} {before} -> {after}" if before and after and before != after else f"{key} {after or before}"
            )
    parts += [f"+{platform}" for platform in item.platforms_added]
    parts += [f"-{platform}" for platform in item.platforms_removed]
    return ", ".join(parts)


def _shortened(text: str) -> str:
    """Labels come from images: bounded, on one line."""
    plain = "".join(c if c.isprintable() else "?" for c in text)
    return plain if len(plain) <= 40 else f"{plain[:39]}…"


def _bytes(count: int | None) -> str:
    return "" if count is None else f"{human_bytes(count)} new"


def _totals(report: DiffReport) -> Iterator[str]:
    if report.unknown:
        names = ", ".join(report.unknown[:5]) + (
            f" and {len(report.unknown) - 5} more" if len(report.unknown) > 5 else ""
        )
        have = counted(len(report.unknown), "image has", "images have")
        yield f"{have} no digest on one side, compared by name: {names}"
    images = f"{counted(report.images_old, 'image')} -> {counted(report.images_new, 'image')}"
    if report.new_bytes is None or report.shared_bytes is None or report.dropped_bytes is None:
        yield images
        return
    sizes = (report.new_bytes, report.shared_bytes, report.dropped_bytes)
    new, shared, dropped = map(human_bytes, sizes)
    yield f"{images}: {new} new, {shared} shared, {dropped} no longer there"
