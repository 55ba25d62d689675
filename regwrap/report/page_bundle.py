"""The page of a bundle: what is in it, how large, and what is shared. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from regwrap.core.counts import counted
from regwrap.core.text import human_bytes
from regwrap.report.page_blobs import largest_blobs, pieces_of, shared_map
from regwrap.report.page_html import Markup, document, joined, tag
from regwrap.report.page_parts import (
    Cell,
    figures,
    folded,
    footer,
    header,
    name_cell,
    section,
    share,
    size_cell,
    table,
    titled,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regwrap.bundle.inspection import Inspection

_TOP: Final = 12
_ROWS: Final = 2000


def bundle_page(inspection: Inspection) -> str:
    """One HTML file."""
    name = inspection.name or inspection.path.rpartition("/")[2]
    return document(f"{name} - {counted(len(inspection.images), 'image')}", _body(inspection, name))


def _body(inspection: Inspection, name: str) -> Iterator[Markup]:
    pieces = pieces_of({image.image: image.blobs for image in inspection.images})
    partial = sum(bool(image.omitted) for image in inspection.images)
    file = inspection.path.rpartition("/")[2]
    checksum = f", its checksum file says {inspection.sha256}" if inspection.sha256 else ""
    story = (
        f"{file}, {human_bytes(inspection.file_bytes)}, release id {inspection.id}; structure checked, blobs not"
        f" hashed{checksum}"
    )
    verdict = (
        counted(partial, "partial image") if partial else counted(len(inspection.images), "complete image", form=",")
    )
    yield header(name, story, verdict, good=True)
    yield Markup("<main>")
    if partial:
        yield _partial(inspection)
    yield _figures(inspection)
    if pieces:
        note = (
            "Every byte once, by the number of images that use it. Dropping an image saves the bytes that only it uses."
        )
        yield section("Shared layers", tag("p", {"class": "quiet"}, note), shared_map(pieces))
        yield tag("div", {"class": "pair"}, _images(inspection, _TOP), largest_blobs(pieces, _TOP))
    yield _all(inspection)
    yield Markup("</main>")
    yield footer()


def _partial(inspection: Inspection) -> Markup:
    rows = [
        (name_cell(image.image), Cell(", ".join(image.platforms) or "-"), Cell(f"{image.omitted}", "number"))
        for image in inspection.images
        if image.omitted
    ]
    head = (Cell("Image"), Cell("Included"), Cell("Left out", "number"))
    return section(
        "Partial images: some manifests of the index are left out", table("Partial images", head, rows[:_ROWS])
    )


def _figures(inspection: Inspection) -> Markup:
    single = sum(image.size for image in inspection.images)
    saved = single - inspection.blob_bytes
    platforms = {platform for image in inspection.images for platform in image.platforms}
    return figures(
        (
            ("Images", f"{len(inspection.images):,}"),
            ("Platforms", f"{len(platforms):,}"),
            ("Blobs", f"{inspection.blobs:,}"),
            ("Size", human_bytes(inspection.blob_bytes)),
            ("Image by image", human_bytes(single)),
            ("Saved by sharing", f"{share(saved, single):.0f} %"),
        )
    )


def _images(inspection: Inspection, count: int) -> Markup:
    images = sorted(inspection.images, key=lambda image: (-image.size, image.image))
    head = (Cell("Image"), Cell("Size", "number"), Cell("Alone", "number"))
    rows = [
        (name_cell(image.image), size_cell(image.size, images[0].size), Cell(human_bytes(image.alone), "number"))
        for image in images[:count]
    ]
    return titled("The largest images", head, rows)


def _all(inspection: Inspection) -> Markup:
    head = (
        Cell("Image"),
        Cell("Kind", "wide"),
        Cell("Platforms"),
        Cell("Size", "number"),
        Cell("Alone", "number"),
    )
    rows = [
        (
            Cell(joined((tag("span", {"class": "name"}, image.image), tag("code", {"class": "wide"}, image.digest)))),
            Cell(image.kind, "wide"),
            Cell(", ".join(image.platforms) or "-"),
            Cell(human_bytes(image.size), "number"),
            Cell(human_bytes(image.alone), "number"),
        )
        for image in inspection.images[:_ROWS]
    ]
    left = len(inspection.images) - _ROWS
    more = [tag("p", {"class": "quiet"}, f"and {left:,} more: regwrap inspect")] if left > 0 else []
    return folded(f"All {counted(len(inspection.images), 'image', form=',')}", table("All images", head, rows), *more)
