"""A bundle in volumes, in several directories: every command takes it, and names what is wrong with one."""

import json
import shutil
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest

from tests.builders import flip, make_image, make_layer, make_storage, snapshot
from tests.bundles import make_bundle
from tests.conftest import StartRegistry
from tests.release.regwrap_cli import Cli

pytestmark = pytest.mark.tools

_LARGE = make_layer("large", Random(3).randbytes(200_000))
IMAGES = {"team/app:v1": make_image("app", layers=[_LARGE]), "team/db:v1": make_image("db")}
_SIZE = 100_000
_MEDIA = ("--volumes-from", "usb1", "--volumes-from", "usb2")
_DAMAGED = 4
# with what each command would have to read all of the bundle
COMMANDS = {
    "deploy": ("deploy", "v.tar", "new"),
    "deploy-dry": ("deploy", "v.tar", "new", "--dry-run"),
    "verify": ("verify", "v.tar"),
    "verify-list": ("verify", "site", "--list", "v.tar"),
    "verify-base": ("verify", "whole.tar", "--base", "v.tar"),
    "push": ("push", "v.tar", "HOST/p", "--verify"),
    "serve": ("serve", "v.tar", "--dry-run", "--verify"),
    "inspect": ("inspect", "v.tar"),
    "bake": ("bake", "v.tar", "--to", "oci:baked:v1"),
    "export": ("export", "v.tar", "exported"),
    "diff": ("diff", "v.tar", "whole.tar"),
    "join": ("join", "v.tar", "delta.tar", "-o", "joined.tar"),
    "releases": ("releases", "site", "--adopt", "v.tar"),
    "gc": ("gc", "site", "--keep", "v.tar", "--offline"),
    "sync": ("sync", "v.tar", "--source", "./site", "--archive", "./archive"),
    "lock": ("lock", "v.tar", "--source", "./site", "-o", "v.lock"),
    "package": ("package", "v.tar", "--history", "./site", "-o", "again.tar"),
    "package-since": ("package", "images.list", "--history", "./site", "--since", "v.tar", "-o", "again.tar"),
    "release": ("release", "v.tar", "--source", "./site", "--archive", "./archive", "-o", "again.tar"),
}
_HASHING = ("deploy", "verify", "push", "serve", "bake", "export", "join")


@pytest.fixture
def media(cli: Cli, tmp_path: Path) -> Sequence[Path]:
    """The volumes of v.tar, in two directories by turns; beside them what else the commands take."""
    directory = cli.directory
    whole = make_bundle(tmp_path / "made", IMAGES)
    shutil.copy(whole, directory / "whole.tar")
    make_storage(directory / "site", IMAGES)
    (directory / "images.list").write_text("".join(f"{name}\n" for name in IMAGES))
    made = cli("package", "images.list", "--history", "./site", "--since", "whole.tar", "-o", "delta.tar")
    assert made.returncode == 0, made.stderr
    data = whole.read_bytes()
    parts = [data[start : start + _SIZE] for start in range(0, len(data), _SIZE)]
    paths = [directory / f"usb{number % 2 + 1}/v.tar.{number + 1:03}" for number in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(part)
    sums = zip(paths, parts, strict=True)
    (directory / "usb1/v.tar.sha256").write_text("".join(f"{sha256(d).hexdigest()}  {p.name}\n" for p, d in sums))
    return paths


def words(name: str, host: str = "127.0.0.1:1") -> list[str]:
    return [*(word.replace("HOST", host) for word in COMMANDS[name]), *_MEDIA]


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.usefixtures("media")
def test_each_command_takes_volumes_out_of_several_directories(
    cli: Cli, name: str, tmp_path: Path, loopback_registry: StartRegistry
) -> None:
    host = loopback_registry(make_storage(tmp_path / "registry", {})).host if name == "push" else ""
    done = cli(*words(name, host))
    assert done.returncode == 0, done.stderr
    if name in {"join", "package", "release"}:
        made = cli.directory / ("joined.tar" if name == "join" else "again.tar")
        assert made.read_bytes() == (cli.directory / "whole.tar").read_bytes()


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_names_the_volume_that_is_missing_doubled_or_of_another_bundle(
    cli: Cli, name: str, media: Sequence[Path]
) -> None:
    before, second = snapshot(cli.directory / "site"), media[1].read_bytes()
    media[1].unlink()
    missing = cli(*words(name))
    assert missing.returncode == 2, missing.stderr
    assert f"v.tar lacks 1 of its {len(media)} volumes: v.tar.002" in missing.stderr
    media[1].write_bytes(second[:-1])
    foreign = cli(*words(name))
    assert foreign.returncode == _DAMAGED, foreign.stderr
    assert f"usb2/v.tar.002: has {_SIZE - 1:,} bytes instead of {_SIZE:,}" in foreign.stderr
    media[1].write_bytes(second)
    shutil.copy(media[1], media[0].parent)
    doubled = cli(*words(name))
    assert doubled.returncode == 2, doubled.stderr
    assert "v.tar.002 is there twice: usb1/v.tar.002 and usb2/v.tar.002" in doubled.stderr
    assert snapshot(cli.directory / "site") == before


@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("name", _HASHING)
def test_each_command_that_reads_all_of_it_names_the_volume_that_is_damaged(
    cli: Cli, name: str, media: Sequence[Path], tmp_path: Path, loopback_registry: StartRegistry, *, sums: bool
) -> None:
    if not sums:  # then the bundle itself says which of its bytes are wrong
        (cli.directory / "usb1/v.tar.sha256").unlink()
    host = loopback_registry(make_storage(tmp_path / "registry", {})).host if name == "push" else ""
    flip(media[1])  # in the large layer
    if name == "join":  # which needs nothing of the base but what the delta lacks
        assert json.loads(cli("inspect", "delta.tar", "--json").stdout)["required"] > 0
    done = cli(*words(name, host))
    assert done.returncode == _DAMAGED, done.stderr
    assert "usb2/v.tar.002" in done.stderr + done.stdout


@pytest.mark.usefixtures("media")
@pytest.mark.parametrize(("name", "facts"), [("v1.2", "v1.2.release.json"), ("v1.2.tar", "v1.2.json")])
def test_a_release_in_volumes_is_read_whatever_its_name_ends_in(cli: Cli, name: str, facts: str) -> None:
    """What says which volumes there are is not the file of the release's facts."""
    made = ("release", "images.list", "--source", "./site", "--archive", "./archive", "-o", name)
    for _again in range(2):
        done = cli(*made, "--volume-size", "100kB")
        assert done.returncode == 0, done.stderr
    second = (cli.directory / f"{name}.002").read_bytes()
    for command in (("verify", name), ("deploy", name, "new"), ("inspect", name)):
        done = cli(*command)
        assert done.returncode == 0, done.stderr
    assert json.loads((cli.directory / facts).read_text())["images"] == len(IMAGES)
    (cli.directory / f"{name}.002").unlink()
    again = cli(*made, "--volume-size", "100kB", "--volume", "2")
    assert again.returncode == 0, again.stderr
    assert (cli.directory / f"{name}.002").read_bytes() == second
    package = cli("package", "images.list", "--archive", "./archive", "-o", name)
    assert package.returncode == 0, package.stderr
    assert not (cli.directory / facts).exists()
