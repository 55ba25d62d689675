"""After gc a real registry serves all that was kept, and takes again what was collected.

The registry's own collector is measured beside it: what it leaves, and what that does to the next push.
"""

import http.client
import json
import os
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from regwrap.commands.gc import GcOptions, GcReport, collect_garbage
from regwrap.core.listener import Silent
from regwrap.core.manifest import MANIFEST_TYPES
from regwrap.core.model import Digest
from regwrap.storage import layout
from regwrap.storage.gc import Keep
from regwrap.storage.sweep import RealDisk
from tests.builders import (
    empty,
    index_of,
    make_image,
    make_layer,
    make_multi_image,
    make_storage,
    storage_problems,
)
from tests.conftest import StartRegistry
from tests.registry import LoopbackRegistry, registry_version

pytestmark = pytest.mark.tools

BASE = make_layer("base")
KEPT = make_image("kept", layers=[BASE, make_layer("kept")])
GONE = make_image("gone", layers=[BASE, make_layer("gone")])
IMAGES = {
    "app:1": KEPT,
    "app:2": GONE,
    "app/inner:1": make_multi_image("inner", kind="docker"),
    "multi:1": make_multi_image("multi"),
    "multi:2": make_multi_image("other"),
    "nested:1": index_of([make_multi_image("deep"), make_image("leaf")], [None, "linux/s390x"]),
    f"app:sha256-{KEPT.top.hex}.sig": make_image("signature"),
}
CACHED = {"storage": {"cache": {"blobdescriptor": "inmemory"}, "delete": {"enabled": True}}}
UNCACHED = {"storage": {"delete": {"enabled": True}}}


def gc(root: Path, *names: str) -> GcReport:
    options = GcOptions(
        dry_run=False,
        offline=True,
        lock_timeout=0,
    )
    return collect_garbage(root, Keep(names=frozenset(names) or None, last=None), options, Silent(), RealDisk())


def skopeo(*args: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    command = ["skopeo", "--insecure-policy", *(os.fspath(arg) for arg in args)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def copy(source: str, dest: str) -> subprocess.CompletedProcess[str]:
    flags = ("--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false")
    return skopeo("copy", *flags, source, dest)


def push(source: LoopbackRegistry, dest: LoopbackRegistry, name: str) -> subprocess.CompletedProcess[str]:
    return copy(f"docker://{source.host}/{name}", f"docker://{dest.host}/{name}")


def pulls(registry: LoopbackRegistry, name: str, place: Path) -> bool:
    return copy(f"docker://{registry.host}/{name}", f"dir:{place}").returncode == 0


def raw_digest(registry: LoopbackRegistry, name: str) -> Digest:
    shown = skopeo("inspect", "--raw", "--tls-verify=false", "--no-creds", f"docker://{registry.host}/{name}")
    assert shown.returncode == 0, shown.stderr
    return Digest.of(shown.stdout.encode())


def ask(registry: LoopbackRegistry, method: str, path: str) -> int:
    with closing(http.client.HTTPConnection(registry.host, timeout=10)) as connection:
        connection.request(method, path, headers={"Accept": ", ".join(MANIFEST_TYPES)})
        return connection.getresponse().status


def own_collector(root: Path, scratch: Path, *flags: str) -> None:
    config = scratch / "collect.yml"
    storage = {"filesystem": {"rootdirectory": os.fspath(root)}}
    config.write_text(json.dumps({"version": "0.1", "storage": storage, "http": {"addr": "127.0.0.1:0"}}))
    subprocess.run(["docker-registry", "garbage-collect", *flags, config], capture_output=True, check=True, timeout=60)


@pytest.fixture
def source(tmp_path: Path, loopback_registry: StartRegistry) -> LoopbackRegistry:
    return loopback_registry(make_storage(tmp_path / "source", IMAGES))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_storage(tmp_path / "root", IMAGES)


@pytest.mark.parametrize("config", [CACHED, UNCACHED])
def test_what_was_kept_is_served_and_what_was_collected_can_come_back(
    root: Path, source: LoopbackRegistry, loopback_registry: StartRegistry, config: Mapping[str, object], tmp_path: Path
) -> None:
    kept = {name: image for name, image in IMAGES.items() if name not in {"app:2", "multi:2"}}
    gc(root, *(name for name in kept if "sha256-" not in name))
    registry = loopback_registry(root, extra=config)
    assert {name: raw_digest(registry, name) for name in kept} == {name: image.top for name, image in kept.items()}
    assert not pulls(registry, "app:2", tmp_path / "none")
    for name in ("app:2", "multi:2"):
        pushed = push(source, registry, name)
        assert pushed.returncode == 0, pushed.stderr
    for number, name in enumerate(name for name in IMAGES if name != "nested:1"):  # which skopeo can't copy
        assert pulls(registry, name, tmp_path / f"{number}"), name
        manifest = (tmp_path / f"{number}/manifest.json").read_bytes()
        assert Digest.of(manifest) == IMAGES[name].top
    assert storage_problems(root) == set()


def test_a_link_that_makes_every_push_fail_is_gone_afterwards(
    root: Path, source: LoopbackRegistry, loopback_registry: StartRegistry, tmp_path: Path
) -> None:
    registry = loopback_registry(root)
    layer = Digest.of(GONE.blobs[2])
    empty(root / layout.layer_link("app", layer))
    assert "500" in push(source, registry, "app:2").stderr
    report = gc(root)
    assert any(f"app needs {layer}" in note for note in report.notes)
    assert push(source, registry, "app:2").returncode == 0
    assert pulls(registry, "app:2", tmp_path / "pulled")
    assert storage_problems(root) == set()


def test_the_own_collector_of_registry_2_leaves_links_that_dangle(
    root: Path, loopback_registry: StartRegistry, tmp_path: Path
) -> None:
    registry = loopback_registry(root, extra=UNCACHED)
    assert ask(registry, "DELETE", f"/v2/app/manifests/{GONE.top}") == 202
    own_collector(root, tmp_path)
    own = {Digest.of(blob) for blob in GONE.blobs} - {Digest.of(blob) for blob in KEPT.blobs}
    dangling = {f"{layout.layer_link('app', digest)}: dangles" for digest in own}
    assert storage_problems(root) == (dangling if registry_version() < (3,) else set())
    gc(root)
    assert storage_problems(root) == set()
    assert ask(registry, "GET", f"/v2/app/manifests/{KEPT.top}") == 200


def test_with_its_cache_the_registry_takes_a_push_for_done_after_its_own_collector(
    root: Path, source: LoopbackRegistry, loopback_registry: StartRegistry, tmp_path: Path
) -> None:
    """So the hint of gc is to stop the registry, or to start it again afterwards."""
    registry = loopback_registry(root, extra=CACHED)
    assert pulls(registry, "app:2", tmp_path / "before")
    assert ask(registry, "DELETE", f"/v2/app/manifests/{GONE.top}") == 202
    own_collector(root, tmp_path)
    assert push(source, registry, "app:2").returncode == 0
    assert not pulls(registry, "app:2", tmp_path / "after")
    restarted = loopback_registry(root, extra=CACHED)
    assert push(source, restarted, "app:2").returncode == 0
    assert pulls(restarted, "app:2", tmp_path / "restarted")


def test_delete_untagged_of_registry_2_destroys_indexes_and_gc_does_not(
    root: Path, loopback_registry: StartRegistry, tmp_path: Path
) -> None:
    gc(root)
    registry = loopback_registry(root)
    assert pulls(registry, "multi:1", tmp_path / "mine")
    own_collector(root, tmp_path, "--delete-untagged")
    assert ask(registry, "GET", "/v2/multi/manifests/1") == 200
    assert pulls(registry, "multi:1", tmp_path / "own") == (registry_version() >= (3,))


def test_an_image_without_its_manifest_loses_its_layers_to_the_registrys_collector_only(
    root: Path, tmp_path: Path
) -> None:
    (root / layout.blob_path(KEPT.top)).unlink()
    layer = root / layout.blob_path(Digest.of(KEPT.blobs[2]))
    gc(root)
    assert layer.is_file()
    own_collector(root, tmp_path)
    assert not layer.exists()
