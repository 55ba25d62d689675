"""The size of a bundle before its first byte, on the command line."""

import json
from pathlib import Path

import pytest

from regwrap.bundle.delta import read_older, since
from regwrap.cli.app import make_app
from regwrap.cli.program import exit_code_of
from regwrap.core.model import ParseError
from regwrap.core.text import parse_bytes
from tests.builders import Image, make_image, make_layer, make_multi_image, make_storage, put
from tests.bundles import contents_of, make_bundle

BASE = make_layer("base", b"x" * 30_000)
IMAGES = {
    "app:v1": make_image("app", layers=[BASE, make_layer("own-1")]),
    "app:v2": make_image("app2", layers=[BASE, make_layer("own-2")]),
    "multi:v1": make_multi_image("multi"),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive with all images, an older bundle without `app:v2`, and a list of all."""
    make_storage(tmp_path / "archive", IMAGES)
    make_bundle(tmp_path / "old", {name: IMAGES[name] for name in ("app:v1", "multi:v1")})
    put(tmp_path / "images.list", "\n".join(IMAGES).encode())
    for name in ("HOME", "TMPDIR"):
        monkeypatch.setenv(name, f"{tmp_path}")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def package(*words: str, code: int = 0) -> None:
    args = ["package", "images.list", "--archive", "./archive", *words]
    assert exit_code_of(lambda: make_app(args)(args, prog_name="regwrap")) == code


def size(*images: Image) -> int:
    return sum(len(data) for data in {data for image in images for data in (*image.blobs, *image.manifests)})


@pytest.mark.slow
def test_each_image_has_its_size_what_it_alone_adds_and_what_is_new(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package("--dry-run", "--since", "old/bundle.tar", "--json")
    plan = json.loads(capsys.readouterr().out)
    contents = contents_of(here / "archive", *IMAGES)
    written = since(contents, read_older(["old/bundle.tar"]))  # a delta
    assert (plan["blob_bytes"], plan["file_bytes"]) == (size(*IMAGES.values()), written.tar_bytes)
    assert written.tar_bytes < contents.tar_bytes
    found = {image["image"]: (image["size"], image["alone"], image["new"]) for image in plan["images"]}
    two = IMAGES["app:v2"]
    assert found == {
        "app:v1": (size(IMAGES["app:v1"]), size(IMAGES["app:v1"]) - len(BASE), 0),
        "app:v2": (size(two), size(two) - len(BASE), size(two) - len(BASE)),
        "multi:v1": (size(IMAGES["multi:v1"]), size(IMAGES["multi:v1"]), 0),
    }
    assert plan["new_bytes"] == size(two) - len(BASE)
    assert plan["release"] == {"name": "", "id": f"{contents.id}"}
    assert sorted(path.name for path in here.iterdir()) == ["archive", "images.list", "old"]


def test_what_is_new_is_known_of_a_list_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(here / "old.list", b"app:v1\nmulti:v1\n")
    package("--dry-run", "--since", "old.list", "--json")
    assert json.loads(capsys.readouterr().out)["new_bytes"] == size(IMAGES["app:v2"]) - len(BASE)
    put(here / "old.list", b"no/such:v1\n")
    package("--dry-run", "--since", "old.list", code=1)


@pytest.mark.slow
def test_a_bundle_that_would_be_too_large_is_not_begun(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package("-o", "r.tar", "--max-size", "20kB", code=1)
    said = capsys.readouterr().err
    assert "more than the 20.0 kB of --max-size; nothing was written" in said
    assert said.index("multi:v1: ") < said.index("app:v1: ")
    assert not list(here.glob("r.tar*"))
    package("--dry-run", "--max-size", "1MB")
    package("--max-size", "much", "--dry-run", code=2)
    package(code=2)


def test_what_the_archive_lacks_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(here / "images.list", b"app:v1\nno/such:v1\n")
    package("--dry-run", code=1)
    assert "no/such:v1 (line 2): is missing in the archive" in capsys.readouterr().err


def test_images_that_are_at_their_source_only_count_as_well(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_storage(here / "ci", {"new/one:v1": make_image("new")})
    put(here / "images.list", b"app:v1\nnew/one:v1\n")
    package("--dry-run", "--source", "./ci", "--json")
    plan = json.loads(capsys.readouterr().out)
    assert plan["fetched_bytes"] == size(make_image("new"))
    assert plan["release"]["id"] is None  # it hangs on configs that are not here yet
    assert {image["image"] for image in plan["images"]} == {"app:v1", "new/one:v1"}


def test_the_table_is_in_the_jobs_summary(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", f"{here / 'summary.md'}")
    package("--dry-run", "--since", "old/bundle.tar")
    text = (here / "summary.md").read_text()
    assert "| IMAGE | SIZE | ALONE | NEW |\n|---|---|---|---|\n| app:v2 |" in text
    assert "3 images" in text
    assert capsys.readouterr().out.splitlines()[0].split() == ["IMAGE", "SIZE", "ALONE", "NEW"]


@pytest.mark.parametrize(
    ("text", "size"),
    [("4.7GB", 4_700_000_000), ("500 mb", 500_000_000), ("2GiB", 2 * 1024**3), ("17", 17), ("1kB", 1000)],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "1 XB", "1e9", "1.2.3"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ParseError, match="expected a size"):
        parse_bytes(text)
