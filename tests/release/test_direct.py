"""A bundle straight from a registry: the same bytes as by selection; no archive, no mount; what has come is kept."""

import filecmp
import json
import os
import shlex
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest

from regwrap.core.model import Digest
from regwrap.storage import layout
from tests.builders import Image, flip, make_image, make_layer, make_storage
from tests.conftest import StartRegistry
from tests.faultserver import faulty_proxy
from tests.release.conftest import Scene
from tests.release.regwrap_cli import Cli, shell

pytestmark = pytest.mark.tools


def selected(scene: Scene) -> Path:
    """The bundle of the same list by selection, from an archive that has it all."""
    done = scene.cli("release", "images.list", "--source", scene.host, "--archive", "./full", "-o", "selected.tar")
    assert done.returncode == 0, done.stderr
    return scene.directory / "selected.tar"


def sizes(images: Mapping[str, Image]) -> dict[Digest, int]:
    return {Digest.of(blob): len(blob) for image in images.values() for blob in (*image.blobs, *image.manifests)}


def parts(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.part"))


def test_without_any_archive_it_has_the_bytes_of_a_selection(scene: Scene) -> None:
    done = scene.cli("package", "images.list", "--source", scene.host, "-o", "direct.tar", "--json")
    assert done.returncode == 0, done.stderr
    assert "straight from the source: there is no archive" in done.stderr
    result = json.loads(done.stdout)
    assert result["strategy"] == "direct"
    assert result["brought_bytes"] > 300_000
    assert not scene.archive.exists()
    assert filecmp.cmp(selected(scene), scene.directory / "direct.tar", shallow=False)
    assert parts(scene.directory) == []


def test_a_release_says_which_archive_it_keeps(scene: Scene) -> None:
    """Without --archive it is in the user's home, and grows."""
    kept = scene.cli("release", "images.list", "--source", scene.host, "-o", "r.tar")
    assert f"by the archive {scene.archive}, which keeps the images for the next release" in kept.stderr
    assert scene.archive.is_dir()


def test_what_an_archive_has_is_not_fetched(scene: Scene, tmp_path: Path) -> None:
    wanted = selected(scene)
    some = dict(list(scene.images.items())[:4])
    history = make_storage(tmp_path / "history", some)
    before = sorted(f"{path}" for path in history.rglob("*"))
    args = ("--source", scene.host, "--history", f"{history}", "--strategy", "direct", "-o", "direct.tar", "--json")
    done = scene.cli("package", "images.list", *args)
    assert done.returncode == 0, done.stderr
    assert filecmp.cmp(wanted, scene.directory / "direct.tar", shallow=False)
    there, whole = sizes(some), sizes(scene.images)
    assert json.loads(done.stdout)["brought_bytes"] == sum(whole.values()) - sum(there.values())
    assert [p for p in sorted(f"{path}" for path in history.rglob("*")) if "/.regwrap" not in p] == before


def test_what_is_rotten_in_the_archive_comes_from_the_source(scene: Scene, tmp_path: Path) -> None:
    wanted = selected(scene)
    history = make_storage(tmp_path / "history", dict(scene.images))
    flip(history / layout.blob_path(Digest.of(scene.images["app:v1"].blobs[1])))
    args = ("--source", scene.host, "--history", f"{history}", "--strategy", "direct", "-o", "direct.tar")
    done = scene.cli("package", "images.list", *args)
    assert done.returncode == 0, done.stderr
    assert filecmp.cmp(wanted, scene.directory / "direct.tar", shallow=False)


def test_an_image_that_cannot_be_had_is_named_and_nothing_gets_the_name(scene: Scene) -> None:
    path = scene.directory / "images.list"
    path.write_text(path.read_text() + "app:absent\n")
    done = scene.cli("package", "images.list", "--source", scene.host, "--strategy", "direct", "-o", "direct.tar")
    assert done.returncode == 1
    assert "1 of 9 images could not be fetched; no bundle was written" in done.stderr
    assert "images.list:9" in done.stderr or "line 9" in done.stderr
    assert not (scene.directory / "direct.tar").exists()


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_what_has_come_is_kept_and_said_to_be_only_where_the_next_run_takes_it(scene: Scene, mode: int) -> None:
    """Elsewhere another user could have put it there: the next run would remove it."""
    place = scene.directory / "place"
    place.mkdir()
    place.chmod(mode)
    flip(scene.ci_root / layout.blob_path(Digest.of(scene.images["app:v1"].blobs[1])))
    args = ("--source", scene.host, "--strategy", "direct", "-o", "place/direct.tar", "--config", "once.yaml")
    (scene.directory / "once.yaml").write_text("retry: {attempts: 1}\n")
    done = scene.cli("package", "images.list", *args)
    assert done.returncode == 1, done.stderr
    left = [f"{path.relative_to(scene.directory)}" for path in parts(place)]
    assert len(left) == (mode == 0o755)
    assert ("what has come is kept in" in done.stderr) is bool(left)
    assert all(f"what has come is kept in {name}" in done.stderr for name in left)


def test_a_release_without_an_archive_is_checked_and_keeps_none(scene: Scene) -> None:
    wanted = selected(scene)
    done = scene.cli("release", "images.list", "--source", scene.host, "--no-archive", "-o", "v1.tar", "--report", "r")
    assert done.returncode == 0, done.stderr
    assert filecmp.cmp(wanted, scene.directory / "v1.tar", shallow=False)
    assert not scene.archive.exists()
    assert "no archive" in done.stderr
    assert (scene.directory / "v1.tar.sha256").exists()
    assert len(json.loads((scene.directory / "r").read_text())["images"]) == len(scene.images)
    assert scene.cli("verify", "v1.tar", "--list", "images.list").returncode == 0


def test_a_delta_comes_straight_from_a_registry(scene: Scene) -> None:
    wanted = selected(scene)
    path = scene.directory / "images.list"
    whole = path.read_text()
    path.write_text("".join(whole.splitlines(keepends=True)[:4]))
    base = scene.cli("package", "images.list", "--source", scene.host, "-o", "v1.tar")
    assert base.returncode == 0, base.stderr
    path.write_text(whole)
    args = ("--source", scene.host, "--strategy", "direct", "--since", "v1.tar", "-o", "delta.tar")
    done = scene.cli("package", "images.list", *args)
    assert done.returncode == 0, done.stderr
    assert scene.cli("join", "v1.tar", "delta.tar", "-o", "joined.tar").returncode == 0
    assert filecmp.cmp(wanted, scene.directory / "joined.tar", shallow=False)


def test_into_volumes_and_into_a_pipe_it_has_the_same_bytes(scene: Scene) -> None:
    wanted = selected(scene)
    direct = ("package", "images.list", "--source", scene.host, "-o")
    (scene.directory / "w").mkdir()
    before = sorted(path.name for path in scene.directory.iterdir())
    done = scene.cli(*direct, "v.tar", "--volume-size", "50kB")
    assert done.returncode == 0, done.stderr
    volumes = sorted(scene.directory.glob("v.tar.0*"))
    assert b"".join(volume.read_bytes() for volume in volumes) == wanted.read_bytes()
    made = {path.name for path in scene.directory.iterdir()} - {*before, *(volume.name for volume in volumes)}
    assert made == {"v.tar.json", "v.tar.sha256"}
    released = scene.cli("release", "images.list", "--source", scene.host, "--no-archive", *direct[-1:], "w/v.tar",
                         "--volume-size", "50kB")  # fmt: skip
    assert released.returncode == 0, released.stderr
    for name in sorted(made):  # hashed once there, when they are verified
        assert (scene.directory / "w" / name).read_text() == (scene.directory / name).read_text()
    done = shell(scene.cli, f"REGWRAP {shlex.join([*direct, '-'])} > piped.tar")
    assert done.returncode == 0, done.stderr
    assert filecmp.cmp(wanted, scene.directory / "piped.tar", shallow=False)
    gone = shell(scene.cli, f"REGWRAP {shlex.join([*direct, '-'])} | head -c 1000 > /dev/null")
    assert gone.returncode == 3, gone.stderr
    assert "the reader of the bundle exited" in gone.stderr


@pytest.mark.parametrize("rotten", [False, True])
def test_into_volumes_and_into_a_pipe_what_an_archive_has_is_not_fetched(
    scene: Scene, tmp_path: Path, *, rotten: bool
) -> None:
    """What is rotten there is."""
    wanted = selected(scene).read_bytes()
    some = dict(list(scene.images.items())[:4])
    history = make_storage(tmp_path / "history", some)
    if rotten:
        flip(history / layout.blob_path(Digest.of(scene.images["app:v1"].blobs[1])))
    with faulty_proxy(scene.host) as counted:
        args = ("package", "images.list", "--source", counted.host, "--history", f"{history}", "-o")
        done = scene.cli(*args, "v.tar", "--volume-size", "50kB")
        assert done.returncode == 0, done.stderr
        assert b"".join(volume.read_bytes() for volume in sorted(scene.directory.glob("v.tar.0*"))) == wanted
        done = shell(scene.cli, f"REGWRAP {shlex.join([*args, '-'])} > piped.tar")
        assert done.returncode == 0, done.stderr
        assert (scene.directory / "piped.tar").read_bytes() == wanted
        asked = {path.rpartition("/")[2] for path in counted.sent if "/blobs/" in path}
    there = {f"{Digest.of(blob)}" for image in some.values() for blob in image.blobs}
    again = {f"{Digest.of(scene.images['app:v1'].blobs[1])}"} if rotten else set()
    assert there & asked == again
    assert asked - there


def test_volumes_of_which_an_image_cannot_be_had_are_not_there(scene: Scene) -> None:
    (scene.directory / "images.list").write_text("app:v1\napp:absent\n")
    args = ("--strategy", "direct", "-o", "v.tar", "--volume-size", "50kB")
    done = scene.cli("package", "images.list", "--source", scene.host, *args)
    assert done.returncode == 1
    assert "no bundle was written" in done.stderr
    assert list(scene.directory.glob("v.tar*")) == []


def test_what_an_archive_is_served_with_gives_the_images_by_their_names_there(
    scene: Scene, tmp_path: Path, loopback_registry: StartRegistry
) -> None:
    """Also those that the list takes from elsewhere, and calls by another name."""
    named = f"app:v2 => other/app:2\n{scene.host}/library/tool:1.0 => tools/tool:v1\nmulti/oci:v1\n"
    (scene.directory / "images.list").write_text(named)
    wanted = selected(scene)
    archive = f"http://{loopback_registry(tmp_path / 'archive').host}"
    done = scene.cli("sync", "images.list", "--source", scene.host, "--archive", archive)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(scene.ci_root)
    args = ("--archive", archive, "--source", archive, "--strategy", "direct", "-o", "direct.tar")
    done = scene.cli("package", "images.list", *args)
    assert done.returncode == 0, done.stderr
    assert filecmp.cmp(wanted, scene.directory / "direct.tar", shallow=False)


def large_images() -> dict[str, Image]:
    random = Random(7)
    layers = [make_layer(f"layer-{number}", random.randbytes(3_000_000)) for number in range(6)]
    return {f"big:{number}": make_image(f"big-{number}", layers=[layer]) for number, layer in enumerate(layers)}


def test_what_has_come_before_a_kill_is_not_sent_again(
    tmp_path: Path, cli: Cli, loopback_registry: StartRegistry
) -> None:
    images = large_images()
    server = loopback_registry(make_storage(tmp_path / "ci", images))
    (cli.directory / "images.list").write_text("".join(f"{name}\n" for name in images))
    args = ("package", "images.list", "--strategy", "direct", "-o", "r.tar", "-j", "2", "--source")
    with faulty_proxy(server.host) as slow, faulty_proxy(server.host) as counted:
        slow.rate = 2_000_000
        running = cli.start(*args, slow.host)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and running.poll() is None:
            written = [path.stat().st_blocks * 512 for path in parts(cli.directory)]
            if written and max(written) > 7_000_000:
                break
            time.sleep(0.01)
        assert running.poll() is None
        os.kill(running.pid, signal.SIGKILL)
        running.communicate()
        (left,) = parts(cli.directory)
        done = cli(*args, counted.host)  # by another way: the first may still send to those who are gone
        again = sum(counted.sent.values())
    assert done.returncode == 0, done.stderr
    unique = sum({Digest.of(blob): len(blob) for image in images.values() for blob in image.blobs}.values())
    assert 0 < again < unique - 4_000_000
    assert not left.exists()
    verified = cli("verify", "r.tar", "--list", "images.list")
    assert verified.returncode == 0, verified.stderr


def test_a_limit_of_size_holds_where_there_is_no_archive(scene: Scene) -> None:
    args = ("release", "images.list", "--source", scene.host, "-o", "v1.tar", "--max-size")
    refused = scene.cli(*args, "10kB", "--no-archive")
    assert refused.returncode == 1
    assert "more than the 10.0 kB of --max-size; nothing was written" in refused.stderr
    assert not list(scene.directory.glob("v1.tar*"))
    for archive in ("--no-archive", f"--archive={scene.host}"):  # a registry's directory is not known
        done = scene.cli(*args, "10MB", archive, "--strategy", "direct")
        assert done.returncode == 0, done.stderr
        assert filecmp.cmp(selected(scene), scene.directory / "v1.tar", shallow=False)
