"""The site of docs/ as it is built: without a warning, every link leads somewhere, and nothing comes from elsewhere."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest

from tests.browser import opened_browser

pytestmark = pytest.mark.tools("chromium")
ROOT = Path(__file__).parents[2]
_FIRST = "document.querySelector('.md-search-result__link').href"
_FOUND = "document.querySelector('.md-search-result__list').textContent"


class Links(HTMLParser):
    """Where a page leads, what it loads, and what can be led to in it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.add(found["href"])
        elif tag in {"script", "img", "link", "iframe", "source"}:
            self.loads |= {found[name] for name in ("src", "href") if name in found}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("site")
    config = ROOT / "docs/site/mkdocs.yml"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--config-file", config, "--site-dir", made],
        env={"PATH": os.environ["PATH"], "HOME": f"{made}", "NO_MKDOCS_2_WARNING": "1", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return made


def test_every_link_leads_somewhere(site: Path) -> None:
    pages = {path: Links(path) for path in site.rglob("*.html")}
    assert len(pages) >= 50
    assert len([path for path in pages if path.parent.name == "decisions"]) >= 30
    for page, found in pages.items():
        if page.name == "404.html":
            continue  # it has absolute links, for a server's root
        for link in found.links | found.loads:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                assert link in found.links, f"{page} loads {link}"
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{page} leads to {link}"
            if parts.fragment and target in pages:
                known = pages[target].anchors
                assert unquote(parts.fragment) in known or parts.fragment == "__skip", f"{page}: {link}"


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style.name


def test_generated_parts_are_on_the_pages(site: Path) -> None:
    configuration = (site / "configuration.html").read_text()
    assert "<code>requests_per_second</code>" in configuration
    assert "a whole number from 1 to 64" in configuration
    troubleshooting = (site / "troubleshooting.html").read_text()
    assert "speaks neither HTTPS nor HTTP" in troubleshooting
    assert "<code>--shard K/N</code>" in (site / "commands/sync.html").read_text()
    assert "the registry requires a valid login" in (site / "days/at-3-am.html").read_text()
    assert "&lt;!-- messages" not in troubleshooting


def test_pages_fit_on_a_phone_and_can_be_read_as_files(site: Path) -> None:
    with opened_browser() as browser:
        for name in ("index", "configuration", "troubleshooting", "comparison", "commands/sync", "days/at-3-am"):
            browser.open(site / f"{name}.html", width=400)
            assert browser.value("document.documentElement.scrollWidth") == 400, name
            assert [url for url in browser.requests() if not url.startswith(("file:", "data:"))] == []
        browser.open(site / "how-it-works.html", width=1400)
        assert browser.value("document.querySelector('img[src=\"flow.svg\"]').naturalWidth") == 980


@pytest.mark.parametrize("opened_as", ["a file", "a page of a server"])
def test_the_site_can_be_searched(site: Path, served: str, opened_as: str) -> None:
    root = site.as_uri() if opened_as == "a file" else served
    with opened_browser() as browser:
        browser.open(f"{root}/days/rollback.html", width=1400)
        browser.value("document.querySelector('[data-md-component=search-query]').focus()")
        browser.value("document.execCommand('insertText', false, 'requests_per_second')")
        browser.value("document.activeElement.dispatchEvent(new KeyboardEvent('keyup'))")  # as the last key does it
        deadline = time.monotonic() + 60
        while "Configuration" not in f"{browser.value(_FOUND)}":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert f"{browser.value(_FIRST)}".startswith(f"{root}/configuration.html")
        assert browser.complaints() == []
        assert [url for url in browser.requests() if not url.startswith((f"{root}/", "data:", "blob:"))] == []


@pytest.fixture
def served(site: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=f"{site}"))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_args: object) -> None:
        pass
