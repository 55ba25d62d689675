"""A bundle as a registry: pulled from by skopeo and docker, reached by whom it should be, ended at once."""

import os
import re
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from regwrap.core.model import Digest
from tests.builders import storage_problems
from tests.bundles import make_bundle
from tests.dockerd import started_dockerd
from tests.release.conftest import all_kinds
from tests.release.regwrap_cli import Cli, raw_digest
from tests.tls import HTPASSWD, LOGIN, make_certificate

pytestmark = pytest.mark.tools

IMAGES = all_kinds()


@dataclass(frozen=True)
class Running:
    process: "subprocess.Popen[str]"
    url: str

    @property
    def host(self) -> str:
        return self.url.partition("://")[2]

    def end(self, signum: signal.Signals) -> float:
        """The seconds that took."""
        started = time.monotonic()
        self.process.send_signal(signum)
        self.process.communicate(timeout=20)
        return time.monotonic() - started


@contextmanager
def serving(cli: Cli, *args: str | Path) -> Iterator[Running]:
    process = cli.start("serve", *args)
    assert process.stdout is not None
    try:
        yield Running(process, process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path, IMAGES)


def skopeo(*args: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["skopeo", "--insecure-policy", *args],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("kind", ["bundle", "storage"])
def test_skopeo_pulls_every_image_with_its_bytes(cli: Cli, bundle: Path, tmp_path: Path, kind: str) -> None:
    source = bundle if kind == "bundle" else tmp_path / "archive"
    with serving(cli, source, "--addr", "127.0.0.1:0") as server:
        assert {name: raw_digest(server.host, name) for name in IMAGES} == {n: str(i.top) for n, i in IMAGES.items()}
        for name in sorted(IMAGES.keys() - {"multi/nested:v1"}):  # skopeo copies no index in an index
            place = tmp_path / "pulled" / name.replace("/", "-")
            place.parent.mkdir(exist_ok=True)
            done = skopeo("copy", "--all", "--src-tls-verify=false", f"docker://{server.host}/{name}", f"dir:{place}")
            assert done.returncode == 0, done.stderr
            pulled = {Digest.of(path.read_bytes()) for path in place.iterdir()}
            assert {Digest.of(blob) for blob in IMAGES[name].blobs} <= pulled
        assert list((cli.directory / "scratch").rglob("data")) == []


def test_a_served_bundle_is_a_source_of_sync(cli: Cli, bundle: Path) -> None:
    (cli.directory / "images.list").write_text("".join(f"{name}\n" for name in IMAGES))
    with serving(cli, bundle, "--addr", "127.0.0.1:0") as server:
        done = cli("sync", "images.list", "--source", server.host, "--archive", "./again")
    assert done.returncode == 0, done.stderr
    assert storage_problems(cli.directory / "again") == set()


@pytest.mark.tools("dockerd", "docker")
def test_docker_pulls_from_it(cli: Cli, bundle: Path) -> None:
    with serving(cli, bundle, "--addr", "127.0.0.1:0") as server, started_dockerd() as docker:
        for name in ("app:v1", "library/tool:1.0", "multi/oci:v1", "multi/docker:v1"):
            done = docker("pull", f"{server.host}/{name}")
            assert done.returncode == 0, done.stderr
            assert f"Digest: {IMAGES[name].top}" in done.stdout


def test_other_machines_get_it_with_tls_and_a_password_only(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    refused = cli("serve", bundle, "--addr", "0.0.0.0:0")
    assert refused.returncode == 2
    assert "give --tls-cert and --tls-key and --htpasswd" in refused.stderr
    certificate = make_certificate(tmp_path / "tls")
    users = tmp_path / "htpasswd"
    users.write_text(HTPASSWD)
    options = ("--tls-cert", certificate.cert, "--tls-key", certificate.key, "--htpasswd", users)
    with serving(cli, bundle, "--addr", "0.0.0.0:0", *options) as server:
        assert server.url.startswith("https://0.0.0.0:")
        reference = f"docker://127.0.0.1:{server.host.rpartition(':')[2]}/app:v1"
        args = ("copy", "--src-cert-dir", f"{certificate.directory}")
        done = skopeo(*args, "--src-creds", LOGIN, reference, f"dir:{tmp_path}/pulled")
        assert done.returncode == 0, done.stderr
        assert b"unauthorized" in skopeo(*args, "--src-creds", "ci:wrong", reference, f"dir:{tmp_path}/no").stderr
        assert b"x509" in skopeo("copy", "--src-creds", LOGIN, reference, f"dir:{tmp_path}/no").stderr
    with serving(cli, bundle, "--addr", "0.0.0.0:0", "--insecure") as server:
        assert server.url.startswith("http://0.0.0.0:")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once_also_while_it_is_busy(cli: Cli, bundle: Path, signum: signal.Signals) -> None:
    with serving(cli, bundle, "--addr", "127.0.0.1:0") as server:
        host, _, port = server.host.partition(":")
        with socket.create_connection((host, int(port))) as idle:
            assert urllib.request.urlopen(f"{server.url}/v2/", timeout=10).status == 200
            assert server.end(signum) < 5  # a client that says nothing may do so for ten times as long
            assert server.process.returncode == 0
            assert idle.recv(1) == b""
    assert list((cli.directory / "scratch").iterdir()) == []


def test_a_client_that_shakes_no_hands_does_not_stop_the_others(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "tls")
    options = ("--tls-cert", certificate.cert, "--tls-key", certificate.key)
    context = ssl.create_default_context(cafile=f"{certificate.directory}/ca.crt")
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    with serving(cli, bundle, "--addr", "127.0.0.1:0", *options) as server:
        host, _, port = server.host.partition(":")
        url = f"{server.url}/v2/"
        with socket.create_connection((host, int(port))), urllib.request.urlopen(url, context=context) as answer:
            assert answer.status == 200


def test_a_port_in_use_a_damaged_bundle_and_no_bundle_are_said_so(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    with serving(cli, bundle, "--addr", "127.0.0.1:0") as server:
        done = cli("serve", bundle, "--addr", server.host)
        assert done.returncode == 2
        assert f"cannot listen on {server.host}: Address already in use" in done.stderr
        assert "port 0 selects a free port" in done.stderr
    assert cli("serve", tmp_path / "none.tar").returncode == 2
    assert cli("serve", cli.directory).returncode == 2
    bundle.write_bytes(bundle.read_bytes()[:-65536])
    damaged = cli("serve", bundle)
    assert (damaged.returncode, damaged.stdout) == (4, "")


def test_dry_run_checks_everything_names_the_images_and_serves_nothing(cli: Cli, bundle: Path) -> None:
    done = cli("serve", bundle, "--addr", "127.0.0.1:0", "--dry-run")
    assert done.returncode == 0, done.stderr
    *names, total = done.stdout.splitlines()
    assert sorted(names) == sorted(IMAGES)
    assert total == f"would serve {len(IMAGES)} images at 127.0.0.1:0"
    with serving(cli, bundle, "--addr", "127.0.0.1:0") as server:
        assert cli("serve", bundle, "--addr", server.host, "--dry-run").returncode == 2
    bundle.write_bytes(bundle.read_bytes()[:-65536])
    assert cli("serve", bundle, "--dry-run").returncode == 4


def test_verbose_tells_who_pulls_what(cli: Cli, bundle: Path) -> None:
    with serving(cli, bundle, "--addr", "127.0.0.1:0", "--verbose") as server:
        assert raw_digest(server.host, "app:v1")
        server.process.send_signal(signal.SIGINT)
        _out, err = server.process.communicate(timeout=20)
    assert re.search(r'^127\.0\.0\.1 "GET /v2/app/manifests/v1 HTTP/1\.1" 200', err, flags=re.MULTILINE)
