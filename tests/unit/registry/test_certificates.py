"""TLS with a private CA: who is trusted, who is shown what, and what is said where it fails.

`tests/samples/tls` has a CA, a certificate of 127.0.0.1 (and of no name), a client's, and one that expired in 2020.
"""

import os
import shutil
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from regwrap.bundle.by_repository import StorageSource
from regwrap.core.errors import ToolError, UsageError
from regwrap.core.location import Registry
from regwrap.registry.certificates import certificates_of, curl_options, end_of, meaning_of_tls, trust_of
from regwrap.registry.client import Client
from regwrap.registry.credentials import UnsureError
from regwrap.registry.exchange import Request
from regwrap.registry.server import ServeOptions, served_contents
from regwrap.registry.server_access import read_certificate
from regwrap.storage.store import Storage
from regwrap.tools.rate_limit import HostLimiter
from tests.answering import Answer, Answering, answering
from tests.builders import make_image, make_storage, put
from tests.socks import IPV4, IPV6, NAME, socks_to

TLS = Path(__file__).parents[2] / "samples/tls"
NOT_TRUSTED = "give the registry's CA with cert_dir"


@contextmanager
def secured(*, certificate: str = "server.crt", clients: bool = False) -> Iterator[Answering]:
    """A registry over HTTPS; with `clients`, for those alone that show a certificate of the CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / certificate, TLS / "server.key")
    if clients:
        context.load_verify_locations(TLS / "ca.crt")
        context.verify_mode = ssl.CERT_REQUIRED
    with answering(lambda _asked: Answer(body=b"{}"), context) as server:
        yield server


def got(
    host: str,
    cert_dir: Path | None = None,
    *,
    tls_verify: bool = True,
    environment: dict[str, str] | None = None,
    notes: list[str] | None = None,
) -> int:
    client = Client(
        registry=Registry(host=host, tls_verify=tls_verify, cert_dir=cert_dir),
        timeout=10,
        connections=1,
        environment=tuple((environment or {}).items()),
        limiter=HostLimiter(host=host),
        note=(notes if notes is not None else []).append,
    )
    return client.request(Request("GET", "/v2/")).status


def refusal(host: str, cert_dir: Path | None = None, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(UnsureError, match=f"^{host}: ") as raised:
        got(host, cert_dir, environment=environment)
    return raised.value.hint


@pytest.fixture
def trusting(tmp_path: Path) -> Path:
    """A cert_dir with the CA."""
    (tmp_path / "certs.d").mkdir()
    shutil.copy(TLS / "ca.crt", tmp_path / "certs.d/ca.crt")
    return tmp_path / "certs.d"


@pytest.mark.slow
def test_a_private_ca_is_trusted_where_it_is_given_and_nowhere_else(trusting: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with secured() as server:
        assert got(server.host, trusting) == 200
        for directory in (None, tmp_path / "empty"):
            assert NOT_TRUSTED in refusal(server.host, directory)
        assert got(server.host, tls_verify=False) == 200
        assert len(server.asked) == 2


@pytest.mark.slow
def test_the_users_variables_name_cas_too(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    shutil.copy(TLS / "ca.crt", tmp_path / "more/whatever.pem")
    (tmp_path / "more/directory").mkdir()
    with secured() as server:
        assert got(server.host, environment={"SSL_CERT_FILE": f"{TLS / 'ca.crt'}"}) == 200
        assert got(server.host, environment={"SSL_CERT_DIR": f"/nowhere::{tmp_path / 'more'}"}) == 200
        assert NOT_TRUSTED in refusal(server.host, environment={"SSL_CERT_DIR": "/nowhere"})


def test_a_file_that_is_no_certificate_is_named_and_the_others_count(trusting: Path) -> None:
    names = [put(trusting / f"{letter}.crt", b"not PEM").name for letter in "bdaec"]
    notes: list[str] = []
    with secured() as server:
        assert got(server.host, trusting, environment={"SSL_CERT_FILE": "/nowhere/ca"}, notes=notes) == 200
        assert notes == [
            "SSL_CERT_FILE: /nowhere/ca has no certificate in PEM form, and does not count",
            *(f"{trusting}/{name} has no certificate in PEM form, and does not count" for name in sorted(names)),
        ]
        notes.clear()
        assert got(server.host, trusting, tls_verify=False, notes=notes) == 200
        assert notes == []  # where nothing is checked no file is of use


@pytest.mark.slow
def test_the_machines_own_cas_count_where_the_user_names_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "certs").mkdir()
    shutil.copy(TLS / "ca.crt", tmp_path / "certs/7c005cd1.0")  # the hash of its name, as openssl rehash makes it
    with secured() as server:
        assert NOT_TRUSTED in refusal(server.host)
        with monkeypatch.context() as machine:
            machine.setattr("regwrap.registry.certificates._MACHINE", (tmp_path / "nowhere", tmp_path / "certs"))
            assert got(server.host) == 200
            assert NOT_TRUSTED in refusal(server.host, environment={"SSL_CERT_DIR": "/nowhere"})
        monkeypatch.setenv("SSL_CERT_FILE", f"{TLS / 'ca.crt'}")  # so OpenSSL has it for the file of this machine
        assert got(server.host) == 200
        assert NOT_TRUSTED in refusal(server.host, environment={"SSL_CERT_FILE": f"{TLS / 'expired.crt'}"})


@pytest.mark.slow
def test_an_empty_name_among_directories_of_cas_does_not_trust_what_lies_where_one_stands(
    trusting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trusting)
    with secured() as server:
        assert NOT_TRUSTED in refusal(server.host, environment={"SSL_CERT_DIR": "/nowhere:"})
    bundle = options(tmp_path, SSL_CERT_FILE=f"{TLS / 'client.crt'}", SSL_CERT_DIR=":/nowhere")["cacert"]
    assert Path(bundle).read_bytes() == (TLS / "client.crt").read_bytes()


@pytest.mark.slow
def test_a_pipe_among_cas_is_not_read(tmp_path: Path) -> None:
    """One that nobody writes into would never end."""
    reading, writing = os.pipe()
    os.write(writing, (TLS / "ca.crt").read_bytes())
    os.close(writing)
    (tmp_path / "pipe.pem").symlink_to(f"/proc/self/fd/{reading}")
    with os.fdopen(reading, "rb") as pipe:
        trust = trust_of(Registry(host="r.example", tls_verify=True), {"SSL_CERT_DIR": f"{tmp_path}"})
        assert not any("tests" in f"{ca['subject']}" for ca in trust.context.get_ca_certs())
        assert pipe.read() == (TLS / "ca.crt").read_bytes()


@pytest.mark.slow
def test_the_machines_directory_for_a_registry_counts_as_for_skopeo(tmp_path: Path) -> None:
    registry = Registry(host="r.example:5000", tls_verify=True)
    assert certificates_of(registry, tmp_path) is None
    put(tmp_path / "docker/certs.d/r.example:5000/ca.crt", (TLS / "ca.crt").read_bytes())
    assert certificates_of(registry, tmp_path) == tmp_path / "docker/certs.d/r.example:5000"
    assert any("tests" in f"{ca['subject']}" for ca in trust_of(registry, {}, tmp_path).context.get_ca_certs())
    put(tmp_path / "containers/certs.d/r.example:5000/note.txt", b"")
    assert certificates_of(registry, tmp_path) == tmp_path / "containers/certs.d/r.example:5000"
    assert certificates_of(replace(registry, cert_dir=tmp_path), tmp_path) == tmp_path


@pytest.mark.slow
def test_an_expired_certificate_and_a_wrong_name_are_told_apart(trusting: Path) -> None:
    with secured(certificate="expired.crt") as server:
        assert "renew it, or set the clock" in refusal(server.host, trusting)
        assert server.asked == []
    with secured() as server:
        assert "use a name that is in the registry's certificate" in refusal(
            server.host.replace("127.0.0.1", "localhost"), trusting
        )


@pytest.mark.slow
@pytest.mark.parametrize("bound", [IPV4, IPV6, NAME])
def test_through_a_proxy_of_socks_it_is_the_registry_that_shows_its_certificate(trusting: Path, bound: bytes) -> None:
    with secured() as server, socks_to(server.host, bound=bound) as (proxy, asked):
        environment = {"HTTPS_PROXY": f"socks5://{proxy}"}
        assert got("registry.test:5000", tls_verify=False, environment=environment) == 200
        assert NOT_TRUSTED in refusal("registry.test:5000", environment=environment)
        said = refusal("registry.test", trusting, environment)
        assert "use a name that is in the registry's certificate" in said
    assert {*asked} == {"registry.test:5000", "registry.test:443"}
    assert server.lines == ["GET /v2/"]


@pytest.mark.slow
def test_a_clients_certificate_is_shown_to_who_wants_one(trusting: Path) -> None:
    with secured(clients=True) as server:
        with pytest.raises((UnsureError, ToolError)):
            got(server.host, trusting)
        shutil.copy(TLS / "client.crt", trusting / "client.cert")
        shutil.copy(TLS / "client.key", trusting / "client.key")
        assert got(server.host, trusting) == 200


@pytest.mark.slow
def test_of_several_clients_certificates_the_last_one_by_name_is_shown_by_us_and_by_curl(
    trusting: Path, tmp_path: Path
) -> None:
    for name in ("b", "d", "a", "e", "c"):
        source = "client" if name == "e" else "expired"
        shutil.copy(TLS / f"{source}.crt", trusting / f"{name}.cert")
        shutil.copy(TLS / f"{source.replace('expired', 'server')}.key", trusting / f"{name}.key")
    with secured(clients=True) as server:
        assert got(server.host, trusting) == 200
    curl = curl_options(Registry(host="r.example", tls_verify=True, cert_dir=trusting), {}, tmp_path)
    assert curl[2:] == (("cert", f"{trusting / 'e.cert'}"), ("key", f"{trusting / 'e.key'}"))


@pytest.mark.slow
def test_of_several_halves_of_clients_certificates_the_first_one_by_name_is_told(trusting: Path) -> None:
    for name in ("d.key", "b.cert", "a.key", "e.cert", "c.key"):
        put(trusting / name, b"x")
    with pytest.raises(ToolError, match=r"a\.key cannot be used: a\.cert is not beside it"):
        got("127.0.0.1:1", trusting)


@pytest.mark.slow
@pytest.mark.parametrize("half", ["client.cert", "client.key"])
def test_half_of_a_clients_certificate_is_named(trusting: Path, half: str) -> None:
    put(trusting / half, b"x")
    other = "client.key" if half == "client.cert" else "client.cert"
    with secured() as server, pytest.raises(ToolError, match=f"{half} cannot be used: {other} is not beside it"):
        got(server.host, trusting)


@pytest.mark.slow
def test_a_clients_certificate_that_does_not_fit_its_key_is_named(trusting: Path) -> None:
    shutil.copy(TLS / "client.crt", trusting / "client.cert")
    shutil.copy(TLS / "server.key", trusting / "client.key")
    with (
        secured() as server,
        pytest.raises(ToolError, match=r"client\.cert and client\.key cannot be used as a client's") as raised,
    ):
        got(server.host, trusting)
    assert "without a password" in raised.value.hint


def test_words_of_tls_that_say_nothing_known_have_no_hint() -> None:
    assert meaning_of_tls("bad record mac").hint == ""


# --- until when a certificate is valid


def der(tag: int, *parts: bytes) -> bytes:
    data = b"".join(parts)
    size = len(data).to_bytes(2, "big").lstrip(b"\0")
    return bytes([tag, *((len(data),) if len(data) < 128 else (128 + len(size), *size))]) + data


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 129, 255, 256, 5000])
@pytest.mark.parametrize("has_version", [True, False])
def test_the_end_of_a_certificate_is_found_whatever_its_names_are(size: int, *, has_version: bool) -> None:
    version = [der(0xA0, der(2, b"\2"))] if has_version else []
    dates = der(0x30, der(0x17, b"200101000000Z"), der(0x18, b"20510203040506Z"))
    name = der(0x30, b"x" * size)
    signed = der(0x30, *version, der(2, b"\7"), der(0x30), name, dates, name, der(0x30))
    certificate = der(0x30, signed, der(0x30), der(3, b"signature"))
    assert end_of(certificate) == datetime(2051, 2, 3, 4, 5, 6, tzinfo=UTC)


def test_a_certificate_that_is_cut_is_none_and_no_defect_of_ours() -> None:
    whole = ssl.PEM_cert_to_DER_cert((TLS / "expired.crt").read_text())
    assert end_of(whole).year == 2020
    for length in range(len(whole)):
        with suppress(ValueError):  # or enough of it has come
            assert end_of(whole[:length]) == end_of(whole)


# --- the other side


@pytest.mark.slow
def test_a_bundle_is_served_over_tls(trusting: Path, tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"app:1": make_image("app")})
    contents = StorageSource(name="root", storage=Storage(root))
    context = read_certificate(TLS / "server.crt", TLS / "server.key")
    assert context is not None
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    with served_contents(contents, ServeOptions(tls=context)) as served:
        assert served.url == f"https://{served.host}"
        assert got(served.host, trusting) == 200
        assert got(served.host, trusting) == 200
    with served_contents(contents, ServeOptions()) as served:
        assert served.url == f"http://{served.host}"


def test_a_server_needs_both_halves_and_that_they_fit(tmp_path: Path) -> None:
    cert, key = TLS / "server.crt", TLS / "server.key"
    assert read_certificate(None, None) is None
    for given in ((cert, None), (None, key)):
        with pytest.raises(UsageError, match="--tls-cert and --tls-key go together"):
            read_certificate(*given)
    for wrong in ((cert, TLS / "client.key"), (tmp_path / "absent", key), (key, cert)):
        with pytest.raises(UsageError, match="are not a certificate and its key"):
            read_certificate(*wrong)


# --- for curl, which fetches blobs


def options(
    tmp_path: Path, cert_dir: Path | None = None, *, tls_verify: bool = True, **variables: str
) -> dict[str, str]:
    registry = Registry(host="r.example", tls_verify=tls_verify, cert_dir=cert_dir)
    return dict(curl_options(registry, variables, tmp_path))


@pytest.mark.slow
def test_curl_trusts_what_we_trust(tmp_path: Path) -> None:
    directory = tmp_path / "certs.d"
    put(directory / "ca.crt", (TLS / "ca.crt").read_bytes())
    put(directory / "junk.crt", b"no certificate")
    assert options(tmp_path) == {}
    bundle = Path(options(tmp_path, directory)["cacert"]).read_bytes()
    assert (TLS / "ca.crt").read_bytes() in bundle
    assert b"no certificate" not in bundle
    named = Path(options(tmp_path, SSL_CERT_FILE=f"{TLS / 'ca.crt'}")["cacert"])
    assert named.read_bytes() == (TLS / "ca.crt").read_bytes()
    both = Path(options(tmp_path, SSL_CERT_FILE=f"{TLS / 'server.crt'}", SSL_CERT_DIR=f"{directory}")["cacert"])
    assert both.read_bytes() == (TLS / "server.crt").read_bytes() + b"\n" + (TLS / "ca.crt").read_bytes()


def test_curl_is_given_the_machines_file_of_cas_wherever_that_machine_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    debians, red_hats, own = tmp_path / "debian.crt", tmp_path / "redhat.crt", tmp_path / "own.crt"
    monkeypatch.setattr("regwrap.registry.certificates._BUNDLES", (debians, red_hats))
    monkeypatch.setenv("SSL_CERT_FILE", f"{own}")  # so OpenSSL has it for the file of this machine
    found = []
    for path in (own, red_hats, debians):
        shutil.copy(TLS / ("ca.crt" if path is red_hats else "client.crt"), path)
        found.append(Path(options(tmp_path, SSL_CERT_DIR="/nowhere")["cacert"]).read_bytes())
    ca, client = (TLS / "ca.crt").read_bytes(), (TLS / "client.crt").read_bytes()
    assert found == [client, ca, client]


def test_curl_shows_the_certificate_that_we_show(tmp_path: Path) -> None:
    directory = tmp_path / "certs.d"
    for name in ("client.cert", "client.key"):
        put(directory / name, (TLS / name.replace(".cert", ".crt")).read_bytes())
    assert options(tmp_path, directory, tls_verify=False) == {
        "insecure": "", "proxy-insecure": "",
        "cert": f"{directory / 'client.cert'}", "key": f"{directory / 'client.key'}",
    }  # fmt: skip
    (directory / "client.key").unlink()
    with pytest.raises(ToolError, match="cannot be used"):
        options(tmp_path, directory)
