"""A bundle from an overlay: the same bytes as by selection, history untouched, nothing left behind."""

import filecmp
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

import pytest

from regwrap.core.model import Digest
from regwrap.storage import layout
from tests.builders import Image, flip, make_image, make_layer, make_multi_image, make_storage
from tests.conftest import StartRegistry
from tests.release.conftest import Scene, all_kinds
from tests.release.regwrap_cli import Cli, processes_with

pytestmark = pytest.mark.tools


def old_images() -> dict[str, Image]:
    """What an earlier release had: some of the same images, others of the same names, and strangers."""
    kinds = all_kinds()
    same = {name: kinds[name] for name in ("app:v1", "multi/oci:v1", "multi/nested:v1", "app/sidecar/deep:v1")}
    others = {f"old/app-{n}:v0": make_image(f"old-{n}") for n in range(3)}
    return {**same, **others, "app:v0": make_image("before"), "library/tool:1.0": make_image("another tool")}


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that any user may look into, on a real file system; pytest's are root's alone."""
    with TemporaryDirectory(prefix="overlay-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def history(open_directory: Path) -> Path:
    return make_storage(open_directory / "history", old_images())


def package(scene: Scene, history: Path, output: str, *more: str) -> "subprocess.CompletedProcess[str]":
    args = ("--source", scene.host, "--history", f"{history}", "--strategy", "overlay", "-o", output)
    return scene.cli("package", "images.list", *args, *more)


def selected(scene: Scene) -> Path:
    """The bundle of the same list by selection, from an archive that has it all."""
    done = scene.cli("release", "images.list", "--source", scene.host, "-o", "selected.tar")
    assert done.returncode == 0, done.stderr
    return scene.directory / "selected.tar"


def state(root: Path) -> dict[str, tuple[int, ...]]:
    """Everything of each file that a write or a touch would change, times and inodes included."""
    paths = [root, *root.rglob("*")]
    stats = {f"{path.relative_to(root)}": path.lstat() for path in paths}
    return {k: (s.st_ino, s.st_mode, s.st_uid, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for k, s in stats.items()}


def assert_nothing_left(cli: Cli, *places: Path) -> None:
    assert not processes_with(f"{cli.directory}")
    assert f"{cli.directory}" not in Path("/proc/self/mountinfo").read_text()
    for place in (cli.directory, cli.directory / "scratch", *places):
        assert not list(place.glob("regwrap-*")), place


def test_overlay_and_selection_give_the_same_bytes_and_history_is_not_touched(scene: Scene, history: Path) -> None:
    with (scene.directory / "images.list").open("a") as images:
        images.write("multi/oci:v1 => renamed/oci:v1 platform=linux/arm64\n")
    before = state(history)

    done = package(scene, history, "overlay.tar")

    assert done.returncode == 0, done.stderr
    assert filecmp.cmp(selected(scene), scene.directory / "overlay.tar", shallow=False)
    assert state(history) == before
    assert "from history" in done.stdout
    assert "app:v1: linked, all blobs were already there" in done.stderr
    assert "app:v2: copied" in done.stderr
    assert_nothing_left(scene.cli)


def test_only_what_history_lacks_travels(scene: Scene, history: Path, open_directory: Path) -> None:
    """A source without the blobs that history has: they are not even asked for."""
    for name in ("app:v1", "multi/oci:v1"):
        for blob in all_kinds()[name].blobs:
            (scene.ci_root / layout.blob_path(Digest.of(blob))).unlink()
    (scene.directory / "images.list").write_text("app:v1\nmulti/oci:v1\napp/sidecar:v1\n")

    done = package(scene, history, "r.tar", "--upper", f"{open_directory}/upper")

    assert done.returncode == 0, done.stderr
    assert scene.cli("verify", "r.tar", "--list", "images.list").returncode == 0
    assert not (open_directory / "upper").exists()


def test_as_a_plain_user_the_bytes_are_the_same(scene: Scene, history: Path, open_directory: Path) -> None:
    own = open_directory / "nobody"
    own.mkdir()
    os.chown(own, 65534, 65534)
    (own / "images.list").write_text((scene.directory / "images.list").read_text())
    before = state(history)
    # the right to read everywhere is for the interpreter, which may lie in a directory of root's alone
    read = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    command = Cli(own).command(
        "package", "images.list", "--source", scene.host, "--history", history, "--strategy", "overlay", "-o", "r.tar"
    )

    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *read, *command],
        cwd=own,
        env={"PATH": os.environ["PATH"], "HOME": f"{own}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "overlay in a user namespace" in done.stderr
    assert filecmp.cmp(selected(scene), own / "r.tar", shallow=False)
    assert state(history) == before
    assert not list(own.glob("regwrap-*"))


@contextmanager
def mounted(*args: str | Path) -> Iterator[None]:
    subprocess.run(["mount", *args], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", args[-1]], check=True)


def test_history_on_read_only_media(scene: Scene, history: Path, open_directory: Path) -> None:
    expected = selected(scene)
    point, image = open_directory / "point", open_directory / "history.squashfs"
    point.mkdir()
    subprocess.run(["mksquashfs", history, image, "-quiet", "-no-progress"], check=True, capture_output=True)
    with mounted("--bind", "-o", "ro", history, point):
        assert package(scene, point, "bind.tar").returncode == 0
    with mounted("-t", "squashfs", "-o", "loop,ro", image, point):
        assert package(scene, point, "squashfs.tar").returncode == 0
    assert filecmp.cmp(expected, scene.directory / "bind.tar", shallow=False)
    assert filecmp.cmp(expected, scene.directory / "squashfs.tar", shallow=False)


def test_auto_takes_selection_where_all_is_there_else_the_source_and_says_why(scene: Scene, history: Path) -> None:
    args = ("package", "images.list", "--history", f"{history}", "-o", "r.tar")

    alone = scene.cli(*args)
    assert alone.returncode == 1
    assert "app:v2 (line 2): is missing in the archive" in alone.stderr

    helped = scene.cli(*args, "--source", scene.host)
    assert helped.returncode == 0, helped.stderr
    assert f"straight from the source: 3 of 8 listed images cannot be packed from {history}" in helped.stderr
    assert "fetched" in helped.stdout

    streamed = scene.cli("package", "images.list", "--history", history, "--source", scene.host, "-o", "-")
    assert "straight from the source: 3 of 8 listed images cannot be packed" in streamed.stderr

    (scene.directory / "images.list").write_text("app:v1\n")
    there = scene.cli(*args, "--source", scene.host)
    assert there.returncode == 0, there.stderr
    assert "source" not in there.stderr
    assert "fetched" not in there.stdout


def test_rot_in_history_is_brought_again_and_history_stays_as_it_is(scene: Scene, history: Path) -> None:
    blob = history / layout.blob_path(Digest.of(all_kinds()["app:v1"].blobs[1]))
    flip(blob)
    before = state(history)

    done = package(scene, history, "overlay.tar")

    assert done.returncode == 0, done.stderr
    assert "damaged in the history: app:v1: blob" in done.stderr
    assert filecmp.cmp(selected(scene), scene.directory / "overlay.tar", shallow=False)
    assert state(history) == before


def test_an_image_that_can_not_be_had_is_named_and_nothing_is_left(scene: Scene, history: Path) -> None:
    with (scene.directory / "images.list").open("a") as images:
        images.write("no/such:v1\n")
    done = package(scene, history, "r.tar")
    assert done.returncode == 1
    assert "no/such:v1 (line 9)" in done.stderr
    assert not (scene.directory / "r.tar").exists()
    assert_nothing_left(scene.cli)


def test_a_registry_on_the_overlay_that_gives_other_images_ends_it_all(scene: Scene, history: Path) -> None:
    wrong = scene.directory / "wrong/docker-registry"
    wrong.parent.mkdir()
    wrong.write_text(
        "#!/bin/sh\n"
        f"""sed 's#"rootdirectory": "[^"]*"#"rootdirectory": "{wrong.parent}"#' "$2" >"$2.wrong"\n"""
        f"""exec {which("docker-registry")} serve "$2.wrong"\n"""
    )
    wrong.chmod(0o755)
    command = ("package", "images.list", "--source", scene.host, "--history", f"{history}", "--strategy", "overlay")
    done = scene.cli(*command, "-o", "r.tar", env={"PATH": f"{wrong.parent}:{os.environ['PATH']}"})
    assert done.returncode == 4
    assert "the overlay's registry serves" in done.stderr
    assert not list(scene.directory.glob("r.tar*"))
    assert_nothing_left(scene.cli)


def forbidding(scene: Scene, rules: str, history: Path) -> "subprocess.CompletedProcess[str]":
    command = scene.cli.command(
        "package", "images.list", "--source", scene.host, "--history", history, "--strategy", "overlay", "-o", "r.tar"
    )
    return subprocess.run(
        [command[0], "-m", "tests.release.forbidding", rules, "--", *command],
        cwd=scene.directory,
        env={**scene.cli.environment, "PYTHONPATH": f"{Path(__file__).parents[2]}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_seccomp_filter_is_named_and_selection_is_the_way(scene: Scene, history: Path) -> None:
    for rules in ("unshare:EPERM", "mount:EPERM"):
        done = forbidding(scene, rules, history)
        assert done.returncode == 3
        assert "forbidden by a seccomp filter" in done.stderr
        assert "--strategy select" in done.stderr
        assert_nothing_left(scene.cli)


def test_a_sysctl_is_named_and_not_called_a_full_disk(scene: Scene, history: Path) -> None:
    script = 'echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-sys_admin "$@"'
    command = scene.cli.command("package", "images.list", "--source", scene.host, "--history", history)
    command += ["--strategy", "overlay", "-o", "r.tar"]
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", *command],
        cwd=scene.directory,
        env=scene.cli.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "in a user namespace: forbidden by the sysctl user.max_user_namespaces=0" in done.stderr
    assert "--strategy select" in done.stderr
    assert "the disk is full" not in done.stderr


def test_where_the_mark_is_not_taken_old_repositories_are_removed_in_merged(scene: Scene, history: Path) -> None:
    before = state(history)
    done = forbidding(scene, "setxattr:ENOTSUP", history)
    assert done.returncode == 0, done.stderr
    assert "removed in the merged view" in done.stderr
    assert filecmp.cmp(selected(scene), scene.directory / "r.tar", shallow=False)
    assert state(history) == before


def test_places_that_can_not_be_upper_are_named_with_what_to_use(
    scene: Scene, history: Path, open_directory: Path
) -> None:
    on_overlay, plain = open_directory / "merged", open_directory / "plain.img"
    sides = [open_directory / name for name in ("l", "u", "w", "merged", "image")]
    for side in sides:
        side.mkdir()
    options = f"lowerdir={sides[0]},upperdir={sides[1]},workdir={sides[2]}"
    with plain.open("wb") as file:
        file.truncate(32 * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", "-O", "^filetype,^metadata_csum", plain], check=True, capture_output=True)
    with mounted("-t", "overlay", "-o", options, "overlay", on_overlay):
        done = package(scene, history, "r.tar", "--upper", f"{on_overlay}")
        assert done.returncode == 3
        assert f"no overlay works with its upper layer in {on_overlay}" in done.stderr
        assert "is on overlay, which the kernel refuses" in done.stderr
        assert "ext4, xfs, btrfs or tmpfs with --upper" in done.stderr
    with mounted("-o", "loop", plain, sides[4]):
        done = package(scene, history, "r.tar", "--upper", f"{sides[4]}")
        assert done.returncode == 3
        assert f"{sides[4]} is on ext4, which can be mounted and then not be used" in done.stderr
    with mounted("-t", "tmpfs", "-o", "ro", "tmpfs", sides[4]):
        done = package(scene, history, "r.tar", "--upper", f"{sides[4]}")
        assert done.returncode == 2
        assert "Read-only file system" in done.stderr
    inside = package(scene, history, "r.tar", "--upper", f"{history}/docker")
    assert inside.returncode == 2
    assert "is inside the history" in inside.stderr
    assert_nothing_left(scene.cli, on_overlay, sides[4])


def test_a_history_that_an_overlay_would_show_wrongly_is_refused(
    scene: Scene, history: Path, open_directory: Path
) -> None:
    blobs = history / "docker/registry/v2/blobs"
    with mounted("-t", "tmpfs", "tmpfs", blobs / "sha256"):
        submount = package(scene, history, "r.tar")
    blobs.rename(open_directory / "elsewhere")
    blobs.symlink_to(open_directory / "elsewhere")
    link = package(scene, history, "r.tar")
    odd = make_storage(open_directory / "a,b", {"app:v1": make_image("app")})
    comma = package(scene, odd, "r.tar")
    empty = package(scene, open_directory / "l", "r.tar")

    assert [done.returncode for done in (submount, link, comma, empty)] == [2, 2, 2, 2]
    assert f"{blobs}/sha256 is another file system" in submount.stderr
    assert f"{blobs} is a symbolic link" in link.stderr
    assert "has ',' in its path" in comma.stderr
    assert "is not a registry storage" in empty.stderr


def test_images_of_history_alone_need_no_source(scene: Scene, history: Path) -> None:
    (scene.directory / "images.list").write_text("app:v0\nold/app-1:v0 => new/name:v9\n")
    args = ("package", "images.list", "--history", f"{history}")
    assert scene.cli(*args, "--strategy", "overlay", "-o", "r.tar").returncode == 0
    assert scene.cli("verify", "r.tar", "--list", "images.list").returncode == 0


def test_shared_layers_of_many_new_images_come_once(
    cli: Cli, loopback_registry: StartRegistry, tmp_path: Path, history: Path
) -> None:
    shared = make_layer("shared", os.urandom(3_000_000))
    images = {f"new/app-{n}:v1": make_image(f"{n}", layers=[shared, make_layer(f"{n}")]) for n in range(6)}
    images["new/multi:v1"] = make_multi_image("m")
    host = loopback_registry(make_storage(tmp_path / "ci", images)).host
    (cli.directory / "images.list").write_text("".join(f"{name}\n" for name in images))
    args = ("--source", host, "--history", f"{history}", "--strategy", "overlay", "-o", "r.tar", "--json")
    done = cli("package", "images.list", *args)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("copied 3.0 MB") == 1
