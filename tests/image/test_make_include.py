"""examples/regwrap.mk with GNU make: what is up to date is not made again, what has changed is."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.image.conftest import ROOT
from tests.release.conftest import Scene

pytestmark = pytest.mark.tools


def make(scene: Scene, *args: str) -> "subprocess.CompletedProcess[str]":
    (scene.directory / "Makefile").write_text(f"all: release\ninclude {ROOT}/examples/regwrap.mk\n")
    return subprocess.run(
        ["make", "--no-print-directory", f"REGWRAP={sys.executable} -m regwrap", f"SOURCE={scene.host}", *args],
        cwd=scene.directory,
        env={**scene.cli.environment, "PYTHONPATH": f"{ROOT}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def commands(done: "subprocess.CompletedProcess[str]") -> list[str]:
    """The verbs that make has started."""
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.split(" -m regwrap ")[1].split()[0] for line in done.stdout.splitlines() if " -m regwrap " in line]


def make_newer(path: Path) -> None:
    """As an edit after now would: make compares times."""
    later = time.time() + 2
    os.utime(path, (later, later))


def test_a_bundle_is_made_once_and_again_when_the_list_has_changed(scene: Scene) -> None:
    assert commands(make(scene, "release-v1.1.tar")) == ["release"]
    facts = json.loads((scene.directory / "release-v1.1.json").read_text())
    assert facts["name"] == "v1.1"
    again = make(scene, "release-v1.1.tar")
    assert commands(again) == []
    assert "is up to date" in again.stdout

    images = scene.directory / "images.list"
    images.write_text("app:v1\n")
    make_newer(images)
    assert commands(make(scene, "release-v1.1.tar")) == ["release"]
    assert scene.cli("verify", "release-v1.1.tar", "--list", "images.list").returncode == 0


def test_release_has_the_versions_name_and_is_made_once(scene: Scene) -> None:
    assert commands(make(scene, "VERSION=v2")) == ["release"]
    assert commands(make(scene, "VERSION=v2", "release")) == []
    assert commands(make(scene, "VERSION=v2", "verify")) == ["verify"]
    assert commands(make(scene, "VERSION=v2", "sync")) == ["sync"]
    assert commands(make(scene, "VERSION=v2", "sync")) == []
    assert commands(make(scene, "release", "RELEASE=own.tar", "VERSION=v3")) == ["release"]
    assert json.loads((scene.directory / "own.json").read_text())["name"] == "v3"


def test_the_lock_is_written_and_its_digests_are_verified(scene: Scene) -> None:
    assert commands(make(scene, "VERSION=v1")) == ["release"]
    assert commands(make(scene, "lock")) == ["lock"]
    assert "--list images.lock" in make(scene, "VERSION=v1", "verify").stdout
    lock = scene.directory / "images.lock"
    lock.write_text(lock.read_text().replace(f"{scene.images['app:v1'].top}", "sha256:" + "0" * 64))
    moved = make(scene, "VERSION=v1", "verify")
    assert moved.returncode == 2
    assert "app:v1" in moved.stdout


def test_a_delta_leaves_out_what_the_site_has(scene: Scene) -> None:
    assert commands(make(scene, "VERSION=v1")) == ["release"]
    missing = make(scene, "VERSION=v1", "delta")
    assert missing.returncode == 2
    assert "SINCE is not set" in missing.stderr
    assert commands(make(scene, "VERSION=v2", "delta", "SINCE=release-v1.tar")) == ["release", "release"]
    delta, whole = (scene.directory / f"release-v2{kind}.tar" for kind in (".delta", ""))
    assert delta.stat().st_size < whole.stat().st_size
    assert commands(make(scene, "VERSION=v2", "delta", "SINCE=release-v1.tar")) == []


def test_a_lock_beside_the_list_is_taken_and_its_change_makes_the_bundle_again(scene: Scene) -> None:
    assert scene.cli("lock", "images.list", "--source", scene.host).returncode == 0
    first = make(scene, "release-v1.tar")
    assert first.stdout.count("--locked") == 1
    make_newer(scene.directory / "images.lock")
    assert commands(make(scene, "release-v1.tar")) == ["release"]


def test_another_archive_is_filled_and_packed_from(scene: Scene) -> None:
    assert commands(make(scene, "release-v1.tar")) == ["release"]
    other = f"ARCHIVE={scene.directory}/other"
    assert commands(make(scene, "release-v1.tar", other)) == ["release"]
    assert (scene.directory / "other/docker").is_dir()
    assert commands(make(scene, "release-v1.tar", other)) == []


def test_what_has_failed_is_tried_again(scene: Scene) -> None:
    good = (scene.directory / "images.list").read_text()
    (scene.directory / "images.list").write_text("no/such:v1\n")
    failed = make(scene, "release-v1.tar")
    assert failed.returncode == 2
    assert "no/such:v1" in failed.stderr
    assert not (scene.directory / "release-v1.tar").exists()
    (scene.directory / "images.list").write_text(good)
    assert commands(make(scene, "release-v1.tar")) == ["release"]
