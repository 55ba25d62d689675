"""The probe's questions, against a server that answers what a test says; who is asked if it is unsure."""

import base64
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from regwrap.core.answers import Meaning
from regwrap.core.errors import ToolError
from regwrap.core.location import Registry, Timeouts
from regwrap.core.manifest import Descriptor
from regwrap.core.model import Digest
from regwrap.registry import probe as probe_module
from regwrap.registry.credentials import UnsureError, no_helper, usable_login
from regwrap.registry.endpoint import RegistryEndpoint
from regwrap.registry.exchange import Body
from regwrap.registry.harbor import Harbor
from regwrap.registry.probe import Probe
from regwrap.registry.uploads import Parcel
from regwrap.tools.skopeo import Skopeo
from tests.answering import Answer, Asked, answering, script
from tests.fakes import Answer as Told
from tests.fakes import Scripted
from tests.unit.registry.test_downloads import open_sockets

JSON = {"Content-Type": "application/json"}
ABSENT = Answer(404, JSON, b'{"errors":[]}')
DIGEST = Digest.of(b"{}")
PAGE = Answer(200, {"Content-Type": "text/html"}, b"<html>")


def probe_of(host: str) -> Probe:
    return Probe(registry=Registry(host=host, tls_verify=False, plain_http=True), timeout=5, connections=2)


def parcel_of(data: bytes) -> Parcel:
    digest = Digest.of(data)
    return Parcel(repository="a/b", digest=digest, size=len(data), pieces=lambda start, end: (data[start:end],))


def names(key: str, *values: object, link: str = "") -> Answer:
    return Answer(200, {**JSON, "Link": link}, json.dumps({key: values}).encode())


# --- questions


def test_a_digest_is_one_head_request() -> None:
    with answering(script(Answer(200, {"Docker-Content-Digest": f"{DIGEST}"}), ABSENT, Answer())) as server:
        probe = probe_of(server.host)
        assert probe.digest("a/b", "1") == DIGEST
        assert probe.digest("a/b", "2") is None
        with pytest.raises(UnsureError, match="named no digest for a/b:3"):
            probe.digest("a/b", "3")
        assert server.lines == [f"HEAD /v2/a/b/manifests/{tag}" for tag in "123"]
        assert server.connections == 1


VERSION = {**JSON, "Docker-Distribution-Api-Version": "registry/2.0"}
NO_NAME = b'{"errors":[{"code":"NAME_UNKNOWN"}]}'


@pytest.mark.parametrize(
    ("answers", "takes"),
    [
        ([Answer(404, VERSION, NO_NAME)], False),
        ([Answer(200, VERSION, b'{"name":"a/b","tags":["1"]}')], False),
        # distribution 3
        ([Answer(400, VERSION, b'{"errors":[{"code":"PAGINATION_NUMBER_INVALID"}]}'), ABSENT], None),
        # Harbor answers for its own lists, and has distribution 2 inside
        ([Answer(400, JSON, b'{"errors":[{"code":"BAD_REQUEST"}]}'), Answer(200, {}, b"Pong")], False),
        ([Answer(404, JSON, NO_NAME), ABSENT], None),
        ([Answer(404, VERSION, b"{}"), ABSENT], None),
        ([Answer(403, VERSION, NO_NAME), ABSENT], None),
        ([Answer(401, VERSION, b"{}"), ABSENT], None),
    ],
)
def test_whether_a_partial_index_is_refused_is_told_where_it_can_be_known(
    answers: list[Answer], takes: bool | None, scripted: Scripted
) -> None:
    with answering(script(*answers)) as server:
        probe = probe_of(server.host)
        end = RegistryEndpoint(
            registry=probe.registry,
            probe=probe,
            skopeo=Skopeo(runner=scripted.runner, home=Path("/"), timeouts=Timeouts()),
        )
        assert end.accepts_partial_indexes("a/b") is takes
        assert server.lines[0] == "GET /v2/a/b/tags/list?n=-1"
        assert {line.split()[0] for line in server.lines} == {"GET"}


def test_a_registry_that_is_away_does_not_say_whether_it_is_distribution_2() -> None:
    answers = (Answer(503, {"Retry-After": "0"}), Answer(200, VERSION))
    with answering(script(*answers)) as server:
        probe = probe_of(server.host)
        with pytest.raises(ToolError, match="503"):
            probe.is_distribution_2("a/b")
        assert probe.is_distribution_2("a/b")


def test_bytes_and_sizes() -> None:
    sized = Answer(headers={"Content-Length": "123"})
    with answering(script(Answer(body=b"{}"), Answer(body=b"config"), sized, ABSENT, ABSENT, ABSENT)) as server:
        probe = probe_of(server.host)
        assert probe.manifest("a/b", DIGEST) == b"{}"
        assert probe.small_blob("a/b", DIGEST) == b"config"
        assert probe.blob_size("a/b", DIGEST) == 123
        assert not [asked for asked in server.asked if "range" in asked.headers], "all of it is wanted"
        assert probe.manifest("a/b", "1") is None
        assert probe.small_blob("a/b", DIGEST) is None
        assert probe.blob_size("a/b", DIGEST) is None


@pytest.mark.parametrize("length", ["", "abc", "\N{SUPERSCRIPT TWO}", "-5", "9" * 5000])
def test_a_size_that_is_none_is_unsure(length: str) -> None:
    behaviour = script(Answer(headers={"Content-Length": length}), Answer(206, {"Content-Range": "bytes 0-0/*"}))
    with answering(behaviour) as server, pytest.raises(UnsureError, match="named no size"):
        probe_of(server.host).blob_size("a/b", DIGEST)


@pytest.mark.parametrize("answer", [PAGE, Answer(200, body=b" <x>"), Answer(403), Answer(404), Answer(301)])
def test_what_is_no_registrys_answer_is_unsure(answer: Answer) -> None:
    message = f"answered {answer.status} to GET /v2/a/b/manifests/1"
    with answering(script(answer)) as server, pytest.raises(UnsureError, match=message):
        probe_of(server.host).manifest("a/b", "1")


def test_a_registry_that_is_busy_may_answer_later() -> None:
    behaviour = script(Answer(429, {"Retry-After": "0"}, b"slow down"))
    message = "answered 429 to GET /v2/a/b/manifests/1: .*: slow down"
    with answering(behaviour) as server, pytest.raises(ToolError, match=message) as raised:
        probe_of(server.host).manifest("a/b", "1")
    assert (raised.value.transient, raised.value.host) == (True, server.host)


@pytest.mark.parametrize("said", ["", "0"])
@pytest.mark.parametrize(
    ("answer", "size"),
    [
        (Answer(206, {"Content-Range": "bytes 0-0/123"}, b"x"), 123),
        (Answer(200, {"Content-Length": "1000000"}, cut=0), 1_000_000),
        (Answer(416, {"Content-Range": "bytes */0"}), 0),
    ],
)
def test_a_size_that_head_does_not_tell_is_asked_for_otherwise(said: str, answer: Answer, size: int) -> None:
    with answering(script(Answer(headers={"Content-Length": said}), answer)) as server:
        assert probe_of(server.host).blob_size("a/b", DIGEST) == size
        assert server.asked[1].headers["range"] == "bytes=0-0"


# --- what doctor asks


@pytest.mark.parametrize(
    ("status", "may_push", "is_welcome", "wants"),
    [
        (200, None, True, False),
        (299, None, True, False),
        (300, None, False, False),
        (400, True, False, False),
        (401, False, None, True),
        (402, None, False, False),
        (403, False, False, False),
        (404, None, False, False),
        (405, False, False, False),
        (406, None, False, False),
        (413, None, False, False),
        (415, True, False, False),
        (416, None, False, False),
        (422, True, False, False),
        (423, None, False, False),
    ],
)
def test_what_a_registry_allows_is_read_from_its_status(
    status: int, *, may_push: bool | None, is_welcome: bool | None, wants: bool
) -> None:
    """`None` for the login: it is refused, and that is told."""
    with answering(lambda _asked: Answer(status, wants_login().headers)) as server:
        probe = probe_of(server.host)
        assert probe.may_push("a/b") is may_push
        assert server.lines[0] == f"PUT /v2/a/b/manifests/sha256:{64 * '0'}"
        assert probe.wants_login() is wants
        if is_welcome is None:
            with pytest.raises(ToolError, match="answered 401"):
                probe.is_welcome("a/b")
        else:
            assert probe.is_welcome("a/b") is is_welcome


def test_a_registry_without_tls_has_no_certificate_and_its_first_repository_is_named() -> None:
    answers = (names("repositories", "a", "b"), names("repositories"), ABSENT, Answer(), Answer())
    with answering(script(*answers)) as server:
        probe = probe_of(server.host)
        assert [probe.one_repository() for _ in range(3)] == ["a", "", ""]
        assert {*server.lines} == {"GET /v2/_catalog?n=1"}
        assert probe.certificate_end() is None


# --- lists


def test_lists_come_page_by_page_each_name_once() -> None:
    pages = (
        names("tags", "a", "b", link='<http://inner:1/v2/a/b/tags/list?last=b>; rel="next"'),
        names("tags", "b", "c"),
        ABSENT,
    )
    with answering(script(*pages)) as server:
        probe = probe_of(server.host)
        assert probe.tags("a/b") == ("a", "b", "c")
        assert probe.tags("a/b") is None
        assert server.lines[:2] == ["GET /v2/a/b/tags/list?n=1000", "GET /v2/a/b/tags/list?last=b"]


def test_pages_that_lead_in_a_circle_end_after_one_round() -> None:
    first, second = "</v2/_catalog?n=1000>; rel=next", "</v2/_catalog?x>; rel=next"

    def behaviour(asked: Asked) -> Answer:
        return names("repositories", "a", link=second) if "n=" in asked.line else names("repositories", "b", link=first)

    with answering(behaviour) as server:
        assert probe_of(server.host).catalog() == ("a", "b")
        assert len(server.asked) == 2


def test_a_list_without_an_end_is_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its repository would count as absent. Three pages stand for ten thousand."""
    monkeypatch.setattr(probe_module, "_MAX_PAGES", 3)

    def behaviour(asked: Asked) -> Answer:
        number = int(asked.line.partition("last=")[2] or 0) + 1
        return names("tags", f"{number}", link=f"</v2/a/b/tags/list?last={number}>; rel=next" if number < last else "")

    with answering(behaviour) as server:
        last = 3
        assert probe_of(server.host).tags("a/b") == ("1", "2", "3")
        last = 4
        with pytest.raises(UnsureError, match="more than 3 pages"):
            probe_of(server.host).tags("a/b")


def test_a_registry_without_a_catalog_is_unsure() -> None:
    with answering(lambda _asked: ABSENT) as server, pytest.raises(UnsureError, match="has no catalog"):
        probe_of(server.host).catalog()


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"[" * 100_000, b"\xff", b'{"tags": 0}', b'{"tags": {}}', b'{"tags": [1]}', b'{"tags": ["a", null]}'],
)
def test_a_list_that_is_none_is_unsure(body: bytes) -> None:
    with (
        answering(lambda _asked: Answer(200, JSON, body)) as server,
        pytest.raises(UnsureError, match="listed no tags"),
    ):
        probe_of(server.host).tags("a/b")


@pytest.mark.parametrize("body", [b"{}", b'{"tags": null}', b'{"tags": []}'])
def test_a_list_of_nothing_is_empty(body: bytes) -> None:
    with answering(lambda _asked: Answer(200, JSON, body)) as server:
        assert probe_of(server.host).tags("a/b") == ()


def test_referrers_of_all_pages() -> None:
    link = f"</v2/a/b/referrers/{DIGEST}?x=1>; rel=next"
    with answering(script(names("manifests", {"a": 1}, link=link), names("manifests", {"b": 2}), ABSENT)) as server:
        probe = probe_of(server.host)
        assert probe.referrers("a/b", DIGEST) == ({"a": 1}, {"b": 2})
        assert probe.referrers("a/b", DIGEST) is None
        assert server.lines[0] == f"GET /v2/a/b/referrers/{DIGEST}"


def test_referrers_that_are_refused_are_a_failure() -> None:
    with answering(script(Answer(405), Answer(503, {"Retry-After": "0"}))) as server:
        probe = probe_of(server.host)
        for status in (405, 503):
            with pytest.raises(ToolError, match=f"answered {status} to GET /v2/a/b/referrers/"):
                probe.referrers("a/b", DIGEST)


# --- what is sent


def test_a_mount_is_201_and_an_upload_that_was_begun_instead_is_cancelled() -> None:
    begun = (Answer(202, {"Location": where}) for where in ("/x", "http://other.example/v2/u", "http://[", ""))
    answers = (Answer(201), Answer(202, {"Location": "/v2/u"}), Answer(204), *begun, Answer(405))
    with answering(script(*answers)) as server:
        probe = probe_of(server.host)
        assert [probe.mount("a/b", DIGEST, "c/d") for _ in range(7)] == [True] + 6 * [False]
        assert len(server.asked) == 8
        assert server.lines[0] == f"POST /v2/a/b/blobs/uploads/?mount=sha256%3A{DIGEST.hex}&from=c%2Fd"
        assert server.lines[2] == "DELETE /v2/u"


@pytest.mark.parametrize(("status", "known"), [(200, True), (404, False)])
def test_a_registry_says_whether_it_knows_a_repository(status: int, known: bool) -> None:
    with answering(script(Answer(status, {"Content-Type": "application/json"}, b'{"tags": null}'))) as server:
        assert probe_of(server.host).knows("a/b") is known
        assert server.lines == ["GET /v2/a/b/tags/list?n=1"]


@pytest.mark.parametrize("answer", [Answer(405), Answer(403), Answer(200, {"Content-Type": "text/html"}, b"<html>")])
def test_a_repository_of_which_the_registry_says_nothing_is_looked_at(
    scripted: Scripted, tmp_path: Path, answer: Answer
) -> None:
    with answering(lambda _asked: answer) as server:
        end = end_of(server.host, scripted, tmp_path)
        assert not end.is_new("a/b")
        assert not end.is_new("a/b")
        assert len(server.lines) == 1, "it is asked once"


def test_a_manifest_is_put_with_its_type() -> None:
    with answering(script(Answer(201), Answer(500, body=b"disk"))) as server:
        probe = probe_of(server.host)
        assert probe.put_manifest("a/b", "1", Body("application/x", b"{}")).status == 201
        assert server.asked[0].line == "PUT /v2/a/b/manifests/1"
        assert server.asked[0].headers["content-type"] == "application/x"
        with pytest.raises(ToolError, match=r"answered 500 to PUT /v2/a/b/manifests/1: .*: disk") as raised:
            probe.put_manifest("a/b", "1", Body("application/x", b"{}"))
        assert "full disk" in raised.value.hint


# --- Harbor


def test_harbor_is_known_by_its_ping_and_its_projects() -> None:
    answers = (Answer(body=b'"Pong"\n'), Answer(body=b"no"), Answer(404), Answer(200), Answer(404), Answer(403))
    with answering(script(*answers, Answer(201), Answer(409), Answer(403, body=b"forbidden"))) as server:
        harbor = Harbor(probe_of(server.host))
        assert [harbor.is_there() for _ in range(3)] == [True, False, False]
        assert [harbor.has_project("p q") for _ in range(3)] == [True, False, None]
        harbor.create_project("p")
        harbor.create_project("p")
        with pytest.raises(ToolError, match=r"refused to create the project p \(403\): forbidden"):
            harbor.create_project("p")
        assert server.lines[3] == "HEAD /api/v2.0/projects?project_name=p+q"
        assert json.loads(server.asked[6].body) == {"metadata": {"public": "false"}, "project_name": "p"}
        assert server.asked[6].headers["content-type"] == "application/json"


# --- who is asked where the probe is unsure


def end_of(host: str, scripted: Scripted, tmp_path: Path) -> RegistryEndpoint:
    probe = probe_of(host)
    skopeo = Skopeo(runner=scripted.runner, home=tmp_path, timeouts=Timeouts())
    return RegistryEndpoint(registry=probe.registry, probe=probe, skopeo=skopeo)


def test_a_blob_that_a_repository_has_is_asked_for_once_a_run(scripted: Scripted, tmp_path: Path) -> None:
    blobs = tuple(Descriptor(media_type="", digest=Digest.of(name), size=3) for name in (b"a", b"b"))
    sized = Answer(headers={"Content-Length": "3"})
    with answering(script(sized, ABSENT, sized, sized)) as server:
        end = end_of(server.host, scripted, tmp_path)
        assert end.missing("a/b", blobs) == blobs[1:]
        assert end.missing("a/b", blobs) == ()  # it has come meanwhile
        assert end.missing("a/b", blobs) == ()
        assert end.missing("c/d", blobs[:1]) == ()
        asked = [(line.split("/")[2], line[-4:]) for line in server.lines]
    first, second = (f"{blob.digest}"[-4:] for blob in blobs)
    assert asked == [("a", first), ("a", second), ("a", second), ("c", first)]


def test_skopeo_is_asked_where_the_probe_is_unsure(scripted: Scripted, tmp_path: Path) -> None:
    inspect = Told(when=lambda argv: "inspect" in argv, stdout=b"{}", repeats=True)
    tags = Told(when=lambda argv: "list-tags" in argv, stdout=b'{"Tags": ["b", "a"]}')
    scripted.launcher.answers += [inspect, tags]
    with answering(lambda _asked: PAGE) as server:
        end = end_of(server.host, scripted, tmp_path)
        assert end.resolve("a/b", "1") == DIGEST
        assert end.tagged("a/b", "1") == (DIGEST, b"{}")
        assert end.manifest("a/b", DIGEST) == end.tagged_manifest("a/b", "1") == b"{}"
        assert end.tags("a/b") == ("a", "b")
        with pytest.raises(ToolError, match="answered 200 to GET /v2/a/b/referrers/"):
            end.referrers("a/b", DIGEST)
        assert end.mounted("a/b", DIGEST, "c/d") is False
        with pytest.raises(ToolError, match=r"does not list its repositories: .*answered 200") as raised:
            end.repositories()
        assert "images: of the configuration" in raised.value.hint


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, JSON, b"junk"),
        Answer(200, {**JSON, "Link": '<mailto:@127.0.0.1:1/x>; rel="next"'}, b'{"manifests":[]}'),
    ],
)
def test_a_list_of_referrers_that_cannot_be_read_is_a_failure(
    scripted: Scripted, tmp_path: Path, answer: Answer
) -> None:
    """Else an image would go without its signatures, and nobody would know."""
    with (
        answering(lambda _asked: answer) as server,
        pytest.raises(ToolError, match="does not list the referrers of"),
    ):
        end_of(server.host, scripted, tmp_path).referrers("a/b", DIGEST)


def test_skopeo_is_not_asked_where_the_probe_knows(scripted: Scripted, tmp_path: Path) -> None:
    def behaviour(asked: Asked) -> Answer:
        if "tags/list" in asked.line or "_catalog" in asked.line:
            return names("tags" if "tags" in asked.line else "repositories", "b", "a")
        return Answer(200, {"Docker-Content-Digest": f"{DIGEST}", **JSON}, b"{}")

    with answering(behaviour) as server:
        end = end_of(server.host, scripted, tmp_path)
        assert end.name == server.host
        assert end.resolve("a/b", "1") == DIGEST
        assert end.tagged("a/b", "1") == (DIGEST, b"{}")
        assert end.manifest("a/b", DIGEST) == b"{}"
        assert (end.tags("a/b"), end.repositories()) == (("a", "b"), ("a", "b"))
        right, wrong = (Descriptor(media_type="application/json", digest=DIGEST, size=size) for size in (2, 3))
        assert end.missing("a/b", (right, wrong)) == (wrong,)
        assert end.config("a/b", DIGEST, right) == b"{}"
        assert end.config("a/b", DIGEST, replace(right, digest=Digest.of(b"other"))) == b""


def test_where_our_own_requests_find_no_way_it_is_said_what_that_costs(scripted: Scripted, tmp_path: Path) -> None:
    """Here by a proxy that only skopeo could use. That an image goes without its signatures is told."""
    noted: list[str] = []
    where = Registry(host="registry.example", tls_verify=False, plain_http=True)
    way = (("HTTP_PROXY", "quic://127.0.0.1:1"),)
    probe = Probe(registry=where, timeout=5, connections=1, environment=way, note=noted.append)
    skopeo = Skopeo(runner=scripted.runner, home=tmp_path, timeouts=Timeouts())
    end = RegistryEndpoint(registry=where, probe=probe, skopeo=skopeo)
    assert end.referrers("a/b", DIGEST) is None
    assert len(noted) == 1
    assert noted[0].startswith("registry.example: referrers are looked for by their tags only, not by its API: ")
    assert end.mounted("a/b", DIGEST, "c/d") is False
    assert end.accepts_partial_indexes("a/b") is None
    assert not end.is_new("a/b")
    with pytest.raises(ToolError, match="does not list its repositories") as raised:
        end.repositories()
    assert raised.value.hint.startswith("write full repository names in images:")


def test_an_end_is_the_same_registry_whatever_it_has_learned_of_it(scripted: Scripted, tmp_path: Path) -> None:
    end = end_of("r.example", scripted, tmp_path)
    learned = replace(end, made={DIGEST: b"{}"}, there={("a", DIGEST): 1}, sizes={DIGEST: 1}, known={"a": True})
    assert learned == end
    assert end_of("s.example", scripted, tmp_path) != end


def test_manifests_that_were_made_here_are_not_asked_for(scripted: Scripted, tmp_path: Path) -> None:
    with answering(script()) as server:
        end = end_of(server.host, scripted, tmp_path)
        end.made[DIGEST] = b"{}"
        assert end.manifest("a/b", DIGEST) == b"{}"
        assert server.asked == []


def test_a_host_that_is_busy_mounts_nothing(scripted: Scripted, tmp_path: Path) -> None:
    with answering(lambda _asked: Answer(503, {"Retry-After": "0"})) as server:
        assert end_of(server.host, scripted, tmp_path).mounted("a/b", DIGEST, "c/d") is False
    gone = end_of(server.host, scripted, tmp_path)
    assert gone.mounted("a/b", DIGEST, "c/d") is False, "nobody listens there any more: the push says so"


def test_a_config_that_the_probe_does_not_get_is_skopeos_to_fetch(scripted: Scripted, tmp_path: Path) -> None:
    """Else the image would have no platform."""
    config = Descriptor(media_type="", digest=DIGEST, size=2)
    scripted.launcher.answers.append(Told(when=lambda argv: "--config" in argv, stdout=b"{}"))
    with answering(lambda _asked: PAGE) as server:
        assert end_of(server.host, scripted, tmp_path).config("a/b", DIGEST, config) == b"{}"
    assert scripted.launcher.argvs[0][-1].endswith(f"/a/b@{DIGEST}")


def test_whether_a_repository_is_new_is_not_guessed_while_the_registry_is_away(
    scripted: Scripted, tmp_path: Path
) -> None:
    """Who may push and not list has a repository; one that answers later is asked later."""
    answers = [Answer(503, {"Retry-After": "0"}), Answer(404, JSON), wants_login()]
    with answering(script(*answers)) as server:
        end = end_of(server.host, scripted, tmp_path)
        with pytest.raises(ToolError, match="503"):
            end.is_new("a/b")
        assert end.is_new("a/b")
        assert not end.is_new("c/d")


def test_where_skopeo_fails_without_a_reason_the_probes_is_told(scripted: Scripted, tmp_path: Path) -> None:
    scripted.launcher.answers.append(Told(when=lambda argv: "inspect" in argv, exit_code=1, stderr=b"odd\n"))
    with answering(lambda _asked: PAGE) as server, pytest.raises(ToolError, match="could not read") as raised:
        end_of(server.host, scripted, tmp_path).tagged_manifest("a/b", "1")
    assert raised.value.hint == Meaning.LOGIN_PAGE.hint
    assert "odd" in raised.value.detail
    assert "answered 200 to GET /v2/a/b/manifests/1" in raised.value.detail


# --- the authfile


def credentials(tmp_path: Path, document: object, host: str = "r.example", repository: str = "") -> str | None:
    path = tmp_path / "auth.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    login = usable_login(Registry(host=host, tls_verify=True, authfile=path), repository, no_helper)
    return login.basic if login else None


@pytest.mark.parametrize(
    "key",
    [
        "r.example",
        "https://r.example",
        "http://r.example",
        "https://r.example/v1/",
        "https://r.example/v2/",
        "r.example:443",
        "R.Example",
        "https://R.example:443/v2/",
    ],
)
def test_an_authfile_names_a_registry_in_several_ways(tmp_path: Path, key: str) -> None:
    assert credentials(tmp_path, {"auths": {key: {"auth": "eDp5"}}}) == "eDp5"
    assert credentials(tmp_path, {"auths": {key: {"auth": "eDp5"}}}, "s.example") is None


@pytest.mark.parametrize(
    ("keys", "counts"),
    [
        (["r.example", "r.example/a", "r.example/a/b"], "r.example/a/b"),
        (["r.example/a/b/c", "r.example/a", "r.example"], "r.example/a"),
        (["r.example/aa", "https://r.example/v1/"], "https://r.example/v1/"),
        (["r.example/aa", "s.example/a/b"], None),
        (["r.example", "r.example:443/a", "R.example:443"], "r.example:443/a"),
    ],
)
def test_the_longest_path_that_fits_counts(tmp_path: Path, keys: list[str], counts: str | None) -> None:
    auths = {key: {"auth": base64.b64encode(key.encode()).decode()} for key in keys}
    found = credentials(tmp_path, {"auths": auths}, repository="a/b")
    assert (None if found is None else base64.b64decode(found).decode()) == counts


@pytest.mark.parametrize("key", ["docker.io", "index.docker.io", "https://index.docker.io/v1/"])
def test_docker_hub_has_names_of_its_own(tmp_path: Path, key: str) -> None:
    assert credentials(tmp_path, {"auths": {key: {"auth": "eDp5"}}}, "docker.io") == "eDp5"


@pytest.mark.parametrize(
    "document", [{}, None, {"auths": []}, {"auths": {"r.example": 1}}, {"auths": {"r.example": {}}}]
)
def test_an_authfile_without_an_entry_has_no_credentials(tmp_path: Path, document: object) -> None:
    assert credentials(tmp_path, document) is None
    assert usable_login(Registry(host="r.example", tls_verify=True), "", no_helper) is None


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read: too deeply nested"),
        ([], "cannot be read: expected an object, got a list"),
        ({"credsStore": "pass"}, "credential helper"),
        ({"credHelpers": {"r.example": "pass"}}, "r.example .by docker-credential-pass. is a credential helper"),
        ({"auths": {"r.example": {"auth": "%%%"}}}, "not base64"),
    ],
)
def test_what_only_skopeo_can_use_is_unsure(tmp_path: Path, document: object, message: str) -> None:
    with pytest.raises(UnsureError, match=message):
        credentials(tmp_path, document)


@pytest.mark.parametrize("token", [5, "\ud800", "a\r\nX: y"])
def test_an_identity_token_that_is_no_text_of_a_request_is_none(tmp_path: Path, token: object) -> None:
    path = tmp_path / "auth.json"
    path.write_text(json.dumps({"auths": {"r.example": {"auth": "eDp5", "identitytoken": token}}}))
    login = usable_login(Registry(host="r.example", tls_verify=True, authfile=path), "", no_helper)
    assert login is not None
    assert (login.basic, login.token, login.has_password) == ("eDp5", "", True)


def test_a_helper_of_another_registry_does_not_matter(tmp_path: Path) -> None:
    document = {"credHelpers": {"s.example": "pass"}, "auths": {"r.example": {"auth": "eDp5"}}}
    assert credentials(tmp_path, document) == "eDp5"


# --- a registry that does not know us


def wants_login(challenge: str = 'Basic realm="tests"') -> Answer:
    return Answer(401, {"WWW-Authenticate": challenge}, b"who?")


def test_a_refusal_of_who_we_are_is_the_end_of_it() -> None:
    """skopeo would say the same, once more for each image."""
    with answering(lambda _asked: wants_login()) as server:
        probe = probe_of(server.host)
        for ask in (
            lambda: probe.manifest("a/b", "1"),
            lambda: probe.tags("a/b"),
            lambda: probe.referrers("a/b", DIGEST),
            lambda: probe.put_manifest("a/b", "1", Body("x", b"{}")),
            lambda: probe.uploads.send(parcel_of(b"blob")),
        ):
            with pytest.raises(ToolError, match=f"{server.host} answered 401 for {server.host}/a/b") as raised:
                ask()
            assert raised.value.hint
            assert not raised.value.transient


def test_what_only_another_way_of_asking_could_answer_is_unsure() -> None:
    with answering(lambda _asked: wants_login("Negotiate")) as server:
        probe = probe_of(server.host)
        with pytest.raises(UnsureError, match="answered 401 to GET /v2/a/b/manifests/1"):
            probe.manifest("a/b", "1")
        with pytest.raises(UnsureError, match="answered 401 to GET /v2/a/b/referrers/"):
            probe.referrers("a/b", DIGEST)
        with pytest.raises(UnsureError, match="answered 401 to PUT /v2/a/b/manifests/1"):
            probe.put_manifest("a/b", "1", Body("x", b"{}"))


def test_a_registry_that_gives_smaller_pages_is_asked_for_its_own() -> None:
    def behaviour(asked: Asked) -> Answer:
        return Answer(400, JSON, b"{}") if "?n=" in asked.line else names("tags", "a")

    with answering(behaviour) as server:
        assert probe_of(server.host).tags("a/b") == ("a",)
        assert server.lines == ["GET /v2/a/b/tags/list?n=1000", "GET /v2/a/b/tags/list"]


def test_a_token_server_that_refuses_the_login_is_the_end_of_it(tmp_path: Path) -> None:
    path = tmp_path / "auth.json"

    def behaviour(asked: Asked) -> Answer:
        if "/token" in asked.line:
            return Answer(401)
        return wants_login(f'Bearer realm="http://{asked.headers["host"]}/token",scope="repository:a/b:pull"')

    with answering(behaviour) as server:
        path.write_text(json.dumps({"auths": {server.host: {"auth": "eDp5"}}}))
        registry = Registry(host=server.host, tls_verify=False, plain_http=True, authfile=path)
        with pytest.raises(ToolError, match=f"{server.host} answered 401 for {server.host}/a/b"):
            Probe(registry=registry, timeout=5, connections=1).manifest("a/b", "1")
        with pytest.raises(UnsureError, match=r"the token server of .* answered 401, and no token"):
            probe_of(server.host).manifest("a/b", "1")


def test_a_config_and_a_list_may_lie_in_a_blob_store_and_a_manifest_may_not() -> None:
    with answering(lambda _asked: Answer(200, JSON, b'{"tags": ["a"]}')) as store:
        away = Answer(307, {"Location": f"http://{store.host}/x"})
        with answering(lambda _asked: away) as server:
            probe = probe_of(server.host)
            assert probe.small_blob("a/b", DIGEST) == b'{"tags": ["a"]}'
            assert probe.blob_size("a/b", DIGEST) == 15
            assert probe.tags("a/b") == ("a",)
            assert probe.knows("a/b")
            assert probe.referrers("a/b", DIGEST) == ()
            with pytest.raises(UnsureError, match="answered 307 to GET /v2/a/b/manifests/1"):
                probe.manifest("a/b", "1")
            with pytest.raises(UnsureError, match="answered 307 to HEAD /v2/a/b/manifests/1"):
                probe.digest("a/b", "1")


def test_a_size_that_only_a_blob_store_knows_is_asked_for_there() -> None:
    answers = (Answer(headers={"Content-Length": "0"}), Answer(206, {"Content-Range": "bytes 0-0/123"}, b"x"))
    with answering(script(*answers)) as store:
        away = Answer(307, {"Location": f"http://{store.host}/x"})
        with answering(lambda _asked: away) as server:
            assert probe_of(server.host).blob_size("a/b", DIGEST) == 123
        assert store.lines == ["HEAD /x", "GET /x"]


def test_a_probe_that_is_closed_leaves_no_connection_open() -> None:
    with answering(lambda _asked: Answer(200, JSON, b"{}")) as server:
        before = open_sockets()
        probe = probe_of(server.host)
        assert probe.manifest("a/b", "1") == b"{}"
        assert open_sockets() > before
        probe.close()
        deadline = time.monotonic() + 5
        while open_sockets() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert open_sockets() <= before
