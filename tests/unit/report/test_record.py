"""The record of a run: JSON that is read back, shards put together, JUnit, GitHub, text."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from regwrap.core.errors import UsageError
from regwrap.core.model import Digest
from regwrap.core.release_id import ReleaseId
from regwrap.report.github import summary, workflow_commands
from regwrap.report.junit import to_junit
from regwrap.report.page_run import run_page
from regwrap.report.record import ImageRecord, RunFacts, RunRecord, merge, parse_record, record_of, to_text
from regwrap.report.record_text import hosts_text, record_text
from regwrap.report.text import replaced_text, sync_text
from regwrap.transfer.plan import Drifted, Reason, Skip
from regwrap.transfer.run import Copied, Failed, SyncReport
from tests.unit.transfer.test_plan import CLOSURE, IMAGE, blob, copy, entry

OTHER = Digest.of(b"other")
FACTS = RunFacts(
    command="sync", list="images.list", shard=None, source="ci.example", started="2026-01-02T03:04:05+00:00"
)
REPORT = SyncReport(
    copied=(
        Copied(copy=copy("a/new:1"), sent=100, attempts=3, seconds=2.5, start=0.5, worker=1),
        Copied(copy=copy("r.example/a/other:1", Reason.REPLACED), sent=0, attempts=1, seconds=1, start=0),
    ),
    skipped=(Skip(entry=entry("a/same:1"), digest=IMAGE.top, reason=Reason.SAME, size=5000),),
    failed=(Failed(entry=entry("a/bad:1"), error="it\x1b broke, 100%", hint="look | there", attempts=2, seconds=4),),
    seconds=9.5,
    moved=(
        Drifted(entry=entry("a/new:1"), digest=IMAGE.top, now=OTHER),
        Drifted(entry=entry("a/same:1"), digest=IMAGE.top, now=None),
    ),
)
RECORD = record_of(REPORT, FACTS)


def image(name: str, record: RunRecord = RECORD) -> ImageRecord:
    (found,) = [image for image in record.images if image.image == name]
    return found


def shard(number: int, *images: ImageRecord, seconds: float = 1) -> RunRecord:
    return replace(RECORD, images=images, shards=(f"{number}/2",), seconds=seconds)


def test_every_image_has_its_outcome() -> None:
    assert [(i.image, i.outcome, i.host, i.tag_now) for i in RECORD.images] == [
        ("a/bad:1", "failed", "ci.example", None),
        ("a/new:1", "copied", "ci.example", str(OTHER)),
        ("a/other:1", "moved", "r.example", None),
        ("a/same:1", "already there", "ci.example", "gone"),
    ]
    new = image("a/new:1")
    assert (new.bytes_sent, new.bytes_skipped, new.attempts) == (100, CLOSURE.size - 100, 3)
    assert (new.start, new.end, new.seconds, new.digest, new.reason) == (0.5, 3, 2.5, str(IMAGE.top), "not there yet")
    assert (new.worker, image("a/other:1").worker, image("a/bad:1").worker) == (1, 0, None)
    assert new.blobs == {str(blob.digest): blob.size for blob in CLOSURE.blobs}
    assert image("a/same:1").bytes_skipped == 5000


def test_a_tag_that_is_another_image_now_is_loud_everywhere() -> None:
    moved = replace(copy("a/app:1", Reason.REPLACED), replaced=OTHER)
    report = SyncReport(copied=(Copied(copy=moved, sent=1, attempts=1, seconds=1),), skipped=(), failed=(), seconds=1)
    record = record_of(report, FACTS)
    both = f"{OTHER} -> {IMAGE.top}"
    assert parse_record(to_text(record).encode(), "r.json").images[0].replaced == f"{OTHER}"
    assert f"it was {OTHER}, and is {IMAGE.top}" in record_text(record)
    assert f"::warning file=images.list,line=1::a/app:1 is another image now: {both}" in workflow_commands(record)
    assert f"| a/app:1 | {OTHER} | {IMAGE.top} |" in summary(record)
    assert f"the tag was {OTHER}" in to_junit(record)
    assert "Tags that are another image now" in run_page(record)
    assert "1 tag REPLACED" in sync_text(report)
    assert replaced_text(report.replaced) == f"1 tag now means another image:\n  a/app:1  {both}"
    assert "another image now" not in run_page(RECORD)


def test_every_report_says_which_release_it_is_about() -> None:
    release = ReleaseId("acme-1.2", OTHER)
    record = record_of(replace(REPORT, release=release), FACTS)
    told = f"acme-1.2, id {OTHER}"
    packed = replace(record, sha256="5" * 64)
    assert parse_record(to_text(packed).encode(), "r.json") == packed
    assert json.loads(to_text(record))["release"] == {"name": "acme-1.2", "id": f"{OTHER}", "sha256": None}
    assert parse_record(to_text(record).encode(), "r.json").release == release
    for text in (
        record_text(record),
        summary(record),
        to_junit(record),
        sync_text(replace(REPORT, release=release)),
    ):
        assert told in text
    assert "<title>1 failed - acme-1.2</title>" in run_page(record)
    assert f"<code>{OTHER}</code>" in run_page(record)
    assert json.loads(to_text(RECORD))["release"] is None
    assert merge([record, record]).release == release
    assert merge([RECORD, record]).release == release  # the shards before it made none
    assert merge([record, replace(record, release=ReleaseId("acme-1.3", OTHER))]).release is None


def test_a_release_that_was_not_packed_has_no_id() -> None:
    record = record_of(replace(REPORT, release=ReleaseId("acme-1.2", None)), FACTS)
    assert json.loads(to_text(record))["release"] == {"name": "acme-1.2", "id": None, "sha256": None}
    assert parse_record(to_text(record).encode(), "r.json") == record


def test_what_another_image_has_brought_is_mounted() -> None:
    layers = (blob("base", 4000), blob("own", 600))
    done = Copied(copy=copy("a/x:1", missing=layers), sent=600, attempts=1, seconds=1)
    (found,) = record_of(SyncReport(copied=(done,), skipped=(), failed=(), seconds=1), FACTS).images
    assert (found.bytes_sent, found.bytes_mounted, found.bytes_skipped) == (600, 4000, CLOSURE.size - 600)


def test_the_blobs_of_what_was_there_are_known_where_they_can_be_seen() -> None:
    same = Skip(entry=entry("a/same:1"), digest=IMAGE.top, reason=Reason.SAME, size=10, blobs=(blob("base", 7),))
    (found,) = record_of(SyncReport(copied=(), skipped=(same,), failed=(), seconds=1), FACTS).images
    assert found.blobs == {str(Digest.of(b"base")): 7}


def test_a_record_is_read_back() -> None:
    assert parse_record(to_text(RECORD).encode(), "report.json") == RECORD
    document = json.loads(to_text(RECORD))
    assert document["version"] == 1
    assert document["totals"] == {
        "images": 4,
        "copied": 1,
        "moved": 1,
        "already_there": 1,
        "failed": 1,
        "tags_moved_at_source": 2,
        "bytes_sent": 100,
        "bytes_skipped": CLOSURE.size - 100 + CLOSURE.size + 5000,
        "bytes_mounted": 0,
        "retries": 3,
        "seconds": 9.5,
    }
    assert document["hosts"] == [
        {
            "host": "ci.example", "images": 3, "copied": 1, "moved": 0, "already_there": 1, "failures": 1, "retries": 3,
            "bytes_sent": 100, "bytes_mounted": 0, "bytes_skipped": CLOSURE.size - 100 + 5000, "seconds": 6.5,
        },
        {
            "host": "r.example", "images": 1, "copied": 0, "moved": 1, "already_there": 0, "failures": 0, "retries": 0,
            "bytes_sent": 0, "bytes_mounted": 0, "bytes_skipped": CLOSURE.size, "seconds": 1.0,
        },
    ]  # fmt: skip


def test_a_later_key_is_ignored_and_a_later_version_refused() -> None:
    document = json.loads(to_text(RECORD))
    assert parse_record(json.dumps(document | {"later": 1}).encode(), "r") == RECORD
    for image_ in document["images"]:
        del image_["worker"], image_["bytes_mounted"], image_["blobs"]
    older = parse_record(json.dumps(document).encode(), "r")
    assert [(i.worker, i.bytes_mounted, i.blobs) for i in older.images] == [(None, 0, {})] * 4
    with pytest.raises(UsageError, match="not a report of version 1"):
        parse_record(json.dumps(document | {"version": 2}).encode(), "r")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (b"no json", "is not a report"),
        (b"\xff", "is not a report"),
        (b"[]", "not a report of version 1"),
        ({"seconds": "1"}, "seconds: expected a number"),
        ({"seconds": float("inf")}, "Infinity is not JSON"),
        ({"seconds": float("nan")}, "NaN is not JSON"),
        ({"seconds": 10**400}, "seconds: expected a number"),
        ({"seconds": -1}, "seconds: expected a number"),
        ({"images": {}}, "images: expected a list"),
        ({"images": [1]}, "images: expected an object"),
        (
            {"images": [{"outcome": "odd"}]},
            'images: outcome: expected one of copied, moved, already there, failed, got "odd"',
        ),
        ({"images": [{"outcome": "copied"}]}, "image: expected a string"),
    ],
)
def test_what_is_no_record(change: bytes | dict[str, object], problem: str) -> None:
    data = change if isinstance(change, bytes) else json.dumps(json.loads(to_text(RECORD)) | change).encode()
    with pytest.raises(UsageError, match=problem):
        parse_record(data, "r.json")


def test_shards_are_merged() -> None:
    bad, new, other, same = RECORD.images
    merged = merge([shard(2, new, bad, seconds=7), shard(1, other, same)])
    own = replace(other, worker=2)  # a machine of its own has workers of its own
    assert merged == replace(RECORD, images=(bad, new, own, same), shards=("1/2", "2/2"), seconds=7)
    assert merged.totals["failed"] == 1


def test_what_was_tried_again_counts_as_it_came_out() -> None:
    bad, new = image("a/bad:1"), image("a/new:1")
    good = replace(new, image="a/bad:1", attempts=1)
    again = replace(image("a/same:1"), image="a/new:1")
    merged = merge([shard(1, bad, new), shard(1, good, again)])
    assert [(i.outcome, i.bytes_sent, i.attempts, i.seconds) for i in merged.images] == [
        ("copied", 100, 3, 6.5),  # failed first, and two attempts of that
        ("copied", 100, 3, 2.5),  # already there only because it had been copied
    ]
    assert merged.shards == ("1/2",)


def test_junit_is_one_case_an_image() -> None:
    root = ElementTree.fromstring(to_junit(RECORD))
    assert (root.tag, root.get("tests"), root.get("failures")) == ("testsuites", "4", "1")
    suites = [(s.get("name"), s.get("tests"), s.get("failures")) for s in root.findall("testsuite")]
    assert suites == [("ci.example", "3", "1"), ("r.example", "1", "0")]
    cases = {case.get("name"): case for case in root.iter("testcase")}
    assert set(cases) == {i.image for i in RECORD.images}
    failure = cases["a/bad:1"].find("failure")
    assert failure is not None
    assert (failure.get("message"), failure.text) == ("it\ufffd broke, 100%", "it\ufffd broke, 100%\nlook | there")
    assert (cases["a/bad:1"].get("file"), cases["a/bad:1"].get("line")) == ("images.list", "1")
    assert [name for name, case in cases.items() if case.find("failure") is not None] == ["a/bad:1"]


def test_annotations_are_at_the_line() -> None:
    assert workflow_commands(RECORD) == (
        "::error file=images.list,line=1::a/bad:1: it\x1b broke, 100%25%0Alook | there"
    )
    odd = replace(RECORD, images=(replace(image("a/bad:1"), list="a,b:c", line=0, error="x\r\ny", hint=""),))
    assert workflow_commands(odd) == "::error file=a%2Cb%3Ac::a/bad:1: x%0D%0Ay"
    assert workflow_commands(replace(RECORD, images=())) == ""


def test_a_summary_holds_words_of_others_as_text() -> None:
    odd = replace(image("a/bad:1"), error="<b>| [x](y) *z*\nnext")
    text = summary(replace(RECORD, images=(odd, image("a/new:1"))))
    assert r"| a/bad:1 | 1 | &lt;b>\| \[x\](y) \*z\* next |" in text
    assert "**1 failed**" in text
    assert f"| a/new:1 | {IMAGE.top} | {OTHER} |" in text


def test_a_long_summary_is_cut() -> None:
    many = tuple(replace(image("a/bad:1"), image=f"a/{number:03}:1") for number in range(70))
    text = summary(replace(RECORD, images=many))
    assert "a/049:1" in text
    assert "a/050:1" not in text
    assert "and 20 more" in text


def test_text() -> None:
    assert hosts_text(RECORD).splitlines() == [
        "HOST        IMAGES  COPIED  REPLACED  THERE  FAILED  SENT   MOUNTED  SKIPPED  RETRIES  SECONDS",
        "ci.example  3       1       0         1      1       100 B  0 B      5.6 kB   3        6.5",
        "r.example   1       0       1         0      0       0 B    0 B      723 B    0        1.0",
    ]
    lines = record_text(RECORD).splitlines()
    assert [line.split()[1] for line in lines if line.startswith("a/other:1 ")] == ["replaced"]
    assert lines[1] == "a/bad:1    failed         0 B    4.0      line 1: it\\x1b broke, 100%"
    assert lines[4] == (
        "a/same:1   already there  0 B    0.0      already there, same digest; the source's tag is now gone"
    )
    assert "1 copied, 1 replaced, 1 already there, 1 failed; 100 B sent" in lines[-1]
    plain = replace(RECORD, images=(replace(image("a/same:1"), tag_now=None),))
    assert "a/same:1" not in record_text(plain)
