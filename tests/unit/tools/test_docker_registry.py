"""Whether a registry seems to run on this machine: what its directory of processes says."""

from pathlib import Path

import pytest

from regwrap.tools.docker_registry import runs_here
from tests.builders import put


@pytest.mark.parametrize(
    ("names", "runs"),
    [(("bash", "docker-registry"), True), (("registry",), True), (("registry-mirror", "dockerd"), False), ((), False)],
)
def test_it_is_known_by_its_process(tmp_path: Path, names: tuple[str, ...], *, runs: bool) -> None:
    for number, name in enumerate(names, start=10):
        put(tmp_path / f"{number}/comm", f"{name}\n".encode())
    put(tmp_path / "self/comm", b"registry\n")
    (tmp_path / "99").mkdir()
    assert runs_here(tmp_path) is runs
