"""What differs between two things that say images."""

import io
import json
from pathlib import Path

import pytest

from regwrap.cli.app import make_app
from regwrap.cli.program import exit_code_of
from regwrap.commands.diff import DiffReport, ImageDiff, diff_listings
from regwrap.core.model import Platform
from regwrap.lists.imagelist import HOST_IS_DROPPED
from regwrap.report.diff_text import diff_markdown, diff_text
from regwrap.report.text import to_json
from tests.builders import Image, make_config, make_image, make_layer, make_manifest, make_multi_image, put
from tests.bundles import contents_of, make_bundle

BASE = make_layer("base", b"b" * 5000)


def labelled(version: str, revision: str) -> Image:
    layers = [BASE, make_layer(version)]
    labels = {"org.opencontainers.image.version": version, "org.opencontainers.image.revision": revision}
    config = json.dumps({**json.loads(make_config(layers)), "config": {"Labels": labels}}).encode()
    return Image(manifests=(make_manifest(config, layers),), blobs=(config, *layers))


OLD_APP, NEW_APP, KEPT, MOVED = labelled("1.0", "aaa"), labelled("1.1", "b|b"), make_image("kept"), make_image("moved")
OLD = {"app:v1": OLD_APP, "kept:1": KEPT, "gone:1": make_image("gone"), "name/old:1": MOVED}
NEW = {"app:v1": NEW_APP, "kept:1": KEPT, "new:1": make_image("new"), "name/new:1": MOVED}


def diff(old: Path, new: Path) -> DiffReport:
    return diff_listings(f"{old}", f"{new}", io.BytesIO(), HOST_IS_DROPPED)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "old", OLD, name="acme-1")


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "new", NEW)


def new_bytes(image: Image, *known: Image) -> int:
    there = {data for other in known for data in (*other.blobs, *other.manifests)}
    return sum(len(data) for data in {*image.blobs, *image.manifests} - there)


def test_each_difference_is_named_with_its_bytes_and_labels(old: Path, new: Path) -> None:
    report = diff(old, new)
    assert [(item.image, item.new) for item in report.added] == [("new:1", NEW["new:1"].top)]
    assert [(item.image, item.old) for item in report.removed] == [("gone:1", OLD["gone:1"].top)]
    assert report.renamed == (ImageDiff(image="name/new:1", old_name="name/old:1", old=MOVED.top, new=MOVED.top),)
    assert [item.image for item in report.changed] == ["app:v1"]
    (changed,) = report.changed
    assert (changed.old, changed.new) == (OLD_APP.top, NEW_APP.top)
    assert (changed.old_labels, changed.new_labels) == (
        (("version", "1.0"), ("revision", "aaa")),
        (("version", "1.1"), ("revision", "b|b")),
    )
    assert changed.new_bytes == new_bytes(NEW_APP, *OLD.values())
    assert report.new_bytes == sum(new_bytes(image, *OLD.values()) for image in (NEW_APP, NEW["new:1"]))
    blobs = contents_of(new.parent / "archive", *NEW).blob_bytes
    assert report.new_bytes is not None
    assert report.shared_bytes == blobs - report.new_bytes


def test_a_bundle_and_itself_are_the_same(old: Path) -> None:
    report = diff(old, old)
    assert report.is_empty
    assert (report.new_bytes, report.dropped_bytes) == (0, 0)
    assert diff_text(report).splitlines()[1:] == [
        f"4 images -> 4 images: 0 B new, {diff_text(report).rpartition(': 0 B new, ')[2]}"
    ]


def test_a_terminal_gets_columns_and_release_notes_get_tables(old: Path, new: Path) -> None:
    text = diff_text(diff(old, new))
    assert text.splitlines()[0] == f"{old} (acme-1) -> {new} ({diff(old, new).new_name})"
    assert f"  app:v1  {OLD_APP.top.short} -> {NEW_APP.top.short}  version 1.0 -> 1.1, revision aaa -> b|b" in text
    assert f"  name/old:1 -> name/new:1  {MOVED.top.short}" in text
    page = diff_markdown(diff(old, new))
    assert "### 1 changed\n\n| Image | Digest | Labels | New |\n|---|---|---|---|\n| app:v1 |" in page
    assert r"revision aaa -> b\|b" in page
    assert json.loads(to_json(diff(old, new)))["removed"][0]["image"] == "gone:1"


def test_platforms_that_came_or_went_are_named(tmp_path: Path) -> None:
    first = make_bundle(tmp_path / "1", {"m:1": make_multi_image("m")})
    second = make_bundle(tmp_path / "2", {"m:1": make_multi_image("m", ("linux/amd64", "linux/s390x"))})
    (changed,) = diff(first, second).changed
    assert changed.platforms_added == (Platform.parse("linux/s390x"),)
    assert changed.platforms_removed == (Platform.parse("linux/arm64"),)
    assert "+linux/s390x, -linux/arm64" in diff_text(diff(first, second))


def test_what_a_side_does_not_say_is_not_made_up(old: Path, tmp_path: Path) -> None:
    listed = put(tmp_path / "images.list", b"app:v1\nkept:1\nnew:1\n")
    report = diff(old, listed)
    assert (report.unknown, report.changed, report.new_bytes) == (("app:v1", "kept:1"), (), None)
    assert [item.image for item in report.removed] == ["gone:1", "name/old:1"]
    assert "2 images have no digest on one side, compared by name: app:v1, kept:1" in diff_text(report)
    assert diff_text(report).splitlines()[-1] == "4 images -> 3 images"
    locked = put(tmp_path / "images.lock", f"app:v1@{NEW_APP.top} => app:v1\n".encode())
    assert [(item.image, item.new) for item in diff(old, locked).changed] == [("app:v1", NEW_APP.top)]


def test_bundle_json_alone_says_sizes_and_no_labels(old: Path, new: Path, tmp_path: Path) -> None:
    index = put(tmp_path / "bundle.json", contents_of(new.parent / "archive", *NEW).to_json())
    report = diff(old, index)
    assert report.new_bytes == diff(old, new).new_bytes
    assert (report.changed[0].new_bytes, report.changed[0].new_labels) == (None, ())


@pytest.mark.slow
@pytest.mark.parametrize(("words", "code"), [((), 0), (("--exit-code",), 1)])
def test_the_exit_code_is_gits(old: Path, new: Path, words: tuple[str, ...], code: int) -> None:
    args = ["diff", f"{old}", f"{new}", *words]
    assert exit_code_of(lambda: make_app(args)(args, prog_name="regwrap")) == code
    same = ["diff", f"{old}", f"{old}", *words]
    assert exit_code_of(lambda: make_app(same)(same, prog_name="regwrap")) == 0
