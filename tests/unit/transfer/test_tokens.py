"""Tokens that end while blobs are under way: the blob goes on with another one, and not for ever."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from regwrap.core.model import Digest
from tests.answering import Answer as Answered
from tests.answering import Asked, answering
from tests.builders import make_image, storage_problems
from tests.fakes import Answer, Scripted
from tests.unit.cli.programs import curl, skopeo_copy
from tests.unit.transfer.between import Between, between
from tests.unit.transfer.test_download_ends import End, Scene

APP = make_image("app")
LAYER_BYTES = APP.blobs[1]
LAYER = Digest.of(LAYER_BYTES)
GET_BLOB = "^GET .*/blobs/"


@dataclass
class Tokens:
    """A token server that gives another token each time it is asked."""

    given: list[str] = field(default_factory=list)

    def __call__(self, asked: Asked) -> Answered:
        assert "scope=repository" in asked.line
        self.given.append(f"t{len(self.given) + 1}")
        return Answered(200, {"Content-Type": "application/json"}, json.dumps({"token": self.given[-1]}).encode())


@dataclass
class Guarded:
    two: Between
    tokens: Tokens
    fetch: Callable[[bytes], bytes]

    def before_each_start_of_curl(self, work: Callable[[], None]) -> None:
        def reads(stdin: bytes) -> bytes:
            work()
            return self.fetch(stdin)

        self.two.scripted.launcher.answers.insert(0, Answer(when=("curl", "--disable"), reads=reads, repeats=True))

    def asked_for_layer(self) -> int:
        return len(self.two.source.asked(f"{GET_BLOB}{LAYER}"))


@pytest.fixture
def guarded(scripted: Scripted, tmp_path: Path) -> Iterator[Guarded]:
    """A registry that wants a token and takes all that its token server gives."""
    tokens, program = Tokens(), curl()
    assert program.reads is not None
    with between(scripted, tmp_path / "root", {"team/app:1": APP}) as two, answering(tokens) as server:
        scripted.launcher.answers.append(program)
        scope = "repository:team/app:pull"
        two.source.challenge = f'Bearer realm="http://{server.host}/token",service="r",scope="{scope}"'
        two.source.logins = tuple(f"Bearer t{number}" for number in range(1, 100))
        yield Guarded(two, tokens, program.reads)


@pytest.mark.slow
def test_a_token_that_has_ended_is_renewed_and_that_is_no_failure(guarded: Guarded) -> None:
    """They live for minutes, and a large image takes longer."""
    two = guarded.two
    ended = list[str]()

    def end_it() -> None:
        if not ended:
            ended.extend(guarded.tokens.given)
            two.source.logins = tuple(login for login in two.source.logins if login[7:] not in ended)

    guarded.before_each_start_of_curl(end_it)
    (copied,) = two.sync(two.job(archive=two.directory), "team/app:1").copied
    assert (copied.attempts, copied.sent) == (1, sum(map(len, APP.blobs)))
    first, second = two.scripted.launcher.started
    assert f"Bearer {ended[-1]}".encode() in first.stdin
    assert f"Bearer {guarded.tokens.given[-1]}".encode() in second.stdin
    assert not storage_problems(two.root)


@pytest.mark.slow
def test_where_each_token_is_refused_skopeo_is_asked_after_six(guarded: Guarded) -> None:
    """Some live for less than a program takes to start."""
    two = guarded.two
    two.source.fails = lambda request: 401 if request.startswith("GET") and f"/blobs/{LAYER}" in request else None
    two.scripted.launcher.answers.append(skopeo_copy(APP))
    (copied,) = two.sync(two.job(archive=two.directory), "team/app:1").copied
    assert guarded.asked_for_layer() == 7
    assert len(two.started("copy")) == 1
    assert copied.attempts == 1
    assert not storage_problems(two.root)


@pytest.mark.slow
@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_that_may_be_a_token_s_is_believed_after_six(guarded: Guarded, status: int) -> None:
    two = guarded.two
    two.source.fails = lambda request: status if request.startswith("GET") and f"/blobs/{LAYER}" in request else None
    said = two.failure(two.job(archive=two.directory), "team/app:1")
    assert f"answered {status} to blob {LAYER.short} of team/app" in said
    assert guarded.asked_for_layer() == 7
    assert two.started("copy") == []


@pytest.mark.slow
def test_a_token_server_that_fails_meanwhile_is_not_what_is_told(guarded: Guarded) -> None:
    two = guarded.two

    def gone() -> None:
        two.source.fails = fails

    def fails(request: str) -> int | None:
        if request.startswith("HEAD"):
            raise ConnectionResetError
        return 403 if f"/blobs/{LAYER}" in request else None

    guarded.before_each_start_of_curl(gone)
    said = two.failure(two.job(archive=two.directory), "team/app:1")
    assert f"answered 403 to blob {LAYER.short}" in said
    assert guarded.asked_for_layer() == 1


@pytest.mark.slow
def test_tokens_that_bring_bytes_are_renewed_as_often_as_it_takes(guarded: Guarded) -> None:
    """Of a large layer each brings a part."""
    two, scene = guarded.two, Scene(guarded.two, LAYER_BYTES)
    ended = End(lambda _start: b"", exit_code=22, status=401)
    scene.endpoints = [*[ended] * 6, End(lambda start: LAYER_BYTES[start:][:5], exit_code=56), *[ended] * 6, End()]
    two.scripted.launcher.answers[:] = [Answer(when=("curl", "--disable"), reads=scene.curl, repeats=True)]
    two.attempts = 2
    two.sync(two.job(archive=two.directory), "team/app:1")
    assert scene.endpoints == []
    assert not storage_problems(two.root)
