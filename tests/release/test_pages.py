"""Pages as a person sees them, in a real browser: of a real sync and a real bundle, on a phone and a wide screen."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Browser, opened_browser
from tests.builders import make_image, make_storage
from tests.release.conftest import Scene
from tests.release.regwrap_cli import Cli
from tests.release.test_serve import serving
from tests.unit.report.test_page import HOSTILE

pytestmark = pytest.mark.tools("chromium", "skopeo", "tar", "docker-registry")

# A text that a user can see: it has a box, and that lies inside the page.
_SEEN = """(text => { const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) if (walk.currentNode.data.includes(text)) {
    const range = document.createRange(); range.selectNodeContents(walk.currentNode);
    const box = range.getBoundingClientRect();
    if (box.width > 0 && box.left >= 0 && box.right <= innerWidth) return box.top; }
  return -1; })(%s)"""
_CUT = """[...document.querySelectorAll('main *, header *')].filter(e => !e.closest('.lane, .map, details:not([open])')
  && e.getBoundingClientRect().right > innerWidth + 1).length"""


@pytest.fixture
def browser() -> Iterator[Browser]:
    with opened_browser() as browser:
        yield browser


def top_of(browser: Browser, text: str) -> float:
    """Where a text is seen, from the top of the page in pixels."""
    top = browser.value(_SEEN % json.dumps(text))
    assert isinstance(top, int | float)
    assert top >= 0, f"{text} can't be seen"
    return top


def assert_quiet_and_fitting(browser: Browser, page: Path | str, width: int) -> None:
    assert browser.complaints() == []
    assert browser.requests() == [page if isinstance(page, str) else page.absolute().as_uri()]
    assert browser.value("document.scripts.length + document.images.length") == 0
    assert browser.value("document.documentElement.scrollWidth") == width
    assert browser.value(_CUT) == 0
    assert browser.value("document.querySelectorAll('[role=img]:not([aria-label])').length") == 0


def assert_right_in_every_form(browser: Browser, page: Path | str) -> None:
    """On a phone and a wide screen, light and dark; and on paper, where areas keep their colours and no row is lost."""
    for width in (375, 1400):
        for dark in (False, True):
            browser.open(page, width=width, dark=dark)
            assert_quiet_and_fitting(browser, page, width)
            ground = browser.value("getComputedStyle(document.body).backgroundColor")
            assert ground == ("rgb(18, 22, 27)" if dark else "rgb(246, 247, 249)")
    browser.media("print")
    assert browser.value("getComputedStyle(document.body).printColorAdjust") == "exact"
    displays = browser.value("[...document.querySelectorAll('main, .pair')].map(e => getComputedStyle(e).display)")
    assert isinstance(displays, list)
    assert set(displays) == {"block"}  # a grid that is cut by the end of a sheet loses rows
    browser.media("")


def test_a_run_that_failed_in_part(scene: Scene, browser: Browser) -> None:
    (scene.directory / "some.list").write_text("".join(f"{name}\n" for name in scene.images) + "no/such:v9\n")
    scene.cli("sync", "some.list", "--source", scene.host, "--report", "r.json")
    document = json.loads((scene.directory / "r.json").read_text())
    share = {"machine": "node-1", "blobs": 3, "bytes_sent": 5_000_000, "failures": 1, "seconds": 2.0}
    document["workers"] = [{**share, "worker": f"tcp://192.0.2.7:4000{number}"} for number in (1, 2)]
    (scene.directory / "r.json").write_text(json.dumps(document))
    shown = scene.cli("report", "show", "r.json", "--html", "r.html")
    assert shown.returncode == 1
    assert "1 failed" in shown.stdout
    page = scene.directory / "r.html"
    assert_right_in_every_form(browser, page)
    for width in (375, 1400):
        browser.open(page, width=width)
        assert top_of(browser, "no/") < 300
        assert top_of(browser, f"{scene.host} has no no/such:v9") < top_of(browser, "Images in time")
        assert top_of(browser, "2 workers of a cluster on 1 machine") > top_of(browser, "Images in time")
    assert top_of(browser, "tcp://192.0.2.7:40002") >= 0
    browser.value("document.querySelector('main > details').open = true")
    assert top_of(browser, "nested:v1") >= 0
    bars = browser.value("[...document.querySelectorAll('.lane i')].map(e => e.title.split(': ')[0])")
    assert isinstance(bars, list)
    assert set(bars) == set(scene.images)


def test_a_bundle_its_site_and_what_a_browser_gets_from_serve(scene: Scene, browser: Browser) -> None:
    cli, directory = scene.cli, scene.directory
    (directory / "images.list").write_text("".join(f"{name}\n" for name in scene.images if "docker" not in name))
    for command in (
        ("release", "images.list", "--source", scene.host, "-o", "r.tar", "--name", "acme-1.0", "--report", "r.json"),
        ("deploy", "r.tar", "site"),
        ("verify", "site", "--list", "r.tar", "--receipt", "receipt.json"),
        ("inspect", "r.tar", "--html", "b.html"),
        ("report", "show", "r.json", "--html", "r.html"),
        ("releases", "site", "--html", "s.html", "--receipt", "receipt.json"),
    ):
        done = cli(*command)
        assert done.returncode == 0, done.stderr
    sha256 = (directory / "r.tar.sha256").read_text()[:64]
    id_ = json.loads(cli("inspect", "r.tar", "--json").stdout)["id"]
    for name in ("b.html", "r.html"):
        assert_right_in_every_form(browser, directory / name)
        assert f"{browser.value('document.title')}".startswith("acme-1.0 - ")
        assert top_of(browser, "acme-1.0") < 100
        assert top_of(browser, id_) < top_of(browser, sha256) < 300
    browser.open(directory / "b.html", width=1400)
    assert top_of(browser, "sidecar:v1") > top_of(browser, "Shared layers")
    tiles = browser.value(
        "[...document.querySelectorAll('.tile')].reduce((sum, e) => sum + e.offsetWidth * e.offsetHeight, 0)"
        " / (document.querySelector('.map').offsetWidth * document.querySelector('.map').offsetHeight)"
    )
    assert tiles == pytest.approx(1, abs=0.05)
    assert_right_in_every_form(browser, directory / "s.html")
    assert top_of(browser, "acme-1.0 is in use") < top_of(browser, id_) < top_of(browser, "every byte")
    for served, seen in (("r.tar", "Shared layers"), ("site", "In releases")):
        with serving(cli, served, "--addr", "127.0.0.1:0") as server:
            assert_right_in_every_form(browser, f"{server.url}/")
            assert top_of(browser, seen) >= 0
            commands = browser.value("[...document.querySelectorAll('.pull')].map(e => e.textContent)")
            names = (directory / "images.list").read_text().split()
            assert isinstance(commands, list)
            assert sorted(commands) == [f"docker pull {server.host}/{name}" for name in sorted(names)]


def test_a_receipt_of_183_images_is_two_sheets_whatever_else_the_site_has(
    cli: Cli, tmp_path: Path, browser: Browser
) -> None:
    make_storage(
        tmp_path / "site", {f"team-{n % 7}/service-{n:03}:v1.2.{n}": make_image(f"{n % 9}") for n in range(400)}
    )
    lines = (f"team-{n % 7}/service-{n:03}:v1.2.{n}\n" for n in range(183))
    (cli.directory / "images.list").write_text("".join(lines))
    done = cli("verify", tmp_path / "site", "--list", "images.list", "--html", "r.html")
    assert done.returncode == 0, done.stderr
    for dark in (False, True):
        browser.open(cli.directory / "r.html", width=1200, dark=dark)
        assert_quiet_and_fitting(browser, cli.directory / "r.html", 1200)
        assert browser.sheets() <= 2
    browser.media("print")
    assert browser.value("getComputedStyle(document.body).color") == "rgb(27, 32, 38)"
    assert top_of(browser, "service-182:v1.2.182") >= 0
    assert top_of(browser, "217 images that are not in the list") >= 0
    assert browser.value("document.querySelector('main > details').open") is False


def test_a_hostile_report(scene: Scene, browser: Browser) -> None:
    scene.cli("sync", "-", "--source", scene.host, "--report", "r.json", stdin="no/such:v9\n")
    document = json.loads((scene.directory / "r.json").read_text())
    document["list"] = document["images"][0]["image"] = document["images"][0]["error"] = HOSTILE
    (scene.directory / "r.json").write_text(json.dumps(document))
    scene.cli("report", "show", "r.json", "--html", "r.html")
    page = scene.directory / "r.html"
    browser.open(page, width=400)
    assert_quiet_and_fitting(browser, page, 400)
    assert top_of(browser, "<script>alert(1)</script>") >= 0
    assert browser.value("document.scripts.length + document.images.length") == 0


def test_a_page_never_takes_the_place_of_its_data(scene: Scene) -> None:
    (scene.directory / "r.tar").write_text("x")
    refused = scene.cli("report", "show", "r.tar", "--html", "r.tar")
    assert refused.returncode == 2
    assert (scene.directory / "r.tar").read_text() == "x"
