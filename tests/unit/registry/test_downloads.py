"""What came of downloads that another program made: what the host's limiter hears, and what is told of a failure; and
those of this process, piece by piece."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from regwrap.core.errors import HostDownError, ToolError
from regwrap.core.location import Registry, Timeouts
from regwrap.core.manifest import Descriptor
from regwrap.core.model import Digest
from regwrap.registry.certificates import meaning_of_tls
from regwrap.registry.credentials import UnsureError
from regwrap.registry.downloads import Downloads
from regwrap.registry.probe import Probe
from regwrap.tools.curl import Download, DownloadOutcome
from tests.answering import Answer, Answering, answering, script

_REFUSED: Final = 7  # curl(1), EXIT CODES
JSON = {"Content-Type": "application/json"}
DOWNLOAD = Download(key="x", url="http://r.io/x", size=5, offset=0, authorization="")


@pytest.fixture
def server() -> Iterator[Answering]:
    with answering(script(Answer(200, JSON, b"{}"))) as found:
        yield found


@pytest.fixture
def downloads(server: Answering) -> Downloads:
    registry = Registry(host=server.host, tls_verify=False, plain_http=True)
    return Probe(registry=registry, timeout=5, connections=1).downloads


@pytest.mark.parametrize(("other", "is_down"), [("", True), ("127.0.0.1:1", False)])
def test_a_registry_is_not_down_since_its_answer_led_to_where_nobody_listens(
    server: Answering, downloads: Downloads, other: str, *, is_down: bool
) -> None:
    downloads.inform_limiter(DownloadOutcome(key="x", exit_code=_REFUSED, url=f"http://{other or server.host}/x"), 0)
    error = downloads.client.limiter.gave_up(ToolError("refused", transient=True, host=server.host))
    assert isinstance(error, HostDownError) is is_down


@pytest.mark.parametrize("status", [429, 503, 200, 404, 499, 500, 0])
def test_a_host_that_wants_less_of_curl_is_asked_less_and_one_that_answers_is_there(
    downloads: Downloads, status: int
) -> None:
    limiter = downloads.client.limiter
    for _ in range(2):
        limiter.gave_up(ToolError("x"))
    before = limiter.rate.limit
    downloads.inform_limiter(DownloadOutcome(key="x", exit_code=22, status=status, retry_after="0"), 0)
    assert (limiter.rate.limit < before) is (status in {429, 503})
    is_down = isinstance(limiter.gave_up(ToolError("x")), HostDownError)
    assert is_down is (status not in {200, 404, 499})


def failure(downloads: Downloads, outcome: DownloadOutcome) -> ToolError:
    return downloads.failure("blob abc of a/b", outcome, DOWNLOAD, 60)


@pytest.mark.parametrize(
    ("outcome", "said", "transient", "outage"),
    [
        (DownloadOutcome(key="x", exit_code=0, excess=True), "sends more than the 5 bytes that blob abc", False, False),
        (DownloadOutcome(key="x", exit_code=22, status=403), "answered 403 to blob abc", False, False),
        (DownloadOutcome(key="x", exit_code=22, status=500), "answered 500 to blob abc", True, False),
        (
            DownloadOutcome(key="x", exit_code=0, media_type="text/html"),
            "answered blob abc of a/b with a web page",
            True,
            False,
        ),
        (
            DownloadOutcome(key="x", exit_code=0, media_type="text/html", excess=True),
            "answered blob abc of a/b with a web page",
            True,
            False,
        ),
        (
            DownloadOutcome(key="x", exit_code=28, message="too slow"),
            "made no progress for 60 s with blob abc",
            True,
            False,
        ),
        (DownloadOutcome(key="x", exit_code=28, message="timed out"), "took too long with blob abc", True, False),
        (DownloadOutcome(key="x", exit_code=23, message="Failed writing"), "could not be written here", False, False),
        (DownloadOutcome(key="x", exit_code=7, message="refused"), "did not send blob abc", True, True),
        (DownloadOutcome(key="x", exit_code=52, message="Empty reply"), "did not send blob abc", True, True),
        (DownloadOutcome(key="x", exit_code=56, message="reset by peer"), "did not send blob abc", True, True),
        (DownloadOutcome(key="x", exit_code=18, message="transfer closed"), "did not send blob abc", True, False),
        (DownloadOutcome(key="x", exit_code=6, message="no such host"), "did not send blob abc", True, False),
        (DownloadOutcome(key="x", exit_code=3, message="malformed"), "did not send blob abc", False, False),
    ],
)
def test_each_way_to_fail_is_told_and_tried_again_where_it_may_pass(
    downloads: Downloads, outcome: DownloadOutcome, said: str, transient: bool, outage: bool
) -> None:
    """What is tried again for nothing costs minutes; what is not and could have been costs the release."""
    error = failure(downloads, outcome)
    assert said in error.message
    assert (error.transient, error.outage) == (transient, outage)
    assert error.hint or outcome.exit_code in {0, 6, 7, 18, 22, 28, 52, 56, 3}


EXPIRED = "SSL certificate problem: certificate has expired"
MAY_PASS = {"no proxy": 5, "no name": 6, "refused": 7, "HTTP/2": 16, "cut": 18, "handshake": 35, "nothing came": 52}
MAY_PASS |= {"not sent": 55, "not received": 56, "a stream of HTTP/2": 92}
OF_TLS = {35, 53, 54, 58, 59, 60, 66, 77, 80, 82, 83, 90, 91}
OWN_WORDS = {22, 23, 28}


def test_which_failures_of_curl_may_pass_and_which_speak_of_certificates(downloads: Downloads) -> None:
    """All codes of curl(1): what may pass is tried again, and is an outage where nobody answers at all."""
    told = {code: failure(downloads, DownloadOutcome(key="x", exit_code=code, message="odd")) for code in range(1, 100)}
    assert {code for code, error in told.items() if error.transient} - OWN_WORDS == {*MAY_PASS.values()}
    assert {code for code, error in told.items() if error.outage} == {7, 52, 55, 56}
    expired = {
        code: failure(downloads, DownloadOutcome(key="x", exit_code=code, message=EXPIRED)) for code in range(1, 100)
    }
    assert {code for code, error in expired.items() if "dates" in error.hint} == OF_TLS


@pytest.mark.parametrize("code", [4, 5, 6, 7, 8])
def test_a_registry_that_curl_does_not_reach_is_down(downloads: Downloads, code: int) -> None:
    downloads.inform_limiter(DownloadOutcome(key="x", exit_code=code), 0)
    is_down = isinstance(downloads.client.limiter.gave_up(ToolError("x")), HostDownError)
    assert is_down is (code in {5, 6, 7})


def test_a_certificate_that_is_not_trusted_does_not_pass(downloads: Downloads) -> None:
    error = failure(downloads, DownloadOutcome(key="x", exit_code=60, message=EXPIRED))
    assert not error.transient
    assert error.hint == meaning_of_tls(EXPIRED).hint != ""
    assert not failure(downloads, DownloadOutcome(key="x", exit_code=35, message=EXPIRED)).transient
    assert failure(downloads, DownloadOutcome(key="x", exit_code=35, message="reset by peer")).transient


def test_who_the_answer_led_to_is_named_and_the_registry_does_not_count_as_away(downloads: Downloads) -> None:
    host = downloads.client.registry.host
    led = "http://store.example/x"
    for outcome, said in (
        (
            DownloadOutcome(key="x", exit_code=7, url=led, message="refused"),
            f"{host} did not send blob abc of a/b from store",
        ),
        (DownloadOutcome(key="x", exit_code=22, status=403, url=led), "from store.example, where its answer leads"),
        (DownloadOutcome(key="x", exit_code=28, url=led), "from store.example, where its answer leads"),
        (
            DownloadOutcome(key="x", exit_code=0, media_type="text/html", url=led),
            "from store.example, where its answer",
        ),
    ):
        error = failure(downloads, outcome)
        assert said in f"{error.message}"
        assert not error.outage
    assert "check the address" in failure(downloads, DownloadOutcome(key="x", exit_code=7, url=led)).hint
    own = failure(downloads, DownloadOutcome(key="x", exit_code=7, url=f"http://{host}/x"))
    assert "where its answer leads" not in own.message
    assert own.hint == ""


def test_a_registry_without_tls_may_lead_to_a_bucket_whose_ca_is_named(tmp_path: Path) -> None:
    authority = Path(__file__).parents[2] / "samples/tls/ca.crt"
    with answering(script(Answer(200, JSON, b"{}"))) as server:
        registry = Registry(host=server.host, tls_verify=False, plain_http=True)
        variables = (("SSL_CERT_FILE", f"{authority}"),)
        downloads = Probe(registry=registry, timeout=5, connections=1, environment=variables).downloads
        options = dict(downloads.route(tmp_path).options)
    assert Path(options["cacert"]).read_bytes() == authority.read_bytes()
    assert "insecure" not in options


# --- piece by piece

DATA = bytes(range(256)) * 4096  # more than one piece
BLOB = Descriptor(media_type="x/y", digest=Digest.of(DATA), size=len(DATA))
HURRIED = Timeouts(stall=0.3, copy=60)
TAIL = {"Content-Range": f"bytes 700000-{len(DATA) - 1}/{len(DATA)}"}


def came(answers: tuple[Answer, ...], start: int = 0, timeouts: Timeouts = HURRIED) -> tuple[bytes, Answering]:
    with answering(script(*answers)) as server:
        registry = Registry(host=server.host, tls_verify=False, plain_http=True)
        pieces = Probe(registry=registry, timeout=5, connections=1).downloads.pieces("a/b", BLOB, start, timeouts)
        return b"".join(pieces), server


def test_a_blob_comes_whole_by_one_request() -> None:
    data, server = came((Answer(200, {}, DATA),))
    assert data == DATA
    assert server.lines == [f"GET /v2/a/b/blobs/{BLOB.digest}"]
    assert "range" not in server.asked[0].headers


@pytest.mark.parametrize("answer", [Answer(206, TAIL, DATA[700_000:]), Answer(200, {}, DATA)])
def test_a_blob_goes_on_where_it_was_left_also_where_ranges_are_not_known(answer: Answer) -> None:
    data, server = came((answer,), 700_000)
    assert data == DATA[700_000:]
    assert server.asked[0].headers["range"] == "bytes=700000-"


def test_a_blob_comes_from_where_the_registry_leads_and_the_login_stays() -> None:
    with answering(script(Answer(200, {}, DATA))) as store:
        data, server = came((Answer(307, {"Location": f"http://{store.host}/x?signed=1"}),))
    assert data == DATA
    assert store.lines == ["GET /x?signed=1"]
    assert store.asked[0].authorization == ""
    assert len(server.lines) == 1


@pytest.mark.parametrize(
    ("answer", "said", "transient"),
    [
        (Answer(200, {}, DATA + b"x"), f"sends more than the {len(DATA)} bytes that blob", False),
        (Answer(200, {}, DATA[:-1]), f"sent {len(DATA) - 1} bytes of blob", True),
        (Answer(200, {}, DATA, cut=300_000), "cut its answer off", True),
        (Answer(200, {"Content-Type": "text/html"}, DATA), "with a web page", True),
        (Answer(404), "answered 404 to blob", False),
        (Answer(403), "answered 403 to blob", False),
        (Answer(503), "answered 503 to blob", True),
        (Answer(302), "answered 302 to blob", False),
    ],
)
def test_a_blob_that_does_not_come_as_it_is_is_told(answer: Answer, said: str, *, transient: bool) -> None:
    with pytest.raises(ToolError, match=said) as raised:
        came((answer,))
    assert raised.value.transient is transient
    assert BLOB.digest.short in raised.value.message or "cut" in said


@pytest.mark.parametrize("said", ["bytes 0-9/10", "", "bytes 70000-1/2"])
def test_another_part_than_was_asked_for_is_not_taken(said: str) -> None:
    with pytest.raises(UnsureError, match="another part of blob"):
        came((Answer(206, {"Content-Range": said}, DATA[700_000:]),), 700_000)


def test_a_login_that_nobody_has_is_for_skopeo_to_say() -> None:
    with pytest.raises(UnsureError, match="answered 401"):
        came((Answer(401, {"WWW-Authenticate": "Odd"}),))


@pytest.mark.slow
def test_what_stands_still_or_trickles_is_given_up() -> None:
    short = Answer(200, {"Content-Length": f"{len(DATA)}"}, DATA[:1000])
    with pytest.raises(ToolError, match=r"made no progress for 0\.3 s") as raised:
        came((short,))
    assert raised.value.transient
    with pytest.raises(ToolError, match=r"had not sent all of it after 0\.2 s"):
        came((short,), timeouts=Timeouts(stall=30, copy=0.2))


def open_sockets() -> int:
    """How many this process has, the server's ends among them."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found += f"{descriptor.readlink()}".startswith("socket:")
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "start"),
    [
        (Answer(200, {}, 16 * DATA), 0),
        (Answer(200, {"Content-Type": "text/html"}, 16 * DATA), 0),
        (Answer(206, {"Content-Range": "bytes 0-9/10"}, 16 * DATA), 700_000),
    ],
    ids=["more than it has", "a web page", "another part"],
)
def test_what_is_not_read_to_its_end_leaves_no_connection_open(answer: Answer, start: int) -> None:
    """A run of a thousand such blobs would have no descriptors left. The error is kept, as a report keeps it."""
    with answering(lambda _asked: answer) as server:
        before = open_sockets()
        registry = Registry(host=server.host, tls_verify=False, plain_http=True)
        downloads = Probe(registry=registry, timeout=5, connections=1).downloads
        with pytest.raises((ToolError, UnsureError)) as raised:
            list(downloads.pieces("a/b", BLOB, start, HURRIED))
        deadline = time.monotonic() + 5
        while open_sockets() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert open_sockets() <= before
        assert raised.value.message


def test_one_blob_after_the_other_comes_by_one_connection() -> None:
    with answering(lambda _asked: Answer(200, {}, DATA)) as server:
        registry = Registry(host=server.host, tls_verify=False, plain_http=True)
        downloads = Probe(registry=registry, timeout=5, connections=1).downloads
        for _ in range(3):
            assert b"".join(downloads.pieces("a/b", BLOB, 0, HURRIED)) == DATA
        assert server.connections == 1


def test_a_blob_comes_as_the_registry_has_it_whatever_encoding_is_said_of_it() -> None:
    """Its digest is that of the bytes as they are kept."""
    assert came((Answer(200, {"Content-Encoding": "gzip"}, DATA),))[0] == DATA


@pytest.mark.parametrize("chunk", ["-5", "x", "5;"])
def test_a_stream_whose_numbers_are_none_is_cut_off_and_may_come_again(chunk: str) -> None:
    headers = {"Transfer-Encoding": "chunked", "Content-Length": ""}
    with pytest.raises(ToolError, match="cut its answer off") as raised:
        came((Answer(200, headers, f"{chunk}\r\n".encode(), cut=9),))
    assert raised.value.transient


def test_no_byte_is_waited_for_beyond_the_time_of_the_whole() -> None:
    """However fast it comes: else what trickles piece by piece would come for days."""
    with pytest.raises(ToolError, match="had not sent all of it after 0 s") as raised:
        came((Answer(200, {}, DATA),), timeouts=replace(HURRIED, copy=0))
    assert raised.value.transient
