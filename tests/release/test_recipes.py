"""What the pages tell a site to type is what works: every line, in the order of the page."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.builders import make_image, make_storage, storage_problems
from tests.conftest import StartRegistry
from tests.release.conftest import Scene

pytestmark = pytest.mark.tools
DOCS = Path(__file__).parents[2] / "docs"


@dataclass(frozen=True)
class Site:
    """A shell in the directory where the tar and the list are. `names` are the page's words, and what they are here."""

    scene: Scene
    programs: Path
    names: dict[str, str]

    def typed(self, line: str) -> "subprocess.CompletedProcess[str]":
        for name, here in self.names.items():
            line = line.replace(name, here)
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", line],
            cwd=self.scene.directory,
            env={**self.scene.cli.environment, "PATH": f"{self.programs}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture
def site(scene: Scene, tmp_path: Path, loopback_registry: StartRegistry) -> Site:
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "regwrap"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m regwrap "$@"\n')
    program.chmod(0o755)
    names = {
        "cicd.example.com": scene.host,
        "/srv/registry": f"{tmp_path}/registry",
        "/srv/restored": f"{tmp_path}/restored",
        "registry.example.com:5000": loopback_registry(tmp_path / "remote").host,
    }
    return Site(scene, programs, names)


def sections(page: str) -> Iterator[tuple[str, list[str]]]:
    """Each part of a page with the lines of its blocks, joined where they go on."""
    text = (DOCS / page).read_text()
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        blocks = re.findall(r"^```\n(.*?)^```$", body, flags=re.MULTILINE | re.DOTALL)
        yield title, [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def run(site: Site, lines: list[str]) -> None:
    for line in lines:
        expected = re.search(r"# exit code (\d)", line)
        done = site.typed(line)
        assert done.returncode == int(expected[1] if expected else 0), (line, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr


def test_a_site_lives_as_its_page_says(site: Site) -> None:
    parts = dict(sections("recipes-site.md"))
    assert len(parts) == 8
    assert sum(map(len, parts.values())) > 25
    for title, lines in parts.items():
        if title == "The second release":  # the product has gone on, and somebody has moved a tag
            new = {"app:v3": make_image("app3"), "library/tool:1.0": make_image("moved by mistake")}
            make_storage(site.scene.ci_root, new)
            listed = site.scene.directory / "images.list"
            listed.write_text(listed.read_text().replace("app:v1\n", "app:v3\n"))
        run(site, lines)
    notes = (site.scene.directory / "notes.md").read_text()
    for words in ("1 added", "1 removed", "1 changed", "library/tool:1.0"):
        assert words in notes
    for name in ("/srv/registry", "/srv/restored"):
        assert storage_problems(Path(site.names[name])) == set()
    states = site.typed("regwrap releases /srv/registry").stdout
    assert re.search(r"acme-1\.0 .* incomplete", states)
    assert re.search(r"acme-1\.1 .* current", states)
    assert "site-backup" in site.typed("regwrap releases /srv/restored").stdout


def test_the_quick_start_is_run_as_it_is_written(site: Site) -> None:
    parts = dict(sections("quickstart.md"))
    for title in ("A release", "At the customer's"):
        assert parts[title]
        run(site, parts[title])


def test_the_storage_of_a_bare_registry_is_used_as_its_page_says(site: Site) -> None:
    parts = dict(sections("recipes-bare-registry.md"))
    for name in ("acme-1.0", "acme-1.1"):
        release = f"regwrap release images.list --source cicd.example.com --name {name} -o release-v1.1.tar"
        run(site, [release, "regwrap deploy release-v1.1.tar /srv/registry"])
    run(site, parts["The storage directory can be reached"])
    run(site, parts["Only the registry can be reached"])
