"""All that makes a release easy to carry, at once: a signed delta, straight from a registry, in volumes, by a pipe."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from regwrap.core.model import Digest
from regwrap.storage import layout
from tests.builders import flip, make_image, make_storage, snapshot
from tests.release.conftest import Scene
from tests.release.regwrap_cli import shell

pytestmark = pytest.mark.tools
_ON_SITE = 4  # images of the list that the site has
_SIGNED = "--signers signers --signature delta.tar.sig"
_DAMAGED = 4


@dataclass(frozen=True)
class Carried:
    """`site` has what the delta `delta.tar` was made since; of the delta there are only volumes."""

    scene: Scene

    @property
    def site(self) -> Path:
        return self.scene.directory / "site"

    def state(self) -> object:
        """All of it, but who held its lock last."""
        return {name: what for name, what in snapshot(self.site).items() if name != ".regwrap/lock"}

    @property
    def volumes(self) -> list[Path]:
        return sorted(self.scene.directory.glob("delta.tar.0*"))

    def deploy(self, sender: str, options: str = _SIGNED) -> "subprocess.CompletedProcess[str]":
        return shell(self.scene.cli, f"{sender} | REGWRAP deploy - site {options}")


@pytest.fixture
def carried(scene: Scene) -> Carried:
    lines = (scene.directory / "images.list").read_text().splitlines(keepends=True)
    (scene.directory / "old.list").write_text("".join(lines[:_ON_SITE]))
    for name in ("key", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", scene.directory / name], check=True)
        public = (scene.directory / f"{name}.pub").read_text()
        (scene.directory / ("signers" if name == "key" else "strangers")).write_text(f"vendor@acme {public}")
    made = scene.cli("package", "old.list", "--source", scene.host, "--strategy", "direct", "-o", "v1.tar")
    assert made.returncode == 0, made.stderr
    args = ("--strategy", "direct", "--since", "v1.tar", "--volume-size", "60kB", "--sign-key", "key")
    made = scene.cli("release", "images.list", "--source", scene.host, "-o", "delta.tar", *args)
    assert made.returncode == 0, made.stderr
    assert scene.cli("deploy", "v1.tar", "site").returncode == 0
    return Carried(scene)


def test_a_signed_delta_in_volumes_goes_through_a_pipe_into_a_site(carried: Carried) -> None:
    scene = carried.scene
    assert not scene.archive.exists()
    assert not (scene.directory / "delta.tar").exists()
    assert len(carried.volumes) > 1
    done = carried.deploy("cat delta.tar.0*")
    assert done.returncode == 0, done.stderr
    assert "signed by vendor@acme" in done.stderr
    checked = scene.cli("verify", "site", "--list", "images.list", "--exact")
    assert checked.returncode == 0, checked.stderr
    joined = scene.cli("join", "v1.tar", "delta.tar", "-o", "joined.tar")
    assert joined.returncode == 0, joined.stderr
    assert scene.cli("verify", "joined.tar", "--list", "images.list", "--exact").returncode == 0


def test_what_is_wrong_with_it_is_refused_and_nothing_changed(carried: Carried) -> None:
    directory, before = carried.scene.directory, carried.state()
    strange = "--signers strangers --signature delta.tar.sig"
    shutil.copy(directory / "delta.tar.002", directory / "turned")
    flip(directory / "turned")
    first = bytearray((directory / "delta.tar.001").read_bytes())
    first[first.index(carried.scene.images["multi/oci:v1"].blobs[0])] ^= 1
    (directory / "turned.first").write_bytes(first)
    for sender, options, said in (
        ("cat delta.tar.0*", strange, "is no signature of"),
        ("cat delta.tar.0*", "--signers signers", "--signature FILE"),
        ("cat v1.tar", _SIGNED, "is no signature of"),
        ("cat delta.tar.0* | head -c 100000", _SIGNED, "was cut off: 100,000 of"),
        ("cat delta.tar.001", _SIGNED, "was cut off: 60,000 of"),
        ("true", _SIGNED, "no bundle came"),
        ("cat delta.tar.001 turned $(ls delta.tar.0* | tail -n +3)", _SIGNED, "is not as regwrap writes it"),
        ("cat turned.first $(ls delta.tar.0* | tail -n +2)", _SIGNED, "does not match its digest"),
        ("cat delta.tar.001 delta.tar.003", _SIGNED, "is not as regwrap writes it"),
    ):
        done = carried.deploy(sender, options)
        assert done.returncode in {2, _DAMAGED}, (sender, done)
        assert said in done.stderr, (sender, done.stderr)
        assert carried.state() == before, sender


def test_a_site_that_lacks_what_it_requires_is_told_before_the_bytes_come(carried: Carried) -> None:
    done = shell(carried.scene.cli, f"cat delta.tar.0* | REGWRAP deploy - empty {_SIGNED}")
    assert done.returncode == 1, done.stderr
    assert "requires" in done.stderr
    assert "blobs of its images" not in done.stdout
    assert not (carried.scene.directory / "empty/docker").exists()


@pytest.mark.parametrize("strategy", ["direct", "overlay", "select"])
def test_what_goes_into_a_pipe_is_signed_before_who_reads_it_asks(carried: Carried, strategy: str) -> None:
    """One pass, where both ends see the same file."""
    cli, directory = carried.scene.cli, carried.scene.directory
    package = f"REGWRAP package images.list --source {carried.scene.host} --sign-key key --signature piped.sig -o -"
    if strategy != "direct":
        assert cli("sync", "images.list", "--source", carried.scene.host).returncode == 0
    done = carried.deploy(f"{package} --strategy {strategy}", "--signers signers --signature piped.sig")
    assert done.returncode == 0, done.stderr
    assert "signed by vendor@acme" in done.stderr
    assert cli("verify", "site", "--list", "images.list").returncode == 0
    assert (directory / "piped.sig").exists()


@pytest.mark.parametrize("reader", ["head -c 3000", "REGWRAP deploy - site --signers strangers --signature piped.sig"])
def test_the_signature_of_what_did_not_go_through_goes_again(carried: Carried, reader: str) -> None:
    cli, directory = carried.scene.cli, carried.scene.directory
    package = "REGWRAP package big.list --history ./big --sign-key key --signature piped.sig -o -"
    make_storage(directory / "big", {"big:1": make_image("big", layers=[Random(1).randbytes(9_000_000)])})
    (directory / "big.list").write_text("big:1\n")
    done = shell(cli, f"{package} | {reader} > read")
    assert done.returncode != 0
    assert "the reader of the bundle exited after" in done.stderr
    assert not (directory / "piped.sig").exists()
    flip(directory / "big" / layout.blob_path(Digest.of(Random(1).randbytes(9_000_000))))
    rotten = shell(cli, f"{package} > read")
    assert rotten.returncode == _DAMAGED, rotten.stderr
    assert not (directory / "piped.sig").exists()
