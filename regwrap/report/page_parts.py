"""What pages are made of: tiles with figures, bars of parts, tables, legends. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regwrap import __version__
from regwrap.core.counts import counted
from regwrap.core.text import human_bytes
from regwrap.report.page_html import Content, Markup, joined, tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

ROWS: Final = 2000
"""Of a table at most."""
OPEN: Final = 200
"""So many images are shown without a click."""
_BREAK: Final = Markup("<wbr>")


@dataclass(frozen=True, slots=True)
class Cell:
    """`style` is a class: `number` stands right, `wide` is left out on a narrow screen."""

    content: Content
    style: str = ""
    title: str = ""


def whole_name(image: str) -> Markup:
    """The name of an image, which a narrow column breaks behind a slash before it breaks words."""
    return tag("span", {"class": "name"}, *_breakable(image))


def _breakable(name: str) -> Iterator[Content]:
    first, *others = name.split("/")
    yield first
    for part in others:
        yield from ("/", _BREAK, part)


def name_cell(name: str) -> Cell:
    return Cell(whole_name(name))


def number_cell(number: float, style: str = "") -> Cell:
    return Cell(f"{number:,}", f"number {style}".strip())


def platforms_text(platforms: Sequence[str]) -> Content:
    """Each of them stays in one piece."""
    spans = [tag("span", {"class": "platform"}, platform) for platform in platforms]
    return joined(piece for span in spans for piece in (", ", span)[span is spans[0] :]) if spans else "-"


def digest_cell(digest: str) -> Cell:
    """Its beginning; the whole where the mouse is."""
    return Cell(tag("code", {}, digest.rpartition(":")[2][:12]), title=digest)


def size_cell(size: int, largest: int) -> Cell:
    """Bytes, and a bar as long as its part of the largest."""
    bar = tag("i", {"class": "meter", "style": f"width:{share(size, largest):.1f}%"})
    return Cell(joined((human_bytes(size), bar)), "number")


def share(part: float, whole: float) -> float:
    """In percent, 0 of nothing."""
    return min(100.0, 100 * part / whole) if whole > 0 else 0.0


def table(title: str, head: Sequence[Cell], rows: Sequence[Sequence[Cell]]) -> Markup:
    """A table with a name for those who don't see it; what a row is about is its first column."""
    top = tag("tr", {}, *(tag("th", {"scope": "col", **_attributes(cell)}, cell.content) for cell in head))
    body = joined(
        tag(
            "tr",
            {},
            tag("th", {"scope": "row", **_attributes(row[0])}, row[0].content),
            *(tag("td", _attributes(cell), cell.content) for cell in row[1:]),
        )
        for row in rows
    )
    return tag("table", {"aria-label": title}, tag("thead", {}, top), tag("tbody", {}, body))


def _attributes(cell: Cell) -> dict[str, str]:
    return {key: value for key, value in (("class", cell.style), ("title", cell.title)) if value}


def section(title: str, *children: Content, style: str = "") -> Markup:
    attributes = {"class": style} if style else {}
    return tag("section", attributes, tag("h2", {}, title), *children)


def titled(title: str, head: Sequence[Cell], rows: Sequence[Sequence[Cell]]) -> Markup:
    """A table that is a section of its own."""
    return section(title, table(title, head, rows))


def folded(title: str, *children: Content, is_open: bool = False) -> Markup:
    return tag("details", {"open": ""} if is_open else {}, tag("summary", {}, title), *children)


def figure(style: str, about: str, drawing: Content) -> Markup:
    """A drawing whose data stands in words and tables too: a screen reader gets the sentence."""
    return tag("div", {"class": style, "role": "img", "aria-label": about}, drawing)


def legend(items: Iterable[tuple[str, str]]) -> Markup:
    """Texts and the classes that give their colours."""
    keys = (tag("li", {}, tag("i", {"class": f"key {style}", "aria-hidden": "true"}), text) for text, style in items)
    return tag("ul", {"class": "legend"}, *keys)


def tally(count: float, one: str, many: str = "") -> tuple[str, str]:
    """A number of things as one of the figures: its label is in the number's form."""
    label = counted(int(count), one, many).partition(" ")[2]
    return f"{label[:1].upper()}{label[1:]}", f"{count:,}"


def figures(items: Iterable[tuple[str, str]], alarming: str = "") -> Markup:
    """What counts, at a glance: a label and its value each. One of them may be alarming."""
    tiles = (
        tag("div", {"class": "bad"} if label == alarming else {}, tag("dt", {}, label), tag("dd", {}, value))
        for label, value in items
    )
    return tag("dl", {"class": "figures"}, *tiles)


def fact_list(items: Iterable[tuple[str, Content]]) -> Markup:
    """What is known of the whole, a label and a text each."""
    return tag(
        "dl", {"class": "facts"}, *(tag("div", {}, tag("dt", {}, key), tag("dd", {}, text)) for key, text in items)
    )


def moment(time: str) -> Markup:
    """A time of ISO 8601 in UTC, to the second, as people read it. A narrow column breaks it behind the day."""
    text = time[:19].replace("T", " ") + " UTC" if time.endswith("+00:00") else time
    day, _, rest = text.partition(" ")
    clock = (" ", tag("span", {"class": "moment"}, rest)) if rest else ()
    return tag("time", {"datetime": time}, tag("span", {"class": "moment"}, day), *clock)


def code(text: str) -> Markup:
    """What people copy and compare."""
    return tag("code", {}, text)


def pull_command(host: str, image: str) -> Markup:
    return tag("code", {"class": "pull"}, *_breakable(f"docker pull {host}/{image}"))


def bar_of_parts(about: str, parts: Sequence[tuple[str, int, str]]) -> Markup:
    """One bar of (text, bytes, class), with its legend."""
    total = sum(size for _text, size, _style in parts)
    pieces = joined(
        tag("i", {"class": style, "style": f"width:{share(size, total):.3f}%", "title": f"{human_bytes(size)} {text}"})
        for text, size, style in parts
        if size
    )
    keys = legend((f"{human_bytes(size)} {text}", style) for text, size, style in parts if size)
    return joined((figure("parts", about, pieces), keys))


def header(title: str, summary: Content, verdict: str, *, good: bool) -> Markup:
    mark = tag("span", {"class": f"verdict {'good' if good else 'bad'}"}, verdict)
    return tag("header", {}, tag("h1", {}, title), mark, tag("p", {"class": "quiet"}, summary))


def footer() -> Markup:
    return tag("footer", {"class": "quiet"}, f"made by regwrap {__version__}")
