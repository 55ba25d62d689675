"""regwrap doctor: which commands work here, what the others lack, and how to get it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from regwrap.cli.catalog import COMMANDS
from tests.fieldregistry import field_registry, wanting
from tests.release.regwrap_cli import Cli
from tests.tls import make_certificate, served_by, write_authfile

pytestmark = pytest.mark.tools

_OVERLAY = {"package --strategy overlay", "workspace"}


def commands(text: str) -> dict[str, bool]:
    return {command["command"]: command["works"] for command in json.loads(text)["commands"]}


def forbidden(cli: Cli, *args: str) -> "subprocess.CompletedProcess[str]":
    """doctor where a seccomp filter forbids namespaces, as in most containers."""
    command = [sys.executable, "-m", "tests.release.forbidding", "unshare:EPERM", "--", *cli.command("doctor", *args)]
    env = {**cli.environment, "PYTHONPATH": f"{Path(__file__).parents[2]}"}
    return subprocess.run(command, cwd=cli.directory, env=env, capture_output=True, text=True, check=False)


def test_where_only_overlays_are_missing_the_machine_is_fit_and_the_way_around_is_named(cli: Cli) -> None:
    done = forbidden(cli)
    assert done.returncode == 0, done.stderr
    lines = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert re.search(r" no +overlay +see below$", lines["package --strategy overlay"])
    why, way = re.findall(r"^overlay: (in a mount namespace.*)\n  -> (.*)$", done.stdout, re.MULTILINE)[0]
    assert "seccomp filter" in why
    assert "--cap-add SYS_ADMIN" in way
    assert "--strategy select" in way
    assert max(map(len, done.stdout.split("\noverlay: ")[0].splitlines())) <= 120
    assert "as above" in lines["workspace"]
    assert "works" in lines["package"]
    found = commands(forbidden(cli, "--json").stdout)
    assert {command for command, works in found.items() if not works} == _OVERLAY


def test_a_program_that_is_missing_is_missing_for_its_commands_only(cli: Cli, tmp_path: Path) -> None:
    some = tmp_path / "bin"
    some.mkdir()
    for program in ("tar", "setpriv", "skopeo", "curl"):
        (some / program).symlink_to(shutil.which(program) or program)
    done = cli("doctor", "--json", env={"PATH": f"{some}"})
    assert done.returncode == 3
    found = commands(done.stdout)
    lacking = {command for command, works in found.items() if not works}
    assert {"bake", "workspace"} <= lacking
    assert "release" not in lacking
    bake = next(command for command in json.loads(done.stdout)["commands"] if command["command"] == "bake")
    assert (bake["missing"], bake["how"]) == (["umoci: not installed"], ["apt-get install umoci"])


def test_every_command_is_in_the_table(cli: Cli) -> None:
    shown = {word for names in commands(cli("doctor", "--json").stdout) for word in names.replace(",", "").split()}
    assert {entry.words[0] for entry in COMMANDS} - shown == {"doctor"}


def test_the_place_of_an_increment_is_the_one_that_package_would_take(cli: Cli) -> None:
    (cli.directory / "volume").mkdir()
    done = cli("doctor", env={"REGWRAP_SCRATCH": f"{cli.directory}/volume"})
    assert f"the upper layer in {cli.directory}/volume" in done.stdout
    assert not list((cli.directory / "volume").iterdir())


def test_the_capability_that_is_missing_is_named(cli: Cli) -> None:
    command = ["setpriv", "--bounding-set=-sys_admin", *cli.command("doctor")]
    filtered = [sys.executable, "-m", "tests.release.forbidding", "unshare:EPERM", "--", *command]
    env = {**cli.environment, "PYTHONPATH": f"{Path(__file__).parents[2]}"}
    done = subprocess.run(filtered, cwd=cli.directory, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if os.geteuid() == 0:  # others have only the way of user namespaces
        assert "the capability CAP_SYS_ADMIN is missing" in done.stdout
    assert "in a user namespace: forbidden by a seccomp filter" in done.stdout


def test_what_docker_and_skopeo_are_configured_to_is_told_with_what_counts_instead(cli: Cli) -> None:
    containers = Path(cli.environment["HOME"]) / ".config/containers"
    containers.mkdir(parents=True)
    (containers / "auth.json").write_text('{"auths": {"r.example": {"auth": "c2VjcmV0"}}}')
    (containers / "registries.conf").write_text('[[registry]]\nlocation = "r.example"\ninsecure = true\n')
    done = cli("doctor", env={"HTTPS_PROXY": "http://user:secret@127.0.0.1:9"})
    assert "credentials for r.example" in done.stdout
    assert "$HTTPS_PROXY" in done.stdout
    assert "tls_verify: false" in done.stdout
    assert "secret" not in done.stdout


def test_each_configured_registry_is_asked(cli: Cli, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "tls")
    (cli.directory / "auth.json").write_text("{}")
    with field_registry({}, wanting("ci:secret"), served_by(certificate.cert, certificate.key)) as registry:
        write_authfile(cli.directory / "auth.json", registry.host, "ci:secret")
        entry = f"{{url: 'https://{registry.host}', authfile: auth.json, cert_dir: '{certificate.directory}'}}"
        (cli.directory / "regwrap.yaml").write_text(f"registries: {{harbor: {entry}}}\n")
        done = cli("doctor")
        write_authfile(cli.directory / "auth.json", registry.host, "ci:wrong")
        wrong = cli("doctor")
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("harbor "))
    assert "1 day left" in row
    assert f"{registry.host} in {cli.directory}/auth.json" in row
    assert "login accepted" in row
    assert (done.returncode, wrong.returncode) == (0, 3)
    assert f"skopeo login --authfile {cli.directory}/auth.json {registry.host}" in wrong.stdout
