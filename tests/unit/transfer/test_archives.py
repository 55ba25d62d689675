"""What a supplier sent as a file or a directory: unpacked once by skopeo, named by the list, hashed as all else is."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from regwrap.core import ocilayout
from regwrap.core.manifest import parse_manifest
from regwrap.core.model import Digest
from regwrap.core.ocilayout import LayoutEntry
from tests.builders import Image, make_image, make_multi_image, put, storage_problems
from tests.fakes import Answer, Argv, Scripted
from tests.unit.transfer.between import Between, between

APP, MULTI = make_image("app"), make_multi_image("multi")


@pytest.fixture
def two(scripted: Scripted, tmp_path: Path) -> Iterator[Between]:
    with between(scripted, tmp_path / "root") as found:
        yield found


def as_layout(place: Path, name: str, image: Image) -> None:
    put(place / ocilayout.MARK, ocilayout.MARK_BYTES)
    for data in (*image.blobs, *image.manifests):
        put(place / ocilayout.blob_path(Digest.of(data)), data)
    media_type = parse_manifest(image.raw).media_type
    entry = LayoutEntry(name=name, media_type=media_type, digest=image.top, size=len(image.raw))
    put(place / ocilayout.INDEX, ocilayout.index_bytes((entry,)))


def as_tree(place: Path, image: Image) -> None:
    put(place / "version", b"Directory Transport Version: 1.1\n")
    for raw in image.manifests:
        put(place / ("manifest.json" if raw == image.raw else f"{Digest.of(raw).hex}.manifest.json"), raw)
    for blob in image.blobs:
        put(place / Digest.of(blob).hex, blob)


def unpacks(two: Between, image: Image | None) -> None:
    """skopeo copy out of an archive, of which `image` comes."""

    def unpack(argv: Argv) -> None:
        kind, _, rest = argv[-1].partition(":")
        if image is None:
            Path(rest.partition(":")[0]).mkdir()
        elif kind == "oci":
            place, _, name = rest.partition(":")
            as_layout(Path(place), name, image)
        else:
            as_tree(Path(rest), image)

    two.scripted.launcher.answers.append(Answer(when=lambda argv: "copy" in argv, effect=unpack, repeats=True))


def archive(two: Between) -> Path:
    return put(two.root.with_name("vendor.tar"), b"whatever skopeo reads")


def line_of(two: Between, transport: str = "docker-archive", reference: str = "", dest: str = "third/app:1") -> str:
    return f"{transport}:{archive(two)}{reference} => {dest}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("transport", "image", "kept", "kind"),
    [
        ("docker-archive", APP, (), "oci"),
        ("oci-archive", MULTI, ("--all", "--preserve-digests"), "dir"),
        ("oci", MULTI, ("--all", "--preserve-digests"), "dir"),
        ("dir", APP, ("--all", "--preserve-digests"), "dir"),
    ],
)
def test_each_kind_becomes_the_image_that_the_list_names(
    two: Between, transport: str, image: Image, kept: tuple[str, ...], kind: str
) -> None:
    """docker's archives have no manifest to keep: skopeo makes one, in a layout. All others keep their digests."""
    unpacks(two, image)
    report = two.sync(two.job(archive=two.directory), line_of(two, transport))
    assert two.storage.resolve("third/app", "1") == image.top
    assert not storage_problems(two.root)
    assert report.sent == sum(map(len, image.blobs))
    (argv,) = two.scripted.launcher.argvs
    assert argv[argv.index("copy") + 1 : argv.index("--")] == ("--quiet", *kept)
    assert argv[-2] == f"{transport}:{archive(two)}"
    assert argv[-1].partition(":")[0] == kind
    assert argv[-1].partition(":")[2].partition(":")[0] == f"{two.scripted.runner.scratch}/archives/1"


def test_an_archive_that_several_lines_name_is_unpacked_once(two: Between) -> None:
    unpacks(two, APP)
    two.sync(two.job(archive=two.directory), line_of(two), line_of(two, dest="third/app:2"))
    assert len(two.scripted.launcher.started) == 1
    assert two.storage.resolve("third/app", "2") == APP.top


def test_two_images_of_one_archive_lie_apart(two: Between) -> None:
    unpacks(two, APP)
    lines = (line_of(two, reference=":app:1"), line_of(two, reference=":tool:1", dest="third/tool:1"))
    two.sync(two.job(archive=two.directory), *lines)
    assert [argv[-2].rpartition(".tar")[2] for argv in two.scripted.launcher.argvs] == [":app:1", ":tool:1"]
    places = [argv[-1].split(":")[1].rpartition("/")[2] for argv in two.scripted.launcher.argvs]
    assert places == ["1", "2"]


@pytest.mark.slow
def test_an_archive_goes_into_a_registry_too(two: Between) -> None:
    unpacks(two, MULTI)
    report = two.sync(two.job(), line_of(two, "oci-archive"))
    assert two.dest.has("third/app:1", MULTI)
    assert report.sent == sum(map(len, MULTI.blobs))


def test_an_archive_that_is_not_there_is_named_with_where_it_was_looked_for(two: Between) -> None:
    unseen = two.seen(two.job(archive=two.directory), "docker-archive:nowhere/vendor.tar => third/app:1")
    assert "nowhere/vendor.tar does not exist" in unseen.error
    assert "relative to the directory where regwrap starts" in unseen.hint


def test_an_archive_without_an_image_is_named(two: Between) -> None:
    unpacks(two, None)
    unseen = two.seen(two.job(archive=two.directory), line_of(two, "dir"))
    assert f"dir:{archive(two)} has no image: " in unseen.error


def test_an_archive_that_is_larger_than_the_disk_is_not_unpacked(two: Between) -> None:
    with archive(two).open("r+b") as file:
        file.truncate(2**42)
    unseen = two.seen(two.job(archive=two.directory), f"docker-archive:{file.name} => third/app:1")
    assert "not enough space" in unseen.error
    assert "set TMPDIR" in unseen.hint
    assert two.scripted.launcher.started == []


def test_bytes_that_skopeo_wrote_wrong_are_not_taken(two: Between) -> None:
    layer = Digest.of(APP.blobs[1])

    def unpack(argv: Argv) -> None:
        place = Path(argv[-1].partition(":")[2])
        as_tree(place, APP)
        (place / layer.hex).write_bytes(b"x" * len(APP.blobs[1]))

    two.scripted.launcher.answers.append(Answer(when=lambda argv: "copy" in argv, effect=unpack))
    said = two.failure(two.job(archive=two.directory), line_of(two, "dir"))
    assert f"blob {layer.short} arrived damaged" in said
    assert two.storage.tags("third/app") == ()
    assert two.storage.blob_size(layer) is None


def test_a_line_with_a_digest_means_that_image(two: Between) -> None:
    unpacks(two, APP)
    name = f"oci-archive:{archive(two)}@{MULTI.top} => third/app:1"
    unseen = two.seen(two.job(archive=two.directory), name)
    assert f"is {APP.top} now, the list says {MULTI.top}" in unseen.error
    two.sync(two.job(archive=two.directory), name.replace(f"{MULTI.top}", f"{APP.top}"))
    assert two.storage.resolve("third/app", "1") == APP.top


def test_a_config_that_is_for_another_platform_is_refused(two: Between) -> None:
    unpacks(two, APP)
    unseen = two.seen(two.job(archive=two.directory), f"{line_of(two)} platform=linux/arm64")
    assert "the image is for linux/amd64, not for linux/arm64" in unseen.error
    assert json.loads(APP.blobs[0])["architecture"] == "amd64"
