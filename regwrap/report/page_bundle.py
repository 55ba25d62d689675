"""The page of a bundle: what it is, what is in it, how large, and what is shared. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from regwrap.core.counts import counted
from regwrap.core.text import human_bytes
from regwrap.report.page_blobs import largest_blobs, pieces_of, shared_map
from regwrap.report.page_html import Content, Markup, document, joined, tag
from regwrap.report.page_parts import (
    OPEN,
    ROWS,
    Cell,
    code,
    fact_list,
    figures,
    folded,
    footer,
    header,
    name_cell,
    platforms_text,
    pull_command,
    section,
    share,
    size_cell,
    table,
    tally,
    titled,
    whole_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regwrap.bundle.inspection import InspectedImage, Inspection

_TOP: Final = 12


def bundle_page(inspection: Inspection, host: str = "") -> str:
    """One HTML file. `host` is where the images can be pulled from."""
    name = inspection.name or inspection.path.rpartition("/")[2]
    return document(f"{name} - {counted(len(inspection.images), 'image')}", _body(inspection, name, host))


def _body(inspection: Inspection, name: str, host: str) -> Iterator[Markup]:
    images, file = inspection.images, inspection.path.rpartition("/")[2]
    pieces = pieces_of({image.image: image.blobs for image in images})
    partial = [image for image in images if image.omitted]
    verdict = counted(len(images), "image", form=",") + (f", {len(partial):,} partial" if partial else "")
    served = f", served at {host}" if host else ""
    yield header(name, f"{file}, {human_bytes(inspection.file_bytes)}{served}", verdict, good=True)
    yield Markup("<main>")
    yield _facts(inspection)
    yield _figures(inspection)
    if host:
        yield _all(inspection, host)
    if partial:
        yield _partial(partial)
    if pieces and len(images) > 1:
        note = (
            "Every byte once, by the number of images that use it. Dropping an image saves the bytes that only it uses."
        )
        yield section("Shared layers", tag("p", {"class": "quiet"}, note), shared_map(pieces))
        yield tag("div", {"class": "pair"}, _largest(inspection), largest_blobs(pieces, _TOP))
    if not host:
        yield _all(inspection, host)
    yield Markup("</main>")
    yield footer()


def _facts(inspection: Inspection) -> Markup:
    checksum = code(inspection.sha256) if inspection.sha256 else "not known: no checksum file lies beside it"
    items: list[tuple[str, Content]] = [
        ("Release id", code(inspection.id)),
        ("sha256 of the file", checksum),
        ("Looked at", "the structure; blobs were not hashed"),
    ]
    if inspection.required:
        since = f", but in {', '.join(inspection.since)}" if inspection.since else ""
        left_out = counted(inspection.required, "blob is", "blobs are", form=",")
        items.append(("Delta", f"{left_out} ({human_bytes(inspection.required_bytes)}) not in it{since}"))
    return fact_list(items)


def _partial(images: list[InspectedImage]) -> Markup:
    rows = [
        (name_cell(image.image), Cell(platforms_text(image.platforms)), Cell(f"{image.omitted}", "number"))
        for image in images
    ]
    head = (Cell("Image"), Cell("In the bundle"), Cell("Left out", "number"))
    title = counted(len(images), "image with some of its platforms", "images with some of their platforms", form=",")
    return titled(title, head, rows[:ROWS])


def _figures(inspection: Inspection) -> Markup:
    single = sum(image.size for image in inspection.images)
    saved = single - inspection.blob_bytes
    platforms = {platform for image in inspection.images for platform in image.platforms}
    return figures(
        (
            tally(len(inspection.images), "image"),
            tally(len(platforms), "platform"),
            tally(inspection.blobs, "blob"),
            ("Size", human_bytes(inspection.blob_bytes)),
            ("Image by image", human_bytes(single)),
            ("Saved by sharing", f"{share(saved, single):.0f} %"),
        )
    )


def _largest(inspection: Inspection) -> Markup:
    images = sorted(inspection.images, key=lambda image: (-image.size, image.image))
    head = (Cell("Image"), Cell("Size", "number"), Cell("Alone", "number"))
    rows = [
        (name_cell(image.image), size_cell(image.size, images[0].size), Cell(human_bytes(image.alone), "number"))
        for image in images[:_TOP]
    ]
    return titled("The largest images", head, rows)


def _all(inspection: Inspection, host: str) -> Markup:
    narrow = "wide" if host else ""  # the commands need the room
    head = (
        Cell("Image"),
        Cell("Kind", "wide"),
        Cell("Platforms", narrow),
        Cell("Size", "number"),
        Cell("Alone", "number wide"),
    )
    rows = [
        (
            Cell(joined((whole_name(image.image), *_below_name(image, host)))),
            Cell(image.kind, "wide"),
            Cell(platforms_text(image.platforms), narrow),
            Cell(human_bytes(image.size), "number"),
            Cell(human_bytes(image.alone), "number wide"),
        )
        for image in inspection.images[:ROWS]
    ]
    left, count = len(inspection.images) - ROWS, len(inspection.images)
    more = [tag("p", {"class": "quiet"}, f"and {left:,} more: regwrap inspect")] if left > 0 else []
    title = "The image" if count == 1 else f"All {counted(count, 'image', form=',')}"
    return folded(title, table("All images", head, rows), *more, is_open=bool(host) or count <= OPEN)


def _below_name(image: InspectedImage, host: str) -> Iterator[Markup]:
    if host:
        yield pull_command(host, image.image)
    yield tag("code", {"class": "wide"}, image.digest)
