"""What the user sees: sizes, tables, errors in three parts, progress, and JSON."""

import io
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from regwrap.commands.gc import GcReport, RepositoryReport
from regwrap.commands.lock import LockCheck, LockReport
from regwrap.core.errors import ImagesFailedError, IntegrityError, RegwrapError, ToolError, error_text
from regwrap.core.listener import Outlook
from regwrap.core.model import Destination, Digest, ImageRef, Platform
from regwrap.core.text import human_bytes, table
from regwrap.lists.lock import Change, LockedImage
from regwrap.report.progress import Progress
from regwrap.report.site_text import gc_text
from regwrap.report.terminal import Folds, Reader
from regwrap.report.text import (
    drift_text,
    failures_text,
    lock_check_text,
    lock_text,
    plan_text,
    sync_text,
    to_json,
    unseen_text,
)
from regwrap.storage.gc import DroppedImage
from regwrap.transfer.plan import Drifted, Unseen, make_plan
from regwrap.transfer.run import Copied, Failed, SyncReport
from tests.unit.transfer.test_plan import IMAGE, blob, copy, entry, lacking, whole

PLAIN: Final = Reader(live=False, colours=False, folds=Folds.NONE)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_234_567, "1.2 MB"),
        (5_600_000_000, "5.6 GB"),
        (2.5e12, "2.5 TB"),
        (3e15, "3000.0 TB"),
        (-1500, "-1.5 kB"),
    ],
)
def test_human_bytes(count: float, text: str) -> None:
    assert human_bytes(count) == text


def test_table() -> None:
    assert table([("a", "long", "x"), ("wide one", "b", "")]) == ["a         long  x", "wide one  b"]
    assert table([]) == []


# --- errors


def test_an_error_in_short_and_what_to_do_all_the_same() -> None:
    advice = f"  -> {ToolError.advice}"
    assert error_text(ToolError("it failed")).splitlines() == ["regwrap: it failed", advice]
    assert error_text(ToolError("it failed", detail=" why \n")).splitlines() == ["regwrap: it failed: why", advice]


def test_an_error_with_all_its_parts() -> None:
    error = IntegrityError("2 problems", detail="one\ntwo", hint="send it again", problems=("blob a", "blob b"))
    assert error_text(error).splitlines() == [
        "regwrap: 2 problems",
        "  one",
        "  two",
        "  blob a",
        "  blob b",
        "  -> send it again",
    ]


def test_an_error_with_a_hint() -> None:
    error: RegwrapError = ImagesFailedError("3 images are absent", hint="sync first")
    assert error_text(error) == "regwrap: 3 images are absent\n  -> sync first"


# --- a plan, a sync


PLAN = make_plan(
    (
        lacking("r.example/a/b:1 => x/y:2", missing=[blob("base", 1000)]),
        whole("a/same:1"),
        Unseen(entry=entry("a/no:1"), error="absent"),
    )
)


def test_plan_text() -> None:
    assert plan_text(PLAN).splitlines() == [
        "copy  r.example/a/b:1 -> x/y:2  1.0 kB  not there yet",
        "skip  a/same:1                          already there, same digest",
        "fail  a/no:1                            absent",
        "1 to copy (1.0 kB), 1 already there, 1 cannot be read",
    ]
    assert plan_text(make_plan(())) == "0 to copy (0 B), 0 already there"


def test_a_plan_as_json() -> None:
    assert json.loads(to_json(PLAN)) == {
        "copies": [
            {
                "entry": {"source": "r.example/a/b:1", "dest": "x/y:2", "line": 1},
                "digest": str(IMAGE.top),
                "reason": "not there yet",
                "bytes_missing": 1000,
                "replaced": None,
            }
        ],
        "skips": [
            {
                "entry": {"source": "a/same:1", "dest": "a/same:1", "line": 1},
                "digest": str(IMAGE.top),
                "reason": "already there, same digest",
                "size": None,
            }
        ],
        "moved": [],
        "unseen": [
            {"entry": {"source": "a/no:1", "dest": "a/no:1", "line": 1}, "error": "absent", "hint": "", "down": ""}
        ],
        "way": None,
    }


def test_json_of_values() -> None:
    value = {"path": Path("/a"), "platforms": (Platform("linux", "amd64"),), "none": None, "number": 1.5}
    assert json.loads(to_json(value)) == {"path": "/a", "platforms": ["linux/amd64"], "none": None, "number": 1.5}
    assert to_json({"b": 1, "a": 2}) == '{\n "a": 2,\n "b": 1\n}'


COPIED = Copied(copy=copy("a/b:1"), sent=2500, attempts=3, seconds=1.25)
FAILED = Failed(entry=entry("a/c:1"), error="manifest unknown", hint="look there", attempts=1)


def test_sync_text() -> None:
    report = SyncReport(copied=(COPIED,), skipped=PLAN.skips, failed=(FAILED,), seconds=2)
    assert sync_text(report) == "1 copied, 1 already there, 1 failed; 2.5 kB sent in 2.0 s, 2 retries"
    assert failures_text(report) == "a/c:1: FAILED, line 1: manifest unknown\n    look there"


def test_tags_that_have_drifted_are_told() -> None:
    here, now = IMAGE.top, Digest.of(b"now")
    moved = (
        Drifted(entry=entry("a/same:1"), digest=here, now=now),
        Drifted(entry=entry("a/gone:1"), digest=here, now=None),
    )
    assert drift_text(moved).splitlines() == [
        f"a/same:1: drifted: copied {here}; the source's tag is now {now}",
        f"a/gone:1: drifted: copied {here}; the source's tag is gone",
    ]
    report = SyncReport(copied=(COPIED,), skipped=(), failed=(), seconds=2, moved=moved)
    assert sync_text(report).endswith(", 2 tags drifted at the source")
    plan = make_plan((replace(whole("a/same:1"), drift=moved[0]),))
    told = plan_text(plan).splitlines()
    assert told[1:3] == [
        "1 tag has drifted at the source:",
        f"  a/same:1: copying {here}; the source's tag is now {now}",
    ]


def test_a_plan_fits_a_terminal() -> None:
    plan = make_plan(
        (
            replace(whole("team/notification-service:v1.2"), drift=None),
            replace(
                whole("team/notification-worker:v1.2"),
                drift=Drifted(entry=entry("team/notification-worker:v1.2"), digest=IMAGE.top, now=Digest.of(b"now")),
            ),
        )
    )
    lines = plan_text(plan, full=False).splitlines()
    assert max(map(len, lines)) <= 100
    assert f"{IMAGE.top}"[:19] in lines[3]


def test_a_plan_with_long_names_fits_a_terminal_and_says_all() -> None:
    name = f"platform/observability/{'collector-' * 3}contrib:2026.11.28-linux-amd64"
    moved = Drifted(entry=entry(name), digest=IMAGE.top, now=Digest.of(b"now"))
    text = plan_text(make_plan((replace(whole(name), drift=moved), whole(f"mirror/{name}"))), full=False)
    assert max(map(len, text.splitlines())) <= 100
    assert " ".join(text.split()).count(name) == 3
    assert "skip  " in text


def test_lock_texts() -> None:
    old, new = Digest.of(b"old"), Digest.of(b"new")
    image = LockedImage(
        source=ImageRef.parse(f"a:1@{new}"), dest=Destination("a", "1"), chosen=(), platforms=(), size=2500
    )
    changes = (
        Change(image=Destination("a", "1"), what="moved", old=old, new=new),
        Change(image=Destination("long/b", "1"), what="gone", old=old, new=None),
    )
    lines = [f"moved  a:1       {old} -> {new}", f"gone   long/b:1  {old} -> -"]
    written = LockReport(path=Path("images.lock"), images=(image,), changes=changes, failed=())
    assert lock_text(written).splitlines() == [*lines, "images.lock: 1 image, 2 changed; 2.5 kB in all"]
    first = (Change(image=Destination("a", "1"), what="not locked yet", old=None, new=new),)
    assert lock_text(replace(written, changes=first)) == "images.lock: 1 image, 1 changed; 2.5 kB in all"
    check = LockCheck(path=Path("images.lock"), images=2, changes=changes, failed=())
    assert lock_check_text(check).splitlines() == lines
    assert lock_check_text(replace(check, changes=())) == "images.lock: 2 images, all as locked"
    failed = (Unseen(entry=entry("a/c:1"), error="refused", hint="log in"),)
    assert lock_check_text(replace(check, changes=(), failed=failed)) == ""
    assert unseen_text(failed) == "a/c:1: FAILED, line 1: refused\n    log in"


def test_a_failure_without_a_line_names_none() -> None:
    failed = Failed(entry=replace(entry("a/c:1"), line=0), error="lost", hint="", attempts=1)
    assert failures_text(SyncReport(copied=(), skipped=(), failed=(failed,), seconds=2)) == "a/c:1: FAILED: lost"


def test_a_failure_says_how_often_it_was_tried() -> None:
    failed = Failed(entry=entry("a/c:1"), error="lost", hint="", attempts=4)
    report = SyncReport(copied=(), skipped=(), failed=(failed,), seconds=2)
    assert failures_text(report) == "a/c:1: FAILED (after 4 attempts), line 1: lost"


# --- progress


def play(progress: Progress) -> None:
    with progress.shown():
        progress.expect("sync", 5000)
        progress.log("begins")
        progress.started(copy("a/b:1"))
        progress.retrying(copy("a/b:1"), 1, ToolError("lost", transient=True))
        progress.copied(COPIED)
        progress.started(copy("a/c:1"))
        progress.failed(FAILED)


def test_a_log_has_whole_lines_and_no_carriage_return() -> None:
    stream = io.StringIO()
    play(Progress(stream, quiet=False, reader=PLAIN))
    assert stream.getvalue().splitlines() == [
        "begins",
        "a/b:1: attempt 1 failed, retrying: lost",
        "a/b:1: copied 2.5 kB in 1.2 s",
        "a/c:1: FAILED, line 1: manifest unknown",
        "    look there",
    ]
    assert "\r" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_the_lines_of_a_step_fold_in_the_log_of_a_ci() -> None:
    stream = io.StringIO()
    play(Progress(stream, quiet=False, reader=replace(PLAIN, folds=Folds.GITHUB)))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "::group::regwrap: sync"
    assert lines[1] == "begins"
    assert lines[-1] == "::endgroup::"

    stream = io.StringIO()
    progress = Progress(stream, quiet=False, reader=replace(PLAIN, folds=Folds.GITLAB))
    with progress.shown():
        progress.expect("sync", 1)
        progress.expect("sync", 1)
    begun = re.findall(
        r"^\x1b\[0Ksection_start:\d+:(\w+)\[collapsed=true]\r\x1b\[0Kregwrap: sync$", stream.getvalue(), re.M
    )
    ended = re.findall(r"^\x1b\[0Ksection_end:\d+:(\w+)\r\x1b\[0K$", stream.getvalue(), re.M)
    assert begun == ended
    assert len(set(begun)) == 2


def test_nothing_folds_where_nothing_is_told() -> None:
    stream = io.StringIO()
    play(Progress(stream, quiet=True, reader=replace(PLAIN, folds=Folds.GITHUB)))
    assert "::" not in stream.getvalue()


def test_failures_are_red_only_where_there_are_colours() -> None:
    stream = io.StringIO()
    play(Progress(stream, quiet=True, reader=replace(PLAIN, colours=True)))
    assert stream.getvalue().startswith("\x1b[31ma/c:1: FAILED")
    assert stream.getvalue().endswith("\x1b[0m\n")


@pytest.mark.parametrize("live", [False, True])
def test_quiet_still_tells_failures(live: bool) -> None:
    stream = io.StringIO()
    play(Progress(stream, quiet=True, reader=replace(PLAIN, live=live)))
    assert stream.getvalue() == "a/c:1: FAILED, line 1: manifest unknown\n    look there\n"


@pytest.mark.slow
def test_the_live_line_is_wiped_before_a_line_and_at_the_end() -> None:
    stream = Terminal()
    progress = Progress(stream, quiet=False, reader=replace(PLAIN, live=True))
    with progress.shown():
        progress.expect("sync", 5000)
        progress.started(copy("a/b:1"))
        wait_for(lambda: "sync: 0 B of 5.0 kB" in stream.getvalue())
        progress.log("a line")
        wait_for(lambda: stream.getvalue().count("sync: ") > 1)
    text = stream.getvalue()
    assert "\r\x1b[Ka line\n" in text
    assert text.endswith("\r\x1b[K")


@pytest.mark.slow
def test_nothing_is_drawn_while_the_user_answers_and_the_question_is_not_quiet() -> None:
    """A line that is drawn five times a second hides what is typed."""
    stream, looked = Terminal(), list[int]()
    progress = Progress(stream, quiet=False, reader=replace(PLAIN, live=True))

    def look() -> Outlook:
        looked.append(1)
        return Outlook(0, 5000)

    with progress.shown():
        progress.expect("deploy", 5000)
        progress.watch(look)
        with progress.asking("insert the medium"):
            asked = stream.getvalue()
            looked.clear()
            wait_for(lambda: len(looked) > 1)
            assert stream.getvalue() == asked == "insert the medium\n"
        wait_for(lambda: "deploy: 0 B of 5.0 kB" in stream.getvalue())
    quiet = io.StringIO()
    with Progress(quiet, quiet=True, reader=PLAIN).asking("insert the medium"):
        assert quiet.getvalue() == "insert the medium\n"


def wait_for(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_status_says_bytes_speed_rest_and_images() -> None:
    progress = Progress(io.StringIO(), quiet=False, reader=PLAIN)
    assert progress.status() == ""
    progress.expect("sync", 10_000_000)
    for name in "abcde":
        progress.started(copy(f"a/{name}:1"))
    progress.watch(lambda: Outlook(2_000_000, 8_000_000))
    assert re.fullmatch(
        r"sync: 2\.0 MB of 10\.0 MB, [\d.]+ [kMGT]?B/s, \d+ s left \[a/a:1 a/b:1 a/c:1 \+2\]", progress.status()
    )


def test_the_status_has_what_comes_not_what_was_expected_and_ends_with_it() -> None:
    progress = Progress(io.StringIO(), quiet=False, reader=PLAIN)
    progress.expect("sync", 10**12)
    progress.started(copy("a/b:1"))
    progress.watch(lambda: Outlook(2500, 0))
    assert progress.status().startswith("sync: 2.5 kB of 2.5 kB, ")
    assert "left" not in progress.status()
    progress.copied(COPIED)
    assert progress.status() == ""


def test_a_stage_that_is_gone_does_not_end_the_progress() -> None:
    def gone() -> Outlook:
        raise FileNotFoundError

    progress = Progress(io.StringIO(), quiet=False, reader=PLAIN)
    progress.expect("sync", 10)
    progress.watch(gone)
    assert progress.status().startswith("sync: 0 B of 10 B, 0 B/s")


def test_gc_text() -> None:
    report = GcReport(
        dry_run=True,
        kept=2,
        pinned=0,
        images=(DroppedImage(image="a:1", digest=None, reason="not in the list"),),
        repositories=(RepositoryReport(name="a", tags=1, manifests=3, layers=4, bytes=2500, gone=True),),
        blobs=7,
        bytes=2500,
        notes=(),
    )
    assert gc_text(report, Path("dir")).splitlines() == [
        "a:1  not in the list",
        "REPOSITORY  TAGS  MANIFESTS  LAYERS  SIZE",
        "a           1     3          4       2.5 kB  repository deleted",
        "dir: 2 tags would be kept, 1 image would be deleted: 7 blobs (2.5 kB), links to 3 manifests and 4 layers",
    ]
    done = gc_text(replace(report, dry_run=False), Path("dir"))
    assert done == "dir: 2 tags kept, 1 image deleted: 7 blobs (2.5 kB), links to 3 manifests and 4 layers"
