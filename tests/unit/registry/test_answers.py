"""What a registry's answer means, and what to do about it."""

import pytest

from regwrap.core.answers import Meaning
from regwrap.core.errors import ToolError
from regwrap.registry.answers import is_absent, is_page, meaning_of, raise_if_later, reason_of, refusal
from regwrap.registry.exchange import Response


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", ""),
        (b"refused\n on demand ", "refused on demand"),
        (b'{"errors":[{"detail":"write /x: no space left on device"}]}', "no space left on device"),
        (b'{"detail":{"Op":"mkdir","Path":"/x","Err":28}}', "(No space left on device)"),
        (b'{"detail":{"Op":"write","Err":122}}', "(Disk quota exceeded)"),
        (b"\xff" * 2000, "\ufffd" * 500),
    ],
)
def test_the_reason_of_a_refusal(body: bytes, reason: str) -> None:
    assert reason_of(body).endswith(reason) or reason in reason_of(body)
    assert len(reason_of(body)) < 600
    assert reason_of(b"x" * 2000) == 500 * "x"


@pytest.mark.parametrize(
    ("status", "body", "meaning", "transient", "hint"),
    [
        (200, b" <html>", Meaning.LOGIN_PAGE, True, "login page"),
        (201, b"<html>", Meaning.LOGIN_PAGE, True, "login page"),
        (201, b"", Meaning.OTHER, False, ""),
        (299, b"<html>", Meaning.LOGIN_PAGE, True, "login page"),
        (300, b"<html>", Meaning.OTHER, False, ""),
        (400, b"", Meaning.OTHER, False, ""),
        (400, b"project team not found", Meaning.NO_PROJECT, False, "--create-projects"),
        (400, b'{"errors":[{"code":"DIGEST_INVALID"}]}', Meaning.UPLOAD_LOST, True, ""),
        (404, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}', Meaning.UPLOAD_LOST, True, ""),
        (401, b"", Meaning.UNAUTHORIZED, False, "skopeo login"),
        (402, b"", Meaning.OTHER, False, ""),
        (403, b"<html>", Meaning.DENIED, False, "account"),
        (404, b"", Meaning.ABSENT, False, ""),
        (404, b"project team not found", Meaning.NO_PROJECT, False, "--create-projects"),
        (405, b"", Meaning.READ_ONLY, False, "writable"),
        (406, b"", Meaning.OTHER, False, ""),
        (407, b"", Meaning.PROXY_LOGIN, False, "HTTPS_PROXY"),
        (408, b"", Meaning.BUSY, True, ""),
        (409, b"", Meaning.OTHER, False, ""),
        (412, b"", Meaning.FIXED_TAG, False, "another tag"),
        (413, b"<html>", Meaning.TOO_LARGE, False, "proxy"),
        (414, b"", Meaning.OTHER, False, ""),
        (418, b"", Meaning.OTHER, False, ""),
        (429, b"project team not found", Meaning.BUSY, True, ""),
        (430, b"", Meaning.OTHER, False, ""),
        (500, b"", Meaning.FULL_DISK, True, "disk"),
        (501, b"", Meaning.UNAVAILABLE, True, ""),
        (502, b"<html>", Meaning.UNAVAILABLE, True, ""),
        (599, b"", Meaning.UNAVAILABLE, True, ""),
        (600, b"", Meaning.OTHER, False, ""),
    ],
)
def test_what_an_answer_means(status: int, body: bytes, meaning: Meaning, *, transient: bool, hint: str) -> None:
    response = Response(status, {}, body)
    assert meaning_of(response) is meaning
    error = refusal("r.example", "the manifest", response)
    assert error.message == meaning.message(f"r.example answered {status} to the manifest")
    assert (error.transient, error.hint == "") == (transient, meaning is Meaning.OTHER)
    assert hint in error.hint


@pytest.mark.parametrize(
    ("status", "later"), [(200, False), (401, False), (404, False), (408, True), (429, True), (500, True), (503, True)]
)
def test_a_host_that_wants_to_be_asked_later_is_named(status: int, *, later: bool) -> None:
    response = Response(status, {}, b"<overloaded>")
    if not later:
        raise_if_later("r.example", "GET /v2/", response)
        return
    with pytest.raises(ToolError, match=f"answered {status} to GET /v2/: .*: <overloaded>") as raised:
        raise_if_later("r.example", "GET /v2/", response)
    assert (raised.value.host, raised.value.transient) == ("r.example", True)


@pytest.mark.parametrize("status", range(500, 506))
def test_what_stands_before_a_registry_says_when_the_registry_is_away(status: int) -> None:
    assert refusal("r.example", "x", Response(status, {}, b"")).outage is (status in {502, 503, 504})


def test_a_refusal_that_is_about_one_image_does_not_count_against_the_host() -> None:
    assert refusal("r.example", "x", Response(400, {}, b"DIGEST_INVALID")).host == ""


@pytest.mark.parametrize(
    ("headers", "absent"),
    [({}, False), ({"Content-Type": "text/html"}, False), ({"Content-Type": "application/json"}, True),
     ({"Docker-Distribution-Api-Version": "registry/2.0"}, True)],
)  # fmt: skip
def test_only_a_registry_can_say_that_an_image_is_absent(headers: dict[str, str], *, absent: bool) -> None:
    assert is_absent(Response(404, headers, b"")) is absent
    assert not is_absent(Response(403, headers, b""))


def test_pages() -> None:
    assert is_page(Response(200, {"Content-Type": "text/html; charset=utf-8"}, b""))
    assert is_page(Response(200, {}, b"\n<html>"))
    assert not is_page(Response(200, {"Content-Type": "application/json"}, b"{}"))
    assert not is_page(Response(200, {}, b""))
