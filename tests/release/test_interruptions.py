"""Killed at any moment: nothing is left running, nothing is half, and the next run just works."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from regwrap.storage.hashing import hash_file
from tests.builders import make_image, make_layer, make_storage, snapshot, storage_problems
from tests.conftest import StartRegistry
from tests.faultserver import faulty_proxy
from tests.release.conftest import Scene
from tests.release.regwrap_cli import Cli, processes_with

pytestmark = pytest.mark.tools

KILLS = int(os.environ.get("REGWRAP_KILLS", "5"))


@pytest.fixture
def big(tmp_path: Path, cli: Cli, loopback_registry: StartRegistry) -> Scene:
    """Images with enough bytes that a signal lands in the middle of the work."""
    shared = make_layer("shared", random.Random(7).randbytes(8_000_000))
    images = {
        f"team/app-{n:02}:v1": make_image(
            f"{n}", layers=[shared, make_layer(f"own-{n}", random.Random(n).randbytes(1_500_000))]
        )
        for n in range(16)
    }
    root = make_storage(tmp_path / "ci", images)
    (cli.directory / "images.list").write_text("".join(f"{name}\n" for name in images))
    return Scene(cli=cli, host=loopback_registry(root).host, ci_root=root, images=images)


def _gone(text: str) -> bool:
    deadline = time.monotonic() + 10
    while processes_with(text):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _kill_at_random(start: Callable[[], "subprocess.Popen[str]"], seconds: float, dice: random.Random) -> None:
    process = start()
    time.sleep(dice.uniform(0.05, seconds))  # the moment is what is random here
    process.kill()
    process.communicate()


def test_kill_9_during_release_leaves_nothing_and_the_next_run_gives_the_same_bytes(big: Scene) -> None:
    cli, dice = big.cli, random.Random(20)
    args = ("release", "images.list", "--source", big.host)
    started = time.monotonic()
    assert cli(*args, "--archive", "./other", "-o", "clean.tar").returncode == 0
    seconds = time.monotonic() - started
    for _ in range(KILLS):
        _kill_at_random(lambda: cli.start(*args, "-o", "r.tar"), seconds, dice)
        assert _gone(f"{big.directory}"), processes_with(f"{big.directory}")
        if (big.directory / "r.tar").exists():
            assert _sha256(big.directory / "r.tar") == _sha256(big.directory / "clean.tar")
        if (big.archive / "docker/registry/v2").is_dir():
            checked = cli("verify", big.archive)
            assert checked.returncode == 0, checked.stdout
    done = cli(*args, "-o", "r.tar")
    assert done.returncode == 0, done.stderr
    assert _sha256(big.directory / "r.tar") == _sha256(big.directory / "clean.tar")
    assert not list(big.directory.glob("*.part"))
    assert sorted(path.name for path in (big.archive / ".regwrap").iterdir()) == ["archive", "lock"]
    assert list((big.directory / "scratch").iterdir()) == []


def test_kill_9_during_deploy_leaves_a_whole_storage_and_the_next_run_is_done(big: Scene) -> None:
    cli, dice = big.cli, random.Random(21)
    assert cli("release", "images.list", "--source", big.host, "-o", "r.tar").returncode == 0
    started = time.monotonic()
    assert cli("deploy", "r.tar", "undisturbed").returncode == 0
    seconds = time.monotonic() - started
    for _ in range(KILLS):
        _kill_at_random(lambda: cli.start("deploy", "r.tar", "site"), seconds, dice)
        if (big.directory / "site/docker/registry/v2").is_dir():
            checked = cli("verify", "site")
            assert checked.returncode == 0, checked.stdout
    done = cli("deploy", "r.tar", "site")
    assert done.returncode == 0, done.stderr
    assert cli("verify", "site", "--list", "images.list").returncode == 0
    assert not (big.directory / "site/.regwrap/deploy").exists()


def test_kill_9_during_gc_leaves_a_sound_storage_and_the_next_run_is_done(cli: Cli, tmp_path: Path) -> None:
    dice = random.Random(22)
    images = {f"team/app-{n % 3}:v{n // 3}": make_image(f"gc-{n}") for n in range(30)}
    kept = {name: image for name, image in images.items() if name.endswith(("v1", "v9"))}
    (cli.directory / "kept.list").write_text("".join(f"{name}\n" for name in kept))
    template = make_storage(tmp_path / "template", images)
    args = ("--keep", "kept.list", "--offline")
    clean = shutil.copytree(template, cli.directory / "clean")
    started = time.monotonic()
    assert cli("gc", "clean", *args).returncode == 0
    seconds = time.monotonic() - started
    for _ in range(KILLS):
        root = shutil.copytree(template, cli.directory / "killed")
        _kill_at_random(lambda: cli.start("gc", "killed", *args), seconds, dice)
        assert storage_problems(root) == set()
        again = cli("gc", "killed", *args)
        assert again.returncode == 0, again.stderr
        assert set(snapshot(root)) == set(snapshot(clean))
        shutil.rmtree(root)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_one_line_and_its_exit_code(big: Scene, signum: signal.Signals, code: int) -> None:
    process = big.cli.start("release", "images.list", "--source", big.host, "-o", "r.tar", "--quiet")
    deadline = time.monotonic() + 60
    while not list((big.directory / "scratch").glob("*/curl-*")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signum)
    _out, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert err.splitlines() == [
        f"regwrap: interrupted ({signum.name}). Child processes were stopped; rerun to continue."
    ]
    assert _gone(f"{big.directory}")
    assert not list(big.directory.glob("r.tar*"))
    left = {path.name for path in (big.archive / ".regwrap").iterdir()}
    assert left - {"sync"} == {"archive", "lock"}
    staged = [path for path in (big.archive / ".regwrap/sync/blobs").rglob("*") if path.is_file()]
    assert [path.name for path in staged if f"sha256:{path.name}" != f"{hash_file(path)}"] == []  # whole ones may stay
    assert list((big.directory / "scratch").iterdir()) == []


def test_a_pull_that_is_interrupted_ten_times_sends_nothing_again(
    cli: Cli, tmp_path: Path, loopback_registry: StartRegistry
) -> None:
    """On a slow line, at random moments, in the middle of layers, by Ctrl-C and by `kill -9`."""
    dice = random.Random(23)
    layers = [make_layer(f"{n}", random.Random(n).randbytes(2_000_000)) for n in range(5)]
    images = {"big:v1": make_image("big", layers=layers)}
    (cli.directory / "images.list").write_text("big:v1\n")
    host = loopback_registry(make_storage(tmp_path / "ci", images)).host
    with faulty_proxy(host) as proxy:
        proxy.rate = 1_000_000
        for _ in range(10):
            process = cli.start("sync", "images.list", "--source", proxy.host, "--archive", "./archive")
            enough, deadline = sum(proxy.sent.values()) + dice.uniform(100_000, 900_000), time.monotonic() + 60
            while sum(proxy.sent.values()) < enough:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(dice.choice([signal.SIGKILL, signal.SIGINT]))
            process.communicate(timeout=30)
        proxy.rate = 0
        done = cli("sync", "images.list", "--source", proxy.host, "--archive", "./archive")
        sent = sum(count for path, count in proxy.sent.items() if "/blobs/" in path)
    assert done.returncode == 0, done.stderr
    # what is on its way through a pipe when it breaks is sent again: 64 KiB of each of five blobs, ten times
    assert sent <= sum(map(len, images["big:v1"].blobs)) + 10 * 5 * 65536
    assert storage_problems(cli.directory / "archive") == set()


def test_a_second_run_on_the_same_archive_waits_and_says_for_whom(big: Scene) -> None:
    first = big.cli.start("sync", "images.list", "--source", big.host)
    deadline = time.monotonic() + 60
    while not (big.archive / ".regwrap/sync").exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    first.send_signal(signal.SIGSTOP)  # so that it surely holds the archive when the second one comes
    second = big.cli.start("sync", "images.list", "--source", big.host)
    assert second.stderr is not None
    told = second.stderr.readline()
    first.send_signal(signal.SIGCONT)
    first.communicate(timeout=60)
    out, _err = second.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0)
    assert f"waiting for another regwrap that holds {big.archive}: process {first.pid} on " in told
    assert "0 copied, 16 already there" in out


def test_a_full_disk_is_named_before_the_first_byte_and_leaves_nothing(big: Scene, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12M", "tmpfs", small], check=True)
    try:
        assert big.cli("sync", "images.list", "--source", big.host).returncode == 0
        packed = big.cli("package", "images.list", "-o", small / "r.tar")
        assert packed.returncode == 3
        assert f"not enough space in {small}" in packed.stderr
        assert big.cli("package", "images.list", "-o", "r.tar").returncode == 0
        deployed = big.cli("deploy", "r.tar", small / "site")
        assert deployed.returncode == 3
        assert "not enough space" in deployed.stderr
        synced = big.cli("sync", "images.list", "--source", big.host, "--archive", small / "archive")
        assert synced.returncode == 3
        assert "not enough space" in synced.stderr
        assert not list(small.rglob("data"))
    finally:
        subprocess.run(["umount", small], check=True)


def test_ctrl_c_while_modules_are_loaded_is_no_traceback(cli: Cli) -> None:
    command = [sys.executable, "-X", "importtime", *cli.command("--version")[1:]]
    for module in ("typer", "regwrap.cli.catalog"):
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cli.directory,
            env=cli.environment,
        )
        assert process.stderr
        assert any(line.rpartition("|")[2].strip().startswith(module) for line in process.stderr)
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=30)
        assert process.returncode in {-signal.SIGINT, 128 + signal.SIGINT, 0}
        assert "Traceback" not in err
