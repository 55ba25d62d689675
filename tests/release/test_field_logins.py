"""Logins as companies have them: helpers, tokens, paths, accounts that are locked; our requests beside skopeo's."""

import json
from pathlib import Path

import pytest

from regwrap.core.model import Digest
from tests.answering import Answer, Asked
from tests.builders import make_image, make_multi_image, make_storage, put
from tests.fieldregistry import FieldRegistry, field_registry, login, refusing, wanting
from tests.release.regwrap_cli import Cli
from tests.tls import make_certificate, served_by
from tests.tunnel import tunnel_to

pytestmark = pytest.mark.tools

IMAGES = {"team/app:v1": make_image("app"), "team/multi:v1": make_multi_image("multi")}
HUB = "https://index.docker.io/v1/"
QUICK = "retry: {attempts: 2, wait: 0, max_wait: 1}\n"


def configure(cli: Cli, registry: FieldRegistry, authfile: object, lines: str = "team/app:v1\n") -> None:
    put(cli.directory / "auth.json", json.dumps(authfile).encode())
    settings = f"registries:\n  r: {{url: http://{registry.host}, authfile: auth.json}}\nsource: r\n{QUICK}"
    put(cli.directory / "regwrap.yaml", settings.encode())
    put(cli.directory / "images.list", lines.encode())


def make_helper(directory: Path, name: str, needs: str) -> str:
    """The PATH with a credential helper that demands what the shell's condition `needs` says."""
    said = '{"ServerURL":"x","Username":"ci","Secret":"secret"}'
    script = f"#!/bin/sh\nread x\n{needs} || {{ echo credentials not found; exit 1; }}\necho '{said}'\n"
    put(directory / "bin" / f"docker-credential-{name}", script.encode()).chmod(0o755)
    return f"{directory / 'bin'}"


@pytest.mark.parametrize(
    ("needs", "more"),
    [("true", {}), ('[ -f "$HOME/.aws/credentials" ]', {}), ('[ -n "$AWS_PROFILE" ]', {"AWS_PROFILE": "x"})],
)
def test_credential_helpers_get_the_users_world(cli: Cli, needs: str, more: dict[str, str]) -> None:
    path = make_helper(cli.directory, "own", needs)
    put(cli.directory / "home/.aws/credentials", b"[default]\n")
    env = {"PATH": f"{path}:{cli.environment['PATH']}", **more}
    with field_registry(IMAGES, wanting("ci:secret")) as registry:
        configure(cli, registry, {"credHelpers": {registry.host: "own"}}, "team/app:v1 platform=linux/amd64\n")
        done = cli("sync", "images.list", env=env)
        assert (done.returncode, "1 copied" in done.stdout) == (0, True), done.stderr
        assert cli("lock", "images.list", env=env).returncode == 0


@pytest.mark.parametrize("authfile", [{"credHelpers": {"HOST": "own"}}, {"credsStore": "own", "auths": {"HOST": {}}}])
def test_what_a_helper_knows_is_for_every_question(cli: Cli, authfile: object) -> None:
    """The catalog and uploads as well, which skopeo cannot ask for; and docker's store, which skopeo does not know."""
    env = {"PATH": f"{make_helper(cli.directory, 'own', 'true')}:{cli.environment['PATH']}"}
    make_storage(cli.directory / "storage", {"team/new:v1": make_image("new")})
    with field_registry(IMAGES, wanting("ci:secret")) as registry:
        configure(cli, registry, json.loads(json.dumps(authfile).replace("HOST", registry.host)))
        listed = cli("list", "from-registry", "r", env=env)
        assert "team/multi:v1" in listed.stdout, listed.stderr
        assert "1 copied" in cli("sync", "images.list", env=env).stdout
        pushed = cli("push", "storage", "r", "--verbose", env=env)
        assert "1 copied" in pushed.stdout, pushed.stderr
        assert "+ skopeo" not in pushed.stderr
    assert "secret" not in pushed.stderr


def test_a_store_without_a_login_is_no_failure(cli: Cli) -> None:
    env = {"PATH": f"{make_helper(cli.directory, 'own', 'false')}:{cli.environment['PATH']}"}
    with field_registry(IMAGES) as registry:
        configure(cli, registry, {"credsStore": "own"})
        done = cli("sync", "images.list", env=env)
        assert "1 copied" in done.stdout, done.stderr


def test_a_helper_that_fails_is_named(cli: Cli) -> None:
    put(cli.directory / "bin/docker-credential-own", b"#!/bin/sh\necho the keyring is closed\nexit 1\n").chmod(0o755)
    with field_registry(IMAGES, wanting("ci:secret")) as registry:
        configure(cli, registry, {"credHelpers": {registry.host: "own"}})
        done = cli("list", "from-registry", "r", env={"PATH": f"{cli.directory}/bin:{cli.environment['PATH']}"})
    assert done.returncode == 3
    assert "docker-credential-own has no login" in done.stderr
    assert "the keyring is closed" in done.stderr


def test_keys_of_an_authfile_name_hosts_in_any_way(cli: Cli, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "tls")
    tls = served_by(certificate.cert, certificate.key)
    with field_registry(IMAGES, wanting("ci:secret"), tls) as registry, tunnel_to(registry.host) as (proxy, _asked):
        auths = {"auths": {"REG.example:443/team": {"auth": login("ci:secret")}}}
        put(cli.directory / "auth.json", json.dumps(auths).encode())
        put(cli.directory / "images.list", b"reg.example/team/app:v1\nreg.example:443/team/multi:v1\n")
        env = {"HTTPS_PROXY": proxy, "SSL_CERT_FILE": f"{certificate.directory}/ca.crt"}
        done = cli("sync", "images.list", env={**env, "REGISTRY_AUTH_FILE": f"{cli.directory}/auth.json"})
        assert "2 copied" in done.stdout, done.stderr


def test_an_identity_token_counts_for_every_question(cli: Cli) -> None:
    """As `az acr login` leaves one: the token server gets it by POST instead of a password."""
    make_storage(cli.directory / "storage", {"team/new:v1": make_image("new")})
    found: list[FieldRegistry] = []

    def hook(asked: Asked) -> Answer | None:
        if asked.line == "POST /token" and b"refresh_token=identity" in asked.body:
            return Answer(200, {"Content-Type": "application/json"}, b'{"access_token": "t"}')
        challenge = f'Bearer realm="http://{found[0].host}/token",service="s",scope="repository:team/app:pull"'
        return None if asked.authorization == "Bearer t" else refusing(401, "X", WWW_Authenticate=challenge)

    with field_registry(IMAGES, hook) as registry:
        found.append(registry)
        entry = {"auth": login("00000000-0000-0000-0000-000000000000:"), "identitytoken": "identity"}
        configure(cli, registry, {"auths": {registry.host: entry}}, "team/app:v1 platform=linux/amd64\n")
        done = cli("sync", "images.list")
        assert "1 copied" in done.stdout, done.stderr
        assert cli("lock", "images.list").returncode == 0
        assert "team/multi:v1" in cli("list", "from-registry", "r").stdout
        assert "1 copied" in cli("push", "storage", "r").stdout


@pytest.mark.parametrize("denial", [401, 403, 404])
def test_the_longest_path_in_the_authfile_counts(cli: Cli, denial: int) -> None:
    users = {"org-a": login("a:1"), "org-b": login("b:2")}

    def hook(asked: Asked) -> Answer | None:
        said = asked.authorization.removeprefix("Basic ")
        wanted = next((user for name, user in users.items() if f"/v2/{name}/" in asked.line), said)
        if said not in users.values():
            return refusing(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="tests"')
        return None if said == wanted else refusing(denial, "DENIED", WWW_Authenticate='Basic realm="tests"')

    images = {"org-a/proj/app:v1": make_image("a"), "org-b/proj/app:v1": make_image("b")}
    make_storage(cli.directory / "storage", {"proj/new:v1": make_image("new")})
    with field_registry(images, hook) as registry:
        auths = {registry.host: {"auth": users["org-a"]}, f"{registry.host}/org-b": {"auth": users["org-b"]}}
        configure(cli, registry, {"auths": auths}, "org-a/proj/app:v1\norg-b/proj/app:v1 => b/app:v1\n")
        done = cli("sync", "images.list")
        assert "2 copied" in done.stdout, done.stderr
        pushed = cli("push", "storage", "r/org-b")
        assert "1 copied" in pushed.stdout, pushed.stderr
        assert "org-b/proj/new:v1" in registry.tags


@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_in_disguise_is_asked_again_with_the_login(cli: Cli, status: int) -> None:
    def hook(asked: Asked) -> Answer | None:
        if asked.line.endswith(" /v2/"):
            return wanting("ci:secret")(asked)
        return None if asked.authorization else refusing(status, "NAME_UNKNOWN")

    with field_registry(IMAGES, hook) as registry:
        configure(cli, registry, {"auths": {registry.host: {"auth": login("ci:secret")}}})
        done = cli("sync", "images.list")
        assert "1 copied" in done.stdout, done.stderr


def test_a_wrong_password_and_none_read_differently_and_name_the_file(cli: Cli) -> None:
    with field_registry(IMAGES, wanting("ci:secret")) as registry:
        configure(cli, registry, {"auths": {registry.host: {"auth": login("ci:wrong")}}})
        wrong = cli("sync", "images.list").stderr
        configure(cli, registry, {"auths": {"other.example": {"auth": login("ci:secret")}}})
        none = cli("sync", "images.list").stderr
    assert f"the login {registry.host} of {cli.directory}/auth.json was refused" in wrong
    assert f"{cli.directory}/auth.json has no login for {registry.host}/team/app" in none
    assert f"skopeo login --authfile {cli.directory}/auth.json {registry.host}" in none


@pytest.mark.parametrize("helper", [False, True])
def test_after_three_refusals_no_request_with_the_login_is_sent(cli: Cli, *, helper: bool) -> None:
    path = make_helper(cli.directory, "own", "true")
    with field_registry(IMAGES, wanting("ci:other")) as registry:
        auths = {"auths": {registry.host: {"auth": login("ci:secret")}}}
        lines = "".join(f"team/app:v{n}\n" for n in range(40))
        configure(cli, registry, {"credHelpers": {registry.host: "own"}} if helper else auths, lines)
        done = cli("sync", "images.list", env={"PATH": f"{path}:{cli.environment['PATH']}"})
        tried = [asked for asked in registry.server.asked if asked.authorization]
    assert done.returncode == 1
    assert "has refused the login" in done.stderr
    assert "40 failed" in done.stdout
    assert len(tried) <= 3


def test_a_login_that_only_skopeo_cannot_give_is_not_called_wrong(cli: Cli) -> None:
    """A registry whose /v2/ asks nobody who he is: skopeo says nothing then, and is refused where it matters."""

    def hook(asked: Asked) -> Answer | None:
        return None if asked.line.endswith(" /v2/") else wanting("ci:secret")(asked)

    with field_registry(IMAGES, hook) as registry:
        configure(cli, registry, {"auths": {registry.host: {"auth": login("ci:secret")}}})
        done = cli("sync", "images.list", "--engine", "copy")
        by_curl = cli("sync", "images.list")
    assert done.returncode == 1
    assert "skopeo cannot log in there, though the login is valid" in done.stderr
    assert "was refused" not in done.stderr
    assert "1 copied" in by_curl.stdout


def test_two_challenges_one_beside_the_other(cli: Cli) -> None:
    found: list[FieldRegistry] = []

    def hook(asked: Asked) -> Answer | None:
        if "/token" in asked.line:
            return Answer(200, {"Content-Type": "application/json"}, b'{"token": "t"}')
        challenges = f'Bearer realm="http://{found[0].host}/token",service="s"\nBasic realm="tests"'
        return None if asked.authorization == "Bearer t" else refusing(401, "X", WWW_Authenticate=challenges)

    with field_registry(IMAGES, hook) as registry:
        found.append(registry)
        configure(cli, registry, {}, "team/app:v1 platform=linux/amd64\n")
        assert "1 copied" in cli("sync", "images.list").stdout
        assert cli("lock", "images.list").returncode == 0


@pytest.mark.parametrize("other_name", [False, True])
def test_an_upload_goes_where_the_registry_says(cli: Cli, *, other_name: bool) -> None:
    """The address may be absolute, and may be another name of the registry."""
    make_storage(cli.directory / "storage", {"team/new:v1": make_image("new")})
    with field_registry({}, wanting("ci:secret")) as registry:
        host = registry.host.replace("127.0.0.1", "localhost") if other_name else registry.host
        registry.location = lambda path: f"http://{host}{path}"
        configure(cli, registry, {"auths": {registry.host: {"auth": login("ci:secret")}}})
        done = cli("push", "storage", "r")
        assert "1 copied" in done.stdout, done.stderr
        assert registry.tags["team/new:v1"] == f"{make_image('new').top}"
        assert f"team/new@{Digest.of(make_image('new').blobs[-1])}" in registry.blobs


def test_a_push_to_docker_hub(cli: Cli, tmp_path: Path) -> None:
    """It answers uploads with absolute addresses on registry-1.docker.io, which are its own."""
    certificate = make_certificate(tmp_path / "tls")
    make_storage(cli.directory / "storage", {"team/new:v1": make_image("new")})
    put(cli.directory / "auth.json", json.dumps({"auths": {HUB: {"auth": login("ci:secret")}}}).encode())
    tls = served_by(certificate.cert, certificate.key)
    with field_registry({}, wanting("ci:secret"), tls) as registry, tunnel_to(registry.host) as (proxy, asked):
        registry.location = lambda path: f"https://registry-1.docker.io{path}"
        env = {"HTTPS_PROXY": proxy, "SSL_CERT_FILE": f"{certificate.directory}/ca.crt"}
        done = cli("push", "storage", "docker.io", env={**env, "REGISTRY_AUTH_FILE": f"{cli.directory}/auth.json"})
        assert "1 copied" in done.stdout, done.stderr
        assert "team/new:v1" in registry.tags
    assert set(asked) == {"registry-1.docker.io:443"}


@pytest.mark.parametrize("uses", [3, 1])
def test_tokens_that_live_shortly_are_got_again_or_skopeo_is_asked(cli: Cli, uses: int) -> None:
    """Each is good for a few requests; with one request, curl's is none of them."""
    given: dict[str, int] = {}

    def hook(asked: Asked) -> Answer | None:
        if asked.line.startswith("GET /token"):
            given[name := f"t{len(given)}"] = 0
            return Answer(200, {"Content-Type": "application/json"}, json.dumps({"token": name}).encode())
        token = asked.authorization.removeprefix("Bearer ")
        if token in given:
            given[token] += 1
        is_spent = given.get(token, uses) >= uses and asked.headers.get("user-agent", "").startswith("curl")
        challenge = f'Bearer realm="http://{found[0].host}/token",service="s",scope="repository:team/app:pull"'
        return refusing(401, "X", WWW_Authenticate=challenge) if is_spent or token not in given else None

    found: list[FieldRegistry] = []
    with field_registry(IMAGES, hook) as registry:
        found.append(registry)
        configure(cli, registry, {})
        done = cli("sync", "images.list", "--verbose")
    assert "1 copied" in done.stdout, done.stderr
    assert uses > 1 or "+ skopeo" in done.stderr
