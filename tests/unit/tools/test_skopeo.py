"""skopeo's command lines, its environment, and what its texts mean. The real skopeo is asked in `tools/`."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from regwrap.core.errors import ToolError
from regwrap.core.location import Registry, Timeouts
from regwrap.core.model import Digest
from regwrap.tools.answers import cause_of
from regwrap.tools.skopeo import Remote, Skopeo, blamed, fatal_text, is_absent
from tests.fakes import Answer, Argv, Scripted

DIGEST = Digest("ab" * 32)
PLAIN = Registry(host="127.0.0.1:5000", tls_verify=False, plain_http=True)
SECURE = Registry(host="r.example:443", tls_verify=True, authfile=Path("/etc/auth.json"), cert_dir=Path("/etc/certs"))


def remote(registry: Registry = PLAIN, reference: str | Digest = "1") -> Remote:
    return Remote(registry=registry, repository="a/b", reference=reference)


@pytest.fixture
def skopeo(scripted: Scripted, tmp_path: Path) -> Skopeo:
    home = tmp_path / "home"
    home.mkdir()
    environment = (("HTTPS_PROXY", "http://proxy:3128"),)
    return Skopeo(runner=scripted.runner, home=home, timeouts=Timeouts(copy=90), environment=environment)


def shown(argv: Argv, home: Path) -> list[str]:
    """The command line with this run's own directory as OWN."""
    return [re.sub(rf"{re.escape(str(home))}/run-[^/]+", "OWN", word) for word in argv]


GLOBAL = [
    "skopeo", "--insecure-policy",
    "--registries.d", "OWN/registries.d",
    "--registries-conf", "OWN/registries.conf",
    "--tmpdir", "OWN",
    "--command-timeout", "90s",
]  # fmt: skip


def test_manifest(skopeo: Skopeo, scripted: Scripted) -> None:
    scripted.launcher.answers.append(Answer(when=("skopeo",), stdout=b'{"a": 1}'))
    assert skopeo.manifest(remote()) == b'{"a": 1}'
    assert [shown(argv, skopeo.home) for argv in scripted.launcher.argvs] == [
        [*GLOBAL, "inspect", "--raw", "--retry-times", "0", "--tls-verify=false", "--no-creds", "--",
         "docker://127.0.0.1:5000/a/b:1"]
    ]  # fmt: skip


def test_an_answer_without_an_end_is_not_read_for_as_long_as_a_copy_may_take(
    skopeo: Skopeo, scripted: Scripted
) -> None:
    scripted.launcher.answers.append(Answer(when=("skopeo",), stdout=b'{"a": 1}'))
    hasty = replace(skopeo, timeouts=Timeouts(request=5))
    hasty.manifest(remote())
    (argv,) = scripted.launcher.argvs
    assert argv[argv.index("--command-timeout") + 1] == "20s"


def test_tags(skopeo: Skopeo, scripted: Scripted) -> None:
    scripted.launcher.answers.append(Answer(when=("skopeo",), stdout=b'{"Repository": "x", "Tags": ["1", "2"]}'))
    assert skopeo.tags(remote().registry, "a/b") == ("1", "2")
    assert [shown(argv, skopeo.home) for argv in scripted.launcher.argvs] == [
        [*GLOBAL, "list-tags", "--retry-times", "0", "--tls-verify=false", "--no-creds", "--",
         "docker://127.0.0.1:5000/a/b"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    "said", [b"", b"[]", b"null", b"{}", b'{"Tags": 5}', b'{"Tags": ["a", 1]}', b"[" * 100_000, b"\xff{}"]
)
def test_tags_that_are_none_are_a_failure_of_skopeo(skopeo: Skopeo, scripted: Scripted, said: bytes) -> None:
    scripted.launcher.answers.append(Answer(when=("skopeo",), stdout=said))
    with pytest.raises(ToolError, match=r"skopeo listed no tags of 127\.0\.0\.1:5000/a/b") as raised:
        skopeo.tags(remote().registry, "a/b")
    assert raised.value.detail


def test_a_repository_whose_tags_are_null_has_none(skopeo: Skopeo, scripted: Scripted) -> None:
    scripted.launcher.answers.append(Answer(when=("skopeo",), stdout=b'{"Repository": "x", "Tags": null}'))
    assert skopeo.tags(remote().registry, "a/b") == ()


def test_copy_to_layout(skopeo: Skopeo, scripted: Scripted) -> None:
    scripted.launcher.answers.append(Answer(when=("skopeo",)))
    skopeo.copy_to_layout(remote(SECURE, DIGEST), Path("/s/copies/1"), Path("/s/blobs"), inherit=(7,))
    (started,) = scripted.launcher.started
    assert started.inherit == (7,)
    assert shown(started.argv, skopeo.home) == [
        *GLOBAL, "copy", "--quiet", "--retry-times", "0", "--all", "--preserve-digests",
        "--src-tls-verify=true", "--src-authfile", "/etc/auth.json", "--src-cert-dir", "/etc/certs",
        "--dest-shared-blob-dir", "/s/blobs", "--dest-oci-accept-uncompressed-layers",
        "--", f"docker://r.example:443/a/b@{DIGEST}", "oci:/s/copies/1:image",
    ]  # fmt: skip


def test_copy(skopeo: Skopeo, scripted: Scripted) -> None:
    scripted.launcher.answers.append(Answer(when=("skopeo",)))
    skopeo.copy(remote(PLAIN, DIGEST), remote(SECURE, "2"))
    assert [shown(argv, skopeo.home) for argv in scripted.launcher.argvs] == [
        [*GLOBAL, "copy", "--quiet", "--retry-times", "0", "--all", "--preserve-digests",
         "--src-tls-verify=false", "--src-no-creds",
         "--dest-tls-verify=true", "--dest-authfile", "/etc/auth.json", "--dest-cert-dir", "/etc/certs",
         "--", f"docker://127.0.0.1:5000/a/b@{DIGEST}", "docker://r.example:443/a/b:2"]
    ]  # fmt: skip


def test_the_environment_is_made_from_nothing(
    skopeo: Skopeo, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "/etc/shadow")
    monkeypatch.setenv("HTTP_PROXY", "http://elsewhere")
    scripted.launcher.answers.append(Answer(when=("skopeo",)))
    skopeo.manifest(remote())
    (started,) = scripted.launcher.started
    assert {key: value for key, value in started.env.items() if key != "PATH"} == {
        "LC_ALL": "C",
        "HTTPS_PROXY": "http://proxy:3128",
        "HOME": str(skopeo.home),
        "XDG_DATA_HOME": str(skopeo.home),
        "_CONTAINERS_ROOTLESS_UID": "1000",
    }


def test_each_repository_has_an_entry_so_that_no_other_file_redirects_it(skopeo: Skopeo, scripted: Scripted) -> None:
    read: list[str] = []

    def read_conf(argv: Argv) -> None:
        read.append(Path(argv[argv.index("--registries-conf") + 1]).read_text())
        assert list(Path(argv[argv.index("--registries.d") + 1]).iterdir()) == []

    scripted.launcher.answers.append(Answer(when=("skopeo",), effect=read_conf))
    skopeo.copy(remote(), remote(SECURE))
    entries = [f'[[registry]]\nprefix = "{h}/a/b"\nlocation = "{h}/a/b"\n' for h in ("127.0.0.1:5000", "r.example:443")]
    assert read == ["".join(entries)]


def test_two_skopeos_share_a_home(skopeo: Skopeo, scripted: Scripted) -> None:
    scripted.launcher.answers.append(Answer(when=("skopeo",), repeats=True))
    other = Skopeo(runner=scripted.runner, home=skopeo.home, timeouts=Timeouts())
    for each in (skopeo, other, skopeo):
        each.manifest(remote())
    assert len(list(skopeo.home.glob("run-*"))) == 3


# --- what its texts mean


def fatal(text: str) -> bytes:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'time="2026-11-01T10:00:00Z" level=fatal msg="{escaped}"\n'.encode()


ABSENT = [
    "Error parsing image name: reading manifest 9 in 127.0.0.1:5000/a/b: manifest unknown: manifest unknown",
    "reading manifest 9 in r/a/b: name unknown: repository name not known to registry",
    "fetching tags list: invalid status code from registry 404 (Not Found)",
]


@pytest.mark.parametrize("text", ABSENT)
def test_absent(skopeo: Skopeo, scripted: Scripted, text: str) -> None:
    scripted.launcher.answers.append(Answer(when=("skopeo",), exit_code=1, stderr=fatal(text)))
    assert skopeo.manifest(remote()) is None
    assert is_absent(text)


TRANSIENT = [
    "toomanyrequests: too many requests",
    "writing manifest: received unexpected HTTP status: 503 Service Unavailable",
    "pinging container registry r: received unexpected HTTP status: 500 Internal Server Error",
    "Error fetching blob: invalid status code from registry 503 (Service Unavailable)",
    "Error fetching blob: invalid status code from registry 429 (Too Many Requests)",
    'pinging container registry r: Get "http://r/v2/": dial tcp 127.0.0.1:1: connect: connection refused',
    "read tcp 127.0.0.1:1->127.0.0.1:2: read: connection reset by peer",
    "writing blob: happened during read: unexpected EOF",
    "write: broken pipe",
    "write tcp: use of closed network connection",
    'Get "http://r/v2/": EOF',
    "copying layer: context deadline exceeded",
    "dial tcp 10.0.0.1:443: i/o timeout",
    "net/http: TLS handshake timeout",
    "Digest did not match, expected sha256:aa, got sha256:bb",
    "writing manifest: manifest blob unknown: blob unknown to registry",
    "lookup r on 10.0.0.1:53: server misbehaving",
]


@pytest.mark.parametrize("text", TRANSIENT)
def test_transient(skopeo: Skopeo, scripted: Scripted, text: str) -> None:
    error = failure_of(skopeo, scripted, text)
    assert error.transient
    assert error.detail == text


FINAL = [
    ("reading manifest 1 in r/a/b: unauthorized: authentication required", "authfile"),
    ("unable to retrieve auth token: invalid username/password: unauthorized", "authfile"),
    ("reading manifest 1 in r/a/b: denied: requested access to the resource is denied", "account"),
    ("dial tcp: lookup nowhere.example on 10.0.0.1:53: no such host", "name"),
    ('Get "https://r/v2/": http: server gave HTTP response to HTTPS client', "plain HTTP"),
    ("x509: certificate signed by unknown authority", "cert_dir"),
    ("x509: cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs", "a name that is in"),
    ("write /tmp/x: no space left on device", "disk is full"),
    ("registry r is blocked in /etc/containers/registries.conf", "unblock"),
    ("invalid character '<' looking for beginning of value", "login page"),
    ("Manifest does not match provided manifest digest sha256:aa", ""),
    ("Unexpectedly received a manifest list instead of a manifest for a single image", ""),
    ("unknown: the server has no wish to", ""),
    ("invalid reference format", ""),
]


@pytest.mark.parametrize(("text", "hint"), FINAL)
def test_final(skopeo: Skopeo, scripted: Scripted, text: str, hint: str) -> None:
    error = failure_of(skopeo, scripted, text)
    assert not error.transient
    assert hint in error.hint
    assert bool(hint) == bool(error.hint)


def failure_of(skopeo: Skopeo, scripted: Scripted, text: str) -> ToolError:
    scripted.launcher.answers.append(Answer(when=("skopeo",), exit_code=1, stderr=fatal(text), repeats=True))
    with pytest.raises(ToolError) as copied:
        skopeo.copy(remote(), remote(SECURE))
    with pytest.raises(ToolError) as read:
        skopeo.manifest(remote())
    assert copied.value.message == cause_of(text).message("could not copy 127.0.0.1:5000/a/b:1 to r.example:443/a/b:1")
    assert (read.value.detail, read.value.hint) == (copied.value.detail, copied.value.hint)
    return read.value


def test_an_absent_image_is_an_error_for_a_copy(skopeo: Skopeo, scripted: Scripted) -> None:
    scripted.launcher.answers.append(Answer(when=("skopeo",), exit_code=1, stderr=fatal(ABSENT[0])))
    with pytest.raises(ToolError) as raised:
        skopeo.copy_to_layout(remote(), Path("/l"), Path("/b"), inherit=())
    assert not raised.value.transient


def test_a_web_page_is_no_manifest(skopeo: Skopeo, scripted: Scripted) -> None:
    scripted.launcher.answers.append(Answer(when=("skopeo",), stdout=b"\n<html>"))
    with pytest.raises(ToolError, match="web page"):
        skopeo.manifest(remote())


@pytest.mark.parametrize(
    ("stderr", "text"),
    [
        ('level=warning msg="a"\nlevel=fatal msg="b \\"quoted\\""\n', 'b "quoted"'),
        ('level=fatal msg="one"\nlevel=fatal msg="two"\nand more\n', "two"),
        ('level=fatal msg="\\x00"\n', '"\\x00"'),
        ("panic: something\n", "panic: something"),
        ("", ""),
    ],
)
def test_fatal_text(stderr: str, text: str) -> None:
    assert fatal_text(stderr) == text


def test_a_server_that_is_no_registry_is_not_a_missing_image() -> None:
    text = (
        'time="x" level=fatal msg="pinging container registry h:1: invalid status code from registry 404 (Not Found)"'
    )
    assert not is_absent(text)


@pytest.mark.parametrize(
    ("said", "host"),
    [
        ("initiating layer upload to /v2/a/blobs/uploads/ in b.example: StatusCode: 429, busy", "b.example"),
        ("pinging container registry a.example: connect: connection refused", "a.example"),
        ("Error fetching blob: invalid status code from registry 503 (Service Unavailable)", "a.example"),
    ],
)
def test_which_registry_a_failure_is_about(said: str, host: str) -> None:
    remotes = tuple(
        Remote(registry=Registry(host=name, tls_verify=True), repository="a", reference="1")
        for name in ("a.example", "b.example")
    )
    assert blamed(said, remotes).registry.host == host
