"""The page of a site: its releases and since when, what each alone holds, its receipts, and every image. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from regwrap.bundle.receipt import VALID
from regwrap.core.counts import counted
from regwrap.core.text import human_bytes
from regwrap.report.page_html import Content, Markup, document, joined, tag
from regwrap.report.page_parts import (
    OPEN,
    ROWS,
    Cell,
    code,
    figures,
    folded,
    footer,
    header,
    moment,
    number_cell,
    pull_command,
    section,
    table,
    tally,
    titled,
    whole_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from regwrap.bundle.receipt import ReceiptSummary
    from regwrap.commands.releases import ReleaseState, SiteImage, SiteReport

_NAMES: Final = 200
_STYLES: Final = {"current": "good", "incomplete": "bad"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFacts:
    """Where and when a site was looked at; the time in ISO 8601."""

    directory: str
    host: str
    time: str


def site_page(site: SiteReport, facts: SiteFacts, receipts: Sequence[ReceiptSummary] = ()) -> str:
    """One HTML file."""
    return document(f"{facts.directory} - {site.in_use or 'no release'}", _body(site, facts, receipts))


def storage_page(name: str, images: Sequence[SiteImage], host: str) -> str:
    """A storage as a registry shows it: how each image is pulled. Of more images than `ROWS` one more is enough."""
    count = counted(min(len(images), ROWS), "image", form=",")
    return document(
        f"{name} - {count}", _served(name, images, f"more than {count}" if len(images) > ROWS else count, host)
    )


def _body(site: SiteReport, facts: SiteFacts, receipts: Sequence[ReceiptSummary]) -> Iterator[Markup]:
    releases = site.releases.releases
    broken = [release for release in releases if release.missing]
    verdict = f"{site.in_use} is in use" if site.in_use else "no release is in use"
    looked = "manifests were hashed, of blobs the sizes were compared"
    summary = joined((f"storage on {facts.host}, ", moment(facts.time), f"; {looked}"))
    yield header(facts.directory, summary, verdict, good=not broken)
    yield Markup("<main>")
    yield _figures(site)
    yield _releases(releases)
    yield from (_missing(release) for release in broken)
    yield from (_replaced(release) for release in releases if release.replaced)
    yield _receipts(receipts)
    yield _images(site.images, "")
    yield Markup("</main>")
    yield footer()


def _served(name: str, images: Sequence[SiteImage], count: str, host: str) -> Iterator[Markup]:
    yield header(name, f"served at {host}", count, good=True)
    yield Markup("<main>")
    yield _images(images, host)
    yield Markup("</main>")
    yield footer()


def _figures(site: SiteReport) -> Markup:
    others = sum(not image.releases for image in site.images)
    return figures(
        (
            tally(len(site.releases.releases), "release"),
            tally(len(site.images), "image"),
            ("In no release", f"{others:,}"),
            ("Size of all releases", human_bytes(site.bytes)),
        )
    )


def _releases(releases: Sequence[ReleaseState]) -> Markup:
    if not releases:
        note = "None is recorded here: deploy and import record each one, releases --adopt one that came another way."
        return section("Releases", tag("p", {"class": "quiet"}, note))
    head = (
        Cell("Release"),
        Cell("Here since"),
        Cell("Images", "number wide"),
        Cell("Size", "number wide"),
        Cell("Alone", "number"),
    )
    rows = [
        (
            Cell(joined((release.name or "(without a name)", *_sums(release)))),
            Cell(joined((moment(release.deployed), _state(release)))),
            number_cell(release.images, "wide"),
            Cell(human_bytes(release.bytes), "number wide"),
            Cell(_alone(release), "number"),
        )
        for release in reversed(releases[-ROWS:])
    ]
    note = "Alone is what only this release needs: collecting it gives so much back."
    return section("Releases", table("Releases", head, rows), tag("p", {"class": "quiet"}, note))


def _state(release: ReleaseState) -> Markup:
    return tag("span", {"class": f"below state {_STYLES.get(release.state, '')}".strip()}, release.state)


def _sums(release: ReleaseState) -> Iterator[Markup]:
    yield tag("code", {}, f"id {release.id}")
    if release.sha256:
        yield tag("code", {"class": "wide"}, f"file sha256:{release.sha256}")


def _alone(release: ReleaseState) -> Markup:
    images = counted(release.alone_images, "image", form=",")
    return joined((human_bytes(release.alone_bytes), tag("span", {"class": "below"}, images)))


def _missing(release: ReleaseState) -> Markup:
    title = f"{_label(release)}: {counted(len(release.missing), 'image is', 'images are')} incomplete"
    return section(title, _names(release.missing), style="failed-images")


def _replaced(release: ReleaseState) -> Markup:
    count = counted(len(release.replaced), "tag is another image now", "tags are other images now", form=",")
    return folded(f"{_label(release)}: {count}, or gone", _names(release.replaced))


def _names(names: Sequence[str]) -> Markup:
    more = [f"and {len(names) - _NAMES:,} more: regwrap releases --json"] if len(names) > _NAMES else []
    return tag("ul", {}, *(tag("li", {}, name) for name in (*names[:_NAMES], *more)))


def _label(release: ReleaseState) -> str:
    return release.name or release.id.removeprefix("sha256:")[:12]


def _receipts(receipts: Sequence[ReceiptSummary]) -> Markup:
    if not receipts:
        note = "None was given: regwrap verify writes one with --receipt FILE, regwrap releases shows it with the same."
        return section("Receipts", tag("p", {"class": "quiet"}, note))
    head = (
        Cell("Checked"),
        Cell("Compared with"),
        Cell("Looked at", "wide"),
        Cell("Images", "number"),
        Cell("Verdict"),
    )
    rows = [
        (
            Cell(joined((moment(one.facts.time), tag("span", {"class": "below"}, f"on {one.facts.host}")))),
            Cell(joined((one.facts.release or one.facts.list or "-", *_target(one)))),
            Cell(one.facts.looked_at, "wide"),
            number_cell(one.images),
            Cell(_verdict(one)),
        )
        for one in sorted(receipts, key=_when, reverse=True)[:ROWS]
    ]
    return titled("Receipts", head, rows)


def _when(receipt: ReceiptSummary) -> tuple[float, str]:
    try:
        return datetime.fromisoformat(receipt.facts.time).timestamp(), receipt.facts.time
    except (ValueError, OverflowError):
        return 0, receipt.facts.time


def _target(receipt: ReceiptSummary) -> Iterator[Markup]:
    yield tag("span", {"class": "below"}, f"{receipt.facts.kind} {receipt.facts.target}")


def _verdict(receipt: ReceiptSummary) -> Markup:
    style = "good" if receipt.verdict == VALID else "bad"
    problems = [tag("span", {"class": "below"}, counted(receipt.problems, "problem", form=","))]
    mark = tag("span", {"class": f"state {style}"}, receipt.verdict)
    return joined((mark, *(problems if receipt.problems else ())))


def _images(images: Sequence[SiteImage], host: str) -> Markup:
    head = (Cell("Image"), Cell("In releases"))
    rows = [
        (Cell(joined((whole_name(image.image), *_below(image, host)))), Cell(", ".join(image.releases) or "-"))
        for image in images[:ROWS]
    ]
    left = "and more: the catalog has all" if host else f"and {len(images) - ROWS:,} more"
    more = [tag("p", {"class": "quiet"}, left)] if len(images) > ROWS else []
    title = "Images" if host else f"All tags: {counted(len(images), 'image', form=',')}"
    return folded(title, table("Images", head, rows), *more, is_open=bool(host) or len(images) <= OPEN)


def _below(image: SiteImage, host: str) -> Iterator[Content]:
    if host:
        yield pull_command(host, image.image)
    yield code(image.digest)
