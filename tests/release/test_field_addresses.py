"""IPv6 in brackets through every command, and addresses that a registry answers and that cannot be reached."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.answering import Answer, Asked
from tests.builders import make_image, make_multi_image, make_storage, put
from tests.fieldregistry import FieldRegistry, field_registry
from tests.registry import served_loopback
from tests.release.regwrap_cli import Cli
from tests.socks import socks_to
from tests.tls import make_certificate, served_by

pytestmark = pytest.mark.tools

IMAGES = {"team/app:v1": make_image("app"), "team/multi:v1": make_multi_image("multi")}
QUICK = "retry: {attempts: 1, outage: 0}\n"


@pytest.fixture
def six(tmp_path: Path) -> Iterator[str]:
    """[::1]:PORT of a real registry."""
    root = make_storage(tmp_path / "six", IMAGES)
    with served_loopback(root, scratch=tmp_path / "scratch6", extra={"http": {"addr": "[::1]:0"}}) as registry:
        yield registry.host


def test_an_address_in_brackets_goes_through_every_command(cli: Cli, six: str) -> None:
    make_storage(cli.directory / "new", {"team/new:v1": make_image("new")})
    put(cli.directory / "images.list", f"{six}/team/app:v1\n{six}/team/multi:v1\n".encode())
    assert f"{six}/team/multi:v1" in cli("list", "from-registry", six).stdout
    assert f"{six}/team/app:v1" in cli("list", "from-registry", f"{six}/team").stdout
    assert cli("lock", "images.list").returncode == 0
    assert "1 copied" in cli("push", "new", f"{six}/site").stdout
    assert "valid" in cli("verify", six, "--list", "images.list").stdout
    dry = cli("sync", "images.list", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    put(cli.directory / "regwrap.yaml", f"registries: {{six: {{url: 'http://{six}'}}}}\n".encode())
    assert "open without a login" in cli("doctor").stdout
    put(cli.directory / "regwrap.yaml", f"images: [{{match: '{six}/team/*', newest: 1}}]\n".encode())
    put(cli.directory / "empty.list", b"")
    ruled = cli("lock", "empty.list")
    assert "team/multi:v1" in (cli.directory / "empty.lock").read_text(), ruled.stderr


def test_an_image_of_an_address_in_brackets_is_copied_or_the_reason_is_skopeos(cli: Cli, six: str) -> None:
    """skopeo reads such addresses from 1.14 on."""
    put(cli.directory / "images.list", f"{six}/team/app:v1\n".encode())
    done = cli("sync", "images.list")
    assert "1 copied" in done.stdout or "this skopeo reads no IPv6 address in brackets" in done.stderr, done.stderr


def test_what_is_served_at_an_address_in_brackets_is_read_there(cli: Cli, tmp_path: Path) -> None:
    make_storage(tmp_path / "root", IMAGES)
    process = cli.start("serve", f"{tmp_path}/root", "--addr", "[::1]:0")
    assert process.stdout is not None
    host = process.stdout.readline().strip().removeprefix("http://")
    assert host.startswith("[::1]:")
    assert f"{host}/team/app:v1" in cli("list", "from-registry", host).stdout
    process.terminate()
    process.communicate()


@contextmanager
def leading(to: str, only: str) -> Iterator[FieldRegistry]:
    """A registry that answers `only` with a redirect to another address."""

    def hook(asked: Asked) -> Answer | None:
        is_meant = only in asked.line
        return Answer(307, {"Location": to + asked.line.split()[1]}) if is_meant else None

    with field_registry(IMAGES, hook) as registry:
        yield registry


@pytest.mark.parametrize("only", ["/blobs/sha256", "/manifests/"])
def test_an_address_that_a_registry_gave_and_nobody_answers_is_called_that(cli: Cli, only: str) -> None:
    with leading("http://127.0.0.1:1", only) as registry:
        settings = f"registries: {{r: {{url: 'http://{registry.host}'}}}}\nsource: r\n{QUICK}"
        put(cli.directory / "regwrap.yaml", settings.encode())
        put(cli.directory / "images.list", b"team/app:v1 platform=linux/amd64\n")
        done = cli("lock", "images.list")
    assert done.returncode != 0
    assert "127.0.0.1:1" in done.stderr
    if "blobs" in only:
        assert f"the address came from the registry's answer ({registry.host})" in done.stderr
        assert "the address that the registry gives for itself" in done.stderr


@pytest.mark.parametrize("answers_tls", [False, True])
def test_a_redirect_to_the_other_scheme_is_followed_or_told(cli: Cli, tmp_path: Path, *, answers_tls: bool) -> None:
    """https that leads to http, as behind a proxy that ends TLS, and http that leads to https."""
    certificate = make_certificate(tmp_path / "tls")
    tls = served_by(certificate.cert, certificate.key)
    found: list[FieldRegistry] = []

    def hook(asked: Asked) -> Answer | None:
        if "/blobs/sha256" not in asked.line or "led=1" in asked.line:
            return None
        scheme = "http" if answers_tls else "https"
        return Answer(307, {"Location": f"{scheme}://{found[0].host}{asked.line.split()[1]}?led=1"})

    with field_registry(IMAGES, hook, tls if answers_tls else None) as registry:
        found.append(registry)
        own = (
            f"https://{registry.host}', cert_dir: '{certificate.directory}"
            if answers_tls
            else f"http://{registry.host}"
        )
        settings = f"registries: {{r: {{url: '{own}'}}}}\nsource: r\n{QUICK}"
        put(cli.directory / "regwrap.yaml", settings.encode())
        put(cli.directory / "images.list", b"team/app:v1 platform=linux/amd64\n")
        done = cli("lock", "images.list")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("tls", [False, True])
def test_loopback_with_tls_or_without_is_the_same_in_every_command(cli: Cli, tmp_path: Path, *, tls: bool) -> None:
    certificate = make_certificate(tmp_path / "tls")
    context = served_by(certificate.cert, certificate.key) if tls else None
    make_storage(cli.directory / "new", {"team/new:v1": make_image("new")})
    with field_registry(IMAGES, tls=context) as registry:
        put(cli.directory / "images.list", f"{registry.host}/team/app:v1\n".encode())
        for args in (
            ("list", "from-registry", registry.host),
            ("lock", "images.list"),
            ("sync", "images.list"),
            ("push", "new", registry.host),
            ("verify", registry.host, "--list", "images.list"),
        ):
            done = cli(*args)
            assert done.returncode == 0, (args, done.stderr)


@pytest.mark.parametrize("kind", ["socks", "https"])
def test_all_of_an_image_comes_through_the_proxy_that_knows_the_host(cli: Cli, tmp_path: Path, kind: str) -> None:
    """Its name is known nowhere else; one proxy has a login, the other one speaks TLS by a CA of its own."""
    certificate = make_certificate(tmp_path / "tls")
    tls = served_by(certificate.cert, certificate.key) if kind == "https" else None
    settings = f"registries: {{r: {{url: 'http://registry.test:5000'}}}}\nsource: r\n{QUICK}"
    put(cli.directory / "regwrap.yaml", settings.encode())
    put(cli.directory / "images.list", b"team/app:v1\nteam/multi:v1\n")
    with field_registry(IMAGES, tls=tls) as registry, socks_to(registry.host, (b"u", b"p@ss")) as (socks, asked):
        proxy = f"https://{registry.host}" if kind == "https" else f"socks5://u:p%40ss@{socks}"
        env = {"http_proxy": proxy, "SSL_CERT_FILE": f"{certificate.directory / 'ca.crt'}", "NO_PROXY": "10.0.0.0/8"}
        done = cli("sync", "images.list", env=env)
        assert "2 copied" in done.stdout, done.stderr
        assert len([line for line in registry.lines if "/blobs/" in line]) >= 4
    assert set(asked) == ({"registry.test:5000"} if kind == "socks" else set())
