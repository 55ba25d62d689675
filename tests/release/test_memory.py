"""What a run needs at once, as the kernel counts it."""

import subprocess
from pathlib import Path

import pytest

from tests.builders import Image, make_image, make_layer, make_storage
from tests.conftest import StartRegistry
from tests.release.regwrap_cli import Cli

pytestmark = pytest.mark.tools

PEAK = """
import os, sys
from pathlib import Path
from regwrap.__main__ import main

def tell_and_leave(code, leave=os._exit):
    status = Path("/proc/self/status").read_text()
    print(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1], file=sys.stderr)
    sys.stderr.flush()
    leave(code)

os._exit = tell_and_leave
main()
"""


def peak_kilobytes(cli: Cli, *args: str | Path, said: str) -> int:
    """The most memory that a run had at once, which must say `said` on stdout."""
    command = cli.command(*args)
    done = subprocess.run(
        [command[0], "-c", PEAK, *command[3:]],
        cwd=cli.directory,
        env=cli.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert said in done.stdout, done.stderr
    return int(done.stderr.split()[-1])


def test_hundreds_of_images_need_little_memory(tmp_path: Path, cli: Cli, loopback_registry: StartRegistry) -> None:
    """All manifests differ; most images share their blobs, so that few starts of skopeo bring them."""
    few = [make_image(f"{n}", layers=[make_layer(f"{n}-{m}") for m in range(2)]) for n in range(10)]
    images = {f"team/{n}:v1": Image((few[n % 10].raw + b" " * n,), few[n % 10].blobs) for n in range(200)}
    host = loopback_registry(make_storage(tmp_path / "ci", images)).host
    (cli.directory / "images.list").write_text("".join(f"{name}\n" for name in images))
    sync = ("sync", "images.list", "--source", host)
    assert peak_kilobytes(cli, *sync, said="200 copied, 0 already there, 0 failed") < 100_000
    assert peak_kilobytes(cli, *sync, said="0 copied, 200 already there") < 100_000
    into = ("--dest", loopback_registry(tmp_path / "dest").host, "--dry-run")
    assert peak_kilobytes(cli, *sync, *into, said="200 to copy") < 100_000
