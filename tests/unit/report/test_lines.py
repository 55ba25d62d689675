"""An image's line in a message is its line in the list, or none."""

import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from regwrap.bundle.as_list import read_listing
from regwrap.bundle.examine import verify_bundle
from regwrap.core.errors import UsageError, error_text
from regwrap.core.listener import SILENT
from regwrap.lists.imagelist import ImageEntry, parse_images
from regwrap.lists.lock import Lock, locked_list
from regwrap.lists.shards import Shard, shard_images
from regwrap.report.github import summary, workflow_commands
from regwrap.report.junit import to_junit
from regwrap.report.page_run import run_page
from regwrap.report.progress import failure_text
from regwrap.report.record import RunFacts, record_of
from regwrap.report.record_text import record_text
from regwrap.transfer.run import Failed, SyncReport
from tests.builders import make_image
from tests.bundles import make_bundle

TEXT = b"# what we ship\n\nr.io/a/one:1\n\n# and\nr.io/a/two:1\n"
LINES = re.compile(r"\(line (\d+)\)|\bline[= ]\"?(\d+)|images\.list:(\d+)|\.tar:(\d+)")


def messages(entry: ImageEntry, name: str) -> list[str]:
    """All that is said of an image that failed."""
    failed = Failed(entry=entry, error="it broke", hint="mend it", attempts=1, seconds=1)
    report = SyncReport(copied=(), skipped=(), failed=(failed,), seconds=1)
    facts = RunFacts(command="sync", list=name, shard=None, source=None, started="2026-01-02T03:04:05+00:00")
    record = record_of(report, facts)
    none = Lock(name="images.lock", images=())
    with pytest.raises(UsageError) as refused:
        locked_list(replace(parse_images(TEXT, name), entries=(entry,)), none, lambda _image: False)
    return [
        entry.where,
        failure_text(entry, "it broke", ""),
        workflow_commands(record),
        to_junit(record),
        run_page(record),
        record_text(record),
        error_text(refused.value),
        summary(record),
    ]


def lines_in(text: str) -> set[str]:
    return {next(filter(None, found)) for found in LINES.findall(text)}


def test_the_line_is_that_of_the_list_whatever_was_done_with_it() -> None:
    whole = parse_images(TEXT, "images.list")
    shards = [shard_images(whole, Shard(number, 3)) for number in (1, 2, 3)]
    for entry, line in zip(sorted((e for s in shards for e in s.entries), key=lambda e: e.dest), "36", strict=True):
        *told, table = messages(entry, "images.list")
        assert [lines_in(text) for text in told] == [{line}] * len(told)
        assert f"| {line} | it broke |" in table


def test_where_no_line_stands_for_it_none_is_named(tmp_path: Path) -> None:
    """Images of a release, and of a rule of the configuration."""
    bundle = make_bundle(tmp_path, {"a/one:1": make_image("one")})
    (of_release,) = read_listing(f"{bundle}", BytesIO()).entries
    by_rule = replace(parse_images(TEXT, "images.list").entries[0], line=0)
    for entry, name in ((of_release, f"{bundle}"), (by_rule, "images.list")):
        *told, table = messages(entry, name)
        assert [lines_in(text) for text in told] == [set()] * len(told)
        assert "|  | it broke |" in table
    other = replace(of_release, dest=replace(of_release.dest, tag="2"))
    (missing, *_) = verify_bundle(bundle, (other,), SILENT).differences
    assert missing == "a/one:2: is listed but missing here"
