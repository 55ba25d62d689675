"""A site behind the gap has no package index: all of its part is done by the one file that came with the release."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest

from regwrap import __version__
from regwrap.storage.store import Storage
from tests.builders import make_image, make_storage, storage_problems
from tests.image.conftest import ROOT
from tests.release.conftest import Scene
from tests.tls import HTPASSWD

pytestmark = pytest.mark.tools
_REGISTRY: Final = "127.0.0.1:5000"
_MOVED: Final = "library/tool:1.0"
_NEW: Final = make_image("the tool of 1.1")
_DEPLOYED: Final = """
    sha256sum -c acme-1.0.tar.sha256
    install -m 755 regwrap.pyz /usr/local/bin/regwrap
    regwrap deploy acme-1.0.tar registry
    regwrap verify registry --list acme-1.0.tar
    regwrap join acme-1.0.tar acme-1.1-delta.tar -o joined.tar
    cmp joined.tar acme-1.1.tar
    regwrap diff acme-1.0.tar acme-1.1.tar --exit-code && exit 9
    regwrap inspect acme-1.1.tar
    regwrap deploy acme-1.1-delta.tar registry --existing replace
    regwrap rollback registry acme-1.0
    regwrap releases registry
    regwrap gc registry --keep-releases 1 --dry-run
"""
_SERVED: Final = f"""
    regwrap serve acme-1.1.tar --addr 127.0.0.1:5001 >served & server=$!
    until grep -q http served; do sleep 0.1; done
    python3 -c 'import urllib.request; print(urllib.request.urlopen("http://127.0.0.1:5001/v2/").status)'
    regwrap verify http://127.0.0.1:5001 --list acme-1.1.tar
    kill $server; wait $server || :
    regwrap push acme-1.1.tar http://{_REGISTRY}/product
"""


@dataclass(frozen=True)
class Site:
    """A machine with python3 and tar. `directory` has what was carried there; a registry beside it stores `pushed`."""

    directory: Path
    pushed: Path

    def __call__(self, *command: str) -> "subprocess.CompletedProcess[str]":
        stored = {"filesystem": {"rootdirectory": f"{self.pushed}"}}
        config = {"version": "0.1", "storage": stored, "http": {"addr": _REGISTRY}}
        (self.directory / "registry.yml").write_text(json.dumps(config))
        return subprocess.run(
            [ROOT / "tests/debian/bare", "trixie", self.directory, *command],
            env={**os.environ, "BESIDE": f"docker-registry serve {self.directory}/registry.yml"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


@pytest.fixture
def site() -> Iterator[Site]:
    with TemporaryDirectory(prefix="site-") as name:
        directory = Path(name) / "site"
        directory.mkdir()
        yield Site(directory, Path(name) / "pushed")


def carry_releases(scene: Scene, site: Site) -> None:
    """Two of them, the second also as a delta. The tool came with the first."""
    release = ("release", "images.list", "--source", scene.host, "--quiet")
    assert scene.cli(*release, "--name", "acme-1.0", "-o", "acme-1.0.tar", "--with-tool").returncode == 0
    make_storage(scene.ci_root, {_MOVED: _NEW})
    assert scene.cli(*release, "--name", "acme-1.1", "-o", "acme-1.1.tar").returncode == 0
    delta = ("--name", "acme-1.1", "--since", "acme-1.0.tar", "-o", "acme-1.1-delta.tar")
    assert scene.cli(*release, *delta).returncode == 0
    for path in (*scene.directory.glob("acme-*"), scene.directory / "regwrap.pyz"):
        shutil.move(path, site.directory)


def test_a_site_with_python_and_tar_alone_does_its_part(scene: Scene, site: Site) -> None:
    carry_releases(scene, site)
    done = site("sh", "-exc", _DEPLOYED + _SERVED)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    assert "regwrap.pyz: OK" in said
    assert "1 changed" in said
    assert re.search(r"^acme-1\.0 .* current", said, re.MULTILINE)
    assert re.search(r"^acme-1\.1 .* partly replaced", said, re.MULTILINE)
    assert "\n200\n" in said
    assert re.search(r"^8 copied, 0 already there, 0 failed", said, re.MULTILINE)
    old, new = Storage(site.directory / "registry"), Storage(site.pushed)
    assert (storage_problems(old.root), storage_problems(new.root)) == (set(), set())
    repository, _, tag = _MOVED.partition(":")
    assert old.resolve(repository, tag) == scene.images[_MOVED].top
    assert new.resolve(f"product/{repository}", tag) == _NEW.top


def built(place: Path) -> Path:
    """The file as `make pyz` has it made, by a run of its own."""
    command = [sys.executable, "-m", "regwrap.cli.pyz", f"{place}/regwrap.pyz"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return place / "regwrap.pyz"


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("tool"))


def test_what_it_cannot_do_there_it_says(tool: Path, site: Site) -> None:
    shutil.copy(tool, site.directory)
    (site.directory / "htpasswd").write_text(HTPASSWD)
    serve, doctor = "python3 regwrap.pyz serve registry --htpasswd htpasswd", "python3 regwrap.pyz doctor"
    done = site("sh", "-c", f"{serve}; echo exit $?; {doctor}; echo exit $?")
    assert re.findall(r"^exit (\d)$", done.stdout, re.MULTILINE) == ["2", "3"]
    assert "--htpasswd needs bcrypt" in done.stderr
    assert "apt-get install python3-bcrypt" in done.stderr
    lines = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert "works" in lines["deploy, push, serve, verify, inspect, export, import, join"]
    assert "works" in lines["releases, rollback, gc"]
    assert "skopeo: not installed" in lines["sync"]
    assert "apt-get install skopeo" in lines["sync"]
    assert "overlay: there is no mount" in lines["package --strategy overlay"]
    assert "bcrypt: not installed" in lines["serve --htpasswd"]
    assert "ssh-keygen: not installed" in lines["release --sign-key, deploy --signers"]


def test_two_builds_are_one_file_and_it_hands_itself_on(tool: Path, scene: Scene, tmp_path: Path) -> None:
    again = built(tmp_path)
    assert again.read_bytes() == tool.read_bytes()
    subprocess.run(["sha256sum", "-c", "regwrap.pyz.sha256"], cwd=tmp_path, check=True, capture_output=True)
    (scene.directory / "images.list").write_text("app:v1\n")
    release = ["release", "images.list", "--source", scene.host, "-o", "r.tar", "--with-tool"]
    command = [sys.executable, "-I", f"{again}", *release]
    subprocess.run(command, cwd=scene.directory, env=scene.cli.environment, check=True, capture_output=True)
    assert (scene.directory / "regwrap.pyz").read_bytes() == tool.read_bytes()
    checksums = (scene.directory / "r.tar.sha256").read_text().splitlines()
    assert [line.split("  ")[1] for line in checksums] == ["r.tar", "regwrap.pyz"]
    said = subprocess.run([again, "--version"], check=True, capture_output=True, text=True)
    assert said.stdout == f"regwrap {__version__}\n"
