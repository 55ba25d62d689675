"""docker-registry as regwrap starts it: read-only, on its own port, from its own configuration."""

import http.client
import os
import re
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from regwrap.core.errors import ToolError
from regwrap.core.location import Registry
from regwrap.core.manifest import OCI_MANIFEST
from regwrap.core.model import Digest
from regwrap.registry.probe import Probe
from regwrap.storage import layout
from regwrap.tools.docker_registry import started_registry, why_it_does_not_answer
from regwrap.tools.launcher import ShLauncher
from regwrap.tools.runner import Runner, Tool
from tests.builders import make_image, make_storage, snapshot

pytestmark = pytest.mark.tools(Tool.DOCKER_REGISTRY)

IMAGE = make_image("one")


@contextmanager
def served_registry(runner: Runner, root: Path, *, scratch: Path) -> Iterator[Registry]:
    with started_registry(runner, root, scratch=scratch, read_only=True, wrap=lambda command: command) as (registry, _):
        yield registry


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return make_storage(tmp_path / "storage", {"a/b:1": IMAGE})


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def ask(registry: Registry, method: str, path: str) -> tuple[int, str | None]:
    with closing(http.client.HTTPConnection(registry.host, timeout=5)) as connection:
        connection.request(method, path, headers={"Accept": OCI_MANIFEST})
        answer = connection.getresponse()
        return answer.status, answer.headers["X-Regwrap-Nonce"]


def children() -> set[str]:
    """Command lines of docker-registry processes below this one."""
    found = set()
    for path in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread ended, or the child
            for pid in path.read_text().split():
                found.add(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode())
    return {line for line in found if "docker-registry" in line}


def test_it_serves_the_storage_and_changes_nothing(real_runner: Runner, storage: Path, scratch: Path) -> None:
    before = snapshot(storage)
    with served_registry(real_runner, storage, scratch=scratch) as registry:
        probe = Probe(registry=registry, timeout=5, connections=1)
        assert probe.manifest("a/b", "1") == IMAGE.raw
        assert probe.small_blob("a/b", Digest.of(IMAGE.blobs[1])) == IMAGE.blobs[1]
        probe.close()
        assert registry == Registry(host=registry.host, tls_verify=False, plain_http=True)
        assert registry.host.startswith("127.0.0.1:")
        assert ask(registry, "POST", "/v2/a/b/blobs/uploads/")[0] == 405
        assert ask(registry, "PUT", "/v2/a/b/manifests/2")[0] == 405
    assert snapshot(storage) == before


def test_each_start_has_its_own_nonce_in_every_answer(real_runner: Runner, storage: Path, scratch: Path) -> None:
    with (
        served_registry(real_runner, storage, scratch=scratch) as one,
        served_registry(real_runner, storage, scratch=scratch) as two,
    ):
        nonces = [ask(one, "GET", "/v2/"), ask(one, "GET", "/v2/a/b/manifests/none"), ask(two, "GET", "/v2/")]
    assert [status for status, _ in nonces] == [200, 404, 200]
    assert all(nonce is not None and re.fullmatch("[0-9a-f]{32}", nonce) for _, nonce in nonces)
    assert nonces[0][1] == nonces[1][1] != nonces[2][1]


def test_the_environment_has_no_effect(
    real_runner: Runner, storage: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("REGISTRY_HTTP_ADDR", "0.0.0.0:0")
    monkeypatch.setenv("REGISTRY_LOG_LEVEL", "error")
    with served_registry(real_runner, storage, scratch=scratch) as registry:
        assert ask(registry, "GET", "/v2/a/b/manifests/1")[0] == 200
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("fails", [False, True])
def test_it_is_gone_after_the_block(real_runner: Runner, storage: Path, scratch: Path, fails: bool) -> None:
    with suppress(KeyError), served_registry(real_runner, storage, scratch=scratch) as registry:
        assert len(children()) == 1
        if fails:
            raise KeyError
    assert children() == set()
    with pytest.raises(ConnectionRefusedError):
        ask(registry, "GET", "/v2/")


def test_the_storage_may_change_behind_it(real_runner: Runner, storage: Path, scratch: Path) -> None:
    new = make_image("new")
    with served_registry(real_runner, storage, scratch=scratch) as registry:
        assert ask(registry, "GET", "/v2/a/b/manifests/2")[0] == 404
        make_storage(storage, {"a/b:2": new})
        assert ask(registry, "GET", "/v2/a/b/manifests/2")[0] == 200


def test_one_that_ends_at_once_is_an_error_with_what_it_said(tmp_path: Path, storage: Path, scratch: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / "docker-registry"
    program.write_text("#!/bin/sh\necho 'level=fatal no such luck' >&2\nexit 1\n")
    program.chmod(0o755)
    runner = Runner(ShLauncher(), scratch=scratch, search_path=f"{programs}:{os.environ['PATH']}")
    with pytest.raises(ToolError, match="no such luck"), served_registry(runner, storage, scratch=scratch):
        pass


def test_one_that_was_killed_is_said_to_have_been(real_runner: Runner, storage: Path, scratch: Path) -> None:
    started = started_registry(real_runner, storage, scratch=scratch, read_only=True, wrap=lambda command: command)
    with started as (_registry, server):
        assert why_it_does_not_answer(server, is_cut=False) == ""
        os.kill(server.process.pid, signal.SIGKILL)
        assert why_it_does_not_answer(server, is_cut=True) == "it was terminated by signal 9"


def test_what_it_logged_says_why_it_answers_500(real_runner: Runner, storage: Path, scratch: Path) -> None:
    link = storage / layout.tag_link("a/b", "1")
    link.unlink()
    link.mkdir()
    started = started_registry(real_runner, storage, scratch=scratch, read_only=True, wrap=lambda command: command)
    with started as (registry, server):
        assert ask(registry, "GET", "/v2/a/b/manifests/1")[0] == 500
        assert "is a directory" in why_it_does_not_answer(server, is_cut=False)
