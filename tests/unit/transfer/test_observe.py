"""What is seen at both ends before anything is copied: what an image is, what of it is there, what cannot be had."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from regwrap.commands.sync import SyncOptions, SyncResult, sync_images
from regwrap.core.errors import UsageError
from regwrap.core.location import Location
from regwrap.core.manifest import OCI_MANIFEST
from regwrap.core.model import Digest, LayoutRef
from regwrap.lists.imagelist import parse_images
from regwrap.storage import layout
from regwrap.storage.store import Storage
from regwrap.transfer.endpoints import Endpoints
from regwrap.transfer.observe import _Early
from regwrap.transfer.plan import Drifted
from tests.builders import (
    Image,
    add_untagged,
    index_of,
    make_config,
    make_image,
    make_layer,
    make_multi_image,
    make_storage,
    open_below,
    truncate,
)
from tests.fakes import Scripted
from tests.unit.transfer.between import Between, between
from tests.unit.transfer.test_into_registry import connected_to

APP, MULTI, OTHER = make_image("app"), make_multi_image("multi"), make_image("other")
DRY = SyncOptions(dry_run=True)


@pytest.fixture
def two(scripted: Scripted, tmp_path: Path) -> Iterator[Between]:
    with between(scripted, tmp_path / "root", {"team/app:1": APP, "multi:1": MULTI}) as found:
        yield found


def error(two: Between, line: str) -> str:
    unseen = two.seen(two.job(archive=two.directory), line)
    return f"{unseen.error} {unseen.hint}"


def test_a_tag_that_is_not_there_is_named_with_its_registry(two: Between) -> None:
    assert f"{two.source.host} has no team/app:2" in error(two, "team/app:2")
    assert "check name and tag" in error(two, "team/app:2")


def test_a_tag_that_a_directory_does_not_have_is_no_question_of_an_account(two: Between, tmp_path: Path) -> None:
    root = make_storage(tmp_path / "old", {"team/app:1": APP})
    unseen = two.seen(two.job(archive=two.directory, source=Location(name="old", storage=root)), "team/app:2")
    assert (unseen.error, unseen.hint) == (f"{root} has no team/app:2", "")


def test_both_ends_are_asked_at_the_same_time(two: Between) -> None:
    """Or a look at an archive on another continent takes twice as long."""
    both = threading.Barrier(2)

    def meet(request: str) -> int | None:
        if "HEAD" in request and "/manifests/" in request:
            try:
                both.wait(10)
            except threading.BrokenBarrierError:
                return 404
        return None

    two.source.fails = two.dest.fails = meet
    assert two.copy_of(replace(two.job(), jobs=2), "team/app:1").digest == APP.top


@pytest.mark.parametrize("waits", [True, False])
def test_it_does_not_matter_which_of_both_comes_first(*, waits: bool) -> None:
    """Who looks may be quicker than who asks for him, and would wait for ever."""
    asked = list[str]()

    def question() -> Digest | None:
        asked.append("there")
        return APP.top

    early = _Early(question)
    with ThreadPoolExecutor(1) as pool:
        if waits:
            looking = pool.submit(early)
            while not early.is_used:
                time.sleep(0.001)
            early.ask()
        else:
            early.ask()
            looking = pool.submit(early)
        assert looking.result(timeout=10) == APP.top
    assert asked == ["there"]
    assert early() == APP.top
    assert asked == ["there", "there"]


@pytest.mark.parametrize("jobs", [1, 4])
def test_an_archive_that_fails_is_asked_as_often_as_it_is_tried(two: Between, jobs: int) -> None:
    two.attempts, asked = 3, list[str]()

    def fail(request: str) -> int | None:
        if "HEAD" not in request or "/manifests/" not in request:
            return None
        asked.append(request)
        return 500 if len(asked) <= failures else None

    two.dest.fails, failures = fail, 2
    assert two.copy_of(replace(two.job(), jobs=jobs), "team/app:1").digest == APP.top
    assert len(asked) == 3
    failures = 99
    assert "500" in two.seen(replace(two.job(), jobs=jobs), "team/app:1").error
    assert len(asked) == 6


def test_a_tag_that_is_another_image_than_the_list_says_is_refused(two: Between) -> None:
    said = error(two, f"team/app:1@{OTHER.top}")
    assert f"{two.source.host}: team/app:1 is {APP.top} now, the list says {OTHER.top}" in said
    assert "ask who moved the tag" in said


def test_a_digest_without_a_tag_needs_no_tag(two: Between) -> None:
    copy = two.copy_of(two.job(archive=two.directory), f"team/app@{APP.top} => site/app:9")
    assert copy.digest == APP.top
    assert two.source.asked("HEAD .*manifests") == []


@pytest.mark.parametrize("is_new", [True, False])
def test_a_manifest_of_other_bytes_fails_its_image_and_no_other(two: Between, *, is_new: bool) -> None:
    """By its tag from a repository that is new, and by its digest."""
    if not is_new:
        make_storage(two.root, {"team/app:0": OTHER})
    for reference in ("1", f"{APP.top}"):
        two.source.manifests["team/app", reference] = (OCI_MANIFEST, APP.raw + b" ")
        two.source.named["team/app", reference] = f"{APP.top}"
    plan = two.run(two.job(archive=two.directory), "team/app:1", "multi:1", options=DRY).plan
    (unseen,) = plan.unseen
    assert f"{unseen.entry.dest}" == "team/app:1"
    assert "does not match" in unseen.error
    assert [f"{copy.entry.dest}" for copy in plan.copies] == ["multi:1"]


def test_a_digest_that_is_not_there_is_named(two: Between) -> None:
    said = error(two, f"team/app@{OTHER.top} => site/app:9")
    assert f"{two.source.host} has no manifest {OTHER.top} of team/app" in said


def test_an_index_that_has_lost_a_platform_is_not_brought_in_part(two: Between) -> None:
    lost = Digest.of(MULTI.manifests[0])
    del two.source.manifests["multi", f"{lost}"]
    said = error(two, "multi:1")
    assert f"index {MULTI.top.short} has missing manifests: linux/amd64 ({lost.short})" in said
    assert "select the existing platforms" in said
    assert two.copy_of(two.job(archive=two.directory), "multi:1 platform=linux/arm64").missing


def test_a_single_image_of_another_platform_is_refused(two: Between) -> None:
    assert "the image is for linux/amd64, not for linux/arm64" in error(two, "team/app:1 platform=linux/arm64")
    assert two.copy_of(two.job(archive=two.directory), "team/app:1 platform=linux/amd64").digest == APP.top


def test_a_layer_that_the_registry_need_not_hold_is_refused_where_it_does_not(two: Between) -> None:
    config, layer = make_config([make_layer("windows")]), make_layer("windows")
    described = {"mediaType": "x", "digest": f"{Digest.of(config)}", "size": len(config)}
    foreign = {"mediaType": "x", "digest": f"{Digest.of(layer)}", "size": len(layer), "urls": ["https://e.example/x"]}
    raw = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": [foreign]}).encode()
    two.source.hold("windows:1", Image((raw,), (config, layer)))
    assert two.copy_of(two.job(archive=two.directory), "windows:1").bytes_missing == len(config) + len(layer)
    del two.source.blobs["windows", f"{Digest.of(layer)}"]
    said = error(two, "windows:1")
    assert f"layer {Digest.of(layer).short} is not in {two.source.host}: it is stored elsewhere" in said
    assert "drop it" in said
    two.source.fails = lambda request: 403 if "/blobs/" in request else None
    assert two.copy_of(two.job(archive=two.directory), "windows:1").digest == Digest.of(raw)


@pytest.mark.parametrize("lack", ["nothing", "bytes", "all"])
def test_a_storage_need_not_hold_such_a_layer_either(two: Between, tmp_path: Path, lack: str) -> None:
    layer = make_layer("windows")
    config = make_config([layer])
    described = {"mediaType": "x", "digest": f"{Digest.of(config)}", "size": len(config)}
    foreign = {"mediaType": "x", "digest": f"{Digest.of(layer)}", "size": len(layer), "urls": ["https://e.example/x"]}
    raw = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": [foreign]}).encode()
    root = make_storage(tmp_path / "old", {"windows:1": Image((raw,), (config, layer))})
    path = Storage(root).blob_path(Digest.of(layer))
    if lack == "bytes":
        truncate(path)
    elif lack == "all":
        path.unlink()
    job = two.job(archive=two.directory, source=Location(name="old", storage=root))
    if lack == "nothing":
        assert two.copy_of(job, "windows:1").bytes_missing == len(config) + len(layer)
        assert open_below(root / layout.BLOBS) == []
    else:
        assert f"layer {Digest.of(layer).short} is not in {root}" in two.seen(job, "windows:1").error


def test_a_line_without_a_registry_has_none_where_no_source_is_given(two: Between) -> None:
    (listed,) = parse_images(b"team/app:1", "images.list").entries
    with ExitStack() as stack:
        endpoints = Endpoints(job=replace(two.job(), source=None), stack=stack)
        with pytest.raises(UsageError, match="names no registry"):
            endpoints.source_of(listed)


def test_lines_without_a_registry_are_named_and_not_all_of_hundreds(two: Between) -> None:
    images = parse_images("\n".join(f"team/app{number}:1" for number in range(12)).encode(), "images.list")
    with ExitStack() as stack:
        endpoints = Endpoints(job=replace(two.job(), source=None), stack=stack)
        with pytest.raises(UsageError, match=r"^12 lines name no registry, and no source is configured") as raised:
            endpoints.check_sources(images)
    assert [line.rpartition(" ")[2] for line in raised.value.detail.splitlines()] == [
        f"team/app{number}:1" for number in range(10)
    ]


def test_a_line_whose_registry_is_none_is_refused_before_anything_is_asked(two: Between) -> None:
    images = parse_images(b"odd.example/team/app:1 => team/app:1", "images.list")
    with ExitStack() as stack:
        endpoints = Endpoints(job=replace(two.job(), location_of=lambda name: Location(name=name)), stack=stack)
        with pytest.raises(UsageError, match="has neither a url nor a storage"):
            endpoints.check_sources(images)


def test_connections_to_a_registry_are_closed_with_the_run(two: Between) -> None:
    port = int(two.source.host.rpartition(":")[2])
    with ExitStack() as stack:
        end = Endpoints(job=two.job(), stack=stack).registry(two.place(two.source))
        assert end.resolve("team/app", "1") == APP.top
        assert connected_to(port) == 1
    assert connected_to(port) == 0


def test_what_skopeo_keeps_at_home_is_in_a_directory_of_its_own(two: Between) -> None:
    """Not among what regwrap has there, nor the user's."""
    with ExitStack() as stack:
        endpoints = Endpoints(job=two.job(), stack=stack)
        assert endpoints.skopeo().home.is_dir()
        assert endpoints.skopeo().home.parent == two.scripted.runner.scratch


def test_instead_of_an_archive_there_is_an_empty_directory_as_often_as_asked(two: Between) -> None:
    (two.scripted.runner.scratch / "something").write_bytes(b"of this run")
    for _ in range(2):
        job, empty = two.job().without_archive()
        assert (job.archive.storage, job.archive.registry, list(empty.iterdir())) == (empty, None, [])


def test_an_index_that_lacks_a_platform_at_the_destination_is_copied_again(two: Between) -> None:
    make_storage(two.root, {"multi:1": MULTI})
    (two.root / layout.revision_link("multi", Digest.of(MULTI.manifests[0]))).unlink()
    copy = two.copy_of(two.job(archive=two.directory), "multi:1")
    assert copy.reason == "there, but damaged or incomplete: it is copied again"


def test_an_image_without_the_attestation_of_its_platform_is_copied_again(two: Between) -> None:
    """Versions before left them out; those of platforms that nobody wants stay away."""
    arm, about, else_about = make_image("arm", platform="linux/arm64"), make_image("about"), make_image("else")
    parts = [APP, about, arm, else_about]
    document = json.loads(index_of(parts, ["linux/amd64", "unknown/unknown", "linux/arm64", "unknown/unknown"]).raw)
    for number, subject in ((1, APP), (3, arm)):
        document["manifests"][number]["annotations"] = {"vnd.docker.reference.digest": f"{subject.top}"}
    index = json.dumps(document).encode()
    two.source.hold(
        "attested:1", Image((*(part.raw for part in parts), index), tuple(b for p in parts for b in p.blobs))
    )
    make_storage(two.root, {"attested:1": Image((APP.raw, about.raw, index), (*APP.blobs, *about.blobs))})
    line, job = "attested:1 platform=linux/amd64", two.job(archive=two.directory)
    assert len(two.run(job, line, options=DRY).plan.skips) == 1
    (two.root / layout.revision_link("attested", about.top)).unlink()
    copy = two.copy_of(job, line)
    assert copy.reason == "there, but damaged or incomplete: it is copied again"
    assert {raw.digest for raw in copy.closure.manifests} == {APP.top, about.top, Digest.of(index)}


def test_what_a_registry_is_noted_for_is_said_once(two: Between) -> None:
    with ExitStack() as stack:
        probe = Endpoints(job=two.job(), stack=stack).registry(two.place(two.source)).probe
        for text in ("no API", "no API", "no ranges"):
            probe.note(text)
    assert two.told.lines == ["note: no API", "note: no ranges"]


def test_manifests_that_are_there_already_are_not_asked_for(two: Between) -> None:
    two.root.mkdir()
    add_untagged(two.root, "elsewhere", MULTI)
    copy = two.copy_of(two.job(archive=two.directory), "multi:1")
    assert two.source.asked("GET .*/manifests/sha256") == []
    assert copy.missing == ()
    assert copy.reason == "not there yet"


def test_an_image_of_a_new_repository_is_asked_for_once(two: Between) -> None:
    """Its tag and its manifest by one question. Where the repository is there the tag alone is asked for: a registry
    may count what is fetched, and most images are there."""
    two.copy_of(two.job(archive=two.directory), "team/app:1")
    assert two.source.asked(".*/manifests/") == ["GET /v2/team/app/manifests/1"]
    make_storage(two.root, {"team/app:1": APP})
    two.source.requests.clear()
    two.run(two.job(archive=two.directory), "team/app:1", options=DRY)
    assert two.source.asked(".*/manifests/") == ["HEAD /v2/team/app/manifests/1"]


@pytest.mark.slow
def test_a_manifest_that_has_rotten_there_is_asked_for(two: Between) -> None:
    make_storage(two.root, {"team/app:1": APP})
    path = two.storage.blob_path(APP.top)
    path.write_bytes(path.read_bytes()[::-1])
    copy = two.copy_of(two.job(archive=two.directory), "team/app:1")
    assert copy.reason == "there, but damaged or incomplete: it is copied again"
    assert copy.missing == ()
    path.write_bytes(bytes(5 * 1024 * 1024))  # more than any manifest has
    assert two.copy_of(two.job(archive=two.directory), "team/app:1").digest == APP.top


def test_what_is_missing_are_the_blobs_that_are_not_there(two: Between) -> None:
    make_storage(two.root, {"other:1": APP})
    (two.storage.blob_path(Digest.of(APP.blobs[0]))).unlink()
    copy = two.copy_of(two.job(archive=two.directory), "team/app:1")
    assert [blob.digest for blob in copy.missing] == [Digest.of(APP.blobs[0])]
    assert copy.bytes_missing == len(APP.blobs[0])


def test_a_registry_is_asked_which_blobs_an_interrupted_push_has_brought(two: Between) -> None:
    two.dest.blobs["team/app", f"{Digest.of(APP.blobs[0])}"] = APP.blobs[0]
    copy = two.copy_of(two.job(), "team/app:1")
    assert [blob.digest for blob in copy.missing] == [Digest.of(APP.blobs[1])]


def test_a_registry_that_does_not_say_lacks_everything(two: Between) -> None:
    two.dest.fails = lambda request: 405 if "/blobs/" in request else None
    copy = two.copy_of(two.job(), "team/app:1")
    assert [blob.digest for blob in copy.missing] == [Digest.of(blob) for blob in APP.blobs]


def test_an_immutable_tag_that_is_there_is_looked_for_at_no_source(two: Between) -> None:
    """Its source may be gone, or have another image by that name."""
    archive = replace(two.place(two.dest), immutable=("1",))
    two.dest.hold("team/app:1", APP)
    two.source.hold("team/app:1", OTHER)
    (skip,) = two.run(two.job(archive=archive), "team/app:1", options=DRY).plan.skips
    assert skip.digest == APP.top
    assert two.source.asked("/manifests/") == []


def test_what_is_whole_is_said_with_its_size(two: Between) -> None:
    make_storage(two.root, {"multi:1": MULTI})
    (skip,) = two.run(two.job(archive=two.directory), "multi:1", options=DRY).plan.skips
    assert skip.size == sum(map(len, {*MULTI.manifests, *MULTI.blobs}))
    assert {blob.digest for blob in skip.blobs} == {Digest.of(blob) for blob in MULTI.blobs}


def test_a_host_that_is_down_is_named_as_the_reason(two: Between) -> None:
    unseen = two.seen(two.job(archive=two.directory), "127.0.0.1:1/app:1 => app:1")
    assert unseen.down == "127.0.0.1:1"
    assert "127.0.0.1:1" in unseen.error


# --- tags that a lock has fixed


def locked(two: Between, line: str, options: SyncOptions = DRY) -> SyncResult:
    images = parse_images(line.encode(), "images.lock")
    images = replace(images, entries=tuple(replace(entry, locked=True) for entry in images.entries))
    return sync_images(two.job(archive=two.directory), images, options)


def moves(result: SyncResult) -> list[tuple[str, Digest, Digest | None]]:
    return [(f"{item.entry.dest}", item.digest, item.now) for item in result.plan.moved]


def test_a_locked_image_comes_as_it_was_and_its_tags_move_is_told(two: Between) -> None:
    two.source.hold("team/app:1", OTHER)
    result = locked(two, f"team/app:1@{APP.top}")
    assert [copy.digest for copy in result.plan.copies] == [APP.top]
    assert moves(result) == [("team/app:1", APP.top, OTHER.top)]


def test_a_locked_image_that_is_there_is_told_of_as_well(two: Between) -> None:
    make_storage(two.root, {"team/app:1": APP})
    two.source.hold("team/app:1", OTHER)
    result = locked(two, f"team/app:1@{APP.top}")
    assert len(result.plan.skips) == 1
    assert moves(result) == [("team/app:1", APP.top, OTHER.top)]


def test_a_tag_that_is_gone_has_moved_to_nothing(two: Between) -> None:
    del two.source.manifests["team/app", "1"]
    assert moves(locked(two, f"team/app:1@{APP.top}")) == [("team/app:1", APP.top, None)]


@pytest.mark.parametrize("status", [None, 500])
def test_a_tag_that_is_the_same_or_cannot_be_asked_has_not_moved(two: Between, status: int | None) -> None:
    two.source.fails = lambda request: status if request == "HEAD /v2/team/app/manifests/1" else None
    result = locked(two, f"team/app:1@{APP.top}")
    assert moves(result) == []
    assert [copy.digest for copy in result.plan.copies] == [APP.top]


def test_a_locked_digest_without_a_tag_cannot_move(two: Between) -> None:
    assert moves(locked(two, f"team/app@{APP.top} => app:1")) == []


@pytest.mark.slow
def test_a_tag_that_moves_while_it_is_copied_is_told(two: Between) -> None:
    names = ("team/app:1", "multi:1")

    def move(request: str) -> int | None:
        if request.startswith("PUT") and "/manifests/1" in request:
            for name in names:
                two.source.hold(name, OTHER)
        return None

    two.dest.fails = move
    report = two.sync(two.job(), *names)
    assert [(f"{item.entry.dest}", item.now) for item in report.moved] == [
        ("multi:1", OTHER.top),
        ("team/app:1", OTHER.top),
    ]
    assert isinstance(report.moved[0], Drifted)


# --- which end


def test_lines_that_name_no_registry_need_a_source(two: Between) -> None:
    job = replace(two.job(archive=two.directory), source=None)
    lines = [f"app:{number}" for number in range(11)]
    with pytest.raises(UsageError, match="11 lines name no registry, and no source is configured") as raised:
        two.run(job, f"{two.source.host}/team/app:1 => x:1", *lines)
    assert raised.value.detail.splitlines()[0] == "images.list:2: app:0"
    assert len(raised.value.detail.splitlines()) == 10
    assert "give --source" in raised.value.hint
    assert two.source.requests == []


def test_a_line_that_names_its_registry_needs_none(two: Between) -> None:
    job = replace(two.job(archive=two.directory), source=None)
    assert two.copy_of(job, f"{two.source.host}/team/app:1 => x:1").digest == APP.top


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (Location(name="odd"), "odd has neither a url nor a storage"),
        (Location(name="odd", image=LayoutRef.parse("oci:x")), "odd can only be the history of package"),
    ],
)
def test_a_place_that_can_be_no_end_is_refused(two: Between, place: Location, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        two.run(two.job(archive=place), "team/app:1")


def test_images_of_one_registry_share_its_connections(two: Between) -> None:
    """Each question over a connection of its own would cost more than the answer."""
    names = [f"app-{number}:1" for number in range(4)]
    for name in names:
        two.source.hold(name, APP)
    result = two.run(two.job(archive=two.directory), *names, options=DRY)
    assert len(result.plan.copies) == 4
    assert two.source.connections == 1
