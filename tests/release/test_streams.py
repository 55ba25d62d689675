"""Streams that are closed, full, or whose reader went away: the work is done, and the exit code tells the truth."""

import os
from pathlib import Path

import pytest

from tests.builders import make_image, make_storage, put
from tests.bundles import make_bundle
from tests.release.regwrap_cli import Cli, shell

pytestmark = pytest.mark.tools

IMAGES = {f"team/app{number}:v1": make_image(f"app{number}") for number in range(3)}
SIGPIPE = 141


@pytest.fixture
def site(cli: Cli) -> Path:
    make_storage(cli.directory / "store", IMAGES)
    put(cli.directory / "images.list", "".join(f"{name}\n" for name in IMAGES).encode())
    make_bundle(cli.directory / "made", IMAGES).rename(cli.directory / "b.tar")
    return cli.directory


@pytest.mark.parametrize("closed", ["2>&-", "2>&- >/dev/null", ">&-", ">&- 2>&- <&-"])
@pytest.mark.parametrize("command", ["deploy b.tar site", "sync images.list --source store --archive ./site"])
def test_a_closed_stream_changes_nothing_of_the_work(cli: Cli, site: Path, command: str, closed: str) -> None:
    done = shell(cli, f"REGWRAP {command} {closed}")
    assert done.returncode == 0, done.stderr
    assert "3 images" in shell(cli, "REGWRAP verify site").stdout
    files = [path for path in site.rglob("*") if path.is_file() and b"copied" in path.read_bytes()[:4000]]
    assert files == []  # no file got the number of a closed stream


def test_a_reader_of_the_result_that_went_away_is_141_and_not_a_failed_image(cli: Cli, site: Path) -> None:
    """`head -1` may go away after the first line or in the middle of it."""
    for line in ("REGWRAP inspect b.tar --json | true", "REGWRAP list from-registry store | true"):
        assert shell(cli, line).returncode == SIGPIPE, line
    many = "".join(f"team/app0:v1 => other/n{number}:v1\n" for number in range(3000))
    put(site / "many.list", many.encode())
    head = shell(cli, "REGWRAP sync many.list --source store --archive ./new --dry-run | head -1")
    assert head.returncode == SIGPIPE, head.stderr
    assert "Traceback" not in head.stderr
    assert "bug" not in head.stderr


def test_a_reader_of_the_story_that_went_away_ends_no_work(cli: Cli, site: Path) -> None:
    done = shell(cli, "(REGWRAP deploy b.tar site 2>&1 >/dev/null; echo $? > code) | true")
    assert done.returncode in {0, SIGPIPE}
    assert (site / "code").read_text().strip() == "0"
    assert "3 images" in shell(cli, "REGWRAP verify site").stdout


@pytest.mark.parametrize("command", ["inspect b.tar", "list from-registry store", "--help"])
@pytest.mark.usefixtures("site")
def test_a_full_standard_output_is_not_called_a_full_disk(cli: Cli, command: str) -> None:
    done = shell(cli, f"REGWRAP {command} > /dev/full")
    assert done.returncode not in {0, 1, 70}, done.stderr
    assert "standard output" in done.stderr
    assert "disk is full" not in done.stderr


@pytest.mark.usefixtures("site")
def test_a_full_story_changes_nothing(cli: Cli) -> None:
    assert shell(cli, "REGWRAP deploy b.tar site 2> /dev/full").returncode == 0


def test_a_deleted_working_directory_is_named(cli: Cli, site: Path) -> None:
    done = shell(cli, "mkdir gone && cd gone && rmdir ../gone && REGWRAP verify b.tar")
    assert done.returncode == 2
    assert "working directory" in done.stderr
    assert os.fspath(site) not in done.stdout


def test_paths_that_are_not_utf_8_work(cli: Cli, site: Path) -> None:
    name = "d\udce9p\udcf4t"
    deployed = cli("deploy", "b.tar", name)
    assert deployed.returncode == 0, deployed.stderr
    assert "3 images" in cli("verify", name).stdout
    assert cli("package", "images.list", "--history", name, "-o", f"{name}.tar").returncode == 0
    assert (site / f"{name}.tar").is_file()
