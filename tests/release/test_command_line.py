"""What a user meets first: the help with its examples, how fast it is there, completions, the man page."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from regwrap.cli.catalog import COMMANDS, GROUPS
from tests.builders import make_storage
from tests.conftest import StartRegistry
from tests.release.conftest import Scene
from tests.release.regwrap_cli import Cli, typed

pytestmark = pytest.mark.tools

MANIFESTS = """
apiVersion: apps/v1
kind: Deployment
spec: {template: {spec: {containers: [{image: team/app:v1}]}}}
"""


# --- the start


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_nothing_heavy_is_imported_where_nothing_is_done(cli: Cli, option: str) -> None:
    """No command, no program, no network: the rest of a start is Python's and typer's own."""
    command = [sys.executable, "-X", "importtime", "-c", "from regwrap.cli.program import main; main()", option]
    done = subprocess.run(command, env=cli.environment, capture_output=True, text=True, check=True, timeout=60)
    modules = set(re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, flags=re.MULTILINE))
    own = {name for name in modules if name.partition(".")[0] == "regwrap"}
    shell, core = {"app", "catalog", "entry", "program", "streams"}, {"counts", "errors", "interruption"}
    within = {f"regwrap.cli.{name}" for name in shell} | {f"regwrap.core.{name}" for name in core}
    assert own == {"regwrap", "regwrap.cli", "regwrap.core"} | within
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
def shell(cli: Cli, tmp_path: Path) -> Shell:
    """A directory, and regwrap on the path as after its installation."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "regwrap"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m regwrap "$@"\n')
    program.chmod(0o755)
    return Shell(cli.directory, {**cli.environment, "PATH": f"{programs}:{os.environ['PATH']}"})


@pytest.fixture
def prepared(shell: Shell, scene: Scene, loopback_registry: StartRegistry, tmp_path: Path) -> Shell:
    """Two registries called cicd and harbor, a storage, an archive, manifests, and the list of what cicd has."""
    here = shell.directory
    registries = {"cicd": {"url": scene.host}, "harbor": {"url": loopback_registry(tmp_path / "harbor").host}}
    (here / "regwrap.yaml").write_text(json.dumps({"registries": registries}))
    (here / "rendered.yaml").write_text(MANIFESTS)
    make_storage(here / "storage", {"app:v1": scene.images["app:v1"]})
    shard = shell("regwrap sync images.list --source cicd --shard 2/2 --report shard-2.json")
    assert shard.returncode == 0, shard.stderr
    return shell


def examples_in(help_text: str) -> list[str]:
    """The commands below `Examples:`, to the next blank line."""
    block = re.search(r"^  Examples:\n((?:    .+\n)+)", help_text, flags=re.MULTILINE)
    assert block, help_text
    lines = [line.strip() for line in block[1].splitlines()]
    return [line for line in lines if not line.startswith("#")]


def test_the_help_shows_every_command_in_its_group(cli: Cli) -> None:
    text = cli("--help").stdout
    assert tuple(re.findall(r"^(\d\. .*):$", text, flags=re.MULTILINE)) == GROUPS
    shown = dict(re.findall(r"^  ([a-z]+) +(.*)$", text.partition("1. Start")[2], flags=re.MULTILINE))
    assert {entry.words[0] for entry in COMMANDS} <= shown.keys()
    for entry in COMMANDS:
        if len(entry.words) == 1:
            assert shown[entry.name] == entry.summary
    for family in ("list", "report"):
        listed = cli(family, "--help").stdout
        assert all(entry.summary in listed for entry in COMMANDS if entry.words[0] == family)


def test_the_examples_in_the_help_of_every_command_do_what_they_say(scene: Scene, prepared: Shell) -> None:
    """In a shell, one after the other, in the order of the help; those that stay are ended as by Ctrl-C."""
    for entry in COMMANDS:
        usage = scene.cli(*entry.words, "--help")
        assert usage.returncode == 0, usage.stderr
        commands = examples_in(usage.stdout)
        assert len(commands) == 2, entry.name
        for command in commands:
            assert f"regwrap {entry.name}" in command
            if entry.name == "serve":
                assert_serves(prepared, command)
            else:
                done = prepared(command)
                assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert_made(prepared.directory, scene)


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
    volumes = sorted(directory.glob("parity-v1.2.tar.[0-9]*"))
    assert b"".join(path.read_bytes() for path in volumes) == (directory / "release-v1.1.tar").read_bytes()
    assert (directory / "joined-v1.2.tar").read_bytes() == (directory / "joined.tar").read_bytes()
    assert len(json.loads((directory / "report.json").read_text())["images"]) == len(scene.images)


def test_a_usage_error_ends_with_what_to_do(cli: Cli) -> None:
    wrong = cli("syn")
    assert wrong.returncode == 2
    assert "Did you mean 'sync'?" in wrong.stderr
    missing = cli("sync")
    assert "Try 'regwrap sync -h' for help" in missing.stderr
    lost = cli("sync", "no-such.list")
    assert lost.returncode == 2
    assert lost.stderr.splitlines()[-1].startswith("  -> see regwrap COMMAND --help")


# --- completions
@pytest.fixture
def terminal_shell(shell: Shell) -> Shell:
    """With a list, and the completions as typer gives them to each shell."""
    (shell.directory / "images.list").write_text("app:v1\n")
    for name in ("bash", "zsh", "fish"):
        environment = {**shell.environment, "_REGWRAP_COMPLETE": f"source_{name}"}
        done = subprocess.run(["regwrap"], env=environment, capture_output=True, text=True, check=True, timeout=60)
        (shell.directory / f"completion.{name}").write_text(done.stdout)
    return shell


def test_bash_completes_commands_options_values_and_files_as_they_are_typed(terminal_shell: Shell) -> None:
    keys = "source completion.bash\nregwrap pac\timages.li\t--strat\tov\t-o r.tar\x01echo DONE: \n"
    environment = {**terminal_shell.environment, "TERM": "dumb", "COLUMNS": "200"}
    shown = typed(["bash", "--norc", "-i"], keys, "\nDONE: ", cwd=terminal_shell.directory, env=environment)
    assert "\nDONE: regwrap package images.list --strategy overlay -o r.tar" in shown


OFFERED: Final = {
    "regwrap re": {"release", "releases", "repair", "report"},
    "regwrap report ": {"show", "merge"},
    "regwrap list from-": {"from-manifests", "from-registry"},
    "regwrap package --strategy ": {"auto", "select", "direct", "overlay"},
    "regwrap 'package' --str": {"--strategy"},
    "regwrap export r.tar d --format ": {"dir", "oci"},
    "regwrap sync ": set[str](),
}


def test_each_shell_is_offered_the_same(terminal_shell: Shell) -> None:
    """By bash and fish themselves; by what zsh evaluates. Nothing means: files, as the shells have them."""
    for words, expected in OFFERED.items():
        last = len(words.split(" ")) - 1
        bash = (
            f"source completion.bash; COMP_WORDS=({words}); [ {last} -lt ${{#COMP_WORDS[@]}} ] || COMP_WORDS+=('');"
            f' COMP_CWORD={last}; _regwrap_completion regwrap; printf "%s\\n" "${{COMPREPLY[@]}}"'
        )
        assert set(terminal_shell(bash).stdout.split()) == expected, words
        fish = ["fish", "--no-config", "-c", f'source completion.fish; complete -C "{words}"']
        assert {line.partition("\t")[0] for line in output(terminal_shell, fish).splitlines()} >= expected, words
        zsh = ["env", "_REGWRAP_COMPLETE=complete_zsh", f"_TYPER_COMPLETE_ARGS={words}", "regwrap"]
        offered = output(terminal_shell, zsh)
        assert set(re.findall(r'^(?:_arguments .*\(\()?"([^"]+)"', offered, flags=re.MULTILINE)) == expected, words
        assert expected or offered.strip() == "_files"


def output(shell: Shell, command: list[str]) -> str:
    done = subprocess.run(
        command, cwd=shell.directory, env=shell.environment, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def test_zsh_takes_the_script(terminal_shell: Shell) -> None:
    text = "autoload -Uz compinit; compinit -u -D; source completion.zsh; print $_comps[regwrap]"
    assert output(terminal_shell, ["zsh", "-f", "-c", text]).strip() == "_regwrap_completion"


# --- the manual page


def test_the_manual_page_has_every_command_and_nothing_that_mandoc_warns_of(shell: Shell) -> None:
    (shell.directory / "regwrap.1").write_text(
        output(shell, ["env", "SOURCE_DATE_EPOCH=0", sys.executable, "-m", "regwrap.cli.manpage"])
    )
    assert output(shell, ["mandoc", "-Tlint", "-Wwarning", "regwrap.1"]) == ""
    page = output(shell, ["mandoc", "-Tascii", "-Owidth=300", "regwrap.1"])
    text = re.sub(r".\x08", "", page)
    assert "1970-01-01" in text
    for entry in COMMANDS:
        assert f"regwrap {entry.name}" in text
        assert all(
            re.search(rf"^ +{re.escape(command)}$", text, flags=re.MULTILINE) for _what, command in entry.examples
        )
    assert "--strategy" in text
