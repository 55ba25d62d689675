"""examples/object-storage with real programs: rclone serves a bucket and mounts it, docker-registry writes into it."""

import filecmp
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import pytest

from regwrap.core.model import Digest
from regwrap.storage import layout
from tests.bucket import Bucket, program_path, served_bucket
from tests.builders import Image, flip, make_image, make_layer, make_multi_image, make_storage, snapshot
from tests.image.conftest import ROOT
from tests.registry import served_loopback
from tests.release.regwrap_cli import Cli, processes_with

pytestmark = pytest.mark.tools
_COUNTED: Final = re.compile(
    r"^(package|verify): (\d+) requests to the bucket so far, (\d+) bytes of files read$", re.M
)


@dataclass(frozen=True)
class Recipe:
    """The recipe beside a bucket of its own. `source` serves `images`."""

    bucket: Bucket
    source: str
    images: dict[str, Image]
    directory: Path

    @property
    def scratch(self) -> Path:
        """What the recipe has temporarily lies in it, and nothing else does."""
        return self.directory / "tmp"

    def __call__(
        self, *options: str, place: str, images: str = "", at_package: str = ":", **settings: str
    ) -> "subprocess.CompletedProcess[str]":
        """Makes acme-1.0.tar in the directory `place`. `at_package` is done by a shell before `regwrap package`."""
        directory = self.directory / place
        directory.mkdir()
        (directory / "images.list").write_text(images or listed(self.images))
        regwrap = directory / "regwrap"
        regwrap.write_text(
            f'#!/bin/sh\n[ "$1" != package ] || {{ {at_package}; }}\nexec "{sys.executable}" -m regwrap "$@"\n'
        )
        regwrap.chmod(0o755)
        environment = {"PATH": program_path(), "HOME": f"{self.directory}", "TMPDIR": f"{self.scratch}"}
        # what docker-registry would end with
        environment |= {"PYTHONPATH": f"{ROOT}", "AWS_CA_BUNDLE": "/absent", "REGISTRY_STORAGE": "/absent"}
        return subprocess.run(
            [ROOT / "examples/object-storage/run.sh", *options, "images.list", self.source, "acme-1.0"],
            cwd=directory,
            env={**environment, **self.bucket.settings, "REGWRAP": f"{regwrap}", **settings},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def left(self) -> list[str]:
        """What still runs, or is mounted."""
        mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if f"{self.scratch}" in line]
        return [*processes_with(f"{self.scratch}/"), *mounts]


def some_images() -> dict[str, Image]:
    base = make_layer("base", Random(1).randbytes(900_000))
    return {
        "app:v1": make_image("app", layers=[base, make_layer("app-1", Random(2).randbytes(300_000))]),
        "app/worker:v1": make_image("worker", kind="docker", layers=[base, make_layer("worker")]),
        "multi/app:v1": make_multi_image("multi"),
        "other:v1": make_image("other"),
    }


def listed(images: Mapping[str, Image]) -> str:
    """All of them; one gets another name in the archive."""
    return "".join(f"{name}\n" for name in images).replace("other:v1", "other:v1 => vendor/other:v1")


@pytest.fixture
def recipe(tmp_path: Path) -> Iterator[Recipe]:
    images = some_images()
    (tmp_path / "tmp").mkdir()
    ci = make_storage(tmp_path / "ci", images)
    with served_loopback(ci, scratch=tmp_path / "ci-registry") as source, served_bucket(tmp_path) as bucket:
        yield Recipe(bucket, source.host, images, tmp_path)


def of_a_directory(recipe: Recipe, cli: Cli) -> Path:
    """The bundle of the same images out of an archive on a disk."""
    (cli.directory / "images.list").write_text(listed(recipe.images))
    for command in (
        ("sync", "images.list", "--source", recipe.source),
        ("package", "images.list", "--name", "acme-1.0", "-o", "acme-1.0.tar"),
    ):
        done = cli(*command)
        assert done.returncode == 0, done.stderr
    return cli.directory / "acme-1.0.tar"


def packed_blobs(images: Mapping[str, Image]) -> dict[Digest, bytes]:
    return {Digest.of(blob): blob for image in images.values() for blob in (*image.blobs, *image.manifests)}


def test_a_bundle_out_of_a_bucket_is_that_of_a_disk_and_each_byte_is_read_once(recipe: Recipe, cli: Cli) -> None:
    look = 'grep "$4" /proc/self/mounts >mounts; touch "$4/new" 2>touched'
    done = recipe(place="mounted", at_package=look)
    assert done.returncode == 0, done.stdout + done.stderr
    assert recipe.left() == []
    mounted, requests = recipe.directory / "mounted", recipe.bucket.proxy.agents.copy()
    assert re.search(r"^bucket:archive \S+ fuse\.rclone ro,", (mounted / "mounts").read_text())
    assert "Read-only file system" in (mounted / "touched").read_text()
    assert {name for name in requests if name.startswith("rclone")} <= {"rclone GET", "rclone HEAD"}

    # what the recipe counts is what the bucket counts
    counted = {what: (int(number), int(size)) for what, number, size in _COUNTED.findall(done.stdout)}
    assert counted["verify"][0] == requests["rclone GET"] + requests["rclone HEAD"]
    # once by package, once by verify. On a busy machine rclone may jump to the end of a file and back: it reads no byte
    # more for that, though the bucket sends some
    packed = sum(map(len, packed_blobs(recipe.images).values()))
    by_package, by_both = counted["package"][1], counted["verify"][1]
    assert packed <= by_package <= 1.05 * packed
    assert packed <= by_both - by_package <= 1.05 * packed
    assert by_both <= sum(size for path, size in recipe.bucket.proxy.sent.items() if "x-id=GetObject" in path)

    straight = recipe("--direct", place="direct")
    assert straight.returncode == 0, straight.stdout + straight.stderr
    for other in (recipe.directory / "direct/acme-1.0.tar", of_a_directory(recipe, cli)):
        assert filecmp.cmp(mounted / "acme-1.0.tar", other, shallow=False)


def test_damage_in_the_bucket_is_found_through_the_mount_and_nothing_is_written(recipe: Recipe) -> None:
    make_storage(recipe.bucket.root, recipe.images)
    damaged = Digest.of(recipe.images["other:v1"].blobs[-1])
    flip(recipe.bucket.root / layout.blob_path(damaged))
    before = snapshot(recipe.bucket.root)
    done = recipe(place="damaged", images="app:v1\n")
    assert done.returncode == 4
    assert str(damaged) in done.stdout + done.stderr
    assert "package: " in done.stdout
    assert snapshot(recipe.bucket.root) == before
    assert recipe.left() == []


def test_nothing_runs_or_is_mounted_after_the_recipe_was_killed(recipe: Recipe) -> None:
    killed = recipe(
        place="killed", images="other:v1\n", at_package='grep "$4" /proc/self/mounts >mounts; kill -9 $PPID'
    )
    assert killed.returncode == -9
    assert (recipe.directory / "killed/mounts").read_text()
    deadline = time.monotonic() + 30
    while recipe.left() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert recipe.left() == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"S3_BUCKET": ""}, "S3_BUCKET is not set"),
        ({"S3_BUCKET": "absent"}, "NoSuchBucket"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "SignatureDoesNotMatch"),
        ({"REGWRAP": "/absent/regwrap"}, "/absent/regwrap is missing"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_copied(recipe: Recipe, settings: dict[str, str], said: str) -> None:
    done = recipe(place="refused", **settings)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.splitlines()[-1].startswith("  ")  # what to do
    assert recipe.left() == []
    assert list(recipe.scratch.iterdir()) == []
