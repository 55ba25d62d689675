"""What the pages tell a person to type is what works: every line, in the order of a person's days."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.builders import make_image, make_storage, storage_problems
from tests.conftest import StartRegistry
from tests.harbor import USER, fake_harbor
from tests.release.conftest import Scene
from tests.tls import write_authfile

pytestmark = pytest.mark.tools
DOCS: Final = Path(__file__).parents[2] / "docs"
# What needs an engine's daemon, or runs on: test_serve.py and test_bake.py pull by docker and run what was baked.
ELSEWHERE: Final = re.compile(r"^(?:docker|podman|ctr) |(?:containers-storage|docker-daemon):| &$")
# tests/image runs the recipe for object storage, beside a server of it; at 3 a.m. one types what other pages have.
BY_HAND: Final = {"object-storage.md", "at-3-am.md"}


@dataclass(frozen=True)
class Site:
    """A shell in the directory where the list is. `names` are the pages' words, and what they are here."""

    scene: Scene
    programs: Path
    names: dict[str, str]

    def typed(self, line: str) -> "subprocess.CompletedProcess[str]":
        for name, here in self.names.items():
            line = line.replace(name, here)
        command = re.sub(r"\s#\s.*", "", line)
        if re.fullmatch(r"regwrap [\w ./:,%@=-]+", command):  # a forked one is there at once
            return self.scene.cli(*shlex.split(command)[1:])
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", line],
            cwd=self.scene.directory,
            env={**self.scene.cli.environment, "PATH": f"{self.programs}:{self.scene.cli.environment['PATH']}"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def does(self, page: str, *titles: str) -> None:
        """The lines of these parts of a page, or of all of them."""
        parts = dict(sections(page))
        for title in titles or parts:
            for line in parts[title]:
                expected = re.search(r"# exit code (\d)", line)
                done = self.typed(line)
                assert done.returncode == int(expected[1] if expected else 0), (line, done.stdout, done.stderr)
                assert "Traceback" not in done.stderr


@pytest.fixture
def site(scene: Scene, tmp_path: Path, loopback_registry: StartRegistry) -> Site:
    programs, outside = tmp_path / "bin", tmp_path / "srv"
    for directory in (programs, outside):
        directory.mkdir()
    program = programs / "regwrap"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m regwrap "$@"\n')
    program.chmod(0o755)
    (scene.directory / "regwrap.yaml").write_text("archive: ./archive\n")
    names = {
        "cicd.example.com": scene.host,
        "/srv/": f"{outside}/",
        "/usr/local/bin/regwrap": f"{outside}/regwrap",
        "registry.example.com:5000": loopback_registry(tmp_path / "remote").host,
        "| ssh site ": "| ",
        "ssh vendor ": "",
    }
    return Site(scene, programs, names)


def sections(page: str) -> Iterator[tuple[str, list[str]]]:
    """Each part of a page with the lines of its blocks, joined where they go on."""
    for part in re.split(r"^## ", (DOCS / page).read_text(), flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        blocks = re.findall(r"^```\n(.*?)^```$", body, flags=re.MULTILINE | re.DOTALL)
        lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        if here := [line for line in lines if line.strip() and not ELSEWHERE.search(line.partition(" # ")[0].rstrip())]:
            yield title, here


def the_product_goes_on(scene: Scene) -> None:
    """Another version in the list, and somebody has moved a tag."""
    new = {"app:v3": make_image("app3"), "library/tool:1.0": make_image("moved by mistake")}
    make_storage(scene.ci_root, new)
    listed = scene.directory / "images.list"
    listed.write_text(listed.read_text().replace("app:v1\n", "app:v3\n"))


def test_a_site_lives_as_the_pages_say(site: Site) -> None:
    site.does("days/first-release.md")
    site.does("days/site-directory.md", "The first time")
    the_product_goes_on(site.scene)
    site.does("days/second-release.md")
    site.does("days/site-directory.md", "The next release", "What is there", "There is no registry yet")
    site.does("days/what-changed.md")
    site.does("days/site-registry.md")
    site.does("days/audit.md")
    site.does("days/rollback.md")
    site.does("days/backup-and-restore.md")
    site.does("days/keep-and-collect.md")

    notes = (site.scene.directory / "notes.md").read_text()
    for words in ("1 added", "1 removed", "1 changed", "library/tool:1.0"):
        assert words in notes
    for name in ("registry", "new", "restored", "from-bundles", "site-restored"):
        assert storage_problems(Path(site.names["/srv/"], name)) == set()
    states = site.typed("regwrap releases /srv/registry").stdout
    assert re.search(r"acme-1\.0 .* incomplete", states)
    assert re.search(r"acme-1\.1 .* current", states)
    assert "site-backup" in site.typed("regwrap releases /srv/site-restored").stdout


def released_twice(site: Site) -> None:
    """acme-1.0 at the site, acme-1.1 on its way."""
    site.does("days/first-release.md", "Pin the digests", "Make it")
    site.does("days/site-directory.md", "The first time")
    the_product_goes_on(site.scene)
    site.does("days/second-release.md")


def test_a_release_travels_as_the_pages_say(site: Site, tmp_path: Path) -> None:
    released_twice(site)
    site.does("days/deltas.md")
    media = tmp_path / "usb"
    site.names["/mnt/usb"] = f"{media}"
    site.does("days/media-and-volumes.md", "In volumes")
    media.mkdir()
    for volume in site.scene.directory.glob("v1.1.tar.00[23]"):
        volume.rename(media / volume.name)
    site.does("days/media-and-volumes.md", "Media one by one")
    for volume in media.iterdir():
        volume.rename(site.scene.directory / volume.name)
    site.does("days/media-and-volumes.md", "A volume is lost or damaged", "Through a pipe")
    site.does("days/signatures.md")
    assert storage_problems(Path(site.names["/srv/"], "registry")) == set()


@pytest.mark.usefixtures("base")
def test_a_node_without_a_registry_gets_files_or_an_image_as_the_pages_say(site: Site) -> None:
    released_twice(site)
    site.names["HOST/library/registry:2"] = "oci:base:v1"
    site.does("days/air-gapped-node.md")
    site.does("days/baked-image.md")


def test_a_harbor_gets_a_release_as_its_page_says(site: Site, tmp_path: Path, loopback_registry: StartRegistry) -> None:
    released_twice(site)
    with fake_harbor(loopback_registry(tmp_path / "harbor").host, "product") as harbor:
        authfile = write_authfile(tmp_path / "auth.json", harbor.host, USER)
        settings = f"registries: {{harbor: {{url: 'http://{harbor.host}', authfile: {authfile}}}}}\n"
        (site.scene.directory / "regwrap.yaml").write_text(settings)
        site.does("days/harbor.md")


def test_the_quick_start_is_run_as_it_is_written(site: Site) -> None:
    site.does("quickstart.md", "A release", "At the customer's", "And back")


def test_no_line_of_the_pages_is_left_out() -> None:
    """Each part that has lines to type is in a test above."""
    source = Path(__file__).read_text()
    for path in (DOCS / "days").glob("*.md"):
        if path.name not in BY_HAND:
            called = re.findall(rf'site\.does\("days/{re.escape(path.name)}"((?:, "[^"]+")*)\)', source)
            titles = {title for titles in called for title in re.findall(r'"([^"]+)"', titles)}
            parts = {title for title, _lines in sections(f"days/{path.name}")}
            assert called, path.name
            assert "" in called or parts <= titles, (path.name, parts - titles)
