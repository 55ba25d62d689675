"""A registry that is away for a while is waited for by all its images together; one that stays away is told once."""

import socket
import threading

import pytest

from regwrap.core.model import Digest
from tests.answering import Answer, Asked
from tests.builders import make_image, make_layer, put, storage_problems
from tests.fieldregistry import field_registry, refusing
from tests.release.regwrap_cli import Cli

pytestmark = pytest.mark.tools

IMAGES = {f"team/app{number}:v1": make_image(f"{number}") for number in range(12)}
QUICK = "retry: {attempts: 1, wait: 0, max_wait: 0, outage: 60}\n"


def configure(cli: Cli, host: str, settings: str = QUICK) -> None:
    put(cli.directory / "regwrap.yaml", f"source: {host}\n{settings}".encode())
    put(cli.directory / "images.list", "".join(f"{name}\n" for name in IMAGES).encode())


@pytest.mark.parametrize(("status", "first"), [(502, 0), (503, 10), (504, 20)])
def test_a_registry_that_is_away_is_waited_for(cli: Cli, status: int, first: int) -> None:
    """It is back once it has been asked a few times whether it is; with one attempt only, no image fails."""
    asked_for = threading.Semaphore(3)
    seen: list[str] = []

    def hook(asked: Asked) -> Answer | None:
        seen.append(asked.line)
        if len(seen) <= first or over.is_set():
            return None
        if asked.line == "GET /v2/" and not asked_for.acquire(blocking=False):
            over.set()
        return None if over.is_set() else refusing(status, "UNAVAILABLE")

    over = threading.Event()
    with field_registry(IMAGES, hook) as registry:
        configure(cli, registry.host)
        done = cli("sync", "images.list")
    assert "12 copied, 0 already there, 0 failed" in done.stdout, done.stderr
    assert done.stderr.count("does not answer") == done.stderr.count("answers again after") == 1
    assert storage_problems(cli.directory / "home/.local/share/regwrap/archive") == set()


def test_a_registry_that_starts_later_is_waited_for(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configure(cli, f"127.0.0.1:{port}")
    running = cli.start("sync", "images.list")
    assert running.stderr is not None
    line = next(line for line in running.stderr if "does not answer" in line)
    assert "waiting up to 60 s for it" in line
    with field_registry(IMAGES, port=port):
        out, said = running.communicate(timeout=120)
    assert "12 copied, 0 already there, 0 failed" in out, said


def test_one_that_stays_away_is_told_once_with_exit_code_3_and_the_others_go_on(cli: Cli) -> None:
    with field_registry(IMAGES) as registry:
        configure(cli, registry.host, "retry: {attempts: 2, wait: 0, outage: 1}\n")
        lines = "".join(f"127.0.0.1:1/dead/app{number}:v1\n" for number in range(20))
        put(cli.directory / "dead.list", lines.encode())
        put(cli.directory / "both.list", lines.encode() + (cli.directory / "images.list").read_bytes())
        alone = cli("sync", "dead.list")
        both = cli("sync", "both.list")
    assert (alone.returncode, both.returncode) == (3, 3)
    assert "12 copied, 0 already there, 20 failed" in both.stdout
    assert alone.stderr.count("127.0.0.1:1 is down") == 1
    assert "20 images FAILED (dead/app0:v1 dead/app1:v1 dead/app2:v1 and 17 more)" in alone.stderr


def test_one_cause_of_many_failures_is_told_once(cli: Cli) -> None:
    with field_registry({}) as registry:
        configure(cli, registry.host)
        done = cli("sync", "images.list")
    told = [line for line in done.stderr.splitlines() if "FAILED (" in line]
    assert done.returncode == 1
    assert len(told) == 1
    assert "12 images FAILED (team/app0:v1 team/app1:v1 team/app2:v1 and 9 more): " in told[0]


def test_what_has_arrived_of_an_unfinished_image_is_not_sent_again(cli: Cli) -> None:
    layers = [make_layer(f"{number}") for number in range(9)]
    last = f"{Digest.of(layers[-1])}"
    is_broken = threading.Event()
    is_broken.set()

    def hook(asked: Asked) -> Answer | None:
        return refusing(404, "BLOB_UNKNOWN") if is_broken.is_set() and asked.line.endswith(last) else None

    archive = cli.directory / "home/.local/share/regwrap/archive"
    with field_registry({"team/big:v1": make_image("big", layers=layers)}, hook) as registry:
        configure(cli, registry.host)
        put(cli.directory / "images.list", b"team/big:v1\n")
        assert cli("sync", "images.list").returncode == 1
        is_broken.clear()
        done = cli("sync", "images.list")
        fetched = [line for line in registry.lines if line.startswith("GET") and "/blobs/" in line]
    assert "1 copied" in done.stdout, done.stderr
    assert sum(line.endswith(f"{Digest.of(layers[0])}") for line in fetched) == 1
    assert storage_problems(archive) == set()
    assert not (archive / ".regwrap/sync").exists()
