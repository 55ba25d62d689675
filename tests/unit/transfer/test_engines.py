"""From registry to registry by each engine: what travels, what is proved, and what a skopeo that exits with 0 hides."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from regwrap.core.errors import ToolError, UsageError
from regwrap.core.listener import Outlook
from regwrap.core.location import Engine, Location
from regwrap.core.model import Digest
from regwrap.storage.store import Storage
from tests.builders import flip, index_of, make_image, make_layer, make_multi_image, make_storage, remove, truncate
from tests.fakes import Answer, Argv, Scripted
from tests.unit.transfer.between import Between, between

BASE = make_layer("base")
APP, TOOL = make_image("app", layers=[BASE, make_layer("app")]), make_image("tool", layers=[BASE, make_layer("tool")])
MULTI, OTHER = make_multi_image("multi"), make_image("other")
NESTED = index_of([MULTI, OTHER])


def size(*blobs: bytes) -> int:
    return sum(map(len, set(blobs)))


@pytest.fixture
def two(scripted: Scripted, tmp_path: Path) -> Iterator[Between]:
    with between(
        scripted, tmp_path / "root", {"team/app:1": APP, "team/tool:1": TOOL, "multi:1": MULTI, "nested:1": NESTED}
    ) as found:
        yield found


# --- skopeo copy, image by image


@pytest.mark.slow
def test_a_copy_brings_an_image_under_its_name_with_all_platforms(two: Between) -> None:
    two.answers("copy")
    report = two.sync(two.job(Engine.COPY), "multi:1 => site/multi:v2")
    assert two.dest.has("site/multi:v2", MULTI)
    assert report.sent == size(*MULTI.blobs)
    (argv,) = two.started("copy")
    assert argv[-2:] == (f"docker://{two.source.host}/multi@{MULTI.top}", f"docker://{two.dest.host}/site/multi:v2")
    assert two.told.expected == [("sync", size(*MULTI.blobs))]
    assert two.told.looks[-1]() == Outlook(report.sent, 0)


@pytest.mark.parametrize("engine", [Engine.COPY, Engine.STREAM])
def test_a_blob_of_two_repositories_is_expected_and_done_once(two: Between, engine: Engine) -> None:
    two.answers("copy")
    report = two.sync(two.job(engine), "team/app:1", "team/tool:1")
    assert two.dest.asked("^POST .*mount=")
    assert two.told.expected == [("sync", report.sent)] == [("sync", size(*APP.blobs, *TOOL.blobs))]
    assert two.told.looks[-1]() == Outlook(report.sent, 0)


def test_what_only_a_copy_needs_that_has_failed_is_not_left_to_do(two: Between) -> None:
    two.answers("copy")
    two.lost = {"team/app:1"}
    report = two.run(two.job(Engine.COPY), "team/app:1", "team/tool:1").report
    assert report is not None
    assert [f"{failed.entry.dest}" for failed in report.failed] == ["team/app:1"]
    assert two.told.looks[-1]().left == 0


def test_what_the_repository_has_or_another_gives_is_not_counted_as_sent(two: Between) -> None:
    two.answers("copy")
    first, second = two.sync(two.job(Engine.COPY), "team/app:1", "team/tool:1").copied
    images = {"team/app": APP, "team/tool": TOOL}
    source, other = first.copy.entry.dest.repository, second.copy.entry.dest.repository
    assert first.sent == size(*images[source].blobs)
    assert second.sent == size(*images[other].blobs) - len(BASE)
    assert two.dest.asked(f"^POST /v2/{other}/.*mount=.*&from={source.replace('/', '%2F')}")


def test_two_tags_of_one_repository_send_their_common_blobs_once(two: Between) -> None:
    two.source.hold("team/app:2", TOOL)
    two.answers("copy")
    report = two.sync(two.job(Engine.COPY), "team/app:1", "team/app:2")
    assert report.sent == size(*APP.blobs, *TOOL.blobs)
    assert two.dest.asked("mount=") == []


@pytest.mark.slow
@pytest.mark.parametrize("engine", [Engine.COPY, Engine.SYNC])
def test_two_tags_of_one_repository_are_pushed_one_after_the_other(two: Between, engine: Engine) -> None:
    """docker-registry writes the links of a repository in place: two at once would disturb each other."""
    two.source.hold("other:1", OTHER)
    two.answers("copy")
    began, busy, together, both = list[str](), list[str](), list[list[str]](), threading.Barrier(2)

    def watch(argv: Argv) -> None:
        name = argv[-1].rpartition("/")[2]
        began.append(name)
        busy.append(name)
        if len(began) <= 2:
            both.wait(30)  # the first two
        together.append(list(busy))
        busy.remove(name)

    two.before = watch
    lines = ("multi:1 => a/b:1", "team/app:1 => a/b:2", "other:1 => c/d:9")  # the largest first
    report = two.sync(replace(two.job(engine), jobs=2), *lines)
    assert len(report.copied) == 3
    assert sorted(began[:2]) == ["b:1", "d:9"]
    assert not any({"b:1", "b:2"} <= set(names) for names in together)


def test_an_exit_code_of_0_proves_nothing(two: Between) -> None:
    two.answers("copy")
    two.lost = {"team/app:1"}
    said = two.failure(two.job(Engine.COPY), "team/app:1")
    assert f"{two.dest.host}/team/app:1 is absent after the copy, expected {APP.top}" in said
    two.dest.hold("team/app:1", OTHER)
    assert f"is {OTHER.top} after the copy" in two.failure(two.job(Engine.COPY), "team/app:1")


def test_a_blob_that_is_damaged_in_the_registry_is_found_after_the_copy(two: Between) -> None:
    two.answers("copy")
    victim = f"{Digest.of(APP.blobs[1])}"

    def damage(request: str) -> None:
        if request.startswith("HEAD"):
            two.dest.blobs["team/app", victim] = b"cut"

    two.dest.fails = damage
    said = two.failure(two.job(Engine.COPY), "team/app:1")
    assert f"blob {victim[:19]} is damaged in the registry, and a push does not repair it" in said
    assert "delete the blob's file" in said


def test_a_registry_that_names_no_sizes_is_believed_once_its_manifest_is_right(two: Between) -> None:
    two.answers("copy")
    two.dest.fails = lambda request: 405 if "/blobs/" in request else None
    report = two.sync(two.job(Engine.COPY), "team/app:1")
    assert two.dest.has("team/app:1", APP)
    assert report.sent == size(*APP.blobs)


@pytest.mark.parametrize(
    ("line", "what"),
    [("nested:1", "an index inside an index"), ("multi:1 platform=linux/amd64", "a part of an index")],
)
def test_what_skopeo_cannot_push_is_refused_before_it_starts(two: Between, line: str, what: str) -> None:
    said = two.failure(two.job(Engine.COPY), line)
    assert f"{what}" in said
    assert "cannot be pushed to a registry by skopeo" in said
    assert "sync into a storage directory instead" in said
    assert two.scripted.launcher.started == []


@pytest.mark.slow
def test_skopeo_reads_a_storage_through_one_registry_on_loopback(two: Between, tmp_path: Path) -> None:
    two.answers("copy")
    source = Location(name="old", storage=make_storage(tmp_path / "old", {"team/app:1": APP, "other:1": OTHER}))
    two.sync(two.job(Engine.COPY, source=source), "team/app:1", "other:1")
    assert two.dest.has("team/app:1", APP)
    assert two.dest.has("other:1", OTHER)
    hosts = {argv[-2].split("/")[2] for argv in two.started("copy")}
    assert len(hosts) == 1
    assert hosts.isdisjoint({two.source.host, two.dest.host})
    assert all("--src-tls-verify=false" in argv for argv in two.started("copy"))


def test_what_a_copy_that_failed_has_brought_counts_as_sent(two: Between) -> None:
    """The report of a night says how much went over the line."""
    two.answers("copy", 1)
    two.lost = {"team/app:1"}

    def part(_argv: Argv) -> None:
        two.dest.blobs["team/app", f"{Digest.of(APP.blobs[1])}"] = APP.blobs[1]

    two.before = part
    report = two.run(two.job(Engine.COPY), "team/app:1").report
    assert report is not None
    (failed,) = report.failed
    assert failed.sent == len(APP.blobs[1])
    two.dest.fails = lambda request: (
        500 if request.startswith("HEAD") and "/blobs/" in request and part_came() else None
    )

    def part_came() -> bool:
        return len(two.started("copy")) > 1

    report = two.run(two.job(Engine.COPY), "team/app:1").report
    assert report is not None
    assert [item.sent for item in report.failed] == [0], "what cannot be told counts for nothing"
    assert "some images could not be copied" in report.failed[0].error, "why the copy failed is told, not this"


def test_what_a_try_has_brought_counts_once_whatever_the_next_does(two: Between) -> None:
    def part(_argv: Argv) -> None:
        two.dest.blobs["team/app", f"{Digest.of(APP.blobs[1])}"] = APP.blobs[1]

    cut = Answer(
        when=lambda argv: "copy" in argv, exit_code=1, stderr=b'level=fatal msg="Digest did not match"', effect=part
    )
    two.scripted.launcher.answers.append(cut)
    two.answers("copy")
    two.attempts = 2
    report = two.sync(two.job(Engine.COPY), "team/app:1")
    assert len(two.started("copy")) == 2
    assert report.sent == size(*APP.blobs)


# --- skopeo sync, many at once


@pytest.mark.slow
def test_images_that_keep_tag_and_name_go_in_one_start_for_each_prefix(two: Between) -> None:
    two.answers("sync")
    two.source.hold("deep/x/one:1", OTHER)
    two.source.hold("deep/x/two:1", make_image("two"))
    lines = ("team/app:1 => site/app:1", "team/tool:1 => site/tool:1", "deep/x/one:1 => one:1", "deep/x/two:1 => two:1")
    report = two.sync(two.job(Engine.SYNC), *lines)
    assert two.dest.has("site/app:1", APP)
    assert two.dest.has("site/tool:1", TOOL)
    assert two.dest.has("one:1", OTHER)
    assert {argv[-1] for argv in two.started("sync")} == {two.dest.host, f"{two.dest.host}/site"}
    assert two.told.lines == ["skopeo sync: 2 batches of 4 images"]
    assert report.sent == size(*APP.blobs, *TOOL.blobs, *OTHER.blobs, *make_image("two").blobs)
    assert [look().left for look in two.told.looks] == [0]
    assert len(two.scripted.launcher.started) == 2


@pytest.mark.slow
def test_a_batch_has_every_tag_of_a_repository(two: Between) -> None:
    two.answers("sync")
    two.source.hold("team/app:2", OTHER)
    asked: list[dict[str, dict[str, dict[str, list[str]]]]] = []
    two.before = lambda argv: asked.append(json.loads(Path(argv[-2]).read_bytes()))
    two.sync(two.job(Engine.SYNC), "team/app:1", "team/app:2", "team/tool:1")
    (document,) = asked
    images = document[two.source.host]["images"]
    assert {name: sorted(tags) for name, tags in images.items()} == {"team/app": ["1", "2"], "team/tool": ["1"]}


@pytest.mark.parametrize(
    "lines",
    [
        ["team/app:1", "multi:1"],  # one each for two prefixes
        ["team/app:1 => team/app:2", "team/tool:1 => team/tool:2"],
        ["team/app:1 => team/other:1", "team/tool:1 => team/thing:1"],
        [f"team/app@{APP.top} => team/app:1", f"team/tool@{TOOL.top} => team/tool:1"],
    ],
)
def test_what_a_batch_would_name_otherwise_is_copied_alone(two: Between, lines: list[str]) -> None:
    two.answers("copy")
    two.sync(two.job(Engine.SYNC), *lines)
    assert two.started("sync") == []
    assert len(two.started("copy")) == 2
    assert two.told.lines == ["skopeo sync: 0 batches of 0 images"]


def test_an_image_of_some_platforms_is_in_no_batch(two: Between) -> None:
    two.source.hold("more:1", OTHER)
    two.source.hold("most:1", TOOL)
    two.answers("sync")
    report = two.run(two.job(Engine.SYNC), "multi:1 platform=linux/amd64", "more:1", "most:1").report
    assert report is not None
    assert [f"{failed.entry.dest}" for failed in report.failed] == ["multi:1"]
    assert two.told.lines == ["skopeo sync: 1 batch of 2 images"]


@pytest.mark.slow
@pytest.mark.parametrize("exit_code", [0, 1])
def test_what_a_batch_did_not_bring_is_copied_by_its_digest(two: Between, exit_code: int) -> None:
    two.answers("sync", exit_code)
    two.answers("copy")
    two.lost = {"team/tool:1"}
    two.before = lambda argv: two.lost.clear() if "copy" in argv else None
    two.sync(two.job(Engine.SYNC), "team/app:1", "team/tool:1")
    assert two.dest.has("team/app:1", APP)
    assert two.dest.has("team/tool:1", TOOL)
    (argv,) = two.started("copy")
    assert argv[-2] == f"docker://{two.source.host}/team/tool@{TOOL.top}"


@pytest.mark.slow
def test_where_it_cannot_be_asked_what_a_batch_has_brought_it_is_copied(two: Between) -> None:
    two.answers("sync")
    two.answers("copy")
    busy = list[int]()
    two.before = lambda argv: busy.append(500) if "sync" in argv else None
    two.dest.fails = lambda request: busy.pop() if busy and request == "GET /v2/team/app/manifests/1" else None
    two.sync(two.job(Engine.SYNC), "team/app:1", "team/tool:1")
    assert busy == []
    assert [argv[-1] for argv in two.started("copy")] == [f"docker://{two.dest.host}/team/app:1"]


@pytest.mark.slow
def test_a_tag_that_moved_while_a_batch_ran_is_copied_as_it_was_seen(two: Between) -> None:
    """What was looked at is what comes: the batch brings the tag's new image, and that is not the one of the plan."""
    two.answers("sync")
    two.answers("copy")

    two.before = lambda argv: two.source.hold("team/app:1", OTHER) if "sync" in argv else None
    report = two.sync(two.job(Engine.SYNC), "team/app:1", "team/tool:1")
    assert two.dest.has("team/app:1", APP)
    assert [argv[-2] for argv in two.started("copy")] == [f"docker://{two.source.host}/team/app@{APP.top}"]
    assert [(f"{moved.entry.dest}", moved.now) for moved in report.moved] == [("team/app:1", OTHER.top)]


def test_a_run_that_is_stopped_begins_no_more_batches(two: Between) -> None:
    two.answers("sync", 1)
    two.answers("copy")

    two.before = lambda _argv: two.scripted.runner.stopping.set()
    with pytest.raises(ToolError):
        two.run(two.job(Engine.SYNC), "team/app:1", "team/tool:1")
    assert len(two.scripted.launcher.started) == 1


def test_the_engine_sync_does_not_copy_into_a_directory(two: Between) -> None:
    with pytest.raises(UsageError, match="is a storage directory"):
        two.run(two.job(Engine.SYNC, archive=two.directory), "team/app:1")


# --- by regwrap's own requests


@pytest.mark.slow
def test_a_stream_sends_each_blob_once_and_starts_nothing_for_an_image(two: Between) -> None:
    two.source.hold("other:1", OTHER)
    report = two.sync(two.job(), "team/app:1", "team/tool:1", "nested:1", "other:1")
    assert two.dest.has("team/app:1", APP)
    assert two.dest.has("team/tool:1", TOOL)
    assert two.dest.has("nested:1", NESTED)
    assert report.sent == size(*APP.blobs, *TOOL.blobs, *MULTI.blobs, *OTHER.blobs)
    blobs = {*APP.blobs, *TOOL.blobs, *MULTI.blobs, *OTHER.blobs}
    assert len(two.dest.asked("^PUT .*digest=")) == len(blobs)
    assert len(two.source.asked("^GET .*/blobs/")) == len(blobs)
    assert two.scripted.launcher.started == []


@pytest.mark.slow
def test_a_stream_sends_what_two_tags_of_a_repository_share_once(two: Between) -> None:
    two.source.hold("team/app:2", TOOL)
    report = two.sync(two.job(), "team/app:1", "team/app:2")
    assert report.sent == size(*APP.blobs, *TOOL.blobs)
    assert len(two.dest.asked(f"^PUT .*digest=.*{Digest.of(BASE).hex}")) == 1


@pytest.mark.slow
def test_a_stream_out_of_a_storage_starts_nothing(two: Between, tmp_path: Path) -> None:
    source = Location(name="old", storage=make_storage(tmp_path / "old", {"multi:1": MULTI}))
    two.sync(two.job(source=source), "multi:1")
    assert two.dest.has("multi:1", MULTI)
    assert two.scripted.launcher.started == []


def test_a_copy_within_one_registry_moves_no_byte(two: Between) -> None:
    job = two.job(archive=two.place(two.source), source=two.place(two.source))
    report = two.sync(job, "team/app:1 => released/app:1")
    assert two.source.has("released/app:1", APP)
    assert report.sent == 0
    assert two.source.asked("^PUT .*digest=") == []


@pytest.mark.slow
def test_the_same_list_again_sends_nothing(two: Between) -> None:
    two.sync(two.job(), "team/app:1")
    report = two.sync(two.job(), "team/app:1")
    assert (len(report.skipped), report.sent) == (1, 0)


@pytest.mark.parametrize(("status", "said"), [(400, "does not accept partial indexes"), (403, "the manifest")])
def test_a_registry_that_takes_no_partial_index_says_what_to_do(two: Between, status: int, said: str) -> None:
    two.dest.fails = lambda request: status if request == "PUT /v2/multi/manifests/1" else None
    found = two.failure(two.job(), "multi:1 platform=linux/amd64")
    assert said in found
    assert ("multi:1 has some platforms only" in found) == (status == 400)
    assert ("validation.manifests.indexes" in found) == (status == 400)
    assert "refused on demand" in found


@pytest.mark.slow
def test_a_whole_index_that_is_refused_is_not_called_partial(two: Between) -> None:
    two.dest.fails = lambda request: 400 if request == "PUT /v2/multi/manifests/1" else None
    assert f"answered 400 to the manifest {MULTI.top.short} of multi:1" in two.failure(two.job(), "multi:1")


def test_a_child_that_is_refused_is_no_matter_of_indexes(two: Between) -> None:
    two.dest.fails = lambda request: 400 if "PUT /v2/multi/manifests/sha256" in request else None
    assert "answered 400 to the manifest" in two.failure(two.job(), "multi:1 platform=linux/amd64")


@pytest.mark.parametrize("status", [200, 202])
def test_other_ways_to_say_that_a_manifest_was_taken_are_good(two: Between, status: int) -> None:
    two.dest.hold("team/app:1", APP)
    del two.dest.manifests["team/app", "1"]

    def taken(request: str) -> int | None:
        if request.startswith("PUT") and "/manifests/" in request:
            two.dest.hold("team/app:1", APP)
            return status
        return None

    two.dest.fails = taken
    assert two.sync(two.job(), "team/app:1").sent == 0


@pytest.mark.parametrize("damage", [remove, truncate, flip])
def test_damage_of_a_storage_is_no_fault_of_the_registry(
    two: Between, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    root = make_storage(tmp_path / "old", {"team/app:1": APP})
    layer = Digest.of(APP.blobs[2])
    damage(Storage(root).blob_path(layer))
    said = two.failure(two.job(source=Location(name="old", storage=root)), "team/app:1")
    assert f"team/app:1: blob {layer} is damaged at the source" in said
    assert two.dest.manifests == {}


def test_bytes_that_the_source_has_damaged_are_its_fault(two: Between) -> None:
    layer = Digest.of(APP.blobs[2])
    two.source.blobs["team/app", f"{layer}"] = b"x" * len(APP.blobs[2])
    said = two.failure(two.job(), "team/app:1")
    assert f"team/app:1: blob {layer} is damaged at the source" in said
    assert f"{two.source.host} gives other bytes than the digest says: push the image there again" in said
    assert "bundle" not in said
    assert two.dest.manifests == {}


def test_a_registry_that_refuses_what_is_right_is_the_one_that_is_named(two: Between) -> None:
    layer = Digest.of(APP.blobs[2])
    two.dest.fails = lambda request: 400 if request.startswith("PUT") and layer.hex in request else None
    assert f"{two.dest.host} answered 400 to blob {layer.short} of team/app:1" in two.failure(two.job(), "team/app:1")


def test_bytes_that_were_damaged_on_the_way_are_sent_once_more(two: Between) -> None:
    layer, two.attempts = Digest.of(APP.blobs[2]), 2
    refused: list[str] = []

    def refuse_first(request: str) -> int | None:
        if request.startswith("PUT") and layer.hex in request and not refused:
            refused.append(request)
            return 400
        return None

    two.dest.fails = refuse_first
    two.sync(two.job(), "team/app:1")
    assert two.dest.has("team/app:1", APP)
    assert len(refused) == 1
