"""What the README shows is what is printed: its commands, run on the demo's images."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import StartRegistry
from tests.release.regwrap_cli import Cli

pytestmark = pytest.mark.tools
ROOT = Path(__file__).parents[2]
_SECONDS = re.compile(r"\d+(?:\.\d+)? s\b")
_SHOWN_HOST = "cicd.example.com"


def shown_steps() -> list[tuple[str, list[str]]]:
    """Each command of the README that is shown with its output, and the lines of it that are shown."""
    blocks = re.findall(r"^```\n(\$ .*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    steps = [step.splitlines() for block in blocks for step in block.split("$ ")[1:]]
    return [(lines[0], [line for line in lines[1:] if line != "..."]) for lines in steps]


def test_the_output_in_the_readme_is_what_the_demos_images_give(
    cli: Cli, loopback_registry: StartRegistry, tmp_path: Path
) -> None:
    host = loopback_registry(tmp_path / "ci").host
    subprocess.run(
        [ROOT / "examples/demo/make_images.sh", "layout", host, "images.list"],
        cwd=cli.directory,
        env={"PATH": os.environ["PATH"], "HOME": f"{tmp_path}"},
        capture_output=True,
        timeout=240,
        check=True,
    )
    steps = shown_steps()
    assert [command.split()[:2] for command, _shown in steps] == [
        ["regwrap", "release"], ["sha256sum", "-c"], ["regwrap", "deploy"], ["regwrap", "verify"],
        ["regwrap", "release"], ["regwrap", "deploy"], ["regwrap", "rollback"],
    ]  # fmt: skip
    for number, (command, shown) in enumerate(steps):
        if number == 4:  # the product has gone on
            listed = cli.directory / "images.list"
            listed.write_text(
                listed.read_text().replace("\nplatform/app:v1\n", "\nplatform/app:v2 => platform/app:v1\n")
            )
        program, *words = command.replace(_SHOWN_HOST, host).split()
        done = (
            cli(*words)
            if program == "regwrap"
            else subprocess.run([program, *words], cwd=cli.directory, capture_output=True, text=True, check=False)
        )
        assert done.returncode == 0, done.stderr
        printed = {_SECONDS.sub("N s", line) for line in (done.stderr + done.stdout).splitlines()}
        assert [line for line in shown if _SECONDS.sub("N s", line) not in printed] == [], printed
