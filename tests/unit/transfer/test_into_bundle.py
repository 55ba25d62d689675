"""A bundle filled straight from its sources: the bytes of a selection, what an archive gives, and what never counts."""

import errno
import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from regwrap.bundle.by_repository import StorageSource
from regwrap.bundle.in_place import BundleInPlace, filled_bundle
from regwrap.commands.direct import DirectBundle, DirectOptions, direct_bundle
from regwrap.core.errors import ImagesFailedError, UsageError
from regwrap.core.listener import SILENT, Outlook
from regwrap.core.location import Engine, Location
from regwrap.core.model import Digest
from regwrap.lists.imagelist import parse_images
from regwrap.storage.store import Storage, ValidBlobs
from regwrap.storage.tree import Tree
from regwrap.transfer.endpoints import Endpoints
from regwrap.transfer.fetch import LayoutFetcher, Stage
from regwrap.transfer.into_bundle import BundleDestination
from regwrap.transfer.job import Job
from tests.builders import (
    flip,
    make_image,
    make_layer,
    make_multi_image,
    make_storage,
    open_below,
    put,
    snapshot,
    truncate,
)
from tests.bundles import contents_of, make_bundle, older
from tests.fakes import NOT_ASKED, Answer, Argv, Scripted
from tests.lost import CALLS, lose
from tests.unit.cli.programs import curl, skopeo_copy
from tests.unit.transfer.between import Between, between
from tests.unit.transfer.test_archives import as_tree, unpacks

BASE = make_layer("base")
APP, TOOL = make_image("app", layers=[BASE, make_layer("app")]), make_image("tool", layers=[BASE, make_layer("tool")])
IMAGES = {"multi:1": make_multi_image("multi"), "team/app:1": APP, "team/tool:1": TOOL}
OWN = Digest.of(APP.blobs[2])
DIRECT = DirectOptions(hashed=True, name="", referrers=False, since=())


@pytest.fixture
def two(scripted: Scripted, tmp_path: Path) -> Iterator[Between]:
    with between(scripted, tmp_path / "root", IMAGES) as found:
        scripted.launcher.answers.append(curl())
        yield found


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.tar"


def written(job: Job, output: Path, options: DirectOptions = DIRECT, lines: tuple[str, ...] = ()) -> DirectBundle:
    images = parse_images("\n".join(lines or tuple(IMAGES)).encode(), "images.list")
    with direct_bundle(job, images, output, options) as bundle:
        assert not output.exists()
    return bundle


def parts(output: Path) -> list[Path]:
    return sorted(output.parent.glob(f"{output.name}*.part"))


def expected(tmp_path: Path) -> bytes:
    return make_bundle(tmp_path / "expected", IMAGES).read_bytes()


def blobs_asked_for(two: Between) -> int:
    return len(two.source.asked("^GET .*/blobs/"))


@pytest.mark.slow
def test_without_an_archive_it_has_the_bytes_of_any_other(two: Between, output: Path, tmp_path: Path) -> None:
    bundle = written(two.job(archive=two.directory), output)
    assert output.read_bytes() == expected(tmp_path)
    assert bundle.reused == 0
    assert bundle.report is not None
    assert not two.root.exists()
    assert parts(output) == []


@pytest.mark.slow
def test_what_an_archive_has_is_taken_from_there_and_the_archive_stays_as_it_is(
    two: Between, output: Path, tmp_path: Path
) -> None:
    make_storage(two.root, {"team/app:1": APP})
    before = snapshot(two.root)
    bundle = written(two.job(archive=two.directory), output)
    assert output.read_bytes() == expected(tmp_path)
    assert snapshot(two.root) == before
    assert [name for name in open_below(two.root) if "/blobs/" in name] == []
    assert bundle.reused == sum(map(len, {*APP.blobs, *APP.manifests}))
    layers = {*TOOL.blobs[2:], *IMAGES["multi:1"].blobs}
    assert bundle.report is not None
    assert bundle.report.sent == sum(map(len, layers))


@pytest.mark.slow
@pytest.mark.parametrize("there", [[], ["team/app:1"], [*IMAGES]], ids=["nothing", "some", "all"])
def test_what_comes_from_an_archive_is_expected_and_done_too(two: Between, output: Path, there: list[str]) -> None:
    """Gigabytes were copied and hashed, and none of them was told."""
    make_storage(two.root, {name: IMAGES[name] for name in there})
    written(two.job(archive=two.directory), output)
    configs = {APP.blobs[0], TOOL.blobs[0]}  # read to know what there is
    size = sum(map(len, {blob for image in IMAGES.values() for blob in image.blobs} - configs))
    assert two.told.expected == [("package", size)]
    assert two.told.looks[-1]() == Outlook(size, 0)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip, truncate])
def test_what_is_rotten_in_the_archive_comes_from_the_source(
    two: Between, output: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    make_storage(two.root, IMAGES)
    damage(Storage(two.root).blob_path(OWN))
    bundle = written(two.job(archive=two.directory), output)
    assert output.read_bytes() == expected(tmp_path)
    assert bundle.report is not None
    assert bundle.report.sent == len(APP.blobs[2])


@pytest.mark.slow
@pytest.mark.parametrize("calls", [("copy_file_range",), ("fdopen",), CALLS])
@pytest.mark.parametrize("lost", [OWN, APP.top, Digest.of(APP.blobs[0])])
def test_what_the_archive_s_disk_does_not_give_comes_from_the_source(
    two: Between, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: Sequence[str], lost: Digest
) -> None:
    make_storage(two.root, IMAGES)
    whole = expected(tmp_path)
    lose(monkeypatch, Storage(two.root).blob_path(lost), calls=calls)
    bundle = written(two.job(archive=two.directory), output)
    assert output.read_bytes() == whole
    assert bundle.report is not None
    assert bundle.report.failed == ()


def test_what_an_earlier_run_left_and_the_disk_does_not_give_comes_once_more(
    two: Between, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two.scripted.launcher.answers[:] = [curl(changed={APP.blobs[2]: b"x" * len(APP.blobs[2])})]
    with pytest.raises(ImagesFailedError):
        written(two.job(archive=two.directory), output)
    (left,) = parts(output)
    two.scripted.launcher.answers[:] = [curl()]
    seen, real = set[int](), os.preadv

    def once(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        """A disk that writes to a bad sector takes another one."""
        if left.exists() and os.path.samestat(os.fstat(descriptor), left.stat()) and offset not in seen:
            seen.add(offset)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", once)
    written(two.job(archive=two.directory), output)
    assert output.read_bytes() == expected(tmp_path)
    assert seen


def test_a_full_disk_is_no_damage_of_the_archive(two: Between, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_storage(two.root, IMAGES)

    def full(*_args: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(OSError, match=rf"No space left on device: '{output}\."):
        written(two.job(archive=two.directory), output)


@pytest.mark.slow
def test_an_archive_that_is_trusted_is_not_hashed(two: Between, output: Path) -> None:
    """What was asked for: each blob counts by its size."""
    make_storage(two.root, IMAGES)
    flip(Storage(two.root).blob_path(OWN))
    bundle = written(two.job(archive=two.directory), output, replace(DIRECT, hashed=False))
    assert bundle.report is not None
    assert bundle.report.sent == 0
    wrong = Storage(two.root).blob_path(OWN).read_bytes()
    assert wrong in output.read_bytes()


@pytest.mark.slow
def test_nothing_is_taken_from_an_archive_that_is_not_wanted(two: Between, output: Path, tmp_path: Path) -> None:
    make_storage(two.root, IMAGES)
    bundle = written(two.job(archive=two.directory), output, replace(DIRECT, from_archive=False))
    assert bundle.reused == 0
    assert output.read_bytes() == expected(tmp_path)


@pytest.mark.slow
def test_a_blob_of_wrong_bytes_leaves_no_bundle_and_the_others_for_the_next_run(
    two: Between, output: Path, tmp_path: Path
) -> None:
    two.scripted.launcher.answers[:] = [curl(changed={APP.blobs[2]: b"x" * len(APP.blobs[2])})]
    with pytest.raises(ImagesFailedError, match="1 of 3 images could not be fetched; no bundle was written") as raised:
        written(two.job(archive=two.directory), output)
    assert "arrived damaged" in raised.value.detail
    (left,) = parts(output)
    assert f"{left}" in raised.value.hint
    assert not output.exists()
    two.scripted.launcher.answers[:] = [curl()]
    two.source.requests.clear()
    bundle = written(two.job(archive=two.directory), output)
    assert output.read_bytes() == expected(tmp_path)
    assert any("an earlier run left up to" in line for line in two.told.lines)
    assert bundle.report is not None
    assert bundle.report.sent <= len(APP.blobs[2])
    assert two.told.looks[-1]() == Outlook(bundle.report.sent, 0)
    assert parts(output) == []


@pytest.mark.slow
def test_what_came_of_a_blob_and_is_wrong_is_begun_anew(two: Between, output: Path, tmp_path: Path) -> None:
    two.scripted.launcher.answers.insert(0, replace(curl(changed={APP.blobs[2]: b"x" * 7}), repeats=False))
    two.attempts = 2
    written(two.job(archive=two.directory), output)
    assert output.read_bytes() == expected(tmp_path)


@pytest.mark.slow
def test_a_delta_takes_no_blob_that_the_site_has(two: Between, output: Path, tmp_path: Path) -> None:
    root = make_storage(tmp_path / "site", {"team/app:1": APP})
    since = (older(contents_of(root, "team/app:1")),)
    bundle = written(two.job(archive=two.directory), output, replace(DIRECT, since=since))
    lacking = {*IMAGES["multi:1"].blobs, *TOOL.blobs} - {*APP.blobs}
    assert {blob.digest for blob in bundle.contents.required} == {
        Digest.of(data) for data in (*APP.blobs, *APP.manifests)
    }
    assert {digest for digest, _size in bundle.contents.blobs} >= {Digest.of(data) for data in lacking}
    assert not two.source.asked(f"^GET .*/blobs/{OWN}")


@pytest.mark.slow
def test_a_storage_as_source_is_copied_and_hashed(two: Between, output: Path, tmp_path: Path) -> None:
    source = make_storage(tmp_path / "ci", IMAGES)
    job = two.job(archive=two.directory, source=Location(name="ci", storage=source))
    bundle = written(job, output)
    assert output.read_bytes() == expected(tmp_path)
    assert bundle.report is not None
    assert bundle.report.sent == sum(map(len, {blob for image in IMAGES.values() for blob in image.blobs})) - sum(
        len(blob) for name in ("team/app:1", "team/tool:1") for blob in IMAGES[name].blobs[:1]
    )
    flip(Storage(source).blob_path(OWN))
    output.unlink()
    with pytest.raises(ImagesFailedError) as raised:
        written(job, output)
    assert f"blob {OWN.short} is damaged in {source}" in raised.value.detail
    assert not output.exists()
    truncate(Storage(source).blob_path(OWN))
    with pytest.raises(ImagesFailedError, match="could not be fetched"):
        written(job, output)
    assert [name for name in open_below(source) if "/blobs/" in name] == []


@pytest.mark.parametrize("damaged", [False, True])
def test_what_a_supplier_sent_goes_straight_into_the_bundle(
    two: Between, output: Path, tmp_path: Path, *, damaged: bool
) -> None:
    def unpack(argv: Argv) -> None:
        place = Path(argv[-1].partition(":")[2])
        as_tree(place, APP)
        if damaged:
            (place / OWN.hex).write_bytes(b"x" * len(APP.blobs[2]))

    two.scripted.launcher.answers.append(Answer(when=lambda argv: "copy" in argv, effect=unpack, repeats=True))
    line = f"dir:{put(tmp_path / 'vendor', b'')} => third/app:1"
    if damaged:
        with pytest.raises(ImagesFailedError) as raised:
            written(two.job(archive=two.directory), output, lines=(line,))
        assert f"blob {OWN.short} arrived damaged" in raised.value.detail
        assert not output.exists()
        return
    bundle = written(two.job(archive=two.directory), output, lines=(line,))
    assert output.read_bytes() == make_bundle(tmp_path / "expected", {"third/app:1": APP}).read_bytes()
    assert bundle.report is not None
    assert bundle.report.sent == sum(map(len, APP.blobs[1:]))


@pytest.mark.slow
def test_a_large_blob_of_a_supplier_comes_to_its_place_piece_by_piece(
    two: Between, output: Path, tmp_path: Path
) -> None:
    """In the middle of a bundle, with others before and behind it."""
    layers = [random.Random(number).randbytes(size) for number, size in enumerate((10, 700_001, 10))]
    image = make_image("large", layers=layers)
    unpacks(two, image)
    written(two.job(archive=two.directory), output, lines=(f"dir:{put(tmp_path / 'vendor', b'')} => third/large:1",))
    assert output.read_bytes() == make_bundle(tmp_path / "expected", {"third/large:1": image}).read_bytes()


def only_skopeo_can_ask_for(two: Between, authfile: Path, *blobs: bytes) -> Job:
    authfile.write_text(json.dumps({"credHelpers": {two.source.host: "cloud"}}))
    source = two.place(two.source)
    assert source.registry is not None
    source = replace(source, registry=replace(source.registry, authfile=authfile))
    digests = "|".join(f"{Digest.of(blob)}" for blob in blobs)
    two.source.challenge, two.source.guarded = 'Basic realm="x"', f"/blobs/({digests})"
    return two.job(archive=two.directory, source=source)


@pytest.mark.slow
def test_what_only_skopeo_can_ask_for_comes_by_it(two: Between, output: Path, tmp_path: Path) -> None:
    two.scripted.launcher.answers.append(skopeo_copy(*IMAGES.values()))
    written(only_skopeo_can_ask_for(two, tmp_path / "auth.json", APP.blobs[2], BASE), output)
    assert output.read_bytes() == expected(tmp_path)
    assert 1 <= len(two.started("copy")) <= 2


@pytest.mark.slow
def test_what_skopeo_has_brought_lies_in_the_bundle_alone(two: Between, output: Path, tmp_path: Path) -> None:
    """Where the temporary files are may be less room than one image needs."""
    staged, skopeo = list[list[str]](), skopeo_copy(*IMAGES.values())

    def copy(argv: Argv) -> None:
        shared = Path(argv[argv.index("--dest-shared-blob-dir") + 1], "sha256")
        staged.append([path.name for path in shared.iterdir() if path.name in layers])
        before = two.told.looks[-1]()
        Path(argv[-1].split(":")[1], "oci-put-blob1").write_bytes(b"12345")
        assert two.told.looks[-1]() == Outlook(before.done + 5, before.left - 5), "what skopeo is writing is counted"
        assert skopeo.effect is not None
        skopeo.effect(argv)

    layers = {Digest.of(image.blobs[2]).hex for image in (APP, TOOL)}
    two.scripted.launcher.answers.append(replace(skopeo, effect=copy))
    written(only_skopeo_can_ask_for(two, tmp_path / "auth.json", APP.blobs[2], TOOL.blobs[2]), output)
    assert output.read_bytes() == expected(tmp_path)
    assert staged == [[], []]


@pytest.mark.slow
def test_what_is_rotten_in_the_archive_and_only_skopeo_can_ask_for_comes_by_it(
    two: Between, output: Path, tmp_path: Path
) -> None:
    make_storage(two.root, IMAGES)
    flip(Storage(two.root).blob_path(OWN))
    two.scripted.launcher.answers.append(skopeo_copy(*IMAGES.values()))
    written(only_skopeo_can_ask_for(two, tmp_path / "auth.json", APP.blobs[2]), output)
    assert output.read_bytes() == expected(tmp_path)


def test_an_image_by_itself_takes_what_lies_on_this_machine_once(two: Between, output: Path, tmp_path: Path) -> None:
    root = make_storage(tmp_path / "ci", {"team/app:1": APP})
    here = StorageSource(name="ci", storage=Storage(root))
    copy = two.copy_of(two.job(archive=two.directory, source=Location(name="ci", storage=root)), "team/app:1")
    sent: list[int] = []

    def fill(file: BundleInPlace) -> None:
        for raw in APP.manifests:
            file.put(Digest.of(raw), raw)
        destination = BundleDestination(
            file=file,
            archive=StorageSource(name="archive", storage=two.storage),
            source_of=lambda _entry: here,
            hashed=True,
            stage=NOT_ASKED,
            fetcher=NOT_ASKED,
        )
        for _ in range(2):
            destination.copy_image(copy)
            sent.append(destination.sent(copy))

    with filled_bundle(output, contents_of(root, "team/app:1"), fill, SILENT):
        pass
    assert sent == [sum(map(len, APP.blobs))] * 2
    assert output.read_bytes() == make_bundle(tmp_path / "expected", {"team/app:1": APP}).read_bytes()


@pytest.mark.slow
def test_skopeo_brings_what_is_lacking_of_each_manifest_and_that_counts(
    two: Between, output: Path, tmp_path: Path
) -> None:
    image, scratch = IMAGES["multi:1"], tmp_path / "scratch"
    (scratch / "blobs/sha256").mkdir(parents=True)
    (scratch / "copies").mkdir()
    two.scripted.launcher.answers.append(skopeo_copy(image))
    contents = contents_of(make_storage(tmp_path / "same", {"multi:1": image}), "multi:1")
    job, sent = two.job(archive=two.directory), list[int]()
    copy = two.copy_of(job, "multi:1")
    configs = {leaf.config.digest for leaf in copy.closure.leaves}

    def fill(file: BundleInPlace) -> None:
        for data in (*image.manifests, *image.blobs):
            if Digest.of(data) in configs or data in image.manifests:
                file.put(Digest.of(data), data)
        with ExitStack() as stack:
            endpoints, stage = Endpoints(job=job, stack=stack), Stage(Tree(scratch))
            archive = StorageSource(name="archive", storage=two.storage)
            valid = ValidBlobs(storage=two.storage, hashed=False)
            skopeo = LayoutFetcher(stage=stage, storage=two.storage, valid=valid, skopeo=endpoints.skopeo(), inherit=())
            destination = BundleDestination(
                file=file, archive=archive, source_of=endpoints.source_of, hashed=True, stage=stage, fetcher=skopeo
            )
            destination.copy_image(copy)
            sent.append(destination.sent(copy))

    with filled_bundle(output, contents, fill, SILENT):
        pass
    assert output.read_bytes() == make_bundle(tmp_path / "expected", {"multi:1": image}).read_bytes()
    assert sent == [sum(len(blob) for blob in image.blobs if Digest.of(blob) not in configs)]
    assert [argv[-2].rpartition("@")[2] for argv in two.started("copy")] == [
        f"{leaf.digest}" for leaf in copy.closure.leaves
    ]
    assert [name for name in open_below(scratch) if "/blobs/" in name] == []


def test_images_that_cannot_be_looked_at_are_all_named_and_nothing_is_begun(two: Between, output: Path) -> None:
    with pytest.raises(ImagesFailedError, match="2 of 3 images could not be fetched") as raised:
        written(two.job(archive=two.directory), output, lines=("team/app:1", "gone:1", "away:2"))
    assert [line.partition(":")[0] for line in raised.value.detail.splitlines()] == ["gone", "away"]
    assert parts(output) == []
    assert blobs_asked_for(two) <= 1  # a config tells the platform


def test_another_engine_is_refused(two: Between, output: Path) -> None:
    with pytest.raises(UsageError, match="fetches by curl, not by --engine copy"):
        written(two.job(Engine.COPY, archive=two.directory), output)
    assert two.source.requests == []
