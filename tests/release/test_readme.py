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
_SHOWN_HOST = "127.0.0.1:5000"


def shown_steps() -> list[tuple[str, list[str]]]:
    """Each command of the README that is shown with its output, and the lines of it that are shown."""
    (block,) = re.findall(r"^```\n(\$ .*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    steps = [step.splitlines() for step in block.split("$ ")[1:]]
    return [(lines[0].removeprefix("regwrap "), [line for line in lines[1:] if line != "..."]) for lines in steps]


def test_the_output_in_the_readme_is_what_the_demo_prints(
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
    assert len(steps) == 5
    for command, shown in steps:
        done = cli(*command.replace(_SHOWN_HOST, host).split())
        assert done.returncode == 0, done.stderr
        printed = {_SECONDS.sub("N s", line) for line in (done.stderr + done.stdout).splitlines()}
        assert [line for line in shown if _SECONDS.sub("N s", line) not in printed] == [], printed
