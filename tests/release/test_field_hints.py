"""Each error that a person meets at a registry: one sentence on what happened, one on what to do."""

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from regwrap.core.answers import Meaning
from tests.answering import Answer, Asked
from tests.builders import make_image, make_storage, put
from tests.fieldregistry import field_registry, refusing
from tests.listening import listening
from tests.release.regwrap_cli import Cli
from tests.tls import make_certificate, make_expired, served_by

pytestmark = pytest.mark.tools

TLS = Path(__file__).parents[1] / "samples/tls"
QUICK = "retry: {attempts: 1, outage: 0, max_wait: 0.1}\n"
STATUSES = {
    401: Meaning.UNAUTHORIZED,
    403: Meaning.DENIED,
    404: Meaning.ABSENT,
    429: Meaning.BUSY,
    500: Meaning.FULL_DISK,
    502: Meaning.UNAVAILABLE,
    503: Meaning.UNAVAILABLE,
    504: Meaning.UNAVAILABLE,
}


@contextmanager
def refusing_all(status: int) -> Iterator[str]:
    """HOST:PORT of a registry that says so to whatever is asked below its greeting."""
    code = {401: "UNAUTHORIZED", 403: "DENIED", 404: "MANIFEST_UNKNOWN"}.get(status, "UNKNOWN")
    more = (
        {"Retry_After": "0"} if status == 429 else {"WWW_Authenticate": 'Basic realm="tests"'} if status == 401 else {}
    )

    def hook(asked: Asked) -> Answer | None:
        return None if asked.line.endswith(" /v2/") else refusing(status, code, **more)

    with field_registry({}, hook) as registry:
        yield registry.host


@contextmanager
def resetting() -> Iterator[str]:
    """HOST:PORT of what resets each connection."""

    def reset(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    with listening(reset) as host:
        yield host


def lines_of(text: str, repository: str) -> str:
    """What is said of an image: its line, and the indented ones below."""
    rows = text.splitlines()
    start = max(
        number
        for number, row in enumerate(rows)
        if f"{repository}/app:v1" in row.partition(" ")[0] + row.partition("(")[2]
    )
    end = next((n for n in range(start + 1, len(rows)) if not rows[n].startswith(" ")), len(rows))
    return "\n".join(rows[start:end])


def test_each_error_has_one_sentence_on_what_happened_and_one_on_what_to_do(cli: Cli, tmp_path: Path) -> None:
    put(tmp_path / "sample/ca.crt", (TLS / "ca.crt").read_bytes())
    certificate, image = make_certificate(tmp_path / "tls"), make_image("app")
    good = served_by(certificate.cert, certificate.key)
    old = served_by(make_expired(tmp_path / "tls", certificate), certificate.key)
    with (
        ExitStack() as stack,
        field_registry({"ca/app:v1": image}, tls=good) as unknown,
        field_registry({"name/app:v1": image}, tls=served_by(TLS / "server.crt", TLS / "server.key")) as misnamed,
        field_registry({"old/app:v1": image}, tls=old) as expired,
        resetting() as reset,
    ):
        other = misnamed.host.replace("127.0.0.1", "localhost")
        wanted = {
            **{
                f"s{status}": (
                    f"{stack.enter_context(refusing_all(status))}/s{status}/app:v1",
                    meaning,
                )
                for status, meaning in STATUSES.items()
            },
            "refused": ("127.0.0.1:1/refused/app:v1", Meaning.NOBODY_THERE),
            "reset": (f"{reset}/reset/app:v1", Meaning.CUT),
            "dns": ("nowhere.invalid/dns/app:v1", Meaning.NO_NAME),
            "ca": (f"{unknown.host}/ca/app:v1", Meaning.UNKNOWN_CA),
            "name": (f"{other}/name/app:v1", Meaning.WRONG_NAME),
            "old": (f"{expired.host}/old/app:v1", Meaning.EXPIRED),
        }
        settings = "".join(
            f"  {name}: {{url: 'https://{host}'{extra}}}\n"
            for name, host, extra in (
                ("unknown", unknown.host, ""),
                ("misnamed", other, f", cert_dir: '{tmp_path / 'sample'}'"),
                ("expired", expired.host, f", cert_dir: '{certificate.directory}'"),
            )
        )
        put(cli.directory / "regwrap.yaml", f"{QUICK}registries:\n{settings}".encode())
        put(cli.directory / "images.list", "".join(f"{line}\n" for line, _meaning in wanted.values()).encode())
        done = cli("sync", "images.list")
    said = {name: lines_of(done.stderr, name) for name in wanted}
    happened = {Meaning.ABSENT: " has no s404/app:v1"}
    hints = {Meaning.UNAUTHORIZED: "no authfile has a login for 127.0.0.1:"}
    for name, (_line, meaning) in wanted.items():
        assert happened.get(meaning, meaning.happened) in said[name], done.stderr
        assert hints.get(meaning, meaning.hint) in said[name], done.stderr
    assert "tls_verify" not in said["old"]


def test_an_upload_that_is_too_large_is_called_that(cli: Cli) -> None:
    def hook(asked: Asked) -> Answer | None:
        return Answer(413, {"Content-Type": "text/html"}, b"<html>nginx</html>") if "PUT" in asked.line else None

    make_storage(cli.directory / "new", {"team/new:v1": make_image("new")})
    with field_registry({}, hook) as registry:
        put(cli.directory / "regwrap.yaml", QUICK.encode())
        done = cli("push", "new", registry.host)
    assert Meaning.TOO_LARGE.happened in done.stderr
    assert Meaning.TOO_LARGE.hint in done.stderr


@pytest.mark.parametrize("wants_login", [False, True])
def test_a_proxy_that_does_not_lead_there_is_called_that(cli: Cli, *, wants_login: bool) -> None:
    def hook(_asked: Asked) -> Answer | None:
        return Answer(407, {"Proxy-Authenticate": 'Basic realm="proxy"'}) if wants_login else Answer(502)

    with field_registry({}, hook) as proxy:
        put(cli.directory / "regwrap.yaml", QUICK.encode())
        put(cli.directory / "images.list", b"registry.test/team/app:v1\n")
        done = cli("sync", "images.list", env={"HTTPS_PROXY": f"http://{proxy.host}"})
    meaning = Meaning.PROXY_LOGIN if wants_login else Meaning.PROXY
    assert meaning.happened in done.stderr
    assert wants_login is (Meaning.PROXY_LOGIN.hint in done.stderr)
