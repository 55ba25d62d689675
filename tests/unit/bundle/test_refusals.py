"""What a bundle, its volumes and a release are refused for, each with words of its own; and what a failed disk says."""

import errno
import fcntl
import json
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from regwrap.bundle.aside import kept_part_file, part_file, sync_file, write_atomically
from regwrap.bundle.contents import MAX_BUNDLE_JSON_BYTES, contents_with_id
from regwrap.bundle.delta import since
from regwrap.bundle.examine import verify_bundle, verify_storage
from regwrap.bundle.files import Located, OneFile
from regwrap.bundle.follow import Following, followed
from regwrap.bundle.in_place import BundleInPlace, filled_bundle
from regwrap.bundle.incoming import incoming_bundle
from regwrap.bundle.merge import Staging
from regwrap.bundle.opened import opened_bases, opened_contents
from regwrap.bundle.read import Bundle, hash_all, opened_bundle
from regwrap.bundle.releases import SiteRelease, SiteReleases, chosen_release, missing_of
from regwrap.bundle.signature import signed_text
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.listener import SILENT, Silent
from regwrap.core.manifest import MAX_MANIFEST_BYTES
from regwrap.core.model import Digest
from regwrap.storage import layout
from regwrap.storage.store import Storage
from regwrap.storage.tree import LinkedDirectoryError, Tree
from tests.builders import (
    Image,
    add_untagged,
    flip,
    make_config,
    make_image,
    make_layer,
    make_manifest,
    make_storage,
    open_below,
    put,
    replace_by_symlink,
)
from tests.bundles import BLOCK, Part, bundle_image_set, contents_of, filled, header, make_bundle, member, older
from tests.told import Told

APP, OTHER = make_image("app"), make_image("other")
IMAGES = {"app:1": APP, "other:1": OTHER}
LAYER = Digest.of(APP.blobs[1])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_storage(tmp_path / "root", IMAGES)


# --- files that are written aside


def test_a_sync_that_fails_is_told_with_the_file_and_why() -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(OSError, match=r"Invalid argument: 'r\.tar'"):
            sync_file(writing, Path("r.tar"))
    finally:
        os.close(reading)
        os.close(writing)


def test_who_loses_his_file_before_it_is_locked_takes_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run may take it for a dead one's, in the moment between."""
    lock, taken = fcntl.flock, list[int]()

    def meanwhile(descriptor: int, kind: int) -> None:
        lock(descriptor, kind)
        if not taken:
            taken.append(descriptor)
            for path in tmp_path.glob("out.regwrap-*"):
                path.unlink()

    monkeypatch.setattr(fcntl, "flock", meanwhile)
    before = open_below(tmp_path)
    with part_file(tmp_path / "out") as part:
        assert part.path.exists()
        assert len(open_below(tmp_path)) == len(before) + 1
    assert open_below(tmp_path) == before


def test_a_directory_that_is_not_there_is_what_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none"):
        write_atomically(tmp_path / "none/out", "text")


def test_of_several_that_killed_runs_left_the_last_is_gone_on_with_and_the_others_go(tmp_path: Path) -> None:
    parts = [put(tmp_path / f"out.regwrap-0000000{number}.part", b"half") for number in range(3)]
    for number, path in enumerate(parts):
        os.utime(path, (number % 2, number % 2))
    before = open_below(tmp_path)
    with kept_part_file(tmp_path / "out") as kept:
        assert kept.part.path == parts[1]
        assert [path for path in parts if path.exists()] == [parts[1]]
        assert len(open_below(tmp_path)) == len(before) + 1
    assert [path for path in parts if path.exists()] == [parts[1]]


def test_a_bundle_that_cannot_be_read_back_was_not_proved(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_descriptor: int, _buffers: object, _offset: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    contents, whole = contents_of(root, *IMAGES), make_bundle(tmp_path / "b", IMAGES).read_bytes()
    monkeypatch.setattr(os, "preadv", failing)
    with (
        part_file(tmp_path / "out.tar") as part,
        pytest.raises(OSError, match="Input/output error"),
        followed(Following(contents, part, Silent(), hashed=True)),
    ):
        os.pwrite(part.descriptor, whole, 0)


@pytest.mark.parametrize("reading", ["fails", "finds the end"])
def test_who_follows_a_file_closes_it_whatever_comes(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, reading: str
) -> None:
    """And what ended the run is what is told: the file may go away under it."""

    def failing(_descriptor: int, _buffers: object, _offset: int) -> int:
        if reading == "fails":
            raise OSError(errno.EIO, "Input/output error")
        return 0

    contents, whole = contents_of(root, *IMAGES), make_bundle(tmp_path / "b", IMAGES).read_bytes()
    with part_file(tmp_path / "out.tar") as part:
        before = open_below(tmp_path)
        with followed(Following(contents, part, Silent(), hashed=True)) as wrong:
            os.pwrite(part.descriptor, whole, 0)
        assert (wrong, open_below(tmp_path)) == ([], before)
        monkeypatch.setattr(os, "preadv", failing)
        with (
            pytest.raises(UsageError, match="the run ends"),
            followed(Following(contents, part, Silent(), hashed=True)),
        ):
            raise UsageError("the run ends")
        assert open_below(tmp_path) == before


def test_what_was_not_written_to_its_end_is_no_bundle_and_what_was_is_one(tmp_path: Path, root: Path) -> None:
    """The last blob may be the last that is written before the run ends, or lack a byte."""
    contents, whole = contents_of(root, *IMAGES), make_bundle(tmp_path / "b", IMAGES).read_bytes()
    *_others, last = (digest for digest, _size in contents.blobs)
    with opened_bundle(tmp_path / "b/bundle.tar") as bundle:
        end = bundle.blobs[last].end
    for written, expected in ((end, []), (end - 1, [last])):
        for hashed in (True, False):
            with (
                part_file(tmp_path / "out.tar") as part,
                followed(Following(contents, part, Silent(), hashed=hashed)) as wrong,
            ):
                os.pwrite(part.descriptor, whole[:written], 0)
            assert wrong == expected


def test_who_saw_the_file_just_before_its_last_byte_looks_again_when_all_is_written(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents, whole = contents_of(root, *IMAGES), make_bundle(tmp_path / "b", IMAGES).read_bytes()
    with opened_bundle(tmp_path / "b/bundle.tar") as bundle:
        end = sorted(located.end for located in bundle.blobs.values())[1]
    fstat, tell, looked, over = os.fstat, threading.Event.set, threading.Barrier(3), threading.Event()
    seen = set[int]()

    def status(descriptor: int) -> os.stat_result:
        found = fstat(descriptor)
        if threading.current_thread().name.startswith("prove") and threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            looked.wait(10)
            assert over.wait(10)
        return found

    def told(event: threading.Event) -> None:
        tell(event)
        if len(seen) == 2 and event is not over:
            tell(over)  # that nothing more is written is known now

    with part_file(tmp_path / "out.tar") as part:
        monkeypatch.setattr(os, "fstat", status)
        monkeypatch.setattr(threading.Event, "set", told)
        with followed(Following(contents, part, Silent(), hashed=True)) as wrong:
            looked.wait(10)  # both, for the first two blobs
            os.pwrite(part.descriptor, whole[:end], 0)
        assert set(wrong) == {digest for digest, _size in contents.blobs[2:]}


def test_an_error_without_a_name_gets_that_of_the_bundle(tmp_path: Path, root: Path) -> None:
    def fill(_file: BundleInPlace) -> None:
        raise OSError(5, "Input/output error")

    with (
        pytest.raises(OSError, match=r"out\.tar"),
        filled_bundle(tmp_path / "out.tar", contents_of(root, "app:1"), fill, SILENT),
    ):
        pass


# --- a bundle's own form


def bundle_of(tmp_path: Path, *parts: bytes) -> Path:
    return put(tmp_path / "odd.tar", b"".join(parts).ljust(20 * BLOCK, b"\0"))


def test_two_long_names_one_behind_the_other_are_refused(tmp_path: Path, root: Path) -> None:
    """A tar would take the second, and a check the first."""
    contents = contents_of(root, "app:1")
    name = f"{'a' * 120}\0".encode()
    long_name = header(b"././@LongLink", len(name), b"L") + filled(name, BLOCK)
    path = bundle_of(tmp_path, member(Part("bundle.json", contents.to_json())), long_name, long_name)
    with pytest.raises(IntegrityError, match="two long names follow each other"), opened_bundle(path):
        pass


def test_a_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "loop.tar").symlink_to("loop.tar")
    with (
        pytest.raises(UsageError, match=r"loop\.tar cannot be read: Too many levels"),
        opened_bundle(tmp_path / "loop.tar"),
    ):
        pass


def test_a_manifest_larger_than_any_is_not_read(tmp_path: Path) -> None:
    with opened_bundle(make_bundle(tmp_path / "b", IMAGES)) as bundle:
        located = Located(0, MAX_MANIFEST_BYTES + 1)
        odd = Bundle(
            path=bundle.path, file=OneFile(-1, 0), contents=bundle.contents, strange=(), blobs={APP.top: located}
        )
        with pytest.raises(IntegrityError, match=f"{APP.top.short} has {MAX_MANIFEST_BYTES + 1} bytes, too many"):
            odd.read(APP.top)
        assert bundle.read(APP.top) == APP.raw
        assert bundle.read(Digest.of(b"absent")) is None


def test_after_an_error_no_blob_is_hashed_any_more() -> None:
    done: list[Digest] = []
    blobs = [(Digest.of(f"{n}".encode()), 1) for n in range(5000)]

    def work(digest: Digest) -> bool:
        done.append(digest)
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        hash_all(work, blobs, lambda _count: None)
    assert len(done) < 100


@pytest.mark.slow
def test_an_error_in_one_thread_ends_the_work_of_all() -> None:
    """The user would wait for a bundle of a hundred gigabytes to be read to its end, to hear of it."""
    failed, done = threading.Event(), list[Digest]()

    def work(digest: Digest) -> bool:
        if not threading.current_thread().name.endswith("_0"):
            failed.set()
            raise ValueError("a bug")
        assert failed.wait(10)
        done.append(digest)
        return True

    with pytest.raises(ValueError, match="a bug"):
        hash_all(work, [(Digest.of(f"{n}".encode()), 1) for n in range(20_000)], lambda _count: None)
    assert len(done) < 10_000


def incoming(data: bytes, tmp_path: Path) -> None:
    with put(tmp_path / "pipe", data).open("rb") as file:
        incoming_bundle(file)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no bundle came: it is empty"),
        (b"x" * (BLOCK - 1), "it is shorter than one header"),
        (header(b"other.json", 2) + filled(b"{}", BLOCK), "the first member is 'other.json', not bundle.json"),
        (
            header(b"bundle.json", MAX_BUNDLE_JSON_BYTES + 1),
            f"bundle.json has {MAX_BUNDLE_JSON_BYTES + 1} bytes, more than",
        ),
        (header(b"bundle.json", MAX_BUNDLE_JSON_BYTES), f"cut off: 512 of {MAX_BUNDLE_JSON_BYTES + 512:,} bytes came"),
        (bytes(BLOCK), "the header at byte 0 is damaged"),
    ],
)
def test_what_comes_and_is_no_bundle_is_told_at_its_first_bytes(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(IntegrityError, match=f"^standard input: .*{said}") as raised:
        incoming(data, tmp_path)
    assert "send it again" in raised.value.hint or "it is damaged or was altered" in raised.value.hint


@pytest.mark.parametrize("where", ["header", "padding"])
def test_a_bundle_json_in_another_form_is_refused_though_it_can_be_read(tmp_path: Path, root: Path, where: str) -> None:
    json_bytes = contents_of(root, "app:1").to_json()
    data = bytearray(member(Part("bundle.json", json_bytes)))
    if where == "padding":
        data[-1] = ord("x")
    else:
        data[:BLOCK] = header(b"bundle.json", len(json_bytes))[:100] + b"0004755" + data[107:BLOCK]
        data[148:156] = b"%06o\0 " % (sum(data[:148]) + 8 * ord(" ") + sum(data[156:BLOCK]))
    with pytest.raises(IntegrityError, match=r"the header or the padding of bundle\.json differs"):
        incoming(bytes(data), tmp_path)


# --- releases, bases, storages


def test_a_delta_is_not_remembered_as_a_release(root: Path) -> None:
    whole = contents_of(root, *IMAGES)
    delta = since(whole, (older(contents_of(root, "app:1")),))
    with pytest.raises(IntegrityError, match="is a delta's, and a release is remembered as a whole"):
        contents_with_id(delta.to_json(), Digest.of(delta.to_json()))
    with pytest.raises(IntegrityError, match="is another release"):
        contents_with_id(whole.to_json(), Digest.of(delta.to_json()))
    assert contents_with_id(whole.to_json(), whole.id) == whole


def test_a_release_that_somebody_put_among_those_of_a_site_names_nothing_outside_of_it(root: Path) -> None:
    """Its digest fits, and so proves nothing: who may write there can make both."""
    whole = contents_of(root, *IMAGES)
    image, repository = whole.images[0], whole.repositories[0]
    for forged in (
        replace(whole, images=(replace(image, repository="../../evil"),)),
        replace(whole, images=(replace(image, tag="../../evil"),)),
        replace(whole, repositories=(replace(repository, name="../../evil"),)),
    ):
        with pytest.raises(IntegrityError, match=r"evil.*not valid in a registry"):
            contents_with_id(forged.to_json(), forged.id)


def test_a_name_that_two_releases_have_has_to_be_told_by_the_id(root: Path) -> None:
    two = tuple(
        SiteRelease(contents=replace(contents_of(root, name), name="acme-1.0"), deployed="2026-01-01", checksum="")
        for name in IMAGES
    )
    with pytest.raises(UsageError, match=r"has 2 releases acme-1\.0") as raised:
        chosen_release(SiteReleases(two, ()), "acme-1.0", root)
    assert len(raised.value.detail.splitlines()) == 2
    assert chosen_release(SiteReleases(two, ()), f"{two[0].contents.id}"[:19], root) is two[0]


def test_a_release_s_image_whose_manifest_has_rotten_is_lacking(root: Path) -> None:
    (image,) = contents_of(root, "app:1").images
    assert missing_of(Storage(root), image) == ""
    flip(Storage(root).blob_path(APP.top))
    assert APP.top.short in missing_of(Storage(root), image)


def test_what_is_signed_is_the_digest_and_a_line_s_end() -> None:
    assert signed_text(APP.top) == f"{APP.top}\n"


def test_a_storage_in_the_place_of_a_base_is_taken_without_a_lock(root: Path) -> None:
    with opened_bases([root], lock_timeout=None, listener=Silent()) as (base,):
        assert base.blob_size(LAYER) == len(APP.blobs[1])
    assert not (root / ".regwrap").exists()
    with pytest.raises(UsageError, match="is not a registry storage"):
        opened_bases([root / "docker"], lock_timeout=None, listener=Silent()).__enter__()


@pytest.mark.parametrize(("timeout", "is_locked"), [(0, True), (None, False)])
def test_a_base_is_locked_for_who_takes_its_blobs_and_not_for_who_serves_them(
    root: Path, *, timeout: float | None, is_locked: bool
) -> None:
    """A gc would remove what is still to be copied; a server would keep every sync out for as long as it runs."""
    put(root / ".regwrap/lock", b"")
    with (
        opened_bases([root], lock_timeout=timeout, listener=Silent()),
        (root / ".regwrap/lock").open("r+b") as lock,
        pytest.raises(BlockingIOError) if is_locked else nullcontext(),
    ):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_storage_with_links_for_directories_is_not_served_or_pushed(root: Path) -> None:
    replace_by_symlink(root / layout.repository_path("app"))
    with (
        pytest.raises(LinkedDirectoryError, match=f"{layout.repository_path('app')} is a symbolic link"),
        opened_contents(root, hashed=False, listener=Silent()),
    ):
        pass


def test_a_staging_gives_what_will_be_in_the_storage(tmp_path: Path) -> None:
    """A delta is checked against it: what is there, what was brought anew, and in the place of what is rotten."""
    stage, site = Tree(tmp_path / "stage"), Storage(make_storage(tmp_path / "site", {"app:1": APP}))
    (tmp_path / "stage").mkdir()
    flip(site.blob_path(LAYER))
    with bundle_image_set(make_bundle(tmp_path / "b", IMAGES)) as image_set:
        staging = Staging(image_set, site, stage)
        for digest, _size in image_set.contents.blobs:
            assert staging.stage_blob(digest)
        before = open_below(tmp_path)
    assert (staging.mended, APP.top in staging.added, OTHER.top in staging.added) == ({LAYER}, False, True)
    assert staging.name == f"{site.root}"
    for data in (*APP.blobs, *APP.manifests, *OTHER.blobs, *OTHER.manifests):
        assert staging.blob_size(Digest.of(data)) == len(data)
        with staging.opened(Digest.of(data)) as (descriptor, located):
            assert (located.offset, os.pread(descriptor, located.size, 0)) == (0, data)
            assert len(open_below(tmp_path)) == len(before)
    assert staging.blob_size(Digest.of(b"absent")) is None
    with pytest.raises(LookupError), staging.opened(LAYER):
        raise LookupError
    assert len(open_below(tmp_path)) < len(before)  # the bundle was closed


# --- checks


def test_blobs_may_be_hashed_by_others_and_only_those_that_can_be_right_are(root: Path) -> None:
    storage, asked = Storage(root), list[dict[Digest, int]]()
    short, gone = Digest.of(OTHER.blobs[1]), Digest.of(OTHER.blobs[0])
    storage.blob_path(short).write_bytes(b"short")
    storage.blob_path(gone).unlink()
    stray = put(root / layout.blob_path(Digest.of(b"stray")), b"stray")
    storage.blob_path(Digest.of(b"a collector left its directory")).parent.mkdir(parents=True)

    def elsewhere(blobs: Sequence[tuple[Digest, int]], on_bytes: Callable[[int], None]) -> dict[Digest, str]:
        asked.append(dict(blobs))
        on_bytes(sum(size for _digest, size in blobs))
        return {LAYER: ""}

    told = Told()
    report = verify_storage(root, None, told, hash_elsewhere=elsewhere)
    assert told.steps[-1] == ("verify", "", told.done[-1])
    (sizes,) = asked
    whole = {Digest.of(data): len(data) for image in IMAGES.values() for data in (*image.blobs, *image.manifests)}
    assert sizes == {digest: size for digest, size in whole.items() if digest not in {short, gone}} | {
        Digest.of(b"stray"): stray.stat().st_size
    }
    assert {problem for problem in report.problems if ": blob " in problem} == {
        f"app:1: blob {LAYER} does not match its digest ({layout.blob_path(LAYER)})",
        f"other:1: blob {short} has 5 bytes instead of {len(OTHER.blobs[1])}",
        f"other:1: blob {gone} is absent",
    }


def test_a_blob_of_which_two_manifests_say_other_sizes_is_damage(root: Path) -> None:
    layer = make_layer("shared")
    config = make_config([layer])
    lying = make_manifest(config, [layer])
    document = json.loads(lying)
    document["layers"][0]["size"] += 1
    raw = json.dumps(document).encode()
    make_storage(root, {"a:1": Image((lying,), (config, layer)), "b:1": Image((raw,), (config, layer))})
    report = verify_storage(root, None, SILENT)
    assert f"b:1: blob {Digest.of(layer)} has two sizes: {len(layer) + 1} and {len(layer)} bytes" in report.problems


def test_a_damaged_link_that_no_tag_needs_is_named_as_well(root: Path) -> None:
    """It makes every later push of that layer fail."""
    add_untagged(root, "app", OTHER)
    stray = Digest.of(OTHER.blobs[1])
    (root / layout.layer_link("app", stray)).write_bytes(b"")
    problems = verify_storage(root, None, SILENT).problems
    assert problems == (f"app: a layer's link is damaged ({layout.layer_link('app', stray)})",)


def test_a_link_that_a_registry_has_deleted_hides_no_damage_behind_it(root: Path) -> None:
    for other in ("1", "2", "3"):
        add_untagged(root, "app", make_image(other))
    first, *_between, last = Storage(root).revisions("app")
    (root / layout.revision_link("app", first)).unlink()
    (root / layout.revision_link("app", last)).write_bytes(b"")
    problems = verify_storage(root, None, SILENT).problems
    assert f"app: a manifest's link is damaged ({layout.revision_link('app', last)})" in problems


def test_the_outline_of_a_check_is_all_of_it_but_the_inventory(tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "b", IMAGES, "acme-1.0")
    outline = verify_bundle(path, None, SILENT).outline()
    assert (outline["images"], outline["blobs"], outline["name"], outline["problems"]) == (2, 6, "acme-1.0", ())
    assert "inventory" not in outline
