"""Uploads that break: what the registry has kept of them is not sent again, also when it died for real meanwhile."""

import json
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from regwrap.core.model import Digest
from tests.builders import Image, make_image, make_layer, make_storage, put, storage_problems
from tests.conftest import StartRegistry
from tests.faultserver import Fault, FaultProxy, faulty_proxy
from tests.registry import LoopbackRegistry, served_loopback
from tests.release.regwrap_cli import Cli

pytestmark = pytest.mark.tools

MEGABYTES = 1_000_000
# the first try, in one piece, gets nowhere; of the pieces of 16 MiB that follow, the second does not
BREAKS = (
    Fault("refuse", "PUT .*digest=", status=502, times=1),
    Fault("refuse", "PATCH ", status=502, first=2, times=1),
)


@dataclass
class Mortal:
    """A registry that may be killed, and is there again at its address: its uploads live, as it has a secret."""

    root: Path
    scratch: Path
    stack: ExitStack
    running: LoopbackRegistry | None = None

    @property
    def host(self) -> str:
        assert self.running is not None
        return self.running.host

    def start(self) -> None:
        addr = self.running.host if self.running else "127.0.0.1:0"
        extra = {"http": {"addr": addr, "secret": "of the tests"}}
        self.running = self.stack.enter_context(served_loopback(self.root, scratch=self.scratch, extra=extra))

    def die_and_rise(self) -> None:
        self.stack.close()
        self.start()


@contextmanager
def mortal(tmp_path: Path) -> Iterator[Mortal]:
    with ExitStack() as stack:
        registry = Mortal(tmp_path / "mortal", tmp_path / "mortal-scratch", stack)
        registry.start()
        yield registry


def big(seed: int) -> Image:
    return make_image(f"big{seed}", layers=[make_layer("big", random.Random(seed).randbytes(40 * MEGABYTES))])


def breaks(image: Image) -> tuple[Fault, ...]:
    """The first try, in one piece, gets nowhere; of the pieces of 16 MiB that follow, the second does not."""
    whole = f"PUT .*digest=sha256%3A{Digest.of(image.blobs[1]).hex}"
    return Fault("refuse", whole, status=502, times=1), Fault("refuse", "PATCH ", status=502, first=2, times=1)


def received(proxy: FaultProxy) -> int:
    """Of layers: what came to the registry. The proxy reads no body that it refuses."""
    return sum(count for path, count in proxy.received.items() if "/uploads/" in path)


def test_a_push_goes_on_where_it_broke_though_the_registry_died_meanwhile(cli: Cli, tmp_path: Path) -> None:
    image = big(1)
    make_storage(cli.directory / "new", {"team/big:v1": image})
    put(cli.directory / "regwrap.yaml", b"retry: {attempts: 20, wait: 0.2, max_wait: 0.5}\n")
    with mortal(tmp_path) as registry, faulty_proxy(registry.host, breaks(image)) as proxy:
        running = cli.start("push", "new", proxy.host)
        deadline = time.monotonic() + 60
        while len(proxy.asked("PATCH ")) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        registry.die_and_rise()
        out, said = running.communicate(timeout=120)
        assert "1 copied" in out, said
        assert received(proxy) <= 1.05 * sum(map(len, image.blobs))
        assert len(proxy.asked("GET .*/blobs/uploads/")) >= 2
    assert storage_problems(registry.root) == set()


def test_what_travelled_is_what_the_report_says(cli: Cli, tmp_path: Path, loopback_registry: StartRegistry) -> None:
    """Also of an image that fails in the end, and from registry to registry."""
    images = {"team/big:v1": big(2), "team/app:v1": make_image("app")}
    source = loopback_registry(make_storage(tmp_path / "ci", images)).host
    refused = Fault("refuse", "PUT .*team/app/manifests/", status=403)
    put(cli.directory / "images.list", "".join(f"{name}\n" for name in images).encode())
    put(cli.directory / "regwrap.yaml", b"retry: {attempts: 4, wait: 0.1, max_wait: 0.2}\n")
    with mortal(tmp_path) as registry, faulty_proxy(registry.host, (*breaks(images["team/big:v1"]), refused)) as proxy:
        args = ("sync", "images.list", "--source", source, "--archive", proxy.host, "--report", "report.json")
        done = cli(*args)
        assert done.returncode == 1, done.stderr
        report = json.loads((cli.directory / "report.json").read_text())
        sent = {image["image"]: image["bytes_sent"] for image in report["images"]}
        assert sent["team/app:v1"] == sum(map(len, images["team/app:v1"].blobs))
        size = sum(map(len, images["team/big:v1"].blobs))
        assert size < sent["team/big:v1"] < 3 * size
        assert received(proxy) <= 1.05 * (size + sent["team/app:v1"])
