"""The read-only server: what it takes for a request, and what a client gets for one, from a bundle and a storage."""

import http.client
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from regwrap.bundle.by_repository import LocalSource, StorageSource
from regwrap.bundle.image_set import image_set_of
from regwrap.bundle.read import opened_bundle
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.model import Digest
from regwrap.registry.server import Served, ServeOptions, check_listening, served_contents
from regwrap.registry.server_access import check_exposure, parse_address, read_htpasswd
from regwrap.registry.server_connections import MAX_CONNECTIONS
from regwrap.registry.server_requests import (
    BlobOf,
    Catalog,
    Front,
    ManifestOf,
    Page,
    Ping,
    RefusedError,
    Tags,
    parse_path,
    parse_range,
)
from regwrap.storage import layout
from regwrap.storage.store import Storage
from tests.builders import Image, fill_with_garbage, flip, make_image, make_layer, make_multi_image, replace_by_fifo
from tests.bundles import bundle_image_set, make_bundle
from tests.lost import lose
from tests.unit.registry.test_downloads import open_sockets

LAYER = make_layer("served", bytes(range(256)) * 40)
IMAGES = {
    "team/app:v1": make_image("app", layers=[LAYER]),
    "team/app:v2": make_image("two"),
    "multi:v1": make_multi_image("multi", kind="docker"),
}
HEX = "a" * 64
BCRYPT = "$2y$04$XXUB2dh75RjTsWfig2vOOeL0W.FvulEnva4D2Q79k2aFuRnVzrWQe"  # of "secret"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["errors"][0]["code"])


@dataclass(frozen=True)
class Client:
    """One kept-alive connection."""

    connection: http.client.HTTPConnection

    def __call__(self, path: str, method: str = "GET", **headers: str) -> Answer:
        self.connection.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        response = self.connection.getresponse()
        return Answer(response.status, response.headers, response.read())


@pytest.fixture(params=["bundle", "storage"])
def contents(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalSource]:
    path = make_bundle(tmp_path, IMAGES)
    if request.param == "storage":
        yield StorageSource(name="archive", storage=Storage(tmp_path / "archive"))
        return
    with bundle_image_set(path) as image_set:
        yield image_set


@contextmanager
def connected(served: Served) -> Iterator[Client]:
    with closing(http.client.HTTPConnection(served.host, timeout=10)) as connection:
        yield Client(connection)


@pytest.fixture
def client(contents: LocalSource) -> Iterator[Client]:
    with served_contents(contents, ServeOptions()) as served, connected(served) as client:
        yield client


def name_of(image: str) -> tuple[str, str, Image]:
    repository, _, tag = image.rpartition(":")
    return repository, tag, IMAGES[image]


def test_a_page_looks_for_no_more_names_than_it_shows_and_one() -> None:
    names = iter("abcdef")
    assert Page(2, "").of(names) == (("a", "b"), "n=2&last=b")
    assert list(names) == ["d", "e", "f"]


@pytest.mark.parametrize(
    ("target", "asked"),
    [
        ("/", Front()),
        ("http://r.example/", Front()),
        ("/v2/", Ping()),
        ("/v2", Ping()),
        ("/v2/_catalog?n=5&last=a", Catalog(Page(5, "a"))),
        ("/v2/_catalog?n=1000", Catalog(Page(1000))),
        ("/v2/_catalog?n=1001", Catalog(Page(1000))),
        ("/v2/a/b/tags/list", Tags("a/b", Page())),
        ("/v2/a/b/manifests/v1", ManifestOf("a/b", "v1")),
        (f"/v2/a/b/manifests/sha256:{HEX}", ManifestOf("a/b", Digest(HEX))),
        (f"/v2/a/blobs/sha256%3A{HEX}", BlobOf("a", Digest(HEX))),
        (f"/v2/manifests/blobs/sha256:{HEX}", BlobOf("manifests", Digest(HEX))),
    ],
)
def test_paths_of_the_api_are_understood(target: str, asked: object) -> None:
    assert parse_path(target) == asked


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("//v2/", 404, "UNSUPPORTED"),
        ("/v3/", 404, "UNSUPPORTED"),
        ("/v3/a/manifests/v1", 404, "UNSUPPORTED"),
        ("/v2/a/referrers/x", 400, "DIGEST_INVALID"),
        ("/v2/a/tags/other", 404, "UNSUPPORTED"),
        ("/v2/%ff/tags/list", 404, "UNSUPPORTED"),
        ("/v2/../../etc/manifests/v1", 400, "NAME_INVALID"),
        ("/v2/%2e%2e%2f%2e%2e/blobs/x", 400, "NAME_INVALID"),
        ("/v2/A/manifests/v1", 400, "NAME_INVALID"),
        ("/v2//manifests/v1", 400, "NAME_INVALID"),
        ("/v2/a/manifests/..", 404, "MANIFEST_UNKNOWN"),
        ("/v2/a/blobs/sha256:../../x", 404, "UNSUPPORTED"),
        ("/v2/a/blobs/sha512:" + HEX, 400, "DIGEST_INVALID"),
        ("/v2/_catalog?n=-1", 400, "PAGINATION_NUMBER_INVALID"),
    ],
)
def test_other_paths_are_refused_in_the_words_of_the_api(target: str, status: int, code: str) -> None:
    with pytest.raises(RefusedError) as caught:
        parse_path(target)
    assert (caught.value.status, caught.value.code) == (status, code)
    assert f"{caught.value}" == caught.value.message


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("bytes=0-9", (0, 10)),
        ("bytes=5-5", (5, 1)),
        ("bytes=99-99", (99, 1)),
        ("bytes=90-", (90, 10)),
        ("bytes=-7", (93, 7)),
        ("bytes=-700", (0, 100)),
        ("bytes=99-1000", (99, 1)),
        ("", None),
        ("bytes=-", None),
        ("bytes=5-4", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
    ],
)
def test_ranges(header: str, found: tuple[int, int] | None) -> None:
    assert parse_range(header, 100) == found


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_behind_the_end_is_refused(header: str) -> None:
    with pytest.raises(RefusedError) as caught:
        parse_range(header, 100)
    assert caught.value.status == 416


@pytest.mark.slow
def test_every_image_is_given_by_tag_and_digest_with_the_headers_clients_need(client: Client) -> None:
    assert client("/v2/").status == 200
    for image in IMAGES:
        repository, tag, made = name_of(image)
        for reference in (tag, f"{made.top}"):
            answer = client(f"/v2/{repository}/manifests/{reference}")
            assert (answer.status, answer.body) == (200, made.raw)
            assert answer.headers["Content-Type"] == json.loads(made.raw)["mediaType"]
            assert answer.headers["Docker-Content-Digest"] == f"{made.top}"
            assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
            head = client(f"/v2/{repository}/manifests/{reference}", "HEAD")
            assert (head.status, head.body) == (200, b"")
            assert head.headers["Content-Length"] == f"{len(made.raw)}"
        for blob in made.blobs:
            assert client(f"/v2/{repository}/blobs/{Digest.of(blob)}").body == blob


def test_a_blob_is_given_in_parts_and_not_at_all_to_who_has_it(client: Client) -> None:
    path = f"/v2/team/app/blobs/{Digest.of(LAYER)}"
    part = client(path, Range="bytes=10-19")
    assert (part.status, part.body) == (206, LAYER[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(LAYER)}"
    beyond = client(path, Range=f"bytes={len(LAYER)}-")
    assert (beyond.status, beyond.code) == (416, "RANGE_INVALID")
    etag = client(path, "HEAD").headers["ETag"]
    known = client(path, If_None_Match=etag)
    assert (known.status, known.headers["Content-Length"]) == (304, "0")
    assert client("/v2/team/app/manifests/v1", If_None_Match=f'"{IMAGES["team/app:v1"].top}"').status == 304
    assert client(path).body == LAYER  # the connection is in step


def test_lists_come_in_pages(client: Client) -> None:
    assert json.loads(client("/v2/_catalog").body) == {"repositories": ["multi", "team/app"]}
    first = client("/v2/_catalog?n=1")
    assert json.loads(first.body) == {"repositories": ["multi"]}
    assert first.headers["Link"] == '</v2/_catalog?n=1&last=multi>; rel="next"'
    last = client("/v2/_catalog?n=1&last=multi")
    assert (json.loads(last.body), last.headers["Link"]) == ({"repositories": ["team/app"]}, None)
    assert json.loads(client("/v2/team/app/tags/list").body) == {"name": "team/app", "tags": ["v1", "v2"]}
    assert json.loads(client("/v2/multi/tags/list?n=1&last=v1").body) == {"name": "multi", "tags": []}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v2/team/app/manifests/v9", "MANIFEST_UNKNOWN"),
        ("/v2/no/such/manifests/v1", "MANIFEST_UNKNOWN"),
        ("/v2/no/such/tags/list", "NAME_UNKNOWN"),
        (f"/v2/team/app/blobs/sha256:{HEX}", "BLOB_UNKNOWN"),
        (f"/v2/multi/blobs/{Digest.of(LAYER)}", "BLOB_UNKNOWN"),  # another repository's
        (f"/v2/multi/manifests/{IMAGES['team/app:v1'].top}", "MANIFEST_UNKNOWN"),
        (f"/v2/team/app/manifests/{Digest.of(LAYER)}", "MANIFEST_UNKNOWN"),
    ],
)
def test_what_a_repository_does_not_link_to_is_not_there(client: Client, path: str, code: str) -> None:
    answer = client(path)
    assert (answer.status, answer.code) == (404, code)
    assert client(path, "HEAD").status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_can_be_written(client: Client, method: str) -> None:
    answer = client("/v2/team/app/blobs/uploads/", method)
    assert (answer.status, answer.code) == (405, "UNSUPPORTED")
    assert answer.headers["Allow"] == "GET, HEAD"
    assert client("/v2/").status == 200


def test_an_unknown_method_is_refused_as_json_and_a_body_is_never_taken_for_a_request(client: Client) -> None:
    answer = client("/v2/", "BREW")
    assert (answer.status, answer.code) == (501, "UNSUPPORTED")
    client.connection.request("GET", "/v2/", body=b"GET /v2/_catalog HTTP/1.1\r\n\r\n")
    assert client.connection.getresponse().headers["Connection"] == "close"


@pytest.mark.parametrize("damage", [flip, replace_by_fifo])
def test_a_damaged_manifest_of_a_storage_is_absent(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    make_bundle(tmp_path, IMAGES)
    root = tmp_path / "archive"
    damage(root / layout.blob_path(IMAGES["team/app:v1"].top))
    fill_with_garbage(root / layout.layer_link("team/app", Digest.of(IMAGES["team/app:v2"].blobs[1])))
    contents = StorageSource(name="archive", storage=Storage(root))
    assert contents.tags("team/app") == ("v2",)
    with served_contents(contents, ServeOptions()) as served, connected(served) as client:
        assert client(f"/v2/team/app/manifests/{IMAGES['team/app:v1'].top}").status == 404
    assert contents.blob("team/app", Digest.of(IMAGES["team/app:v2"].blobs[1])) is None


def test_a_manifest_that_the_disk_does_not_give_is_not_said_to_be_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client would go on without it: without a signature, say."""
    make_bundle(tmp_path, IMAGES)
    root, top = tmp_path / "archive", IMAGES["team/app:v1"].top
    lose(monkeypatch, root / layout.blob_path(top))
    contents = StorageSource(name="archive", storage=Storage(root))
    with served_contents(contents, ServeOptions()) as served, connected(served) as client:
        answer = client(f"/v2/team/app/manifests/{top}")
    assert (answer.status, answer.code) == (500, "UNKNOWN")


def test_a_damaged_manifest_of_a_bundle_is_not_given(tmp_path: Path) -> None:
    path = make_bundle(tmp_path, IMAGES)
    image = IMAGES["team/app:v1"]
    path.write_bytes(path.read_bytes().replace(image.raw, image.raw.replace(b"layer", b"LAYER")))
    with opened_bundle(path) as bundle:
        image_set = image_set_of(bundle)
        with served_contents(image_set, ServeOptions()) as served, connected(served) as client:
            assert client(f"/v2/team/app/manifests/{image.top}").status == 404


def test_who_may_pull(tmp_path: Path, contents: LocalSource) -> None:
    users = tmp_path / "htpasswd"
    users.write_text(f"# people\nci:{BCRYPT}\n")
    options = ServeOptions(login=read_htpasswd(users))
    with served_contents(contents, options) as served, connected(served) as client:
        refused = client("/v2/")
        assert (refused.status, refused.code) == (401, "UNAUTHORIZED")
        assert refused.headers["WWW-Authenticate"] == 'Basic realm="regwrap"'
        for login in ("Y2k6c2VjcmV0", "Y2k6c2VjcmV0"):  # ci:secret
            assert client("/v2/_catalog", Authorization=f"Basic {login}").status == 200
        for login in ("Y2k6d3Jvbmc=", "eHg6c2VjcmV0", "Y2k=", "%%%", ""):  # ci:wrong, xx:secret, ci
            assert client("/v2/_catalog", Authorization=f"Basic {login}").status == 401
        assert client("/v2/_catalog", Authorization="Bearer Y2k6c2VjcmV0").status == 401


@pytest.mark.parametrize("line", ["ci:secret", "ci:$apr1$abc", "ci", f":{BCRYPT}", ""])
def test_an_htpasswd_file_with_anything_but_bcrypt_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(f"{line}\n")
    with pytest.raises(UsageError):
        read_htpasswd(path)


def test_a_browser_gets_the_page_for_the_host_that_it_asks(contents: LocalSource) -> None:
    serving = served_contents(contents, ServeOptions(), page=lambda host: f"<p>docker pull {host}/a")
    with serving as served, connected(served) as client:
        page = client("/", Host="r.example:5000")
        assert (page.status, page.body) == (200, b"<p>docker pull r.example:5000/a")
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert page.headers["Cache-Control"] == "no-cache"
        assert page.headers["X-Content-Type-Options"] == "nosniff", "a layer that is a web page is run by nobody"
        head = client("/", method="HEAD", Host="r.example:5000")
        assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", f"{len(page.body)}")
        again = client("/", Host="r.example:5000", If_None_Match=page.headers["ETag"])
        assert (again.status, again.headers["Content-Length"], again.body) == (304, "0", b"")
        for no_name in ('"><script>', "a b", "r.example:5000/x", "é", "[::1", ""):
            assert (
                client("/", Host=no_name.encode().decode("latin-1")).body == f"<p>docker pull {served.host}/a".encode()
            )
        assert client("/v2/").body == b"{}"


def test_without_a_page_there_is_nothing_at_the_front(client: Client) -> None:
    refused = client("/")
    assert (refused.status, refused.code) == (404, "UNSUPPORTED")


@pytest.mark.parametrize("error", [IntegrityError("manifest abc is damaged"), OSError("input/output error")])
def test_a_page_of_what_is_damaged_is_an_error_and_the_server_goes_on(contents: LocalSource, error: Exception) -> None:
    def page(_host: str) -> str:
        raise error

    with served_contents(contents, ServeOptions(), page=page) as served, connected(served) as client:
        assert (client("/").status, client("/v2/").status) == (500, 200)


def test_the_page_needs_the_password_too(tmp_path: Path, contents: LocalSource) -> None:
    users = tmp_path / "htpasswd"
    users.write_text(f"ci:{BCRYPT}\n")
    options = ServeOptions(login=read_htpasswd(users))
    with served_contents(contents, options, page=lambda _host: "secret names") as served, connected(served) as client:
        refused = client("/")
        assert (refused.status, b"secret names" in refused.body) == (401, False)
        assert client("/", Authorization="Basic Y2k6c2VjcmV0").body == b"secret names"


def test_addresses() -> None:
    assert parse_address("127.0.0.1:0") == ("127.0.0.1", 0)
    assert parse_address("[::1]:5000") == ("::1", 5000)
    assert parse_address("host:65535") == ("host", 65535)
    for wrong in (":5000", "5000", "host", "host:", "host:65536", "host:-1"):
        with pytest.raises(UsageError):
            parse_address(wrong)


def test_other_machines_need_tls_and_a_password() -> None:
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"):
        check_exposure(host, tls=False, login=False)
    check_exposure("0.0.0.0", tls=True, login=True)
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.com"):
        with pytest.raises(UsageError, match=r"give --htpasswd$"):
            check_exposure(host, tls=True, login=False)
        with pytest.raises(UsageError, match="--tls-cert and --tls-key and --htpasswd"):
            check_exposure(host, tls=False, login=False)


def test_a_port_in_use_is_said_so(contents: LocalSource) -> None:
    with served_contents(contents, ServeOptions()) as served:
        port = int(served.host.rpartition(":")[2])
        again = served_contents(contents, ServeOptions(port=port))
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"), again:
            pass


def test_a_bundle_that_became_shorter_ends_the_connection_instead_of_the_blob(tmp_path: Path) -> None:
    """A client must never take the next answer for the rest of a layer."""
    path = make_bundle(tmp_path, IMAGES)
    with (
        bundle_image_set(path) as image_set,
        served_contents(image_set, ServeOptions()) as served,
        connected(served) as client,
    ):
        with image_set.opened(Digest.of(LAYER)) as (_descriptor, located):
            end = located.offset + 100
        os.truncate(path, end)
        client.connection.request("GET", f"/v2/team/app/blobs/{Digest.of(LAYER)}")
        response = client.connection.getresponse()
        assert response.getheader("Content-Length") == f"{len(LAYER)}"
        with pytest.raises(http.client.IncompleteRead) as raised:
            response.read()
        assert raised.value.partial == LAYER[:100]
        with pytest.raises(IntegrityError, match="truncated while it was read"):
            image_set.copy(Digest.of(LAYER))


@pytest.mark.exhaustive
def test_a_crowded_server_keeps_no_connection_that_only_waits(tmp_path: Path) -> None:
    """Else the next client would wait until one of them has been idle for a minute."""
    make_bundle(tmp_path, IMAGES)
    contents = StorageSource(name="archive", storage=Storage(tmp_path / "archive"))
    with served_contents(contents, ServeOptions()) as served, ExitStack() as stack:
        host, _, port = served.host.rpartition(":")
        for _number in range(MAX_CONNECTIONS - 2):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
        with connected(served) as one_left, connected(served) as last:
            assert one_left("/v2/").headers["Connection"] is None
            assert last("/v2/").headers["Connection"] == "close"


def test_each_request_is_a_line_of_the_log_without_what_a_terminal_obeys(contents: LocalSource) -> None:
    log: list[str] = []
    with served_contents(contents, ServeOptions(), log=log.append) as served, connected(served) as client:
        client("/v2/")
        client("/v2/x/manifests/v9")
    assert [line.partition('"')[2] for line in log] == [
        'GET /v2/ HTTP/1.1" 200 -', 'GET /v2/x/manifests/v9 HTTP/1.1" 404 -',
    ]  # fmt: skip
    assert all(line.startswith("127.0.0.1 ") for line in log)


def test_an_address_of_ipv6_is_shown_as_clients_write_it(contents: LocalSource) -> None:
    with served_contents(contents, ServeOptions(host="::1")) as served, connected(served) as client:
        assert re.fullmatch(r"http://\[::1\]:\d+", served.url)
        assert client("/v2/").status == 200


def test_a_server_that_has_ended_listens_no_more(contents: LocalSource) -> None:
    before = open_sockets()
    with served_contents(contents, ServeOptions()) as served:
        (thread,) = (thread for thread in threading.enumerate() if thread.name == "serve")
        port = int(served.host.rpartition(":")[2])
        check_listening(contents, ServeOptions())
        with pytest.raises(UsageError, match="Address already in use"):
            check_listening(contents, ServeOptions(port=port))
    check_listening(contents, ServeOptions(port=port))
    thread.join(10)
    assert not thread.is_alive()
    assert open_sockets() <= before
    with pytest.raises(KeyError), served_contents(contents, ServeOptions(port=port)):
        raise KeyError(port)
    check_listening(contents, ServeOptions(port=port))


def test_a_server_can_be_started_again_at_once_at_the_same_port(contents: LocalSource) -> None:
    with served_contents(contents, ServeOptions()) as served, connected(served) as client:
        port = int(served.host.rpartition(":")[2])
        assert client("/v2/", "POST").status == 405  # after which the server hangs up first
    with served_contents(contents, ServeOptions(port=port)) as served, connected(served) as client:
        assert client("/v2/").status == 200


def test_a_client_that_only_waits_does_not_hold_up_the_end(contents: LocalSource) -> None:
    started, before = time.monotonic(), set(threading.enumerate())
    with served_contents(contents, ServeOptions()) as served, connected(served) as client:
        assert client("/v2/").status == 200
        assert all(thread.daemon for thread in set(threading.enumerate()) - before)
    assert time.monotonic() - started < 30
