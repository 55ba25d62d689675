"""Archives that a supplier sent, as sources of a list's lines: made by the real skopeo, brought into a storage and into
a registry, and proved as images from registries are."""

import json
import subprocess
from dataclasses import dataclass

import pytest

from regwrap.core.manifest import Manifest
from regwrap.storage.store import Storage
from tests.builders import storage_problems
from tests.conftest import StartRegistry
from tests.release.conftest import Scene

pytestmark = pytest.mark.tools

LIST = """\
docker-archive:vendor.tar => third-party/app:9
docker-archive:vendor.tar:acme/app:v1
oci-archive:multi.tar:multi:v1 => third-party/multi:v1
oci:layout:v1 => third-party/tool
dir:tree/docker:v1 => third-party/list:1
app:v2
"""
DESTS = (
    "third-party/app:9",
    "acme/app:v1",
    "third-party/multi:v1",
    "third-party/tool:v1",
    "third-party/list:1",
    "app:v2",
)


@dataclass(frozen=True)
class Supplied:
    """`images.list` in the scene's directory has a line for each kind of archive, and one for the CI registry."""

    scene: Scene

    def expected(self) -> dict[str, str]:
        """Digests by destination, of all but docker's archives: those have no manifest to keep."""
        images = self.scene.images
        names = {"third-party/multi:v1": "multi/oci:v1", "third-party/tool:v1": "app/sidecar/deep:v1"}
        names |= {"third-party/list:1": "multi/docker:v1", "app:v2": "app:v2"}
        return {dest: f"{images[name].top}" for dest, name in names.items()}


@pytest.fixture
def supplied(scene: Scene) -> Supplied:
    copies = {
        "docker-archive:vendor.tar:acme/app:v1": ("app:v1", ()),
        "oci-archive:multi.tar:multi:v1": ("multi/oci:v1", ("--all",)),
        "dir:tree/docker:v1": ("multi/docker:v1", ("--all", "--preserve-digests")),
    }
    for dest, (name, options) in copies.items():
        skopeo(scene, *options, f"docker://{scene.host}/{name}", dest)
    layout = scene.cli("export", f"{scene.ci_root}", "layout", "--format", "oci")
    assert layout.returncode == 0, layout.stderr
    index = scene.directory / "layout/index.json"
    index.write_text(index.read_text().replace("app/sidecar/deep:v1", "v1"))
    (scene.directory / "images.list").write_text(LIST)
    return Supplied(scene)


def skopeo(scene: Scene, *args: str) -> None:
    command = ["skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", *args]
    (scene.directory / "tree").mkdir(exist_ok=True)
    subprocess.run(command, cwd=scene.directory, check=True, timeout=120)


def digests(storage: Storage) -> dict[str, str]:
    found = {dest: storage.resolve(*dest.rsplit(":", 1)) for dest in DESTS}
    assert None not in found.values()
    return {dest: f"{digest}" for dest, digest in found.items()}


def contents_of(storage: Storage, dest: str) -> list[str]:
    """The digests of the layers' uncompressed bytes, as the config names them."""
    repository, tag = dest.rsplit(":", 1)
    digest = storage.resolve(repository, tag)
    assert digest is not None
    closure = storage.closure(repository, digest)
    assert closure is not None
    assert isinstance(closure.top, Manifest)
    found: list[str] = json.loads(storage.read_config(closure.top.config))["rootfs"]["diff_ids"]
    return found


def test_archives_are_brought_into_a_storage_packed_and_deployed(supplied: Supplied) -> None:
    scene, expected = supplied.scene, supplied.expected()
    done = scene.cli("release", "images.list", "--source", scene.host, "-o", "r.tar")
    assert done.returncode == 0, done.stderr
    assert "6 copied" in done.stdout
    assert storage_problems(scene.archive) == set()
    assert scene.cli("deploy", "r.tar", "site").returncode == 0
    for root in (scene.archive, scene.directory / "site"):
        storage = Storage(root)
        found = digests(storage)
        assert {dest: found[dest] for dest in expected} == expected
        assert found["acme/app:v1"] == found["third-party/app:9"]
        assert contents_of(storage, "acme/app:v1") == contents_of(Storage(scene.ci_root), "app:v1")
    again = scene.cli("sync", "images.list", "--source", scene.host)
    assert "0 copied, 6 already there" in again.stdout
    assert "-> third-party/app:9" in scene.cli("sync", "images.list", "--source", scene.host, "--dry-run").stdout


@pytest.mark.parametrize("engine", ["stream", "copy", "sync"])
def test_archives_are_brought_into_a_registry(
    supplied: Supplied, loopback_registry: StartRegistry, engine: str
) -> None:
    scene = supplied.scene
    dest = loopback_registry(scene.directory / "dest")
    command = ("sync", "images.list", "--source", scene.host, "--archive", dest.host, "--engine", engine)
    done = scene.cli(*command)
    assert done.returncode == 0, done.stderr
    assert "6 copied" in done.stdout
    storage = Storage(scene.directory / "dest")
    for name, digest in supplied.expected().items():
        assert f"{storage.resolve(*name.rsplit(':', 1))}" == digest
    assert storage_problems(scene.directory / "dest") == set()
    assert "0 copied, 6 already there" in scene.cli(*command).stdout


def test_an_archive_that_is_not_there_or_damaged_fails_its_line_alone(supplied: Supplied) -> None:
    scene = supplied.scene
    (scene.directory / "absent.list").write_text("docker-archive:absent.tar => a:1\noci:layout:v9 => b:1\n" + LIST)
    blob = scene.directory / "tree/docker:v1"
    damaged = max((path for path in blob.iterdir() if len(path.name) == 64), key=lambda path: path.stat().st_size)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    done = scene.cli("sync", "absent.list", "--source", scene.host)
    assert done.returncode == 1
    assert "5 copied" in done.stdout
    assert "a:1: FAILED, line 1: absent.tar does not exist" in done.stderr
    assert "b:1: FAILED, line 2: could not read oci:layout:v9" in done.stderr
    assert "third-party/list:1: FAILED, line 7" in done.stderr
    failed = (scene.directory / "failed.list").read_text().splitlines()
    assert failed[0] == "# failed of absent.list"
    assert failed[1:] == [*(scene.directory / "absent.list").read_text().splitlines()[:2], LIST.splitlines()[4]]
    assert Storage(scene.archive).resolve("third-party/list", "1") is None


def test_an_archive_is_locked_as_an_image_of_a_registry_is(supplied: Supplied) -> None:
    scene = supplied.scene
    assert scene.cli("lock", "images.list", "--source", scene.host).returncode == 0
    digest = supplied.expected()["third-party/tool:v1"]
    lock = (scene.directory / "images.lock").read_text()
    assert f"oci:layout:v1@{digest} => third-party/tool:v1" in lock
    assert scene.cli("lock", "images.list", "--source", scene.host, "--check").returncode == 0
    assert "6 copied" in scene.cli("sync", "images.lock", "--source", scene.host).stdout
    assert "6 already there" in scene.cli("sync", "images.list", "--source", scene.host, "--locked").stdout
    skopeo(scene, f"docker://{scene.host}/app:v2", "docker-archive:other.tar:acme/app:v1")
    (scene.directory / "other.tar").replace(scene.directory / "vendor.tar")
    changed = scene.cli("sync", "images.lock", "--source", scene.host)
    assert changed.returncode == 1
    assert "the list says sha256:" in changed.stderr
