"""skopeo's image proxy: blobs through pipes, and what it says when it can't."""

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from regwrap.core.errors import ToolError
from regwrap.core.location import Registry, Timeouts
from regwrap.core.model import Descriptor, Digest, Manifest, parse_manifest
from regwrap.tools.executor import ShExecutor
from regwrap.tools.imageproxy import ImageProxies
from regwrap.tools.runner import Runner, Tool
from regwrap.tools.skopeo import Remote, Skopeo
from tests.builders import Image, make_image, make_storage
from tests.conftest import StartRegistry
from tests.faultserver import Fault, faulty_proxy
from tests.tools.test_sync_real import big_image

pytestmark = pytest.mark.tools(Tool.SKOPEO)

IMAGE = big_image("one", 3_000_000)
OTHER = make_image("other")


@pytest.fixture
def host(tmp_path: Path, loopback_registry: StartRegistry) -> str:
    return loopback_registry(make_storage(tmp_path / "storage", {"a/b:1": IMAGE, "c/d:1": OTHER})).host


@pytest.fixture
def skopeo(tmp_path: Path) -> Skopeo:
    return make_skopeo(tmp_path, os.environ["PATH"])


def make_skopeo(tmp_path: Path, search_path: str) -> Skopeo:
    for name in ("scratch", "home"):
        (tmp_path / name).mkdir()
    runner = Runner(ShExecutor(), scratch=tmp_path / "scratch", search_path=search_path, stopping=threading.Event())
    return Skopeo(runner=runner, home=tmp_path / "home", timeouts=Timeouts(stall=2, copy=60))


@pytest.fixture
def proxies(skopeo: Skopeo, host: str) -> Iterator[ImageProxies]:
    made = ImageProxies(skopeo=skopeo, repositories={host: ["a/b", "c/d"]})
    yield made
    made.close()


def remote(host: str, repository: str, digest: Digest) -> Remote:
    registry = Registry(host=host, tls_verify=False, plain_http=True)
    return Remote(registry=registry, repository=repository, reference=digest)


def fetched(proxies: ImageProxies, source: Remote, wanted: tuple[Descriptor, ...]) -> dict[Digest, bytes]:
    parts: dict[Digest, list[bytes]] = {blob.digest: [] for blob in wanted}
    with proxies.turn(source, len(wanted)) as proxy:
        for blob, data in proxy.blobs(source, wanted):
            parts[blob.digest].append(bytes(data))
    return {digest: b"".join(data) for digest, data in parts.items()}


def blobs_of(image: Image) -> tuple[Descriptor, ...]:
    manifest = parse_manifest(image.raw)
    assert isinstance(manifest, Manifest)
    return manifest.blobs


def test_blobs_of_several_images_come_from_one_process(proxies: ImageProxies, host: str) -> None:
    started: list[str] = []
    proxies.skopeo.runner.log = started.append
    for repository, image in (("a/b", IMAGE), ("c/d", OTHER), ("a/b", IMAGE)):
        got = fetched(proxies, remote(host, repository, image.top), blobs_of(image))
        assert got == {Digest.of(blob): blob for blob in image.blobs}
    assert len(started) == 1


def test_a_blob_that_is_not_there_is_named_by_the_registry(proxies: ImageProxies, host: str) -> None:
    absent = Descriptor(media_type="x/y", digest=Digest("0" * 64), size=5)
    with pytest.raises(ToolError, match=r"404|unknown") as raised:
        fetched(proxies, remote(host, "c/d", OTHER.top), (absent,))
    assert not raised.value.transient
    assert fetched(proxies, remote(host, "c/d", OTHER.top), blobs_of(OTHER)) != {}


def test_a_blob_of_another_size_is_an_error(proxies: ImageProxies, host: str) -> None:
    config, layer = blobs_of(IMAGE)
    for size in (layer.size - 1, layer.size + 1):
        wrong = Descriptor(media_type=layer.media_type, digest=layer.digest, size=size)
        with pytest.raises(ToolError, match="bytes"):
            fetched(proxies, remote(host, "a/b", IMAGE.top), (config, wrong))


def test_what_stands_still_is_given_up(skopeo: Skopeo, host: str) -> None:
    fault = Fault("stall", f"GET .*{blobs_of(IMAGE)[1].digest.hex}", at=100_000)
    with faulty_proxy(host, [fault]) as server:
        proxies = ImageProxies(skopeo=skopeo, repositories={server.host: ["a/b"]})
        with pytest.raises(ToolError, match="no progress for 2 s") as raised:
            fetched(proxies, remote(server.host, "a/b", IMAGE.top), blobs_of(IMAGE))
    assert raised.value.transient
    assert raised.value.host == server.host


def test_a_trickle_has_a_limit_too(skopeo: Skopeo, host: str) -> None:
    fault = Fault("stall", f"GET .*{blobs_of(IMAGE)[1].digest.hex}", at=100_000)
    hurried = replace(skopeo, timeouts=Timeouts(stall=30, copy=0.001))
    with faulty_proxy(host, [fault]) as server:
        proxies = ImageProxies(skopeo=hurried, repositories={server.host: ["a/b"]})
        with pytest.raises(ToolError, match=r"was not done after 0\.001 s"):
            fetched(proxies, remote(server.host, "a/b", IMAGE.top), blobs_of(IMAGE))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ('echo \'Error: unknown command "experimental-image-proxy" for "skopeo"\' >&2; exit 1', "exit code 1"),
        ("exit 3", "exit code 3"),
        ("kill -KILL $$", "signal 9"),
    ],
)
def test_how_a_skopeo_ended_is_told(tmp_path: Path, host: str, script: str, said: str) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "skopeo").write_text(f"#!/bin/sh\n{script}\n")
    (programs / "skopeo").chmod(0o755)
    skopeo = make_skopeo(tmp_path, f"{programs}:{os.environ['PATH']}")
    proxies = ImageProxies(skopeo=skopeo, repositories={host: ["c/d"]})
    with pytest.raises(ToolError, match=said) as raised:
        fetched(proxies, remote(host, "c/d", OTHER.top), blobs_of(OTHER))
    assert raised.value.transient is ("unknown" not in script)
    assert ("--engine copy" in raised.value.hint) is ("unknown" in script)
