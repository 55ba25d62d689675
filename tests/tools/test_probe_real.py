"""The probe against real servers: what is there, what is not, who may ask, and what is no registry's answer."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regwrap.core.errors import ToolError
from regwrap.core.location import Registry
from regwrap.core.model import Digest
from regwrap.registry.credentials import UnsureError
from regwrap.registry.probe import Probe
from regwrap.storage import layout
from tests.builders import make_image, make_multi_image, make_storage
from tests.conftest import StartRegistry
from tests.faultserver import Fault, faulty_proxy
from tests.tls import make_certificate

pytestmark = pytest.mark.tools

IMAGE, LIST = make_image("one"), make_multi_image("two", kind="docker")
LAYER = IMAGE.blobs[1]
ABSENT = Digest("0" * 64)
# made once with bcrypt.hashpw(b"secret", bcrypt.gensalt(4)); docker-registry takes no other hash
HTPASSWD = "test:$2b$04$8m.7UG6Yd5HD7zrGLWJ1qOXWjNjDqfOgwrQkpE3OpbVZUzufqOTXO\n"


def probe_of(host: str, **changes: Any) -> Probe:
    options: dict[str, Any] = {"tls_verify": False, "plain_http": True} | changes
    return Probe(registry=Registry(host=host, **options), timeout=5, connections=2)


def close(probe: Probe) -> None:
    probe.close()


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return make_storage(tmp_path / "storage", {"a/b:1": IMAGE, "a/list:1": LIST})


@pytest.fixture
def host(storage: Path, loopback_registry: StartRegistry) -> str:
    return loopback_registry(storage).host


def authfile(path: Path, host: str, login: str = "test:secret") -> Path:
    path.write_text(json.dumps({"auths": {host: {"auth": base64.b64encode(login.encode()).decode()}}}))
    return path


def test_tags_and_repositories_of_all_pages(tmp_path: Path, loopback_registry: StartRegistry) -> None:
    """docker-registry gives at most 1000 repositories a page."""
    names = [f"r{number:04}" for number in range(1203)]
    root = make_storage(tmp_path / "many", {**{f"{name}:1": IMAGE for name in names}, "r0000:2": IMAGE})
    with faulty_proxy(loopback_registry(root).host) as proxy:
        probe = probe_of(proxy.host)
        assert sorted(probe.catalog()) == names
        assert len(proxy.asked("_catalog")) == 2
        assert sorted(probe.tags("r0000") or ()) == ["1", "2"]
        assert probe.tags("no/such") is None
        close(probe)


def test_tags_need_a_login_like_the_rest(storage: Path, tmp_path: Path, loopback_registry: StartRegistry) -> None:
    with faulty_proxy(loopback_registry(storage).host, token="t0ken", login="test:secret") as proxy:
        probe = probe_of(proxy.host, authfile=authfile(tmp_path / "auth.json", proxy.host))
        assert probe.tags("a/b") == ("1",)
        assert sorted(probe.catalog()) == ["a/b", "a/list"]
        close(probe)


def test_no_list_of_tags_is_unsure(host: str) -> None:
    with faulty_proxy(host, [Fault("html", "tags/list")]) as proxy:
        probe = probe_of(proxy.host)
        with pytest.raises(UnsureError):
            probe.tags("a/b")
        close(probe)


def test_what_is_there(host: str) -> None:
    probe = probe_of(host)
    assert probe.digest("a/b", "1") == IMAGE.top
    assert probe.digest("a/list", "1") == LIST.top
    assert probe.manifest("a/b", "1") == IMAGE.raw
    assert probe.manifest("a/list", Digest.of(LIST.manifests[0])) == LIST.manifests[0]
    assert probe.blob_size("a/b", Digest.of(LAYER)) == len(LAYER)
    assert probe.small_blob("a/b", Digest.of(IMAGE.blobs[0])) == IMAGE.blobs[0]


def test_what_is_absent_is_none(host: str) -> None:
    probe = probe_of(host)
    assert probe.digest("a/b", "2") is None
    assert probe.digest("no/such", "1") is None
    assert probe.manifest("a/b", ABSENT) is None
    assert probe.blob_size("a/b", ABSENT) is None
    assert probe.small_blob("a/b", ABSENT) is None


def test_one_connection_is_enough(host: str) -> None:
    with faulty_proxy(host) as proxy:
        probe = probe_of(proxy.host)
        for _ in range(3):
            assert probe.digest("a/b", "1") == IMAGE.top
            assert probe.digest("a/b", "2") is None
            assert probe.manifest("a/b", "1") == IMAGE.raw
            assert probe.blob_size("a/b", Digest.of(LAYER)) == len(LAYER)
            assert probe.small_blob("a/b", Digest.of(IMAGE.blobs[0])) == IMAGE.blobs[0]
        close(probe)
        assert proxy.connections == 1


def test_a_blob_that_the_registry_keeps_truncated_has_its_real_size(storage: Path, host: str) -> None:
    path = storage / layout.blob_path(Digest.of(LAYER))
    path.write_bytes(LAYER[:-1])
    assert probe_of(host).blob_size("a/b", Digest.of(LAYER)) == len(LAYER) - 1


# --- who may ask


@pytest.fixture
def closed_host(tmp_path: Path, storage: Path, loopback_registry: StartRegistry) -> str:
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    auth = {"auth": {"htpasswd": {"realm": "tests", "path": str(tmp_path / "htpasswd")}}}
    return loopback_registry(storage, extra=auth).host


def test_basic_authentication(tmp_path: Path, closed_host: str) -> None:
    probe = probe_of(closed_host, authfile=authfile(tmp_path / "auth.json", closed_host))
    assert probe.digest("a/b", "1") == IMAGE.top
    assert probe.digest("a/b", "2") is None


def test_without_or_with_wrong_credentials_the_refusal_is_sure(tmp_path: Path, closed_host: str) -> None:
    with pytest.raises(ToolError, match="401"):
        probe_of(closed_host).digest("a/b", "1")
    wrong = authfile(tmp_path / "auth.json", closed_host, "test:wrong")
    with pytest.raises(ToolError, match="401") as raised:
        probe_of(closed_host, authfile=wrong).digest("a/b", "1")
    assert "wrong" not in str(raised.value)


def test_token_authentication(tmp_path: Path, host: str) -> None:
    with faulty_proxy(host, token="t0k3n", login="test:secret") as proxy:
        probe = probe_of(proxy.host, authfile=authfile(tmp_path / "auth.json", proxy.host))
        assert probe.digest("a/b", "1") == IMAGE.top
        assert probe.digest("a/b", "1") == IMAGE.top
        assert len(proxy.requests) == 3  # the token is kept
        proxy.token = "another"  # as after its expiry
        assert probe.digest("a/b", "1") == IMAGE.top
        close(probe)


def test_anonymous_tokens(host: str) -> None:
    with faulty_proxy(host, token="t0k3n") as proxy:
        probe = probe_of(proxy.host)
        assert probe.digest("a/b", "1") == IMAGE.top
        close(probe)


def test_a_token_server_that_refuses_makes_the_probe_unsure(host: str) -> None:
    with faulty_proxy(host, token="t0k3n", login="test:secret") as proxy:
        probe = probe_of(proxy.host)
        with pytest.raises(UnsureError, match="token server"):
            probe.digest("a/b", "1")
        close(probe)


@pytest.mark.parametrize(
    "document", [{"credHelpers": {"HOST": "pass"}}, {"credsStore": "pass"}, {"auths": {"HOST": {"auth": "%%%"}}}, None]
)
def test_what_the_probe_cannot_read_it_leaves_to_skopeo(
    tmp_path: Path, closed_host: str, document: dict[str, object] | None
) -> None:
    path = tmp_path / "auth.json"
    path.write_text("{" if document is None else json.dumps(document).replace("HOST", closed_host))
    with pytest.raises(UnsureError, match=r"auth\.json|credential helper"):
        probe_of(closed_host, authfile=path).digest("a/b", "1")


# --- answers that are no registry's, and faults


def ask_digest(probe: Probe) -> object:
    return probe.digest("a/b", "1")


def ask_manifest(probe: Probe) -> object:
    return probe.manifest("a/b", "1")


@pytest.mark.parametrize("ask", [ask_digest, ask_manifest])
def test_a_web_page_makes_the_probe_unsure(host: str, ask: Callable[[Probe], object]) -> None:
    with faulty_proxy(host, [Fault("html", "/manifests/")]) as proxy, pytest.raises(UnsureError):
        ask(probe_of(proxy.host))


@pytest.mark.parametrize("ask", [ask_digest, ask_manifest])
@pytest.mark.parametrize(
    ("status", "error"), [(503, ToolError), (429, ToolError), (403, UnsureError), (404, UnsureError)]
)
def test_statuses(host: str, ask: Callable[[Probe], object], status: int, error: type[ToolError | UnsureError]) -> None:
    with (
        faulty_proxy(host, [Fault("refuse", "/manifests/", status=status)]) as proxy,
        pytest.raises(error, match=str(status)) as raised,
    ):
        ask(probe_of(proxy.host))
    assert getattr(raised.value, "transient", True)


def test_a_cut_body_may_pass(host: str) -> None:
    with faulty_proxy(host, [Fault("cut", "GET .*/manifests/", times=1, at=10)]) as proxy:
        probe = probe_of(proxy.host)
        with pytest.raises(ToolError) as raised:
            probe.manifest("a/b", "1")
        assert raised.value.transient
        assert probe.manifest("a/b", "1") == IMAGE.raw
        close(probe)


def test_a_silent_server_may_pass(host: str) -> None:
    with faulty_proxy(host, [Fault("silent", "/manifests/")]) as proxy:
        probe = Probe(registry=Registry(host=proxy.host, tls_verify=False, plain_http=True), timeout=0.3, connections=1)
        with pytest.raises(ToolError) as raised:
            probe.digest("a/b", "1")
    assert raised.value.transient
    assert "0x" not in str(raised.value)


def test_nobody_there_may_pass() -> None:
    with pytest.raises(ToolError, match="could not be reached") as raised:
        probe_of("127.0.0.1:1").digest("a/b", "1")
    assert raised.value.transient


# --- TLS


def test_a_private_ca(tmp_path: Path, storage: Path, loopback_registry: StartRegistry) -> None:
    """One without a key usage, which Python 3.13 would refuse and skopeo, docker and curl take."""
    certificate = make_certificate(tmp_path / "tls")
    files = {"certificate": f"{certificate.cert}", "key": f"{certificate.key}"}
    host = loopback_registry(storage, extra={"http": {"tls": files}}).host
    known = probe_of(host, tls_verify=True, plain_http=False, cert_dir=certificate.directory)
    assert known.digest("a/b", "1") == IMAGE.top
    with pytest.raises(UnsureError, match="CERTIFICATE_VERIFY_FAILED"):
        probe_of(host, tls_verify=True, plain_http=False).digest("a/b", "1")
    assert probe_of(host, tls_verify=False, plain_http=False).digest("a/b", "1") == IMAGE.top


def test_plain_http_only_where_tls_is_not_demanded(host: str) -> None:
    assert probe_of(host, plain_http=False).digest("a/b", "1") == IMAGE.top
    with pytest.raises(UnsureError):
        probe_of(host, plain_http=False, tls_verify=True).digest("a/b", "1")
