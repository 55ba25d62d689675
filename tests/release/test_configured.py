"""The command line with nothing but what the documentation says: configuration, authfile, a CA of one's own."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.builders import make_image, make_layer, make_multi_image, make_storage, storage_problems
from tests.conftest import StartRegistry
from tests.faultserver import faulty_proxy
from tests.release.regwrap_cli import Cli
from tests.tls import make_certificate

pytestmark = pytest.mark.tools

IMAGES = {"team/app:v1": make_image("app"), "team/multi:v1": make_multi_image("multi")}
PASSWORD = "secret"
# made once with bcrypt.hashpw(b"secret", bcrypt.gensalt(4)); docker-registry takes no other hash
HTPASSWD = "test:$2b$04$8m.7UG6Yd5HD7zrGLWJ1qOXWjNjDqfOgwrQkpE3OpbVZUzufqOTXO\n"
WRONG = "n0t-the-passw0rd"


@dataclass(frozen=True)
class Closed:
    """Two registries with passwords and TLS by a CA of their own, `source` with IMAGES, and the command line."""

    cli: Cli
    source: str
    dest: str
    dest_root: Path
    cert_dir: Path

    def write_authfile(self, password: str) -> Path:
        path = self.cli.directory / "auth.json"
        login = base64.b64encode(f"test:{password}".encode()).decode()
        path.write_text(json.dumps({"auths": {host: {"auth": login} for host in (self.source, self.dest)}}))
        path.chmod(0o600)
        return path

    def configure(self, *, cert_dir: bool = True, password: str = PASSWORD) -> None:
        """The file regwrap.yaml beside the list, in the form of config.example.yaml."""
        authfile = self.write_authfile(password)
        trust = f"    cert_dir: {self.cert_dir}\n" if cert_dir else ""
        (self.cli.directory / "regwrap.yaml").write_text(
            "registries:\n"
            f"  cicd:\n    url: https://{self.source}\n    authfile: {authfile}\n{trust}    max_connections: 12\n"
            f"  archive:\n    url: https://{self.dest}\n    authfile: {authfile}\n{trust}"
            "source: cicd\nretry:\n  attempts: 2\n  wait: 0\n  outage: 0\n"
        )
        (self.cli.directory / "images.list").write_text("".join(f"{name}\n" for name in IMAGES))


@pytest.fixture
def closed(tmp_path: Path, cli: Cli, loopback_registry: StartRegistry) -> Closed:
    certificate = make_certificate(tmp_path / "tls")
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    extra = {
        "auth": {"htpasswd": {"realm": "tests", "path": str(tmp_path / "htpasswd")}},
        "http": {"tls": {"certificate": f"{certificate.cert}", "key": f"{certificate.key}"}},
    }
    source = loopback_registry(make_storage(tmp_path / "ci", IMAGES), extra=extra).host
    dest = loopback_registry(tmp_path / "dest", extra=extra)
    return Closed(cli, source, dest.host, dest.root, certificate.directory)


def test_a_list_comes_from_a_registry_with_password_and_ca(closed: Closed) -> None:
    closed.configure()
    done = closed.cli("sync", "images.list", "--verbose")
    assert done.returncode == 0, done.stderr
    assert "2 copied, 0 already there, 0 failed" in done.stdout
    assert storage_problems(closed.cli.directory / "home/.local/share/regwrap/archive") == set()
    assert PASSWORD not in done.stdout + done.stderr
    again = closed.cli("sync", "images.list")
    assert "0 copied, 2 already there, 0 failed" in again.stdout


def test_from_registry_to_registry_both_with_password_and_ca(closed: Closed) -> None:
    closed.configure()
    done = closed.cli("sync", "images.list", "--archive", "archive")
    assert done.returncode == 0, done.stderr
    assert storage_problems(closed.dest_root) == set()
    assert "0 copied, 2 already there" in closed.cli("sync", "images.list", "--archive", "archive").stdout


def test_a_wrong_password_is_said_with_what_to_do_and_not_shown(closed: Closed) -> None:
    closed.configure(password=WRONG)
    done = closed.cli("sync", "images.list", "--verbose", "--json")
    assert done.returncode == 1
    assert "auth.json was refused, check user, password and rights: skopeo login --authfile" in done.stderr
    said = done.stdout + done.stderr
    assert WRONG not in said
    assert base64.b64encode(f"test:{WRONG}".encode()).decode() not in said


def test_an_unknown_ca_is_said_with_what_to_do(closed: Closed) -> None:
    closed.configure(cert_dir=False)
    done = closed.cli("sync", "images.list")
    assert done.returncode == 1
    assert "give the registry's CA with cert_dir (a directory with ca.crt), or tls_verify: false" in done.stderr


def test_tokens_for_each_repository(tmp_path: Path, cli: Cli, loopback_registry: StartRegistry) -> None:
    base = make_layer("base", b"x" * 100_000)
    images = {f"team/{n}:v1": make_image(f"{n}", layers=[base, make_layer(f"own{n}")]) for n in range(6)}
    source = loopback_registry(make_storage(tmp_path / "ci", images)).host
    dest = loopback_registry(tmp_path / "dest")
    login = "robot:t0p-s3cret"
    with (
        faulty_proxy(source, token="t0k3n", login=login) as first,
        faulty_proxy(dest.host, token="t0k3n", login=login) as second,
    ):
        auth = {"auth": base64.b64encode(login.encode()).decode()}
        (cli.directory / "auth.json").write_text(json.dumps({"auths": {first.host: auth, second.host: auth}}))
        (cli.directory / "regwrap.yaml").write_text(
            f"registries:\n  ci: {{url: http://{first.host}, authfile: auth.json}}\n"
            f"  to: {{url: http://{second.host}, authfile: auth.json}}\nsource: ci\narchive: to\n"
        )
        (cli.directory / "images.list").write_text("".join(f"{name}\n" for name in images))
        done = cli("sync", "images.list", "--verbose")
        assert done.returncode == 0, done.stderr
        mounts = second.asked(r"POST .*mount=")
        refused = len(first.requests)
        again = cli("sync", "images.list", "--jobs", "1")
        assert len(first.requests) - refused == len(images) + 1  # only the first is refused for want of a token
    assert "0 copied, 6 already there" in again.stdout
    assert mounts
    assert storage_problems(dest.root) == set()
    assert "t0k3n" not in done.stdout + done.stderr
    assert "t0p-s3cret" not in done.stdout + done.stderr


def test_a_registry_that_is_down_is_one_message_with_the_number_of_images(cli: Cli) -> None:
    (cli.directory / "images.list").write_text("".join(f"team/{n}:v1\n" for n in range(100)))
    (cli.directory / "regwrap.yaml").write_text("retry: {wait: 0, outage: 0}\n")
    done = cli("sync", "images.list", "--source", "127.0.0.1:1")
    assert done.returncode == 3
    said = "100 images FAILED (team/0:v1 team/1:v1 team/2:v1 and 97 more): 127.0.0.1:1 is down: "
    told = [line for line in done.stderr.splitlines() if line.startswith(said)]
    assert len(told) == 1
    assert "refused" in told[0]
    assert "rerun the command when it answers again" in done.stderr
    assert len((cli.directory / "failed.list").read_text().splitlines()) > 100


def test_an_immutable_tag_never_moves_and_is_not_asked_for_again(
    cli: Cli, loopback_registry: StartRegistry, tmp_path: Path
) -> None:
    root = make_storage(tmp_path / "ci", {"app:v1": make_image("old"), "app:edge": make_image("old")})
    registry = loopback_registry(root)
    (cli.directory / "images.list").write_text("app:v1\napp:edge\n")
    (cli.directory / "regwrap.yaml").write_text(f"source: http://{registry.host}\nimmutable: ['v*']\n")
    assert cli("sync", "images.list").returncode == 0
    old, new = make_image("old").top, make_image("new").top
    make_storage(root, {"app:v1": make_image("new"), "app:edge": make_image("new")})
    done = cli("sync", "images.list", "--report", "r.json")
    assert done.returncode == 0, done.stderr
    assert f"1 tag now means another image:\n  app:edge  {old} -> {new}" in done.stderr
    assert {i["image"]: i["replaced"] for i in json.loads((cli.directory / "r.json").read_text())["images"]} == {
        "app:edge": f"{old}",
        "app:v1": None,
    }
    (cli.directory / "pinned.list").write_text(f"app:v1@{new}\n")
    refused = cli("sync", "pinned.list")
    assert refused.returncode == 1
    assert f"app:v1 is immutable: it is {old} there, the source has {new}" in refused.stderr
