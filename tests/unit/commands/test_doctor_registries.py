"""What doctor says of the registries that are configured: small servers answer as the field's do."""

import json
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from regwrap.commands.doctor_registries import RegistryHealth, examine_registries
from regwrap.core.location import Location, Registry
from regwrap.registry.probe import Probe
from tests.answering import Answer, Asked
from tests.builders import make_image, put
from tests.fieldregistry import field_registry, login, refusing, wanting

TLS = Path(__file__).parents[2] / "samples/tls"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
IMAGES = {"team/app:v1": make_image("app")}
BASIC = {"WWW-Authenticate": 'Basic realm="tests"'}


def checks(registry: Registry, now: datetime = NOW) -> list[RegistryHealth]:
    def probe_of(asked: Registry) -> Probe:
        return Probe(registry=asked, timeout=5, connections=1)

    place = Location(name="harbor", registry=registry)
    return list(examine_registries([Location(name="archive", storage=Path("/a")), place, place], probe_of, now, jobs=2))


def plain(host: str, directory: Path | None = None, **auths: str) -> Registry:
    path = None
    if directory is not None:
        path = directory / "auth.json"
        path.write_text(
            json.dumps({"auths": {key.replace("HOST", host): {"auth": login(u)} for key, u in auths.items()}})
        )
    return Registry(host=host, tls_verify=False, plain_http=True, authfile=path)


def test_an_open_registry_needs_no_login() -> None:
    with field_registry(IMAGES) as server:
        (check,) = checks(plain(server.host))
        puts = [line for line in server.lines if line.startswith("PUT")]
    assert (check.name, check.login, check.access) == ("harbor", "no authfile", "open without a login")
    assert check.certificate == "none: plain HTTP"
    assert check.ok
    assert puts == [f"PUT /v2/team/app/manifests/sha256:{'0' * 64}"]


def test_the_login_is_named_tried_and_may_or_may_not_push(tmp_path: Path) -> None:
    def reads_only(asked: Asked) -> Answer | None:
        if asked.line.startswith("PUT") and asked.authorization == f"Basic {login('ci:secret')}":
            return refusing(403, "DENIED")
        return wanting("ci:secret")(asked) or (refusing(400, "MANIFEST_INVALID") if "PUT" in asked.line else None)

    with field_registry(IMAGES, reads_only) as server:
        (check,) = checks(plain(server.host, tmp_path, HOST="ci:secret"))
    assert check.login == f"{server.host} in {tmp_path}/auth.json"
    assert (check.access, check.pushing, check.ok) == ("login accepted", "not allowed", True)


def test_a_wrong_password_and_none_are_told_apart(tmp_path: Path) -> None:
    with field_registry(IMAGES, wanting("ci:secret")) as server:
        (wrong,) = checks(plain(server.host, tmp_path, HOST="ci:wrong"))
        (none,) = checks(plain(server.host, tmp_path, **{"other.example": "ci:secret"}))
    assert "NO: " in wrong.access
    assert f"the login {server.host} of {tmp_path}/auth.json was refused" in wrong.advice
    assert none.login == f"none in {tmp_path}/auth.json"
    assert "has no login for" in none.advice
    assert not wrong.ok
    assert not none.ok


def test_each_path_with_a_login_of_its_own_is_tried(tmp_path: Path) -> None:
    def hook(asked: Asked) -> Answer | None:
        wanted = {"/v2/org/": "b:2"}
        said = asked.authorization.removeprefix("Basic ")
        if said not in {login("a:1"), login("b:2")}:
            return Answer(401, BASIC)
        if asked.line.startswith("PUT"):
            right = next((login(user) for path, user in wanted.items() if path in asked.line), login("a:1"))
            return refusing(400 if said == right else 403, "X")
        return None

    with field_registry(IMAGES, hook) as server:
        found = checks(plain(server.host, tmp_path, HOST="a:1", **{"HOST/org": "b:2"}))
    assert [(check.name, check.pushing) for check in found] == [("harbor", "allowed"), ("harbor/org", "allowed")]
    assert [check.login.split()[0] for check in found] == [server.host, f"{server.host}/org"]


def test_nobody_there_is_told_with_what_to_do() -> None:
    (check,) = checks(plain("127.0.0.1:1"))
    assert "nothing listens there" in check.access
    assert "check host and port" in check.advice
    assert (check.certificate, check.ok) == ("-", False)


def served(certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / certificate, TLS / "server.key")
    return context


@pytest.mark.slow
@pytest.mark.parametrize(
    ("certificate", "now", "said", "ok"),
    [
        ("server.crt", lambda end: end.replace(year=end.year - 1), "36", True),
        (
            "server.crt",
            lambda end: datetime.fromtimestamp(end.timestamp() - 86400 * 3 - 60, UTC),
            "3 days left: renew",
            True,
        ),
        ("expired.crt", lambda _end: NOW, "EXPIRED on 2020-", False),
    ],
)
def test_the_days_of_a_certificate(
    tmp_path: Path, certificate: str, now: Callable[[datetime], datetime], said: str, *, ok: bool
) -> None:
    trusted = put(tmp_path / "trusted/ca.crt", (TLS / "ca.crt").read_bytes()).parent
    info = ssl._ssl._test_decode_cert(f"{TLS / certificate}")  # type: ignore[attr-defined]  # the one way to read it
    end = datetime.fromtimestamp(ssl.cert_time_to_seconds(info["notAfter"]), UTC)
    with field_registry(IMAGES, tls=served(certificate)) as server:
        registry = Registry(host=server.host, tls_verify=True, cert_dir=trusted)
        (check,) = checks(registry, now(end))
    assert check.certificate.startswith(said)
    assert check.ok is ok
    assert ("the certificate has expired" in check.access) is not ok
