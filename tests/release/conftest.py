"""A CI registry with images of every kind, and the command line beside it."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from tests.baked import umoci
from tests.builders import Image, index_of, make_image, make_layer, make_multi_image, make_storage
from tests.conftest import StartRegistry
from tests.forked import Zygote, started_zygote
from tests.release.regwrap_cli import Cli


@dataclass(frozen=True)
class Scene:
    """`host` serves `images`; `images.list` in the command line's directory lists them all."""

    cli: Cli
    host: str
    ci_root: Path
    images: Mapping[str, Image]

    @property
    def directory(self) -> Path:
        return self.cli.directory

    @property
    def archive(self) -> Path:
        return self.directory / "home/.local/share/regwrap/archive"


def all_kinds() -> dict[str, Image]:
    """Nested names, both formats, indexes of both kinds, an index in an index, shared layers."""
    base = make_layer("base", Random(1).randbytes(300_000))
    return {
        "app:v1": make_image("app", layers=[base, make_layer("app-1")]),
        "app:v2": make_image("app2", layers=[base, make_layer("app-2")]),
        "app/sidecar:v1": make_image("sidecar", kind="docker", layers=[base, make_layer("sidecar")]),
        "app/sidecar/deep:v1": make_image("deep"),
        "library/tool:1.0": make_image("tool", kind="docker"),
        "multi/oci:v1": make_multi_image("multi"),
        "multi/docker:v1": make_multi_image("list", kind="docker"),
        "multi/nested:v1": index_of([make_multi_image("inner"), make_image("leaf")], [None, "linux/s390x"]),
    }


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with started_zygote(tmp_path_factory.mktemp("zygote")) as zygote:
        yield zygote


@pytest.fixture
def cli(tmp_path: Path, zygote: Zygote) -> Iterator[Cli]:
    directory = tmp_path / "work"
    directory.mkdir()
    cli = Cli(directory, zygote)
    yield cli
    cli.end()


@pytest.fixture
def scene(tmp_path: Path, cli: Cli, loopback_registry: StartRegistry) -> Scene:
    images = all_kinds()
    root = make_storage(tmp_path / "ci", images)
    (cli.directory / "images.list").write_text("".join(f"{name}\n" for name in images))
    return Scene(cli=cli, host=loopback_registry(root).host, ci_root=root, images=images)


@pytest.fixture
def base(scene: Scene, tmp_path: Path) -> str:
    """A base image, made by umoci, of Debian's docker-registry and the libraries that it needs."""
    program = shutil.which("docker-registry") or ""
    linked = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    libraries = re.findall(r"(/\S+) \(0x", linked)
    layout, root = scene.directory / "base", tmp_path / "base-root"
    for path in (program, *libraries):
        place = root / ("usr/bin/docker-registry" if path == program else path.removeprefix("/"))
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    (root / "tmp").mkdir()
    umoci("init", "--layout", layout)
    umoci("new", "--image", f"{layout}:v1")
    umoci("insert", "--rootless", "--image", f"{layout}:v1", root, "/")
    umoci("config", "--image", f"{layout}:v1", "--config.volume", "/var/lib/registry", "--config.cmd", "old")
    return "oci:base:v1"
