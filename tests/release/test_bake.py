"""Images with a storage inside: unpacked by umoci and GNU tar, served by their own entry point, used as a history."""

import json
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from regwrap.core.model import Digest
from tests.baked import baked_registry, umoci
from tests.builders import add_untagged, flip, make_image, make_layer, make_storage, snapshot
from tests.conftest import StartRegistry
from tests.release.conftest import Scene
from tests.release.regwrap_cli import raw_digest

pytestmark = pytest.mark.tools


def layers_of(layout: Path, tag: str) -> list[Path]:
    index = json.loads((layout / "index.json").read_text())
    (top,) = [m for m in index["manifests"] if m["annotations"]["org.opencontainers.image.ref.name"] == tag]
    manifest = json.loads((layout / "blobs/sha256" / top["digest"].removeprefix("sha256:")).read_bytes())
    return [layout / "blobs/sha256" / layer["digest"].removeprefix("sha256:") for layer in manifest["layers"]]


def config_of(layout: Path, tag: str) -> dict[str, dict[str, object]]:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    command = ["skopeo", "inspect", "--config", f"oci:{layout}:{tag}"]
    found = json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)
    assert isinstance(found, dict)
    return found


def test_a_container_of_the_image_serves_every_listed_image(scene: Scene, base: str, tmp_path: Path) -> None:
    assert scene.cli("release", "images.list", "--source", scene.host, "-o", "r.tar").returncode == 0
    done = scene.cli("bake", "r.tar", "--to", "oci:out:v1", "--base", base)
    assert done.returncode == 0, done.stderr

    umoci("unpack", "--image", f"{scene.directory}/out:v1", tmp_path / "bundle")
    with baked_registry(tmp_path / "bundle") as host:
        found = {name: raw_digest(host, name) for name in scene.images}
    assert found == {name: str(image.top) for name, image in scene.images.items()}
    config = config_of(scene.directory / "out", "v1")["config"]
    assert config["Entrypoint"] == ["/usr/bin/docker-registry", "serve", "/etc/regwrap/registry.yml"]
    assert "Volumes" not in config  # an engine would copy the whole storage at each start
    assert "Cmd" not in config


def test_gnu_tar_unpacks_the_layer_to_a_storage_that_is_served(
    scene: Scene, loopback_registry: StartRegistry, tmp_path: Path
) -> None:
    done = scene.cli("bake", scene.ci_root, "--to", "oci:out:v1", "--path", "/srv/images")
    assert done.returncode == 0, done.stderr
    (layer,) = layers_of(scene.directory / "out", "v1")
    said = subprocess.run(["tar", "-xpvf", layer, "-C", tmp_path], check=True, capture_output=True)
    assert said.stderr == b""

    served = loopback_registry(tmp_path / "srv/images").host

    assert {raw_digest(served, name) for name in scene.images} == {str(i.top) for i in scene.images.values()}
    with tarfile.open(layer) as archive:
        members = archive.getmembers()
    assert {(m.mode, m.uid, m.gid, m.mtime) for m in members if m.isdir()} == {(0o755, 0, 0, 0)}
    assert {(m.mode, m.uid, m.gid, m.mtime) for m in members if m.isfile()} == {(0o644, 0, 0, 0)}
    assert Digest.of(layer.read_bytes()).hex == layer.name


@pytest.mark.parametrize("flags", [(), ("--compress",), ("--history",)])
def test_baked_twice_it_is_the_same_image(scene: Scene, base: str, flags: tuple[str, ...]) -> None:
    odd = {"TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": "99"}
    digests = set()
    for tag, environment in (("a", {}), ("b", odd)):
        to = ("--to", f"oci:{tag}:v1", "--base", base)
        done = scene.cli("bake", scene.ci_root, *to, "--json", *flags, env=environment)
        assert done.returncode == 0, done.stderr
        digests.add(json.loads(done.stdout)["digest"])
    assert len(digests) == 1
    assert snapshot(scene.directory / "a") == snapshot(scene.directory / "b")


def test_a_bundle_and_the_storage_it_was_deployed_to_give_the_same_image(scene: Scene) -> None:
    assert scene.cli("release", "images.list", "--source", scene.host, "-o", "r.tar").returncode == 0
    assert scene.cli("deploy", "r.tar", "site").returncode == 0
    digests = {
        json.loads(scene.cli("bake", source, "--to", f"oci:out:{source}", "--json").stdout)["digest"]
        for source in ("r.tar", "site")
    }
    assert len(digests) == 1


def test_a_compressed_layer_unpacks_to_the_same_storage(scene: Scene) -> None:
    assert scene.cli("bake", scene.ci_root, "--to", "oci:out:plain").returncode == 0
    assert scene.cli("bake", scene.ci_root, "--to", "oci:out:gz", "--compress").returncode == 0
    (plain,), (packed,) = layers_of(scene.directory / "out", "plain"), layers_of(scene.directory / "out", "gz")
    unpacked = subprocess.run(["gzip", "-dc", packed], check=True, capture_output=True).stdout
    assert unpacked == plain.read_bytes()
    assert config_of(scene.directory / "out", "gz")["rootfs"] == config_of(scene.directory / "out", "plain")["rootfs"]


def test_a_base_from_a_registry_is_fetched_by_skopeo(scene: Scene, base: str) -> None:
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", base,
         f"docker://{scene.host}/bases/registry:2"],
        cwd=scene.directory, check=True, capture_output=True,
    )  # fmt: skip
    flags = ("--platform", "linux/amd64")
    done = scene.cli("bake", scene.ci_root, "--to", "oci:out:v1", "--base", f"{scene.host}/bases/registry:2", *flags)
    assert done.returncode == 0, done.stderr
    assert len(layers_of(scene.directory / "out", "v1")) == 2


def test_a_tag_that_is_there_is_not_replaced_and_others_stay(scene: Scene) -> None:
    cli = scene.cli
    assert "would bake" in cli("bake", scene.ci_root, "--to", "oci:out:v1", "--dry-run").stdout
    assert not (scene.directory / "out").exists()
    assert cli("bake", scene.ci_root, "--to", "oci:out:v1").returncode == 0
    assert "already there" in cli("bake", scene.ci_root, "--to", "oci:out:v1").stdout
    before = snapshot(scene.directory / "out")
    refused = cli("bake", scene.ci_root, "--to", "oci:out:v1", "--history")
    assert refused.returncode == 2
    assert "another image v1 already" in refused.stderr
    assert snapshot(scene.directory / "out") == before
    assert cli("bake", scene.ci_root, "--to", "oci:out:v2", "--history").returncode == 0
    assert umoci("ls", "--layout", scene.directory / "out").split() == ["v1", "v2"]
    assert not list(scene.directory.glob("regwrap-*"))


def test_a_base_without_a_registry_is_refused_unless_its_program_is_named(scene: Scene) -> None:
    umoci("init", "--layout", scene.directory / "plain")
    umoci("new", "--image", f"{scene.directory}/plain:v1")
    done = scene.cli("bake", scene.ci_root, "--to", "oci:out:v1", "--base", "oci:plain:v1")
    assert done.returncode == 2
    assert "the base image has no registry" in done.stderr
    assert not (scene.directory / "out").exists()
    named = scene.cli("bake", scene.ci_root, "--to", "oci:out:v1", "--base", "oci:plain:v1", "--registry", "/my/reg")
    assert named.returncode == 0, named.stderr
    assert config_of(scene.directory / "out", "v1")["config"]["Entrypoint"] == [
        "/my/reg", "serve", "/etc/regwrap/registry.yml"
    ]  # fmt: skip


@pytest.mark.parametrize("history", [(), ("--history",)])
def test_a_rotten_blob_is_named_and_no_image_is_made(scene: Scene, history: tuple[str, ...]) -> None:
    rotten = next(path for path in scene.ci_root.rglob("data") if path.stat().st_size > 100_000)
    flip(rotten)
    done = scene.cli("bake", scene.ci_root, "--to", "oci:out:v1", *history)
    assert done.returncode == 4
    assert rotten.parent.name in done.stderr
    assert not (scene.directory / "out").exists()


def test_a_history_shows_no_image_and_spares_a_push_its_blobs(
    scene: Scene, loopback_registry: StartRegistry, tmp_path: Path
) -> None:
    assert scene.cli("bake", scene.ci_root, "--to", "oci:out:v1", "--history").returncode == 0
    (layer,) = layers_of(scene.directory / "out", "v1")
    subprocess.run(["tar", "-xf", layer, "-C", tmp_path], check=True)
    root = tmp_path / "var/lib/registry"
    assert not list(root.rglob("_manifests"))
    served = loopback_registry(root, extra={"log": {"accesslog": {"disabled": False}}})
    flags = ("--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests")
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", *flags, f"docker://{scene.host}/app:v1", f"docker://{served.host}/app:v1"],
        check=True, capture_output=True,
    )  # fmt: skip
    asked = served.log.read_text()
    assert asked.count('"HEAD /v2/app/blobs/') == 3  # config and layers
    assert "/blobs/uploads/" not in asked
    assert raw_digest(served.host, "app:v1") == str(scene.images["app:v1"].top)


@pytest.mark.parametrize("flags", [(), ("--compress",)])
def test_a_baked_history_is_the_lower_side_of_a_package(scene: Scene, flags: tuple[str, ...]) -> None:
    cli, base_layer = scene.cli, make_layer("base")
    old = make_storage(scene.directory / "old", dict(list(scene.images.items())[:-2]))
    add_untagged(old, "gone/app", make_image("gone", layers=[base_layer]))
    assert cli("bake", old, "--to", "oci:hist:v1.0", "--history", *flags).returncode == 0
    assert cli("release", "images.list", "--source", scene.host, "-o", "r.tar").returncode == 0
    before = snapshot(scene.directory / "hist")

    for strategy in ("overlay", "auto"):
        done = cli(
            "package", "images.list", "--source", scene.host, "--history", "oci:hist:v1.0", "--strategy", strategy,
            "-o", "again.tar",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert (scene.directory / "r.tar").read_bytes() == (scene.directory / "again.tar").read_bytes()
        assert "from history" in done.stdout
        (brought,) = re.findall(r"([0-9.]+) kB fetched", done.stdout)
        assert float(brought) < 20  # the layer of 300 kB came from the history
    assert snapshot(scene.directory / "hist") == before
    assert not list(scene.directory.rglob("regwrap-*"))


def test_a_damaged_or_wrong_history_is_refused(scene: Scene) -> None:
    cli = scene.cli
    assert cli("bake", scene.ci_root, "--to", "oci:hist:v1", "--history").returncode == 0
    flip(layers_of(scene.directory / "hist", "v1")[0])
    flags = ("--source", scene.host, "-o", "r.tar")
    damaged = cli("package", "images.list", "--history", "oci:hist:v1", *flags)
    assert damaged.returncode == 4
    assert "does not match its digest" in damaged.stderr
    umoci("init", "--layout", scene.directory / "plain")
    umoci("new", "--image", f"{scene.directory}/plain:v1")
    empty = cli("package", "images.list", "--history", "oci:plain:v1", *flags)
    assert empty.returncode == 2
    assert "contains no registry storage" in empty.stderr
    absent = cli("package", "images.list", "--history", "oci:hist:v9", *flags)
    assert absent.returncode == 2
    assert "it has v1" in absent.stderr
    sync = cli("sync", "images.list", "--source", scene.host, "--archive", "oci:hist:v1")
    assert sync.returncode == 2
    assert "can only be the history" in sync.stderr
    assert not (scene.directory / "r.tar").exists()
