"""Blob by blob into a directory: what each image gets, what fails with it, what is asked for again, and from where."""

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from regwrap.core.errors import ToolError
from regwrap.core.listener import Outlook
from regwrap.core.model import Digest
from tests.builders import make_image, make_layer, make_storage, put
from tests.builders import storage_problems as problems_in
from tests.fakeregistry import FakeRegistry, fake_registry
from tests.fakes import Answer, Scripted
from tests.unit.cli.programs import curl, skopeo_copy
from tests.unit.transfer.between import Between, between

BASE = make_layer("base")
APP, TOOL = make_image("app", layers=[BASE, make_layer("app")]), make_image("tool", layers=[BASE, make_layer("tool")])
OTHER = make_image("other")
SHARED, OWN = Digest.of(BASE), Digest.of(APP.blobs[2])
IMAGES = {"team/app:1": APP, "team/tool:1": TOOL, "other:1": OTHER}


@pytest.fixture
def two(scripted: Scripted, tmp_path: Path) -> Iterator[Between]:
    with between(scripted, tmp_path / "root", IMAGES) as found:
        scripted.launcher.answers.append(curl())
        yield found


def asked(registry: FakeRegistry, digest: Digest) -> list[str]:
    return registry.asked(f"^GET .*/blobs/{digest}")


@pytest.mark.slow
def test_each_blob_is_asked_for_once_and_images_are_shown_whole(two: Between) -> None:
    report = two.sync(two.job(archive=two.directory), *IMAGES)
    assert all(len(asked(two.source, Digest.of(blob))) == 1 for image in IMAGES.values() for blob in image.blobs)
    assert {f"{item.copy.entry.dest}" for item in report.copied} == set(IMAGES)
    assert not problems_in(two.root)
    assert not (two.root / ".regwrap/sync").exists()


@pytest.mark.slow
def test_the_report_says_which_image_brought_what(two: Between) -> None:
    report = two.sync(two.job(archive=two.directory), "team/app:1", "team/tool:1")
    sent = {f"{item.copy.entry.dest}": item.sent for item in report.copied}
    assert sent == {"team/app:1": sum(map(len, APP.blobs)), "team/tool:1": sum(map(len, TOOL.blobs)) - len(BASE)}
    assert report.sent == sum(map(len, {*APP.blobs, *TOOL.blobs}))


@pytest.mark.slow
def test_images_that_overlap_in_time_are_in_lanes_of_their_own(two: Between) -> None:
    report = two.sync(two.job(archive=two.directory), *IMAGES)
    for one in report.copied:
        for other in report.copied:
            if one is not other and one.worker == other.worker:
                assert one.start + one.seconds <= other.start or other.start + other.seconds <= one.start


@pytest.mark.slow
def test_a_blob_that_fails_fails_all_that_need_it_by_name(two: Between) -> None:
    two.source.fails = lambda request: 403 if request.startswith("GET") and f"{SHARED}" in request else None
    report = two.run(two.job(archive=two.directory), *IMAGES).report
    assert report is not None
    assert [f"{item.copy.entry.dest}" for item in report.copied] == ["other:1"]
    assert [f"{failed.entry.dest}" for failed in report.failed] == ["team/app:1", "team/tool:1"]
    for failed in report.failed:
        assert f"answered 403 to blob {SHARED.short} of team/" in failed.error
        assert "has no permission" in failed.hint
    assert two.storage.tags("team/app") == ()
    assert sorted(line.split()[0] for line in two.told.said if not line.startswith("started")) == [
        "copied", "failed", "failed",
    ]  # fmt: skip


def test_what_was_sent_for_an_image_that_failed_counts(two: Between) -> None:
    two.source.fails = lambda request: 403 if request.startswith("GET") and f"{OWN}" in request else None
    report = two.run(two.job(archive=two.directory), "team/app:1").report
    assert report is not None
    (failed,) = report.failed
    assert failed.sent == sum(map(len, APP.blobs)) - len(APP.blobs[2])
    assert report.sent == failed.sent


@pytest.mark.slow
def test_what_has_arrived_for_an_image_that_failed_is_not_sent_again(two: Between) -> None:
    two.source.fails = lambda request: 403 if request.startswith("GET") and f"{OWN}" in request else None
    two.run(two.job(archive=two.directory), "team/app:1")
    two.source.fails = lambda _request: None
    two.source.requests.clear()
    assert two.sync(two.job(archive=two.directory), "team/app:1").sent == len(APP.blobs[2])
    assert len(two.source.asked("^GET .*/blobs/")) == 1
    assert not problems_in(two.root)


@pytest.mark.slow
def test_a_blob_goes_on_where_it_broke(two: Between) -> None:
    """A fake registry knows no ranges; what curl is told does."""
    put(two.root / f".regwrap/sync/parts/{OWN.hex}", APP.blobs[2][:5])
    put(two.root / f".regwrap/sync/parts/{SHARED.hex}", BASE)
    put(two.root / f".regwrap/sync/parts/{Digest.of(APP.blobs[0]).hex}", APP.blobs[0] + b"more than there is")
    assert two.sync(two.job(archive=two.directory), "team/app:1").sent == sum(map(len, APP.blobs)) - len(BASE) - 5
    (started,) = two.scripted.launcher.started
    assert started.stdin.count(b"continue-at") == 1
    assert b'continue-at = "5"' in started.stdin
    assert not problems_in(two.root)


@pytest.mark.slow
def test_what_an_earlier_run_has_left_is_neither_done_nor_left_to_do(two: Between) -> None:
    """With 15 of 20 GB there it said that 5 of 20 GB were done, and how long the other 15 would take."""
    fetch, seen = two.scripted.launcher.answers.pop().reads, list[Outlook]()
    assert fetch is not None

    def looked(stdin: bytes) -> bytes:
        seen.append(two.told.looks[-1]())
        return fetch(stdin)

    two.scripted.launcher.answers.append(Answer(when=("curl", "--disable"), reads=looked, repeats=True))
    put(two.root / f".regwrap/sync/parts/{OWN.hex}", APP.blobs[2][:5])
    put(two.root / f".regwrap/sync/parts/{SHARED.hex}", BASE)
    make_storage(two.root, {"other:1": OTHER})
    report = two.sync(two.job(archive=two.directory), "team/app:1", "other:1")
    assert report.sent == sum(map(len, APP.blobs)) - len(BASE) - 5
    assert [*seen, two.told.looks[-1]()] == [Outlook(0, report.sent), Outlook(report.sent, 0)]


@pytest.mark.slow
def test_what_is_staged_is_not_left_to_do_once_it_was_hashed(two: Between) -> None:
    put(two.root / f".regwrap/sync/blobs/sha256/{SHARED.hex}", BASE)
    report = two.sync(two.job(archive=two.directory), "team/app:1")
    assert two.told.looks[-1]() == Outlook(report.sent, 0) == Outlook(sum(map(len, APP.blobs)) - len(BASE), 0)


def test_a_registry_that_knows_no_ranges_sends_a_blob_from_its_start(two: Between) -> None:
    """What was there already and what comes anew would be a blob of other bytes, at each attempt."""
    fetch = two.scripted.launcher.answers.pop().reads
    assert fetch is not None

    def no_ranges(stdin: bytes) -> bytes:
        if b"continue-at" not in stdin:
            return fetch(stdin)
        (output,) = re.findall(rb'^output = "(.*)"$', stdin, re.MULTILINE)
        refused = {"filename_effective": output.decode(), "response_code": 200, "exitcode": 33, "errormsg": "no ranges"}
        return f"{json.dumps(refused)} \n".encode()

    two.scripted.launcher.answers.append(Answer(when=("curl", "--disable"), reads=no_ranges, repeats=True))
    for digest in (SHARED, Digest.of(APP.blobs[0])):
        put(two.root / f".regwrap/sync/parts/{digest.hex}", next(b for b in APP.blobs if Digest.of(b) == digest))
    put(two.root / f".regwrap/sync/parts/{OWN.hex}", APP.blobs[2][:5])
    (copied,) = two.sync(two.job(archive=two.directory), "team/app:1").copied
    assert (copied.attempts, copied.sent) == (1, len(APP.blobs[2]))
    assert not problems_in(two.root)


@pytest.mark.slow
def test_a_blob_without_a_byte_comes_too(two: Between) -> None:
    nothing = make_image("nothing", layers=[BASE, b""])
    two.source.hold("nothing:1", nothing)
    two.sync(two.job(archive=two.directory), "nothing:1")
    assert two.storage.blob_size(Digest.of(b"")) == 0
    assert not problems_in(two.root)


@pytest.mark.slow
def test_a_beginning_of_wrong_bytes_costs_one_attempt(two: Between) -> None:
    put(two.root / f".regwrap/sync/parts/{OWN.hex}", b"wrong")
    two.attempts = 2
    (copied,) = two.sync(two.job(archive=two.directory), "team/app:1").copied
    assert copied.attempts == 2
    assert any(f"blob {OWN.short} arrived damaged" in line for line in two.told.said)
    assert not problems_in(two.root)


@pytest.mark.slow
def test_a_blob_that_one_registry_lacks_is_had_from_another(two: Between) -> None:
    with fake_registry() as second:
        second.hold("copy/tool:1", TOOL)
        for name in [name for name in two.source.blobs if name[1] == f"{SHARED}"]:
            del two.source.blobs[name]
        report = two.sync(two.job(archive=two.directory), "team/app:1", f"{second.host}/copy/tool:1 => team/tool:1")
    assert len(report.copied) == 2
    assert asked(second, SHARED)
    assert not problems_in(two.root)


@pytest.mark.slow
def test_a_registry_whose_credentials_only_skopeo_can_have_is_read_by_skopeo(two: Between, tmp_path: Path) -> None:
    authfile = tmp_path / "auth.json"
    authfile.write_text(json.dumps({"credHelpers": {two.source.host: "cloud"}}))
    source = two.place(two.source)
    assert source.registry is not None
    source = replace(source, registry=replace(source.registry, authfile=authfile))
    two.scripted.launcher.answers.append(skopeo_copy(APP))
    two.source.challenge, two.source.guarded = 'Basic realm="x"', "/blobs/"
    report = two.sync(two.job(archive=two.directory, source=source), "team/app:1", "team/app:1 => also/app:1")
    assert len(report.copied) == 2
    assert len(two.started("copy")) == 1
    assert not problems_in(two.root)


@pytest.mark.slow
def test_what_curl_had_brought_of_an_image_that_skopeo_brings_counts(two: Between) -> None:
    two.scripted.launcher.answers.append(skopeo_copy(APP))
    two.source.challenge, two.source.guarded = "Negotiate", f"/blobs/{OWN}"
    report = two.sync(two.job(archive=two.directory), "team/app:1")
    others = [len(blob) for blob in APP.blobs if Digest.of(blob) != OWN]
    # what curl has brought and nobody has hashed yet when the image goes to skopeo comes twice, and counts twice
    assert report.sent - sum(map(len, APP.blobs)) in {0, *others, sum(others)}
    assert len(two.started("copy")) == 1
    assert not problems_in(two.root)


def test_what_curl_had_brought_of_an_image_that_skopeo_fails_with_counts(two: Between) -> None:
    fails = Answer(when=lambda argv: "copy" in argv, exit_code=1, stderr=b'level=fatal msg="no"')
    two.scripted.launcher.answers.append(fails)
    two.source.challenge, two.source.guarded = "Negotiate", f"/blobs/{OWN}"
    report = two.run(two.job(archive=two.directory), "team/app:1").report
    assert report is not None
    (failed,) = report.failed
    assert failed.sent == report.sent > 0
    assert 0 < report.seconds < 60


@pytest.mark.slow
def test_the_login_goes_to_curl_by_its_input(two: Between, tmp_path: Path) -> None:
    login = base64.b64encode(b"me:secret").decode()
    authfile = tmp_path / "auth.json"
    authfile.write_text(json.dumps({"auths": {two.source.host: {"auth": login}}}))
    source = two.place(two.source)
    assert source.registry is not None
    two.source.challenge, two.source.logins = 'Basic realm="x"', (f"Basic {login}",)
    source = replace(source, registry=replace(source.registry, authfile=authfile))
    two.sync(two.job(archive=two.directory, source=source), "team/app:1")
    (started,) = two.scripted.launcher.started
    assert f"Authorization: Basic {login}".encode() in started.stdin
    assert login not in f"{started.argv} {started.env} {two.scripted.log}"


def test_a_host_that_wants_a_pace_is_asked_for_one_blob_at_a_time(two: Between) -> None:
    source = two.place(two.source)
    assert source.registry is not None
    source = replace(source, registry=replace(source.registry, requests_per_second=1000.0))
    two.sync(two.job(archive=two.directory, source=source), "team/app:1")
    assert [start.stdin.count(b"url = ") for start in two.scripted.launcher.started] == [1, 1, 1]


@pytest.mark.slow
def test_what_ends_the_run_ends_it(two: Between) -> None:
    two.source.fails = lambda request: two.scripted.runner.stopping.set() if "/blobs/" in request else None
    with pytest.raises(ToolError, match="stopp"):
        two.run(two.job(archive=two.directory), *IMAGES)
    assert not (two.root / ".regwrap/sync/copies").exists(), "of what was under way nothing is left but parts of blobs"
