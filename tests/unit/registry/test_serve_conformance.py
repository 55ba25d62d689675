"""The distribution specification 1.1 for a registry that gives and takes nothing: the points of its conformance tests'
groups "pull" and "content discovery", a row each. The groups "push" and "content management" are refused as a whole."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from regwrap.bundle.by_repository import StorageSource
from regwrap.core.manifest import DOCKER_MANIFEST, OCI_INDEX
from regwrap.core.model import Digest
from regwrap.registry.server import ServeOptions, served_contents
from regwrap.registry.server_referrers import referrers_of
from regwrap.storage.store import Storage
from tests.builders import Image, make_image, make_storage
from tests.bundles import bundle_image_set, make_bundle

APP = make_image("app")
SBOM, SIGNATURE = make_image("sbom"), make_image("signature")
ABSENT = Digest.of(b"absent")
LISTED = [
    {"mediaType": DOCKER_MANIFEST, "digest": f"{SBOM.top}", "size": len(SBOM.raw), "artifactType": "text/spdx"},
    {
        "mediaType": DOCKER_MANIFEST,
        "digest": f"{SIGNATURE.top}",
        "size": len(SIGNATURE.raw),
        "artifactType": "text/signature",
        "annotations": {"made": "by hand"},
    },
]
INDEX = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": LISTED}).encode()
ABOUT_APP = Image(manifests=(*SBOM.manifests, *SIGNATURE.manifests, INDEX), blobs=(*SBOM.blobs, *SIGNATURE.blobs))
IMAGES = {"team/app:v1": APP, "team/app:v2": APP, "team/app:v3": SBOM, f"team/app:sha256-{APP.top.hex}": ABOUT_APP}
BLOB = APP.blobs[0]
TAGS = sorted(name.rpartition(":")[2] for name in IMAGES)


@pytest.fixture(params=["bundle", "storage"])
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[http.client.HTTPConnection]:
    path = make_bundle(tmp_path, IMAGES)
    storage = StorageSource(name="archive", storage=Storage(tmp_path / "archive"))
    with (
        bundle_image_set(path) as bundle,
        served_contents(storage if request.param == "storage" else bundle, ServeOptions()) as served,
        closing(http.client.HTTPConnection(served.host, timeout=10)) as connection,
    ):
        yield connection


@dataclass(frozen=True, kw_only=True)
class Point:
    """What is asked, and all that the specification says of the answer. `lists`: the names or digests in it."""

    status: int
    method: str = "GET"
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    code: str = ""
    lists: list[str] | None = None
    sent: dict[str, str] = field(default_factory=dict)


MANIFEST_HEADERS = {"Docker-Content-Digest": f"{APP.top}", "Content-Length": f"{len(APP.raw)}"}
BLOB_HEADERS = {"Docker-Content-Digest": f"{Digest.of(BLOB)}", "Content-Length": f"{len(BLOB)}"}
REPO = "/v2/team/app"
ABOUT = f"{REPO}/referrers/{APP.top}"
OF_SBOM, OF_SIGNATURE = f"{SBOM.top}", f"{SIGNATURE.top}"
POINTS = {
    # end-1
    "/v2/": Point(status=200),
    # end-2: pulling blobs
    f"{REPO}/blobs/{Digest.of(BLOB)}": Point(status=200, body=BLOB, headers=BLOB_HEADERS),
    f"{REPO}/blobs/{Digest.of(BLOB)}#head": Point(method="HEAD", status=200, body=b"", headers=BLOB_HEADERS),
    f"{REPO}/blobs/{Digest.of(BLOB)}#range": Point(sent={"Range": "bytes=1-3"}, status=206, body=BLOB[1:4]),
    f"{REPO}/blobs/{ABSENT}": Point(status=404, code="BLOB_UNKNOWN"),
    f"{REPO}/blobs/{ABSENT}#head": Point(method="HEAD", status=404, body=b""),
    f"{REPO}/blobs/sha256:totallywrong": Point(status=400, code="DIGEST_INVALID"),
    # end-3: pulling manifests
    f"{REPO}/manifests/v1": Point(status=200, body=APP.raw, headers=MANIFEST_HEADERS),
    f"{REPO}/manifests/v1#head": Point(method="HEAD", status=200, body=b"", headers=MANIFEST_HEADERS),
    f"{REPO}/manifests/{APP.top}": Point(status=200, body=APP.raw, headers=MANIFEST_HEADERS),
    f"{REPO}/manifests/{APP.top}#head": Point(method="HEAD", status=200, body=b"", headers=MANIFEST_HEADERS),
    f"{REPO}/manifests/absent": Point(status=404, code="MANIFEST_UNKNOWN"),
    f"{REPO}/manifests/absent#head": Point(method="HEAD", status=404, body=b""),
    f"{REPO}/manifests/{ABSENT}": Point(status=404, code="MANIFEST_UNKNOWN"),
    f"{REPO}/manifests/.INVALID_MANIFEST_NAME": Point(status=404, code="MANIFEST_UNKNOWN"),
    # end-8: listing tags
    f"{REPO}/tags/list": Point(status=200, lists=TAGS),
    f"{REPO}/tags/list?n=2": Point(status=200, lists=TAGS[:2]),
    f"{REPO}/tags/list?n=0": Point(status=200, lists=[]),
    f"{REPO}/tags/list?n=1000": Point(status=200, lists=TAGS),
    f"{REPO}/tags/list?n=2&last={TAGS[1]}": Point(status=200, lists=TAGS[2:4]),
    f"{REPO}/tags/list?last={TAGS[-1]}": Point(status=200, lists=[]),
    "/v2/no/such/tags/list": Point(status=404, code="NAME_UNKNOWN"),
    # end-12: listing referrers
    ABOUT: Point(status=200, lists=[OF_SBOM, OF_SIGNATURE], headers={"Content-Type": OCI_INDEX}),
    f"{ABOUT}#head": Point(method="HEAD", status=200, body=b"", headers={"Content-Type": OCI_INDEX}),
    f"{ABOUT}?artifactType=text%2Fspdx": Point(
        status=200, lists=[OF_SBOM], headers={"Content-Type": OCI_INDEX, "OCI-Filters-Applied": "artifactType"}
    ),
    f"{ABOUT}?artifactType=text%2Fother": Point(status=200, lists=[], headers={"Content-Type": OCI_INDEX}),
    f"{REPO}/referrers/{ABSENT}": Point(status=200, lists=[], headers={"Content-Type": OCI_INDEX}),
    f"{REPO}/referrers/sha256:wrong": Point(status=400, code="DIGEST_INVALID"),
    f"/v2/no/such/referrers/{ABSENT}": Point(status=404, code="NAME_UNKNOWN"),
    # end-4 to end-7, end-9 to end-11, end-13: not offered
    f"{REPO}/blobs/uploads/": Point(method="POST", status=405, code="UNSUPPORTED"),
    f"{REPO}/blobs/uploads/x": Point(method="PATCH", status=405, code="UNSUPPORTED"),
    f"{REPO}/manifests/v4": Point(method="PUT", status=405, code="UNSUPPORTED"),
    f"{REPO}/manifests/v1#delete": Point(method="DELETE", status=405, code="UNSUPPORTED"),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize(("path", "point"), POINTS.items(), ids=POINTS)
def test_the_specification_point_by_point(connection: http.client.HTTPConnection, path: str, point: Point) -> None:
    connection.request(point.method, path.partition("#")[0], headers=point.sent)
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == point.status
    assert {name: answer.headers[name] for name in point.headers} == point.headers
    assert point.body in {None, body}
    if point.code:
        (error,) = json.loads(body)["errors"]
        assert error["code"] == point.code
    if point.lists is not None:
        said = json.loads(body)
        assert [item["digest"] if isinstance(item, dict) else item for item in said[kind_of(path)]] == point.lists


def kind_of(path: str) -> str:
    return "manifests" if "/referrers/" in path else "tags"


def test_referrers_are_listed_with_all_that_their_index_says(connection: http.client.HTTPConnection) -> None:
    """So that who copies them makes the same index of it."""
    connection.request("GET", ABOUT)
    assert json.loads(connection.getresponse().read()) == json.loads(INDEX)


@pytest.mark.parametrize("odd", [b"[]", b"{}", b"5"])
def test_a_type_that_is_no_text_is_listed_and_fits_no_question(tmp_path: Path, odd: bytes) -> None:
    raw = INDEX.replace(b'"text/spdx"', odd)
    about = Image(manifests=(*ABOUT_APP.manifests[:-1], raw), blobs=ABOUT_APP.blobs)
    root = make_storage(tmp_path, {"app:v1": APP, f"app:sha256-{APP.top.hex}": about})
    storage = StorageSource(name="archive", storage=Storage(root))
    with (
        served_contents(storage, ServeOptions()) as served,
        closing(http.client.HTTPConnection(served.host, timeout=10)) as connection,
    ):
        target, found = f"/v2/app/referrers/{APP.top}", list[list[str]]()
        for query in ("", "?artifactType=text/signature"):
            connection.request("GET", f"{target}{query}")
            found.append([item["digest"] for item in json.loads(connection.getresponse().read())["manifests"]])
    assert found == [[OF_SBOM, OF_SIGNATURE], [OF_SIGNATURE]]


@pytest.mark.parametrize("raw", [APP.raw, INDEX.replace(SBOM.top.hex.encode(), ABSENT.hex.encode())])
def test_what_is_no_index_and_what_is_not_here_is_not_listed(tmp_path: Path, raw: bytes) -> None:
    about = Image(manifests=(*SIGNATURE.manifests, raw), blobs=(*APP.blobs, *SIGNATURE.blobs))
    root = make_storage(tmp_path, {"app:v1": APP, f"app:sha256-{APP.top.hex}": about})
    storage = StorageSource(name="archive", storage=Storage(root))
    with (
        served_contents(storage, ServeOptions()) as served,
        closing(http.client.HTTPConnection(served.host, timeout=10)) as connection,
    ):
        connection.request("GET", f"/v2/app/referrers/{APP.top}")
        found = [item["digest"] for item in json.loads(connection.getresponse().read())["manifests"]]
    assert found == ([] if raw == APP.raw else [OF_SIGNATURE])
    junk = referrers_of(storage, "app", APP.top, "", lambda _digest: b"junk")
    assert json.loads(junk)["manifests"] == []
