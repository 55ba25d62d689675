"""Bundles and storages as skopeo's directories and OCI layouts, and back, with skopeo itself as a witness."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from regwrap.core.manifest import parse_manifest
from tests.builders import flip, snapshot
from tests.conftest import StartRegistry
from tests.release.conftest import Scene
from tests.release.regwrap_cli import raw_digest

pytestmark = pytest.mark.tools


@pytest.fixture
def released(scene: Scene) -> Scene:
    """With `r.tar` of all images, one of them with one platform only."""
    with (scene.directory / "images.list").open("a") as file:
        file.write("multi/oci:v1 => multi/part:v1 platform=linux/arm64\n")
    done = scene.cli("release", "images.list", "--source", scene.host, "-o", "r.tar", "--archive", "./archive")
    assert done.returncode == 0, done.stderr
    return scene


def skopeo(*args: str | Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    subprocess.run(["skopeo", "--insecure-policy", *args], env=environment, check=True, timeout=60, capture_output=True)


def same_bytes(one: Path, other: Path) -> bool:
    return subprocess.run(["cmp", one, other], check=False).returncode == 0


@pytest.mark.parametrize("form", ["dir", "oci"])
@pytest.mark.parametrize("source", ["r.tar", "archive"])
def test_export_import_and_package_give_the_same_tar(released: Scene, form: str, source: str) -> None:
    cli = released.cli
    for command in (
        ("export", source, "tree", "--format", form),
        ("import", "tree", "back"),
        ("verify", "back", "--list", "images.list"),
        ("package", "images.list", "--history", "back", "-o", "again.tar"),
    ):
        done = cli(*command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert same_bytes(released.directory / "r.tar", released.directory / "again.tar")


def test_exported_images_are_the_release_that_was_signed(released: Scene) -> None:
    cli, directory = released.cli, released.directory
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / "key"], check=True)
    (directory / "signers").write_text(f"release@acme {(directory / 'key.pub').read_text()}")
    for command in (
        ("package", "images.list", "--history", "archive", "-o", "s.tar", "--sign-key", "key", "--name", "acme-1.0"),
        ("export", "s.tar", "tree"),
    ):
        assert cli(*command).returncode == 0, command
    trusting = ("--signers", "signers", "--signature", "s.tar.sig", "--release", "acme-1.0")
    unsigned = cli("import", "tree", "site", "--signers", "signers")
    assert (unsigned.returncode, (directory / "site").exists()) == (2, False)
    assert "--signature FILE" in unsigned.stderr
    good = cli("import", "tree", "site", *trusting)
    assert good.returncode == 0, good.stderr
    assert "signed by release@acme" in good.stderr
    assert "acme-1.0" in cli("releases", "site").stdout
    assert cli("import", "tree", "unnamed", *trusting[:4]).returncode == 4  # another release: it has no name
    shutil.rmtree(directory / "tree/app/sidecar:v1")
    other = cli("import", "tree", "other", *trusting)
    assert (other.returncode, (directory / "other").exists()) == (4, False)
    assert "no signature of" in other.stderr


def test_skopeo_pushes_what_was_exported_with_the_same_digests(
    released: Scene, loopback_registry: StartRegistry, tmp_path: Path
) -> None:
    assert released.cli("export", "r.tar", "tree").returncode == 0
    exported = released.cli("export", "r.tar", "layout", "--format", "oci")
    assert "3 images have docker manifests, such as app/sidecar:v1" in exported.stderr
    host = loopback_registry(tmp_path / "other").host
    whole = [name for name in released.images if "nested" not in name]  # skopeo can't push an index in an index
    flags = ("copy", "--all", "--preserve-digests", "--dest-tls-verify=false")
    for name in whole:
        skopeo(*flags, f"dir:{released.directory}/tree/{name}", f"docker://{host}/{name}")
    oci = [name for name in whole if "docker" not in parse_manifest(released.images[name].raw).media_type]
    for name in oci:
        skopeo(*flags, f"oci:{released.directory}/layout:{name}", f"docker://{host}/oci/{name}")
    expected = {name: str(released.images[name].top) for name in whole}
    assert {name: raw_digest(host, name) for name in whole} == expected
    assert {name: raw_digest(host, f"oci/{name}") for name in oci} == {name: expected[name] for name in oci}


def test_an_export_has_the_files_that_skopeo_writes(scene: Scene, tmp_path: Path) -> None:
    assert scene.cli("export", scene.ci_root, "tree").returncode == 0
    for number, name in enumerate(name for name in scene.images if "nested" not in name):
        copy = tmp_path / f"{number}"
        skopeo(
            "copy", "--all", "--preserve-digests", "--src-tls-verify=false", f"docker://{scene.host}/{name}",
            f"dir:{copy}",
        )  # fmt: skip
        ours = scene.directory / "tree" / name
        assert {path.name: path.read_bytes() for path in ours.iterdir()} == {
            path.name: path.read_bytes() for path in copy.iterdir()
        }


def test_what_skopeo_wrote_is_imported(scene: Scene, loopback_registry: StartRegistry) -> None:
    cli, directory = scene.cli, scene.directory
    source = ("--src-tls-verify=false", "--all")
    skopeo("sync", "--src", "docker", "--dest", "dir", *source, f"{scene.host}/app", directory / "synced")
    skopeo("copy", *source, f"docker://{scene.host}/multi/docker:v1", f"dir:{directory}/single")
    skopeo("copy", *source, f"docker://{scene.host}/multi/oci:v1", f"oci:{directory}/layout:v1")
    for command in (
        ("import", "synced", "back"),
        ("import", "single", "back", "--name", "multi/docker:v1"),
        ("import", "oci:layout", "back", "--name", "multi/oci"),
        ("import", "oci:layout:v1", "back", "--name", "multi/oci"),
        ("verify", "back"),
    ):
        done = cli(*command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    host = loopback_registry(directory / "back").host
    names = ("app:v1", "app:v2", "multi/docker:v1", "multi/oci:v1")
    assert {name: raw_digest(host, name) for name in names} == {name: str(scene.images[name].top) for name in names}


def test_images_of_an_export_share_blobs_among_themselves_and_not_with_the_source(scene: Scene) -> None:
    before = snapshot(scene.ci_root)
    assert scene.cli("export", scene.ci_root, "tree").returncode == 0
    tree = scene.directory / "tree"
    shared = {path.name for path in (tree / "app:v1").iterdir()} & {path.name for path in (tree / "app:v2").iterdir()}
    (blob,) = shared - {"manifest.json", "version"}
    assert (tree / "app:v1" / blob).samefile(tree / "app:v2" / blob)
    stored = {path.stat().st_ino for path in scene.ci_root.rglob("data")}
    assert not stored & {path.stat().st_ino for path in tree.rglob("*") if path.is_file()}
    assert snapshot(scene.ci_root) == before


def test_an_export_twice_is_one_and_other_content_is_refused(scene: Scene) -> None:
    cli = scene.cli
    assert "would write" in cli("export", scene.ci_root, "tree", "--dry-run").stdout
    assert not (scene.directory / "tree").exists()
    assert cli("export", scene.ci_root, "tree").returncode == 0
    assert "already there" in cli("export", scene.ci_root, "tree").stdout
    flip(scene.directory / "tree/app:v1/manifest.json")
    again = cli("export", scene.ci_root, "tree")
    assert again.returncode == 2
    assert "app:v1/manifest.json" in again.stderr
    assert not list(scene.directory.glob("regwrap-*"))


def test_a_rotten_blob_is_named_and_nothing_is_left(released: Scene) -> None:
    cli = released.cli
    assert cli("export", "r.tar", "tree").returncode == 0
    rotten = next(path for path in (released.directory / "tree/app:v2").iterdir() if path.stat().st_size > 100_000)
    flip(rotten)
    done = cli("import", "tree", "back")
    assert done.returncode == 4
    assert rotten.name in done.stderr
    assert not (released.directory / "back/docker").exists()
    flip(next((released.directory / "archive").rglob(f"{rotten.name}/data")))
    done = cli("export", "archive", "tree2")
    assert done.returncode == 4
    assert rotten.name in done.stderr
    assert not (released.directory / "tree2").exists()


def test_what_is_absent_from_a_tree_is_named(released: Scene) -> None:
    assert released.cli("export", "r.tar", "tree").returncode == 0
    tree = released.directory / "tree"
    config = next(
        path for path in (tree / "library/tool:1.0").iterdir() if path.name not in {"manifest.json", "version"}
    )
    config.unlink()
    for path in (tree / "multi/docker:v1").glob("*.manifest.json"):
        path.unlink()
    done = released.cli("import", "tree", "back")
    assert done.returncode == 4
    assert f"library/tool:1.0: blob sha256:{config.name} is absent" in done.stderr
    assert "multi/docker:v1: its index" in done.stderr
    assert not (released.directory / "back").exists()


def test_import_moves_tags_only_when_told_to(scene: Scene) -> None:
    cli, tree = scene.cli, scene.directory / "tree"
    assert cli("export", scene.ci_root, "tree").returncode == 0
    assert cli("import", "tree", "back").returncode == 0
    shutil.rmtree(tree / "app:v1")
    (tree / "app:v2").rename(tree / "app:v1")
    before = snapshot(scene.directory / "back/docker")
    refused = cli("import", "tree", "back")
    assert refused.returncode == 2
    assert "app:v1: is" in refused.stderr
    assert "--replace-tags" in refused.stderr
    assert cli("import", "tree", "back", "--dry-run", "--replace-tags").returncode == 0
    assert snapshot(scene.directory / "back/docker") == before
    moved = cli("import", "tree", "back", "--replace-tags")
    assert "1 replaced" in moved.stdout
    assert cli("verify", "back").returncode == 0


def test_images_without_a_name_are_refused_with_what_to_do(scene: Scene) -> None:
    flags = ("copy", "--src-tls-verify=false", f"docker://{scene.host}/app:v1")
    skopeo(*flags, f"dir:{scene.directory}/single")
    skopeo(*flags, f"oci:{scene.directory}/layout:v1")
    for place in ("single", "layout"):
        done = scene.cli("import", place, "back")
        assert done.returncode == 2
        assert "--name" in done.stderr
    assert scene.cli("import", "no-such", "back").returncode == 2
    (scene.directory / "empty").mkdir()
    assert "has no images" in scene.cli("import", "empty", "back").stderr
    assert scene.cli("import", "single", "single", "--name", "a:b").returncode == 2
