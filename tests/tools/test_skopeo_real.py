"""The real skopeo: its texts lead to the outcomes that unit tests demand of recorded ones, and it is hermetic."""

import base64
import gzip
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from regwrap.core.errors import ToolError
from regwrap.core.location import Registry, Timeouts
from regwrap.core.model import Digest
from regwrap.storage import layout
from regwrap.storage.store import Storage
from regwrap.tools.launcher import ShLauncher
from regwrap.tools.runner import Runner, Tool
from regwrap.tools.skopeo import Remote, Skopeo
from tests.builders import (
    Image,
    flip,
    make_config,
    make_image,
    make_layer,
    make_manifest,
    make_multi_image,
    make_storage,
)
from tests.conftest import StartRegistry
from tests.faultserver import Fault, faulty_proxy

pytestmark = pytest.mark.tools(Tool.SKOPEO, Tool.DOCKER_REGISTRY)

# made once with bcrypt.hashpw(b"secret", bcrypt.gensalt(4)); docker-registry takes no other hash
HTPASSWD = "test:$2b$04$8m.7UG6Yd5HD7zrGLWJ1qOXWjNjDqfOgwrQkpE3OpbVZUzufqOTXO\n"
AUTH = base64.b64encode(b"test:secret").decode()
OCI, DOCKER, LIST = make_image("oci"), make_image("docker", kind="docker"), make_multi_image("list", kind="docker")


def uncompressed(kind: str) -> Image:
    """Its layer is a plain archive under a gzip media type: what a careless copy would compress."""
    layer = gzip.decompress(make_layer("plain"))
    config = make_config([layer])
    raw = make_manifest(config, [layer], "oci" if kind == "oci" else "docker")
    return Image(manifests=(raw,), blobs=(config, layer))


@dataclass
class Bench:
    skopeo: Skopeo
    host: str
    root: Path
    tmp: Path
    commands: list[str] = field(default_factory=list)

    def remote(self, repository: str, reference: str | Digest, host: str = "", **changes: Any) -> Remote:
        options: dict[str, Any] = {"tls_verify": False, "plain_http": True} | changes
        registry = Registry(host=host or self.host, **options)
        return Remote(registry=registry, repository=repository, reference=reference)

    def to_layout(self, source: Remote) -> Path:
        """The directory with what came."""
        shared, target = self.tmp / "shared", self.tmp / "layouts"
        (shared / "sha256").mkdir(parents=True, exist_ok=True)
        target.mkdir(exist_ok=True)
        self.skopeo.copy_to_layout(source, target / str(time.monotonic_ns()), shared, inherit=())
        return shared / "sha256"


IMAGES = {
    "a/oci:1": OCI,
    "a/docker:1": DOCKER,
    "a/list:1": LIST,
    "a/plain-oci:1": uncompressed("oci"),
    "a/plain-docker:1": uncompressed("docker"),
}


def make_bench(tmp_path: Path, host: str, root: Path, timeouts: Timeouts | None = None) -> Bench:
    for name in ("scratch", "home"):
        (tmp_path / name).mkdir(exist_ok=True)
    commands: list[str] = []
    runner = Runner(
        ShLauncher(), scratch=tmp_path / "scratch", search_path=os.environ["PATH"], stopping=threading.Event(),
        log=commands.append,
    )  # fmt: skip
    skopeo = Skopeo(runner=runner, home=tmp_path / "home", timeouts=timeouts or Timeouts(stall=20, copy=60))
    return Bench(skopeo, host, root, tmp_path, commands)


@pytest.fixture
def bench(tmp_path: Path, loopback_registry: StartRegistry) -> Bench:
    root = make_storage(tmp_path / "storage", IMAGES)
    return make_bench(tmp_path, loopback_registry(root).host, root)


@pytest.fixture
def closed(tmp_path: Path, loopback_registry: StartRegistry) -> Iterator[Bench]:
    """A registry that wants `test:secret`."""
    root = make_storage(tmp_path / "storage", IMAGES)
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    auth = {"auth": {"htpasswd": {"realm": "tests", "path": str(tmp_path / "htpasswd")}}}
    bench = make_bench(tmp_path, loopback_registry(root, extra=auth).host, root)
    yield bench
    shown = "\n".join(bench.commands)
    assert "secret" not in shown
    assert AUTH not in shown


def authfile(bench: Bench, login: str = "test:secret") -> Path:
    path = bench.tmp / "auth.json"
    path.write_text(json.dumps({"auths": {bench.host: {"auth": base64.b64encode(login.encode()).decode()}}}))
    return path


# --- a manifest


def test_a_manifest_by_tag_and_by_digest(bench: Bench) -> None:
    assert bench.skopeo.manifest(bench.remote("a/list", "1")) == LIST.raw
    child = LIST.manifests[0]
    assert bench.skopeo.manifest(bench.remote("a/list", Digest.of(child))) == child


@pytest.mark.parametrize(
    ("repository", "reference"), [("a/oci", "none"), ("no/such", "1"), ("a/oci", Digest("0" * 64))]
)
def test_what_is_absent_is_none(bench: Bench, repository: str, reference: str | Digest) -> None:
    assert bench.skopeo.manifest(bench.remote(repository, reference)) is None


def test_nobody_there_may_pass(bench: Bench) -> None:
    with pytest.raises(ToolError, match="connection refused") as raised:
        bench.skopeo.manifest(bench.remote("a/b", "1", host="127.0.0.1:1"))
    assert raised.value.transient


@pytest.mark.parametrize(("status", "transient"), [(503, True), (500, True), (418, False)])
def test_a_status(bench: Bench, status: int, transient: bool) -> None:
    with faulty_proxy(bench.host, [Fault("refuse", "/manifests/", status=status)]) as proxy:
        remote = bench.remote("a/oci", "1", host=proxy.host)
        with pytest.raises(ToolError) as raised:
            bench.skopeo.manifest(remote)
        assert raised.value.transient == transient
        assert len(proxy.asked("/manifests/")) == 1


def test_a_web_page_is_no_manifest(bench: Bench) -> None:
    with faulty_proxy(bench.host, [Fault("html", "/manifests/")]) as proxy, pytest.raises(ToolError) as raised:
        bench.skopeo.manifest(bench.remote("a/oci", "1", host=proxy.host))
    assert "login page" in raised.value.hint
    assert not raised.value.transient


def test_plain_http_where_tls_is_demanded(bench: Bench) -> None:
    with pytest.raises(ToolError) as raised:
        bench.skopeo.manifest(bench.remote("a/oci", "1", tls_verify=True, plain_http=False))
    assert "plain HTTP" in raised.value.hint
    assert not raised.value.transient


# --- credentials


def test_without_credentials(closed: Bench) -> None:
    with pytest.raises(ToolError) as raised:
        closed.skopeo.manifest(closed.remote("a/oci", "1"))
    assert not raised.value.transient
    assert "authfile" in raised.value.hint


def test_with_wrong_credentials(closed: Bench) -> None:
    path = authfile(closed, "test:mistaken")
    with pytest.raises(ToolError) as raised:
        closed.to_layout(closed.remote("a/oci", "1", authfile=path))
    assert not raised.value.transient
    assert "authfile" in raised.value.hint
    assert "mistaken" not in str(raised.value)


def test_with_an_authfile(closed: Bench) -> None:
    remote = closed.remote("a/oci", OCI.top, authfile=authfile(closed))
    assert closed.skopeo.manifest(remote) == OCI.raw
    came = closed.to_layout(remote)
    assert all((came / Digest.of(blob).hex).read_bytes() == blob for blob in OCI.blobs)


def test_the_users_own_credentials_are_not_used_unasked(closed: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(authfile(closed)))
    with pytest.raises(ToolError, match="authentication required"):
        closed.skopeo.manifest(closed.remote("a/oci", "1"))


# --- the user's configuration


def test_the_users_configuration_leads_nowhere_else(
    bench: Bench, tmp_path: Path, loopback_registry: StartRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = loopback_registry(make_storage(tmp_path / "other", {"a/oci:1": make_image("another")})).host
    containers = tmp_path / "user-home/.config/containers"
    (containers / "registries.conf.d").mkdir(parents=True)
    redirect = f'[[registry]]\nprefix = "{bench.host}"\nlocation = "{other}"\ninsecure = true\n'
    (containers / "registries.conf").write_text(redirect)
    (containers / "registries.conf.d/000.conf").write_text(redirect)
    (containers / "policy.json").write_text("{")
    monkeypatch.setenv("HOME", str(tmp_path / "user-home"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert bench.skopeo.manifest(bench.remote("a/oci", "1")) == OCI.raw


def test_its_files_stay_in_its_own_home(bench: Bench) -> None:
    bench.to_layout(bench.remote("a/oci", "1"))
    cache = list((bench.tmp / "home").rglob("blob-info-cache*"))
    assert [path.is_relative_to(bench.tmp / "home") for path in cache] == [True]


# --- copies


@pytest.mark.parametrize("name", [name for name in IMAGES if "list" not in name])
def test_a_copy_into_a_layout_keeps_all_bytes(bench: Bench, name: str) -> None:
    image, (repository, tag) = IMAGES[name], name.split(":")
    came = bench.to_layout(bench.remote(repository, image.top))
    assert {path.name: path.read_bytes() for path in came.iterdir()} == {
        Digest.of(data).hex: data for data in (*image.blobs, image.raw)
    }
    assert tag == "1"


def test_a_blob_that_is_there_is_not_fetched_again(bench: Bench) -> None:
    layer = OCI.blobs[1]
    (bench.tmp / "shared/sha256").mkdir(parents=True)
    (bench.tmp / "shared/sha256" / Digest.of(layer).hex).write_bytes(layer)
    with faulty_proxy(bench.host) as proxy:
        bench.to_layout(bench.remote("a/oci", OCI.top, host=proxy.host))
        assert not proxy.asked(Digest.of(layer).hex)


@pytest.mark.parametrize("name", IMAGES)
def test_a_copy_between_registries_keeps_the_digest(bench: Bench, loopback_registry: StartRegistry, name: str) -> None:
    dest = loopback_registry(bench.tmp / "dest")
    repository, tag = name.split(":")
    bench.skopeo.copy(bench.remote(repository, IMAGES[name].top), bench.remote("x/y", tag, host=dest.host))
    storage = Storage(dest.root)
    assert storage.resolve("x/y", tag) == IMAGES[name].top
    closure = storage.closure("x/y", IMAGES[name].top)
    assert closure is not None
    assert closure.missing == ()


def copy_oci(bench: Bench, host: str) -> None:
    bench.to_layout(bench.remote("a/oci", OCI.top, host=host))


LAYER = Digest.of(OCI.blobs[1]).hex


@pytest.mark.parametrize(
    "fault",
    [Fault("cut", f"GET .*{LAYER}", at=20), Fault("flip", f"GET .*{LAYER}"), Fault("refuse", f"GET .*{LAYER}")],
    ids=lambda fault: str(fault.kind),
)
def test_faults_on_the_way_may_pass(bench: Bench, fault: Fault) -> None:
    with faulty_proxy(bench.host, [fault]) as proxy, pytest.raises(ToolError) as raised:
        copy_oci(bench, proxy.host)
    assert raised.value.transient, raised.value


def test_a_blob_that_is_broken_at_the_source(bench: Bench) -> None:
    flip(bench.root / layout.blob_path(Digest.of(OCI.blobs[1])))
    with pytest.raises(ToolError, match="Digest did not match"):
        copy_oci(bench, bench.host)


@pytest.mark.parametrize("ask", [copy_oci, lambda b, host: b.skopeo.manifest(b.remote("a/oci", "1", host=host))])
def test_a_silent_server_is_given_up(bench: Bench, ask: Callable[[Bench, str], object]) -> None:
    hasty = make_bench(bench.tmp, bench.host, bench.root, Timeouts(stall=1, copy=60))
    started = time.monotonic()
    with faulty_proxy(bench.host, [Fault("silent", "/manifests/")]) as proxy, pytest.raises(ToolError) as raised:
        ask(hasty, proxy.host)
    assert raised.value.transient
    assert "made no progress for 1 s" in str(raised.value)
    assert time.monotonic() - started < 40


def test_a_copy_has_a_limit_as_a_whole(bench: Bench) -> None:
    hasty = make_bench(bench.tmp, bench.host, bench.root, Timeouts(stall=20, copy=1))
    with faulty_proxy(bench.host, [Fault("silent", "/manifests/")]) as proxy, pytest.raises(ToolError) as raised:
        copy_oci(hasty, proxy.host)
    assert raised.value.transient
