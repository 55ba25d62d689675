"""What a user meets first: the help with its examples, how fast it is there, completions, the man page."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from regwrap.cli.catalog import COMMANDS, GROUPS, Entry
from tests.builders import make_storage
from tests.conftest import StartRegistry
from tests.release.conftest import Scene
from tests.release.regwrap_cli import Cli

pytestmark = pytest.mark.tools

MANIFESTS = """
apiVersion: apps/v1
kind: Deployment
spec: {template: {spec: {containers: [{image: team/app:v1}]}}}
"""


# --- what is imported


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_nothing_heavy_is_imported_where_nothing_is_done(cli: Cli, option: str) -> None:
    """No command, no program, no network: the rest of a start is Python's and typer's own."""
    text = (
        "import sys\nsys.argv = ['regwrap', sys.argv[1]]\nfrom regwrap.cli.program import main\n"
        "try:\n    main()\nexcept SystemExit:\n    print('modules:', *sorted(sys.modules))"
    )
    command = [sys.executable, "-c", text, option]
    done = subprocess.run(command, env=cli.environment, capture_output=True, text=True, check=True, timeout=60)
    modules = set(done.stdout.partition("modules: ")[2].split())
    own = {name for name in modules if name.partition(".")[0] == "regwrap"}
    assert own == {"regwrap", "regwrap.cli", "regwrap.cli.app", "regwrap.cli.catalog", "regwrap.cli.program",
                   "regwrap.errors"}  # fmt: skip
    assert not modules & {"sh", "tenacity", "urllib3", "yaml", "rich", "pydantic", "asyncio", "ssl", "http.client"}


def test_the_version_is_one_line(cli: Cli) -> None:
    assert re.fullmatch(r"regwrap \d+\.\d+\.\d+\n", cli("--version").stdout)


# --- the help


@dataclass(frozen=True)
class Shell:
    """A shell in a directory where a release is prepared; `regwrap` is on its path."""

    directory: Path
    environment: dict[str, str]

    def __call__(self, command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", command],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def start(self, command: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def shell(scene: Scene, loopback_registry: StartRegistry, tmp_path: Path) -> Shell:
    """Two registries called cicd and harbor, a storage, an archive, a list, manifests."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "regwrap"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m regwrap "$@"\n')
    program.chmod(0o755)
    here = scene.directory
    harbor = loopback_registry(tmp_path / "harbor").host
    registries = {"cicd": {"url": scene.host}, "harbor": {"url": harbor}}
    (here / "regwrap.yaml").write_text(json.dumps({"registries": registries}))
    (here / "rendered.yaml").write_text(MANIFESTS)
    make_storage(here / "storage", {"app:v1": scene.images["app:v1"]})
    shard = scene.cli("sync", "images.list", "--source", "cicd", "--shard", "2/2", "--report", "shard-2.json")
    assert shard.returncode == 0, shard.stderr
    return Shell(here, {**scene.cli.environment, "PATH": f"{programs}:{os.environ['PATH']}"})


def examples_in(help_text: str) -> list[str]:
    """The commands below `Examples:`, to the next blank line."""
    block = re.search(r"^  Examples:\n((?:    .+\n)+)", help_text, flags=re.MULTILINE)
    assert block, help_text
    lines = [line.strip() for line in block[1].splitlines()]
    return [line for line in lines if not line.startswith("#")]


def test_the_help_shows_every_command_in_its_group(cli: Cli) -> None:
    text = cli("--help").stdout
    assert [title for title in re.findall(r"^(\d\. .*):$", text, flags=re.MULTILINE)] == list(GROUPS)
    shown = dict(re.findall(r"^  ([a-z]+) +(.*)$", text.partition("1. Start")[2], flags=re.MULTILINE))
    assert {entry.words[0] for entry in COMMANDS} <= shown.keys()
    for entry in COMMANDS:
        if len(entry.words) == 1:
            assert shown[entry.name] == entry.summary
    for family in ("list", "report"):
        listed = cli(family, "--help").stdout
        assert all(entry.summary in listed for entry in COMMANDS if entry.words[0] == family)


def test_the_examples_in_the_help_of_every_command_do_what_they_say(scene: Scene, shell: Shell) -> None:
    """In a shell, one after the other, in the order of the help; those that stay are ended as by Ctrl-C."""
    for entry in COMMANDS:
        usage = scene.cli(*entry.words, "--help")
        assert usage.returncode == 0, usage.stderr
        commands = examples_in(usage.stdout)
        assert len(commands) == 2, entry.name
        for command in commands:
            assert f"regwrap {entry.name}" in command
            if entry.name == "serve":
                assert_serves(shell, command)
            else:
                done = shell(command)
                assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert_made(shell.directory, scene)


def assert_serves(shell: Shell, command: str) -> None:
    process = shell.start(command)
    try:
        assert process.stdout
        url = process.stdout.readline().strip()
        with urllib.request.urlopen(f"{url}/v2/", timeout=10) as answer:
            assert answer.status == 200
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 0


def assert_made(directory: Path, scene: Scene) -> None:
    """What the examples were for is there."""
    assert (directory / "product/regwrap.yaml").is_file()
    assert "docker.io/team/app:v1\n" in (directory / "product-2/images.list").read_text()
    assert (directory / "running.list").read_text().endswith("\ndocker.io/team/app:v1\n")
    listed = {line.partition("/")[2] for line in (directory / "app.list").read_text().splitlines()[1:]}
    assert listed == {name for name in scene.images if name.startswith("app")}
    assert (directory / "overlay-v1.1.tar").read_bytes() == (directory / "release-v1.1.tar").read_bytes()
    assert len(json.loads((directory / "report.json").read_text())["images"]) == len(scene.images)


def test_a_usage_error_ends_with_what_to_do(cli: Cli) -> None:
    wrong = cli("syn")
    assert wrong.returncode == 2
    assert "Did you mean 'sync'?" in wrong.stderr
    missing = cli("sync")
    assert "Try 'regwrap sync -h' for help" in missing.stderr.replace("python -m regwrap", "regwrap")
    lost = cli("sync", "no-such.list")
    assert lost.returncode == 2
    assert lost.stderr.splitlines()[-1].startswith("  -> regwrap COMMAND --help")


# --- completions
