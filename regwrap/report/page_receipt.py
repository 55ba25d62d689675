"""The page of a receipt: one or two sheets for an auditor. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from regwrap.bundle.receipt import DAMAGED, VALID
from regwrap.core.counts import counted
from regwrap.core.text import human_bytes
from regwrap.report.page_html import Content, Markup, document, joined, tag
from regwrap.report.page_parts import (
    code,
    fact_list,
    figures,
    folded,
    footer,
    header,
    moment,
    section,
    tally,
    whole_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regwrap.bundle.receipt import Receipt, ReceiptImage

_LINES: Final = 200
_IMAGES: Final = 5000


def receipt_page(receipt: Receipt) -> str:
    """One HTML file."""
    name = receipt.facts.release or receipt.facts.list or receipt.facts.target
    return document(f"{name}: {receipt.verdict}", _body(receipt, name))


def _body(receipt: Receipt, name: str) -> Iterator[Markup]:
    facts, others = receipt.facts, [image for image in receipt.images if image.listed is False]
    summary = joined((f"{facts.kind} {facts.target} on {facts.host}, ", moment(facts.time)))
    yield header(f"Receipt: {name}", summary, receipt.verdict, good=receipt.verdict == VALID)
    yield Markup("<main>")
    yield _figures(receipt, len(others))
    yield _facts(receipt)
    for title, lines in (("Damage", receipt.problems), ("Not as the list says", receipt.differences)):
        if lines:
            yield section(
                title, tag("ul", {}, *(tag("li", {}, line) for line in lines[:_LINES])), style="failed-images"
            )
    yield section("Images", *_images([image for image in receipt.images if image.listed is not False]))
    if others:  # folded, so that paper has what was asked for
        yield folded(
            counted(len(others), "image that is not in the list", "images that are not in the list"), *_images(others)
        )
    yield Markup("</main>")
    yield footer()


def _figures(receipt: Receipt, others: int) -> Markup:
    good = sum(image.verdict == VALID for image in receipt.images)
    bad = sum(image.verdict == DAMAGED for image in receipt.images)
    return figures(
        (
            tally(len(receipt.images) - others, "image"),
            tally(others, "other image"),
            ("Valid", f"{good:,}"),
            ("Damaged", f"{bad:,}"),
            tally(len(receipt.blobs), "blob"),
            ("Size", human_bytes(receipt.total)),
        ),
        alarming="Damaged" if bad else "",
    )


def _facts(receipt: Receipt) -> Markup:
    facts = receipt.facts
    release = (("Release", facts.release or "without a name"), ("Release id", code(facts.id))) if facts.id else ()
    return fact_list(
        (
            *release,
            ("Compared with", facts.list or "nothing: no list was given"),
            ("Looked at", facts.looked_at),
            ("Checked by", f"regwrap {receipt.regwrap}"),
        )
    )


def _images(images: list[ReceiptImage]) -> list[Markup]:
    items = [_item(image) for image in images[:_IMAGES]]
    left = len(images) - _IMAGES
    more = [tag("p", {"class": "quiet"}, f"and {left:,} more, in the JSON receipt")] if left > 0 else []
    return [tag("ol", {"class": "columns"}, *items), *more]


def _item(image: ReceiptImage) -> Markup:
    digest = f"{image.digest}".rpartition(":")[2][:12] if image.digest else "-"
    platforms = ", ".join(image.platforms) + (" (partial)" if image.partial else "")
    verdict: Content = "" if image.verdict == VALID else tag("b", {}, f" {image.verdict}")
    short = tag("code", {"title": f"{image.digest}"}, digest)
    return tag("li", {}, whole_name(image.image), " ", short, f" {platforms}", verdict)
