"""What a registry's answer means, from its HTTP status and the codes of the distribution specification: one table."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from regwrap.core.answers import Meaning
from regwrap.core.errors import ToolError

if TYPE_CHECKING:
    from regwrap.registry.exchange import Response

# (statuses from, to, what the body says, the meaning): the first that fits counts
_TABLE: Final = (
    (200, 299, r"<", Meaning.LOGIN_PAGE),
    (408, 408, "", Meaning.BUSY),
    (429, 429, "", Meaning.BUSY),
    (500, 500, "", Meaning.FULL_DISK),
    (501, 599, "", Meaning.UNAVAILABLE),
    (400, 499, r".*project .*not found", Meaning.NO_PROJECT),
    (400, 499, r".*(BLOB_UPLOAD_|DIGEST_INVALID)", Meaning.UPLOAD_LOST),
    (401, 401, "", Meaning.UNAUTHORIZED),
    (403, 403, "", Meaning.DENIED),
    (404, 404, "", Meaning.ABSENT),
    (405, 405, "", Meaning.READ_ONLY),
    (407, 407, "", Meaning.PROXY_LOGIN),
    (412, 412, "", Meaning.FIXED_TAG),
    (413, 413, "", Meaning.TOO_LARGE),
)
_LATER: Final = {Meaning.BUSY, Meaning.FULL_DISK, Meaning.UNAVAILABLE}
GONE: Final = {502, 503, 504}  # what stands before a registry says when that is away
_SHOWN: Final = 500


def meaning_of(response: Response) -> Meaning:
    text = reason_of(response.body)
    fits = (m for low, high, said, m in _TABLE if low <= response.status <= high and re.match(said, text))
    return next(fits, Meaning.OTHER)


def is_page(response: Response) -> bool:
    """Whether a web page answers in a registry's place: proxies say 200 with it."""
    return "html" in response.headers.get("Content-Type", "") or response.body.lstrip()[:1] == b"<"


def is_absent(response: Response) -> bool:
    """Whether it is a registry that says so: other servers have nothing at its paths either."""
    headers = response.headers
    is_registry = "Docker-Distribution-Api-Version" in headers or "json" in headers.get("Content-Type", "")
    return response.status == 404 and is_registry


def reason_of(body: bytes) -> str:
    """Why a registry says no. docker-registry tells what its disk said, at times as a bare number of errno."""
    text = " ".join(body[: 4 * _SHOWN].decode(errors="replace").split())[:_SHOWN]
    number = re.search(r'"Err":(\d{1,3})\b', text)
    return f"{text} ({os.strerror(int(number[1]))})" if number else text


def refusal(host: str, what: str, response: Response) -> ToolError:
    """The error for an answer that is no yes to `what`: a request, or what was to be put there."""
    meaning = meaning_of(response)
    return ToolError(
        meaning.message(f"{host} answered {response.status} to {what}"),
        detail=reason_of(response.body),
        hint=meaning.hint,
        transient=meaning.is_transient,
        host=host if meaning in _LATER else "",
        outage=response.status in GONE,
    )


def raise_if_later(host: str, what: str, response: Response) -> None:
    """Raise a transient ToolError for an answer by which the whole registry wants to be asked later."""
    if response.status >= 400 and meaning_of(response) in _LATER:
        raise refusal(host, what, response)
