"""Pages: areas in proportion, names as text whatever is in them, sizes bounded, colours that can be read."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regwrap.bundle.inspection import InspectedImage, Inspection
from regwrap.core.model import Digest
from regwrap.core.release_id import ReleaseId
from regwrap.report.page_blobs import pieces_of, shared_map
from regwrap.report.page_bundle import bundle_page
from regwrap.report.page_html import escaped, tag
from regwrap.report.page_run import run_page
from regwrap.report.page_timeline import lanes_of, timeline
from regwrap.report.page_treemap import Box, squarified
from regwrap.report.record import ImageRecord, Outcome, RunRecord
from regwrap.transfer.workers import WorkerShare
from tests.unit.report.test_record import RECORD, image

HOSTILE = "</title><script>alert(1)</script>\" onload='x' <img src=http://192.0.2.1/>\u202etxt\ud800\x1b[2J&amp;"


def record_with(*images: ImageRecord) -> RunRecord:
    return replace(RECORD, images=images)


class Elements(HTMLParser):
    """What elements and attributes there are, as a browser would find them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _value in attrs}


def many(count: int) -> RunRecord:
    copied = replace(image("a/new:1"), tag_now=None)
    shared = {f"sha256:{number:064x}": 10_000 for number in range(8)}

    def one(number: int) -> ImageRecord:
        outcome = Outcome.FAILED if number % 20 == 0 else Outcome.COPIED
        own = {f"sha256:{number + 100:064x}": 5000 + number}
        start = number / 10
        return replace(
            copied,
            image=f"team-{number % 9}/app-{number:05}:v1",
            outcome=outcome,
            error="no route to host" if outcome == Outcome.FAILED else "",
            worker=number % 16,
            start=start,
            end=start + 1.5,
            blobs={**shared, **own},
        )

    return record_with(*map(one, range(count)))


@pytest.mark.exhaustive
@settings(max_examples=200, derandomize=True)
@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=60))
def test_areas_are_in_proportion_and_fill_the_box(sizes: list[int]) -> None:
    ordered = sorted(sizes, reverse=True)
    parts = squarified(ordered, Box(0, 0, 200, 100))
    for size, part in zip(ordered, parts, strict=True):
        assert part.width * part.height == pytest.approx(20_000 * size / sum(ordered), abs=0.01)
        assert -0.001 <= part.x <= part.x + part.width <= 200.001
        assert -0.001 <= part.y <= part.y + part.height <= 100.001


def test_no_areas_for_nothing() -> None:
    assert squarified([], Box(0, 0, 2, 1)) == []


@pytest.mark.parametrize("sizes", [[2**62, 1, 1], [2**62, 2**61, 1, 1, 1]])
def test_sizes_that_no_image_has_divide_by_nothing(sizes: list[int]) -> None:
    parts = squarified(sizes, Box(0, 0, 1200, 400))
    assert len(parts) == len(sizes)
    assert "No layers are known" in shared_map(()).text


def test_each_blob_is_one_piece_whoever_needs_it() -> None:
    pieces = pieces_of({"a:1": {"sha256:aa": 5, "sha256:bb": 9}, "b:1": {"sha256:aa": 5}})
    assert [(piece.digest, piece.size, piece.images) for piece in pieces] == [
        ("sha256:bb", 9, ("a:1",)),
        ("sha256:aa", 5, ("a:1", "b:1")),
    ]
    drawn = shared_map(pieces).text
    assert "5 B of 14 B used by more than one image" in drawn
    assert "one image only: 9 B" in drawn


def test_what_is_text_stays_text() -> None:
    assert tag("p", {"title": 'a"b'}, "<b>", tag("i", {}, "c")).text == '<p title="a&quot;b">&lt;b&gt;<i>c</i></p>'
    assert escaped("a\u202eb\x00\ud800") == "a\\u202eb\\x00\\ud800"
    assert len(escaped("x" * 10_000)) < 2100


def test_a_hostile_report_is_shown_and_does_nothing() -> None:
    bad = replace(image("a/bad:1"), image=HOSTILE, list=HOSTILE, host=HOSTILE, error=HOSTILE, hint=HOSTILE)
    good = replace(image("a/new:1"), image=HOSTILE * 2, reason=HOSTILE, digest=HOSTILE, tag_now=HOSTILE)
    page = run_page(replace(record_with(bad, good), list=HOSTILE, started=HOSTILE, shards=(HOSTILE,), command=HOSTILE))
    page.encode()
    found = Elements()
    found.feed(page)
    assert found.tags.isdisjoint({"script", "img", "iframe", "object", "form", "a"})
    assert found.attributes == {
        *("lang", "charset", "name", "content", "http-equiv", "rel", "href", "datetime", "class", "style", "title"),
        *("scope", "role", "aria-label", "aria-hidden"),
    }
    assert "\u202e" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_a_page_needs_nothing_from_elsewhere() -> None:
    for page in (run_page(RECORD), run_page(many(50))):
        assert not re.search(r"""(?:src|href)=["'](?!data:,)|url\(|@import""", page)
        assert "default-src 'none'" in page


def test_failures_come_first_and_alike_ones_once() -> None:
    page = run_page(many(200))
    assert page.count('class="error">no route to host<') == 1
    assert page.index("no route to host") < page.index("<h2>Bytes") < page.index("<h2>Workers")
    assert "10 of 200 images failed" in page
    assert "and 5 more" in page
    quiet = run_page(record_with(replace(image("a/same:1"), tag_now=None)))
    assert "Failed</h2>" not in quiet
    assert "no image failed" in quiet
    assert "Nothing had to be copied" in quiet


@pytest.mark.exhaustive
def test_a_page_is_bounded() -> None:
    pages = {count: run_page(many(count)) for count in (183, 2000, 8000)}
    assert len(pages[183]) < 250_000
    assert len(pages[2000]) < 1_500_000
    assert len(pages[8000]) < 2_500_000
    assert "shortest copies are not drawn" not in pages[2000]
    assert re.search(r"[0-9,]+ shortest copies are not drawn", pages[8000])


@pytest.mark.slow
def test_what_failed_is_drawn_however_short() -> None:
    blink = replace(image("a/bad:1"), image="team/blink:1", worker=0, start=1, end=1.001)
    drawn = timeline(record_with(*many(8000).images, blink)).text
    assert 'title="team/blink:1: failed' in drawn


def test_lanes_are_workers_and_a_report_without_them_is_packed() -> None:
    first, second, third = (
        replace(image("a/new:1"), image=f"a/{number}:1", start=start, end=end, worker=None)
        for number, start, end in ((1, 0, 2), (2, 1, 3), (3, 2, 4))
    )
    assert lanes_of([third, second, first]) == {0: [first, third], 1: [second]}
    known = [replace(first, worker=3), replace(second, worker=1)]
    assert list(lanes_of(known)) == [1, 3]


@pytest.mark.parametrize("end", [1e-9, 0.004, 0.9, 1, 7.3, 59, 100, 86_400, 1e18])
def test_an_axis_has_a_few_round_numbers(end: float) -> None:
    drawn = timeline(record_with(replace(image("a/new:1"), start=0, end=end))).text
    ticks = re.findall(r">([^<]+) s</span>", drawn)
    assert 2 <= len(ticks) <= 7
    assert all(re.fullmatch(r"[0-9.]+(e[+-][0-9]+)?", tick) for tick in ticks)


def test_a_bundles_page_says_what_an_image_adds_and_what_is_left_out() -> None:
    images = tuple(
        InspectedImage(
            image=name,
            digest=f"sha256:{'0' * 64}",
            kind="OCI index",
            platforms=("linux/amd64",),
            omitted=omitted,
            size=1_500_000,
            alone=500_000,
            blobs={"sha256:aa": 1_000_000, f"sha256:{name}": 500_000},
        )
        for name, omitted in (("team/a:1", 0), (HOSTILE, 2))
    )
    found = Inspection(
        path="/x/r.tar",
        name="",
        id="sha256:" + "0" * 64,
        images=images,
        blobs=3,
        blob_bytes=2_000_000,
        file_bytes=2_100_000,
    )
    page = bundle_page(found)
    assert "<h1>r.tar</h1>" in page
    assert f"<dt>Release id</dt><dd><code>{found.id}</code>" in page
    assert "not known: no checksum file lies beside it" in page
    assert f"<code>{'5' * 64}</code>" in bundle_page(replace(found, sha256="5" * 64))
    assert "<h1>acme-1.0</h1>" in bundle_page(replace(found, name="acme-1.0"))
    assert "<title>acme-1.0 - 2 images</title>" in bundle_page(replace(found, name="acme-1.0"))
    assert 'class="verdict good">2 images, 1 partial<' in page
    assert "<h2>1 image with some of its platforms</h2>" in page
    assert 'class="bad"' not in page
    assert "docker pull" not in page
    assert "docker pull r.example:5000/<wbr>team/<wbr>a:1<" in bundle_page(found, "r.example:5000")
    alone = bundle_page(replace(found, images=images[:1]))
    assert "<dt>Image</dt><dd>1</dd>" in alone
    assert "Shared layers" not in alone  # with nothing
    delta = bundle_page(replace(found, required=1, required_bytes=1_000_000, since=("acme-0.9",)))
    assert "1 blob is (1.0 MB) not in it, but in acme-0.9" in delta
    assert "Saved by sharing" in page
    assert ">33 %<" in page
    assert "<script" not in page


def test_a_page_of_a_release_says_which_file_it_is() -> None:
    written = ReleaseId("acme-1.0", Digest("1" * 64))
    record = record_with(replace(image("a/new:1"), tag_now=None))
    page = run_page(replace(record, release=written, sha256="2" * 64))
    assert "<title>acme-1.0 - done</title>" in page
    assert f"<dt>Release id</dt><dd><code>sha256:{'1' * 64}</code>" in page
    assert f"<dt>sha256 of the file</dt><dd><code>{'2' * 64}</code>" in page
    failed = replace(record_with(image("a/bad:1")), release=ReleaseId("acme-1.0", None))
    assert "no bundle was written" in run_page(failed)
    assert "Release id" not in run_page(replace(failed, release=None))


def test_a_run_on_a_cluster_has_a_row_for_each_worker() -> None:
    shares = tuple(
        WorkerShare(worker=f"tcp://{host}:{port}", machine=host, blobs=blobs, bytes_sent=sent, failures=1, seconds=2.5)
        for host, port, blobs, sent in (("node-a", 40001, 12, 3_000_000), ("node-a", 40002, 1, 0), ("node-b", 4, 2, 9))
    )
    page = run_page(replace(RECORD, workers=shares))
    assert "3 workers of a cluster on 2 machines" in page
    assert re.search(r"at most \d+ at the same time", page)  # what is drawn are images, not workers
    assert "workers were busy" not in page
    rows = page.partition('aria-label="Workers of the cluster"')[2].partition("</table>")[0]
    assert re.findall(r">tcp://([^<]+)<", rows) == ["node-a:40001", "node-a:40002", "node-b:4"]
    assert "3.0 MB" in rows
    assert "Workers of the cluster" not in run_page(RECORD)


def test_an_image_that_was_replaced_has_both_digests_at_the_top() -> None:
    was, now = "sha256:" + "a1" * 32, "sha256:" + "b2" * 32
    moved = replace(image("a/new:1"), tag_now=None, outcome=Outcome.REPLACED, replaced=was, digest=now)
    page = run_page(record_with(moved))
    card = page.partition("Tags that are another image now")[2].partition("</section>")[0]
    assert card.index("a1a1a1a1a1a1<") < card.index("b2b2b2b2b2b2<")
    assert page.index("Tags that are another image now") < page.index("<h2>Bytes")


def colours(scheme: str) -> dict[str, str]:
    css = resources.files("regwrap.report").joinpath("page.css").read_text()
    light, _, dark = css.partition("@media screen and (prefers-color-scheme: dark)")
    block = light if scheme == "light" else dark.split("}", 1)[0]
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("text", "ground"),
    [
        *(("text", ground) for ground in ("ground", "panel")),
        *(("quiet", ground) for ground in ("ground", "panel", "bad-ground")),
        ("good", "good-ground"),
        ("bad", "bad-ground"),
        ("bad", "panel"),
        *(("bar-text", ground) for ground in ("sent", "moved", "failed", "failed-too")),
        *((f"{group}-text", group) for group in ("alone", "few", "some", "many")),
    ],
)
def test_text_can_be_read_on_its_ground(scheme: str, text: str, ground: str) -> None:
    found = colours(scheme)
    light, dark = sorted((luminance(found[text]), luminance(found[ground])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_an_image_that_is_there_needs_no_time() -> None:
    (only,) = record_with(replace(image("a/same:1"), outcome=Outcome.THERE)).images
    assert only.end == 0
    assert "Nothing had to be copied" in timeline(record_with(only)).text
