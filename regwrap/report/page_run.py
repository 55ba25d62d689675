"""The page of a run: what failed first, then what travelled, when, and which bytes are shared. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from regwrap.core.counts import counted
from regwrap.core.text import human_bytes
from regwrap.report.page_blobs import largest_blobs, pieces_of, shared_map
from regwrap.report.page_html import Content, Markup, document, joined, tag
from regwrap.report.page_parts import (
    ROWS,
    Cell,
    bar_of_parts,
    code,
    digest_cell,
    fact_list,
    figures,
    folded,
    footer,
    header,
    moment,
    name_cell,
    number_cell,
    section,
    size_cell,
    table,
    tally,
    titled,
    whole_name,
)
from regwrap.report.page_timeline import timeline
from regwrap.report.record import ImageRecord, Outcome, RunRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from regwrap.core.release_id import ReleaseId
    from regwrap.transfer.workers import WorkerShare

_TOP: Final = 12
_FAILURES: Final = 200
_ALIKE: Final = 5


def run_page(record: RunRecord) -> str:
    """One HTML file."""
    failed = record.having(Outcome.FAILED)
    name = _name(record)
    return document(f"{len(failed)} failed - {name}" if failed else f"{name} - done", _body(record))


def _name(record: RunRecord) -> str:
    """What people call it."""
    return record.release.name if record.release and record.release.name else record.list


def _body(record: RunRecord) -> Iterator[Markup]:
    failed, drifted = record.having(Outcome.FAILED), [image for image in record.images if image.tag_now]
    pieces = pieces_of({image.image: image.blobs for image in record.images if image.blobs})
    yield _header(record, failed)
    yield Markup("<main>")
    if record.release:
        yield _release(record.release, record.sha256)
    if failed:
        yield _failures(failed)
    if replaced := [image for image in record.images if image.replaced]:
        yield _replaced(replaced)
    if drifted:
        yield _drifted(drifted)
    yield _figures(record)
    yield section("Bytes", _bytes(record), _hosts(record))
    cluster = [_cluster(record.workers)] if record.workers else []
    yield section("Images in time" if cluster else "Workers", timeline(record), *cluster)
    if pieces and len(record.images) > 1:
        yield section("Shared layers", _known(record), shared_map(pieces))
        yield tag("div", {"class": "pair"}, _largest(record.images), largest_blobs(pieces, _TOP))
    yield _slowest(record.images)
    yield _all(record)
    yield Markup("</main>")
    yield footer()


def _header(record: RunRecord, failed: Sequence[ImageRecord]) -> Markup:
    verdict = f"{len(failed)} of {counted(len(record.images), 'image')} failed" if failed else "no image failed"
    shards = f", shard {', '.join(record.shards)}" if record.shards else ""
    seconds = f"{record.seconds:.1f} s"
    summary = joined((f"{record.command} of {record.list}{shards}, {seconds}, ", moment(record.started)))
    return header(_name(record), summary, verdict, good=not failed)


def _release(release: ReleaseId, sha256: str) -> Markup:
    known = (("Release id", f"{release.id or ''}"), ("sha256 of the file", sha256))
    written = [(key, code(text)) for key, text in known if text]
    return fact_list(written or [("Release", "no bundle was written")])


def _failures(failed: Sequence[ImageRecord]) -> Markup:
    """What went wrong in the same way is told once."""
    alike: dict[tuple[str, str], list[ImageRecord]] = {}
    for image in failed:
        alike.setdefault((image.error, image.hint), []).append(image)
    groups = list(alike.items())
    shown = [_failure(error, hint, images) for (error, hint), images in groups[:_FAILURES]]
    left = sum(len(images) for _key, images in groups[_FAILURES:])
    more = [_more(left)] if left else []
    return section("Failed", tag("ul", {"class": "failures"}, *shown), *more, style="failed-images")


def _failure(error: str, hint: str, images: Sequence[ImageRecord]) -> Markup:
    names = [_failed_name(image) for image in images[:_FAILURES]]
    left = [_more(len(images) - _FAILURES)] if len(images) > _FAILURES else []
    folded_names = [folded(f"and {len(images) - _ALIKE} more", *names[_ALIKE:], *left)] if len(images) > _ALIKE else []
    advice = [tag("p", {"class": "hint"}, hint)] if hint else []
    return tag("li", {}, *names[:_ALIKE], *folded_names, tag("p", {"class": "error"}, error), *advice)


def _failed_name(image: ImageRecord) -> Markup:
    where = f"{image.list}, line {image.line}" if image.line else image.list
    tries = f", {counted(image.attempts, 'attempt')}" if image.attempts > 1 else ""
    place = tag("span", {"class": "quiet"}, f"{where}, from {image.host}{tries}")
    return tag("h3", {}, whole_name(image.image), " ", place)


def _more(count: int) -> Markup:
    return tag("p", {"class": "quiet"}, f"and {count:,} more, in the JSON report")


def _replaced(replaced: Sequence[ImageRecord]) -> Markup:
    head = (Cell("Image"), Cell("Was"), Cell("Is"))
    rows = [
        (name_cell(image.image), digest_cell(image.replaced or ""), digest_cell(image.digest or ""))
        for image in replaced[:_FAILURES]
    ]
    return _of_tags("Tags that are another image now", head, rows, len(replaced))


def _drifted(drifted: Sequence[ImageRecord]) -> Markup:
    head = (Cell("Image"), Cell("Copied"), Cell("The source's tag is now"))
    rows = [
        (
            name_cell(image.image),
            digest_cell(image.digest or "-"),
            digest_cell(image.tag_now or "") if image.tag_now != "gone" else Cell("gone"),
        )
        for image in drifted[:_FAILURES]
    ]
    return _of_tags("Tags that drifted at the source", head, rows, len(drifted))


def _of_tags(title: str, head: Sequence[Cell], rows: Sequence[Sequence[Cell]], count: int) -> Markup:
    more = [_more(count - _FAILURES)] if count > _FAILURES else []
    if len(rows) <= _ALIKE:
        return section(title, table(title, head, rows))
    return section(title, table(title, head, rows[:_ALIKE]), folded("more", table(title, head, rows[_ALIKE:]), *more))


def _figures(record: RunRecord) -> Markup:
    totals = record.totals
    speed = f", {human_bytes(totals['bytes_sent'] / record.seconds)}/s" if record.seconds else ""
    return figures(
        (
            tally(totals["images"], "image"),
            ("Copied", f"{totals['copied']:,}"),
            ("Replaced", f"{totals['moved']:,}"),
            ("Already there", f"{totals['already_there']:,}"),
            ("Failed", f"{totals['failed']:,}"),
            (f"Sent{speed}", human_bytes(totals["bytes_sent"])),
            ("Time", f"{record.seconds:,.1f} s"),
            tally(totals["retries"], "retry", "retries"),
        ),
        alarming="Failed" if totals["failed"] else "",
    )


def _bytes(record: RunRecord) -> Markup:
    totals = record.totals
    sent, mounted = int(totals["bytes_sent"]), int(totals["bytes_mounted"])
    there = max(0, int(totals["bytes_skipped"]) - mounted)
    about = f"{human_bytes(sent)} sent, {human_bytes(mounted)} mounted or linked, {human_bytes(there)} skipped"
    parts = (
        ("sent", sent, "sent"),
        ("mounted or linked: copied by another image of this run", mounted, "mounted"),
        ("skipped: already there", there, "skipped"),
    )
    return bar_of_parts(about, parts)


def _hosts(record: RunRecord) -> Markup:
    hosts = record.hosts
    head = (
        Cell("From"),
        Cell("Images", "number"),
        Cell("Sent", "number"),
        Cell("Retries", "number wide"),
        Cell("Failed", "number"),
    )
    largest = max((host.bytes_sent for host in hosts), default=0)
    rows = [
        (
            name_cell(host.host),
            number_cell(host.images),
            size_cell(host.bytes_sent, largest),
            number_cell(host.retries, "wide"),
            number_cell(host.failures),
        )
        for host in hosts[:_FAILURES]
    ]
    return table("Source registries", head, rows)


def _cluster(workers: Sequence[WorkerShare]) -> Markup:
    """What each worker of a cluster has copied."""
    head = (
        Cell("Machine"),
        Cell("Worker", "wide"),
        *(Cell(text, "number") for text in ("Blobs", "Sent", "Failed")),
        Cell("Seconds", "number wide"),
    )
    largest = max(one.bytes_sent for one in workers)
    rows = [
        (
            name_cell(one.machine),
            Cell(one.worker, "wide"),
            number_cell(one.blobs),
            size_cell(one.bytes_sent, largest),
            number_cell(one.failures),
            Cell(f"{one.seconds:.1f}", "number wide"),
        )
        for one in workers[:ROWS]
    ]
    more = [_more(len(workers) - ROWS)] if len(workers) > ROWS else []
    machines = counted(len({one.machine for one in workers}), "machine")
    title = tag("h3", {}, f"{counted(len(workers), 'worker')} of a cluster on {machines}")
    return joined((title, table("Workers of the cluster", head, rows), *more))


def _known(record: RunRecord) -> Markup:
    unknown = sum(not image.blobs for image in record.images)
    note = (
        f" {counted(unknown, 'image with unknown layers is', 'images with unknown layers are')} left out."
        if unknown
        else ""
    )
    return tag(
        "p",
        {"class": "quiet"},
        f"Every byte once, by the number of listed images that use it.{note}",
    )


def _largest(images: Sequence[ImageRecord]) -> Markup:
    sizes = sorted(((sum(image.blobs.values()), image) for image in images), key=lambda s: (-s[0], s[1].image))
    head = (Cell("Image"), Cell("Size", "number"), Cell("Sent", "number"), Cell("Layers", "number wide"))
    rows = [
        (
            name_cell(image.image),
            size_cell(size, sizes[0][0]),
            Cell(human_bytes(image.bytes_sent), "number"),
            number_cell(len(image.blobs), "wide"),
        )
        for size, image in sizes[:_TOP]
        if size
    ]
    return titled("The largest images", head, rows)


def _slowest(images: Sequence[ImageRecord]) -> Markup:
    slow = sorted((image for image in images if image.seconds), key=lambda image: (-image.seconds, image.image))
    if not slow:
        return joined(())
    head = (
        Cell("Image"),
        Cell("Seconds", "number"),
        Cell("Sent", "number"),
        Cell("Attempts", "number wide"),
        Cell("Worker", "number wide"),
    )
    rows = [
        (
            name_cell(image.image),
            Cell(f"{image.seconds:.1f}", "number"),
            Cell(human_bytes(image.bytes_sent), "number"),
            number_cell(image.attempts, "wide"),
            Cell("-" if image.worker is None else f"{image.worker + 1}", "number wide"),
        )
        for image in slow[:_TOP]
    ]
    return titled("The slowest images", head, rows)


def _all(record: RunRecord) -> Markup:
    head = (Cell("Image"), Cell("Outcome"), Cell("Sent", "number"), Cell("Seconds", "number wide"), Cell("Why", "wide"))
    rows = [
        (
            Cell(joined((whole_name(image.image), _digest(image)))),
            Cell(_outcome(image)),
            Cell(human_bytes(image.bytes_sent), "number"),
            Cell(f"{image.seconds:.1f}", "number wide"),
            Cell(image.reason, "wide"),
        )
        for image in record.images[:ROWS]
    ]
    more = [_more(len(record.images) - ROWS)] if len(record.images) > ROWS else []
    count = len(record.images)
    title = "The image" if count == 1 else f"All {counted(count, 'image', form=',')}"
    return folded(title, table("All images", head, rows), *more)


def _digest(image: ImageRecord) -> Content:
    return tag("code", {"class": "wide"}, image.digest) if image.digest else ""


def _outcome(image: ImageRecord) -> Markup:
    return tag("span", {"class": f"outcome {image.outcome.replace(' ', '-')}"}, image.outcome.shown)
