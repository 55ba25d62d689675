"""A workspace: a real registry on history and the list, for as long as one stays in it."""

import json
import os
import random
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from tests.builders import make_image, make_storage
from tests.release.conftest import Scene
from tests.release.regwrap_cli import processes_with, raw_digest
from tests.release.test_overlay import assert_nothing_left, history, old_images, open_directory, package, state

pytestmark = pytest.mark.tools

__all__ = ["history", "open_directory"]  # fixtures

KILLS = int(os.environ.get("REGWRAP_KILLS", "5"))


def arguments(scene: Scene, history: Path, *more: str) -> tuple[str, ...]:
    return ("workspace", "images.list", "--source", scene.host, "--history", f"{history}", *more)


def catalog(host: str) -> list[str]:
    with urllib.request.urlopen(f"http://{host}/v2/_catalog", timeout=10) as answer:
        return list(json.load(answer)["repositories"])


def push(scene: Scene, name: str, host: str) -> None:
    args = ["skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--insecure-policy", "--quiet"]
    subprocess.run(
        [*args, f"docker://{scene.host}/{name}", f"docker://{host}/pushed:v1"],
        check=True,
        env=scene.cli.environment,
    )


def test_it_serves_the_list_and_nothing_older_takes_pushes_and_leaves_nothing(
    scene: Scene, history: Path, open_directory: Path
) -> None:
    before = state(history)
    process = scene.cli.start(*arguments(scene, history, "--upper", f"{open_directory}/increment"))
    assert process.stdout is not None
    host = process.stdout.readline().strip()

    assert catalog(host) == sorted({name.rpartition(":")[0] for name in scene.images})
    assert {raw_digest(host, name) for name in scene.images} == {str(i.top) for i in scene.images.values()}
    push(scene, "app:v1", host)
    assert raw_digest(host, "pushed:v1") == raw_digest(scene.host, "app:v1")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)

    assert process.returncode == 0
    assert state(history) == before
    assert not (open_directory / "increment").exists()
    assert_nothing_left(scene.cli)


def test_blobs_of_history_exist_already_for_a_push_into_a_listed_repository(scene: Scene, history: Path) -> None:
    """A push that sends anything leaves `_uploads` in the repository."""
    make_storage(scene.ci_root, {"app:v0": old_images()["app:v0"]})
    copy = "skopeo copy --quiet --insecure-policy --src-tls-verify=false --dest-tls-verify=false"
    script = f"""
        {copy} docker://{scene.host}/app:v0 docker://$REGWRAP_REGISTRY/app:v0
        {copy} docker://{scene.host}/app:v0 docker://$REGWRAP_REGISTRY/stranger:v0
        cd "$REGWRAP_STORAGE/docker/registry/v2/repositories"; find . -name _uploads; ls app/_manifests/tags
        """
    done = scene.cli(*arguments(scene, history, "--", "sh", "-ec", script))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["./stranger/_uploads", "v0", "v1", "v2"]


def test_a_command_in_it_can_push_and_package_and_its_exit_code_is_passed_on(scene: Scene, history: Path) -> None:
    make_storage(scene.ci_root, {"extra:v1": make_image("extra")})
    (scene.directory / "more.list").write_text("app:v1\npushed:v1\n")
    regwrap = " ".join(scene.cli.command())
    script = f"""
        skopeo copy --quiet --insecure-policy --src-tls-verify=false --dest-tls-verify=false \
            docker://{scene.host}/extra:v1 docker://$REGWRAP_REGISTRY/pushed:v1
        {regwrap} package more.list --strategy select --archive "$REGWRAP_STORAGE" -o more.tar
        read -r line; echo "read $line"; exit 7
        """
    done = scene.cli(*arguments(scene, history, "--", "sh", "-ec", script), stdin="something\n")
    assert done.returncode == 7, done.stderr
    assert "read something" in done.stdout
    checked = scene.cli("verify", "more.tar", "--list", "more.list")
    assert checked.returncode == 0, checked.stdout
    assert_nothing_left(scene.cli)


def test_a_command_that_is_not_there_is_said_so(scene: Scene, history: Path) -> None:
    done = scene.cli(*arguments(scene, history, "--", "no-such-program"))
    assert done.returncode == 2
    assert "no-such-program: command not found" in done.stderr
    assert_nothing_left(scene.cli)


def test_sigterm_ends_the_command_and_all_else(scene: Scene, history: Path) -> None:
    process = scene.cli.start(*arguments(scene, history, "--", "sh", "-c", "echo ready; exec sleep 1000"))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 143
    assert_nothing_left(scene.cli)


def test_a_registry_that_dies_is_not_waited_for(scene: Scene, history: Path) -> None:
    process = scene.cli.start(*arguments(scene, history))
    assert process.stdout is not None
    process.stdout.readline()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    _out, err = process.communicate(timeout=20)
    assert process.returncode == 3
    assert "the server exited" in err
    assert_nothing_left(scene.cli)


def wait_until_gone(text: str) -> None:
    deadline = time.monotonic() + 10
    while processes_with(text):
        assert time.monotonic() < deadline, processes_with(text)
        time.sleep(0.02)


def test_kill_9_leaves_no_mount_and_no_process_and_the_next_run_clears_the_disk(
    scene: Scene, history: Path, open_directory: Path
) -> None:
    dice, before = random.Random(5), state(history)
    started = time.monotonic()
    assert package(scene, history, "clean.tar").returncode == 0
    seconds = time.monotonic() - started
    upper, left = open_directory / "increment", set[str]()
    for number in range(KILLS):
        process = scene.cli.start(
            *("package", "images.list", "--source", scene.host, "--history", f"{history}"),
            *("--strategy", "overlay", "-o", "r.tar", "--upper", f"{upper}"),
        )
        wait_for_sides(upper)
        if number:  # the first at once, so that surely something is left; the moment of the others is what is random
            time.sleep(dice.uniform(0, 0.6 * seconds))
        process.kill()
        process.communicate()
        wait_until_gone(f"{scene.directory}")
        assert f"{upper}" not in Path("/proc/self/mountinfo").read_text()
        assert state(history) == before
        left |= {line for path in scene.directory.glob("scratch/*/beside") for line in path.read_text().splitlines()}
    # another directory for the increment: what the killed runs left is found all the same
    done = package(scene, history, "r.tar")
    assert done.returncode == 0, done.stderr
    assert (scene.directory / "r.tar").read_bytes() == (scene.directory / "clean.tar").read_bytes()
    assert left
    assert not [line for line in left if Path(line).exists()]
    assert_nothing_left(scene.cli, *([upper] if upper.exists() else []))


def wait_for_sides(place: Path) -> None:
    deadline = time.monotonic() + 60
    while not list(place.glob("regwrap-*/merged")):
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_leaves_nothing(scene: Scene, history: Path, signum: signal.Signals) -> None:
    process = scene.cli.start(
        *("package", "images.list", "--source", scene.host, "--history", f"{history}"),
        *("--strategy", "overlay", "-o", "r.tar"),
    )
    wait_for_sides(scene.directory)
    process.send_signal(signum)
    _out, err = process.communicate(timeout=20)
    assert process.returncode == 128 + signum, err
    wait_until_gone(f"{scene.directory}")
    assert_nothing_left(scene.cli)
