"""Certificates as companies have them: files that are none, clients' certificates, dates that are over, other names."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.builders import make_image, put
from tests.fieldregistry import FieldRegistry, field_registry
from tests.release.regwrap_cli import Cli
from tests.tls import Certificate, make_certificate, make_expired, served_by

if TYPE_CHECKING:
    import subprocess

pytestmark = pytest.mark.tools

IMAGES = {"team/app:v1": make_image("app")}
QUICK = "retry: {attempts: 2, wait: 0, max_wait: 1}\n"


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path / "tls")


@pytest.fixture
def registry(certificate: Certificate) -> Iterator[FieldRegistry]:
    with field_registry(IMAGES, tls=served_by(certificate.cert, certificate.key)) as registry:
        yield registry


def synced(cli: Cli, registry: FieldRegistry, cert_dir: Path | None, **env: str) -> "subprocess.CompletedProcess[str]":
    trust = f", cert_dir: {cert_dir}" if cert_dir else ""
    settings = f"registries:\n  r: {{url: 'https://{registry.host}'{trust}}}\nsource: r\n{QUICK}"
    put(cli.directory / "regwrap.yaml", settings.encode())
    put(cli.directory / "images.list", b"team/app:v1\n")
    return cli("sync", "images.list", env=env)


@pytest.mark.parametrize("name", ["der.crt", "empty.crt", "readme.crt"])
def test_a_file_that_is_no_certificate_is_named_and_the_rest_goes_on(
    cli: Cli, registry: FieldRegistry, certificate: Certificate, name: str
) -> None:
    data = {"der.crt": b"\x30\x03\x02\x01\x00", "empty.crt": b"", "readme.crt": b"see the wiki\n"}
    put(certificate.directory / name, data[name])
    done = synced(cli, registry, certificate.directory)
    assert (done.returncode, "1 copied" in done.stdout) == (0, True), done.stderr
    assert f"{certificate.directory / name} has no certificate in PEM form" in done.stderr


@pytest.mark.parametrize("file", ["absent.pem", "empty.pem"])
def test_ssl_cert_file_that_has_none_is_named(
    cli: Cli, registry: FieldRegistry, certificate: Certificate, file: str
) -> None:
    put(cli.directory / "empty.pem", b"")
    path = f"{cli.directory / file}"
    done = synced(cli, registry, None, SSL_CERT_FILE=path, SSL_CERT_DIR=f"/nonexistent:{certificate.directory}")
    assert "1 copied" in done.stdout, done.stderr
    assert f"SSL_CERT_FILE: {path} has no certificate in PEM form" in done.stderr


def test_ssl_cert_file_adds_to_the_directories(cli: Cli, registry: FieldRegistry, certificate: Certificate) -> None:
    other = make_certificate(cli.directory / "other").directory / "ca.crt"
    done = synced(cli, registry, None, SSL_CERT_FILE=f"{other}", SSL_CERT_DIR=f"{certificate.directory}")
    assert "1 copied" in done.stdout, done.stderr
    assert cli("lock", "images.list", env={"SSL_CERT_FILE": f"{certificate.directory}/ca.crt"}).returncode == 0


@pytest.mark.parametrize(("name", "other"), [("client.cert", "client.key"), ("client.key", "client.cert")])
def test_half_a_clients_certificate_is_named(
    cli: Cli, registry: FieldRegistry, certificate: Certificate, name: str, other: str
) -> None:
    put(certificate.directory / name, certificate.cert.read_bytes())
    done = synced(cli, registry, certificate.directory)
    assert done.returncode == 1
    assert f"{certificate.directory / name} cannot be used: {other} is not beside it" in done.stderr


def test_one_registrys_bad_files_are_no_other_registrys_business(
    cli: Cli, registry: FieldRegistry, certificate: Certificate
) -> None:
    put(certificate.directory / "client.cert", b"")
    with field_registry({"team/other:v1": make_image("other")}) as plain:
        settings = f"registries: {{r: {{url: 'https://{registry.host}', cert_dir: {certificate.directory}}}}}\n{QUICK}"
        put(cli.directory / "regwrap.yaml", settings.encode())
        put(cli.directory / "images.list", f"{plain.host}/team/other:v1\n{registry.host}/team/app:v1\n".encode())
        done = cli("sync", "images.list")
    assert (done.returncode, "1 copied, 0 already there, 1 failed" in done.stdout) == (1, True)


def test_a_clients_certificate_is_shown(cli: Cli, certificate: Certificate) -> None:
    tls = served_by(certificate.cert, certificate.key, certificate.directory / "ca.crt")
    with field_registry(IMAGES, tls=tls) as registry:
        without = synced(cli, registry, certificate.directory)
        assert "put a client's certificate into cert_dir" in without.stderr
        shutil.copy(certificate.cert, certificate.directory / "client.cert")
        shutil.copy(certificate.key, certificate.directory / "client.key")
        done = synced(cli, registry, certificate.directory)
        assert "1 copied" in done.stdout, done.stderr
        assert cli("lock", "images.list").returncode == 0


def test_an_expired_certificate_is_called_that_with_a_date(cli: Cli, tmp_path: Path, certificate: Certificate) -> None:
    expired = make_expired(tmp_path / "tls", certificate)
    with field_registry(IMAGES, tls=served_by(expired, certificate.key)) as registry:
        said = synced(cli, registry, certificate.directory).stderr
    assert "certificate has expired or is not yet valid: current time" in said
    assert "is after 2020-02-01T00:00:00Z" in said
    assert "the certificate's dates do not include this machine's time: renew it" in said
    assert "tls_verify" not in said


def test_loopback_speaks_tls_or_plain_http_as_docker_has_it(cli: Cli, registry: FieldRegistry) -> None:
    with field_registry({"team/plain:v1": make_image("plain")}) as plain:
        lines = f"{registry.host}/team/app:v1\n{plain.host}/team/plain:v1\n"
        put(cli.directory / "images.list", lines.encode())
        done = cli("sync", "images.list")
        assert "2 copied" in done.stdout, done.stderr
        for host in (registry.host, plain.host):
            assert cli("list", "from-registry", host).returncode == 0
