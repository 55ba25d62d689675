"""The page of a site: every release with what it alone holds, what is not as it was, receipts, and no script."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from regwrap.bundle.receipt import ReceiptSummary, parse_summary
from regwrap.commands.releases import ReleasesReport, ReleaseState, SiteImage, SiteReport
from regwrap.core.errors import UsageError
from regwrap.report.page_parts import ROWS
from regwrap.report.page_site import SiteFacts, site_page, storage_page
from tests.unit.report.test_page import HOSTILE, Elements

FACTS = SiteFacts(directory="/srv/registry", host="site-1", time="2026-05-01T10:11:12+00:00")
OLD = ReleaseState(
    name="acme-1.0",
    id=f"sha256:{'1' * 64}",
    deployed="2026-01-02T03:04:05.678901+00:00",
    sha256="",
    images=3,
    bytes=5_000_000,
    alone_images=1,
    alone_bytes=1_200_000,
    state="partly replaced",
    replaced=("team/app:latest",),
    missing=(),
)
NEW = ReleaseState(
    name="",
    id=f"sha256:{'2' * 64}",
    deployed="2026-04-02T03:04:05+00:00",
    sha256="f" * 64,
    images=4,
    bytes=6_000_000,
    alone_images=2,
    alone_bytes=2_000_000,
    state="current",
    replaced=(),
    missing=(),
)
IMAGES = (
    SiteImage(image="team/app:latest", digest=f"sha256:{'a' * 64}", releases=("acme-1.0", "222222222222")),
    SiteImage(image="other:1", digest=f"sha256:{'b' * 64}", releases=()),
)


def site(*releases: ReleaseState) -> SiteReport:
    report = ReleasesReport(path=Path("/srv/registry"), releases=releases, notes=())
    return SiteReport(releases=report, in_use=releases[-1].name if releases else "", bytes=7_000_000, images=IMAGES)


def receipt(**changes: object) -> ReceiptSummary:
    document = {
        "receipt": 1,
        "time": "2026-04-03T00:00:00+00:00",
        "host": "site-1",
        "target": "/srv/registry",
        "kind": "storage",
        "looked_at": "every byte",
        "list": "acme-1.0.tar",
        "release": {"name": "acme-1.0", "id": OLD.id},
        "verdict": "valid",
        "images": [{}, {}],
        "problems": [],
        "differences": [],
        **changes,
    }
    return parse_summary(json.dumps(document).encode(), "r.json")


def words(page: str) -> str:
    return re.sub(r"<[^>]+>", " ", page.partition("<body>")[2])


def test_each_release_says_since_when_and_what_it_alone_holds() -> None:
    page = site_page(site(NEW, OLD), FACTS)
    assert "<title>/srv/registry - acme-1.0</title>" in page
    assert "acme-1.0 is in use" in page
    assert page.index("acme-1.0<code>") < page.index("(without a name)<code>")  # the last one first
    for text in ("2026-01-02 03:04:05 UTC", "1.2 MB 1 image ", "2.0 MB 2 images", f"file sha256:{'f' * 64}", OLD.id):
        assert text in re.sub(r"\s+", " ", words(page)), text
    assert "1 tag is another image now, or gone" in page
    assert 'class="verdict good"' in page


def test_what_is_missing_is_an_alarm() -> None:
    broken = site(replace(OLD, state="incomplete", missing=("team/app:1: blob is gone",)))
    page = site_page(broken, FACTS)
    assert "acme-1.0: 1 image is incomplete" in page
    assert "team/app:1: blob is gone" in page
    assert 'class="verdict bad"' in page


def test_receipts_stand_on_it_the_last_one_first() -> None:
    later = receipt(time="2026-04-04T00:00:00+00:00", verdict="differs", differences=["a: is missing"], release=None)
    shown = words(site_page(site(NEW), FACTS, [receipt(), later]))
    assert shown.index("2026-04-04") < shown.index("2026-04-03")
    assert "1 problem" in shown
    assert "every byte" in shown
    assert "None was given" in site_page(site(NEW), FACTS)


def test_a_file_that_is_no_receipt_is_refused() -> None:
    for wrong in (b"{}", b"[", b'{"receipt": 1}', b'{"receipt": 2}'):
        with pytest.raises(UsageError, match=r"r\.json is no receipt of version 1"):
            parse_summary(wrong, "r.json")


def test_names_are_text_and_nothing_is_fetched() -> None:
    bad = SiteImage(image=HOSTILE, digest=HOSTILE, releases=(HOSTILE,))
    state = replace(OLD, name=HOSTILE, replaced=(HOSTILE,), missing=(HOSTILE,))
    report = SiteReport(
        releases=ReleasesReport(path=Path("x"), releases=(state,), notes=()), in_use=HOSTILE, bytes=0, images=(bad,)
    )
    facts = SiteFacts(directory=HOSTILE, host=HOSTILE, time=HOSTILE)
    for page in (
        site_page(report, facts, [receipt(host=HOSTILE, target=HOSTILE, time=HOSTILE)]),
        storage_page(HOSTILE, (bad,), HOSTILE),
    ):
        found = Elements()
        found.feed(page)
        assert found.tags.isdisjoint({"script", "img", "iframe", "object", "form", "a"})
        assert not re.search(r"""(?:src|href)=["'](?!data:,)|url\(|@import""", page)


@pytest.mark.slow
def test_a_storage_without_a_release_and_a_very_large_one() -> None:
    page = site_page(site(), FACTS)
    assert "no release is in use" in page
    assert "None is recorded here" in page
    many = tuple(SiteImage(image=f"a/{n}:1", digest="sha256:0", releases=()) for n in range(ROWS + 1))
    served = storage_page("/srv/registry", many, "r.example")
    assert "more than 2,000 images" in served
    assert served.count("docker pull") == ROWS
    assert len(served) < 1_500_000
