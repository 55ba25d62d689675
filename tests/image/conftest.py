"""The container image as `make image` builds it, from a base of Debian's packages; built once for all its tests."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest

from regwrap import __version__
from tests.release.conftest import cli, scene, zygote

__all__ = ["cli", "scene", "zygote"]
ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class BuiltImage:
    """`output` has the bill of materials, the digest and the size; `said` is what the build told."""

    name: str
    output: Path
    said: str

    @property
    def digest(self) -> str:
        return (self.output / "digest").read_text().strip()

    @property
    def archive(self) -> Path:
        """The whole of it in one file."""
        return self.output / f"regwrap-{__version__}.tar"

    @property
    def config(self) -> dict[str, Any]:
        command = ["buildah", "inspect", "--type", "image", self.name]
        document = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        config = document["OCIv1"]
        assert isinstance(config, dict)
        return config


def build_image(root: Path, name: str, output: Path, **settings: str) -> BuiltImage:
    """Run container/build of the tree `root`."""
    environment = {**os.environ, "BASE": "mmdebstrap", "ENGINE": "buildah", "PYTHON": sys.executable}
    done = subprocess.run(
        [root / "container/build"],
        env={**environment, "IMAGE": name, "OUTPUT": f"{output}", **settings},
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return BuiltImage(name=name, output=output, said=done.stderr)


@pytest.fixture(scope="session", autouse=True)
def _own_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Buildah's images of this run lie in a place of their own: in memory, where TMPDIR does."""
    with (
        TemporaryDirectory(prefix="storage-", ignore_cleanup_errors=True) as place,
        pytest.MonkeyPatch.context() as patch,
    ):
        file = tmp_path_factory.mktemp("buildah") / "storage.conf"
        file.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{place}/graph"\nrunroot = "{place}/run"\n')
        patch.setenv("CONTAINERS_STORAGE_CONF", f"{file}")
        yield
        subprocess.run(["umount", f"{place}/graph/overlay"], capture_output=True, check=False)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return build_image(ROOT, "localhost/regwrap:test", tmp_path_factory.mktemp("image"))
