"""verify writes down what it found: the receipt of a bundle, a storage and a registry, on the command line."""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from regwrap.bundle.by_repository import StorageSource
from regwrap.cli.app import make_app
from regwrap.cli.program import exit_code_of
from regwrap.cli.verify import is_registry
from regwrap.core.model import Digest
from regwrap.registry.server import ServeOptions, served_contents
from regwrap.storage import layout
from regwrap.storage.store import Storage
from tests.builders import flip, make_image, make_layer, make_multi_image, make_storage, put, remove
from tests.bundles import make_bundle

BASE = make_layer("base", b"b" * 4000)
APP = make_image("app", layers=[BASE, make_layer("app")])
TOOL = make_image("tool", layers=[BASE, make_layer("tool")])
MULTI = make_multi_image("multi")
IMAGES = {"app:v1": APP, "tool:v1": TOOL, "multi:v1": MULTI}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A release as a bundle, and a site that has it and one image more."""
    make_bundle(tmp_path, IMAGES, name="acme-1")
    make_storage(tmp_path / "site", {**IMAGES, "other:v1": make_image("other")})
    for name in ("HOME", "TMPDIR"):
        monkeypatch.setenv(name, f"{tmp_path}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def regwrap(*args: str) -> int:
    return exit_code_of(lambda: make_app(args)([*args], prog_name="regwrap"))


def verified(*args: str, code: int = 0) -> dict[str, object]:
    """The receipt of a check that ends so."""
    assert regwrap("verify", *args, "--receipt", "receipt.json", "--quiet") == code
    document: dict[str, object] = json.loads(Path("receipt.json").read_text())
    return document


def images_of(receipt: dict[str, object]) -> dict[str, tuple[object, object]]:
    found = receipt["images"]
    assert isinstance(found, list)
    return {image["image"]: (image["verdict"], image["listed"]) for image in found}


@pytest.mark.slow
def test_the_receipt_of_a_site_says_what_is_there_and_which_release(here: Path) -> None:
    receipt = verified("site", "--list", "bundle.tar")
    assert (receipt["verdict"], receipt["kind"], receipt["looked_at"]) == ("valid", "storage", "every byte")
    assert receipt["target"] == f"{here / 'site'}"
    assert receipt["list"] == "bundle.tar"
    release = receipt["release"]
    assert isinstance(release, dict)
    assert (release["name"], release["id"].partition(":")[0]) == ("acme-1", "sha256")
    assert images_of(receipt) == {
        "app:v1": ("valid", True), "multi:v1": ("valid", True), "tool:v1": ("valid", True),
        "other:v1": ("valid", False),
    }  # fmt: skip
    data = {d for image in (*IMAGES.values(), make_image("other")) for d in (*image.blobs, *image.manifests)}
    assert receipt["blobs"] == {f"{Digest.of(d)}": len(d) for d in data}
    images = receipt["images"]
    assert isinstance(images, list)
    assert images[1]["platforms"] == ["linux/amd64", "linux/arm64"]
    assert images[1]["digest"] == f"{MULTI.top}"


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_the_same_state_gives_the_same_receipt_but_for_its_time() -> None:
    receipts = [verified("site", "--list", "bundle.tar") for _number in range(3)]
    for receipt in receipts:
        assert receipt.pop("time")
    assert receipts[0] == receipts[1] == receipts[2]


@pytest.mark.slow
def test_a_receipt_is_a_list_by_digest(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verified("bundle.tar")
    Path("receipt.json").rename("then.json")
    assert verified("site", "--list", "then.json")["verdict"] == "valid"
    assert regwrap("diff", "then.json", "bundle.tar", "--exit-code") == 0
    make_storage(here / "site", {"app:v1": make_image("another")})
    receipt = verified("site", "--list", "then.json", code=1)
    assert receipt["verdict"] == "differs"
    assert images_of(receipt)["app:v1"] == ("differs", True)
    assert receipt["differences"] == [f"app:v1: is {make_image('another').top}, the list says {APP.top}"]
    assert regwrap("package", "then.json", "--archive", "./archive", "--dry-run", "--since", "then.json") == 0
    assert "0 B of it new since then.json" in capsys.readouterr().out


@pytest.mark.slow
def test_every_image_that_a_damaged_blob_belongs_to_is_damaged(here: Path) -> None:
    flip(here / "site" / layout.blob_path(Digest.of(BASE)))
    receipt = verified("site", "--list", "bundle.tar", code=4)
    assert {name: verdict for name, (verdict, _listed) in images_of(receipt).items()} == {
        "app:v1": "damaged", "multi:v1": "valid", "other:v1": "valid", "tool:v1": "damaged",
    }  # fmt: skip
    flip(here / "bundle.tar")
    assert verified("bundle.tar", code=4)["verdict"] == "damaged"


@pytest.mark.slow
def test_what_is_missing_is_missing_and_not_damaged(here: Path) -> None:
    make_storage(here / "less", {"app:v1": APP})
    receipt = verified("less", "--list", "bundle.tar", code=1)
    assert images_of(receipt)["tool:v1"] == ("missing", True)
    assert regwrap("verify", "less", "--list", "receipt.json") == 0  # what was missing then is not asked for


@pytest.mark.slow
def test_a_page_and_test_cases_say_the_same(here: Path) -> None:
    make_storage(here / "less", {"app:v1": APP})
    assert regwrap("verify", "less", "--list", "bundle.tar", "--html", "r.html", "--junit", "r.xml", "--quiet") == 1
    page = (here / "r.html").read_text()
    assert "Receipt: acme-1" in page
    assert "Not as the list says" in page
    assert "<script" not in page
    suite = ElementTree.parse(here / "r.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("3", "2")
    assert regwrap("verify", "bundle.tar", "--receipt", "bundle.tar") == 2


@pytest.mark.slow
def test_a_file_that_is_no_receipt_any_more_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verified("bundle.tar")
    text = (here / "receipt.json").read_text()
    put(here / "bad.json", text.replace('"digest": "sha256:', '"digest": "sha257:', 1).encode())
    assert regwrap("verify", "site", "--list", "bad.json") == 2
    assert "bad.json is no receipt of version 1" in capsys.readouterr().err


@pytest.mark.exhaustive
def test_a_registry_is_asked_for_every_image_platform_and_blob(here: Path) -> None:
    make_storage(here / "remote", {f"product/{name}": image for name, image in IMAGES.items()})
    contents = StorageSource(name="remote", storage=Storage(here / "remote"))
    with served_contents(contents, ServeOptions()) as server:
        target = f"{server.host}/product"
        receipt = verified(target, "--list", "bundle.tar")
        assert (receipt["verdict"], receipt["kind"], receipt["target"]) == ("valid", "registry", target)
        assert receipt["looked_at"] == "every manifest, and of each blob whether it is there with its size"
        own = verified("bundle.tar")
        assert (receipt["images"], receipt["blobs"]) == ([{**i, "listed": True} for i in _list(own)], own["blobs"])
        assert regwrap("verify", target) == 2
        assert verified(target, "--list", "bundle.tar", "--exact")["verdict"] == "valid"
        make_storage(here / "remote", {"product/more:v1": TOOL, "product/app:v1": TOOL})
        exact = verified(target, "--list", "bundle.tar", "--exact", code=1)
        assert exact["differences"] == [
            f"app:v1: is {TOOL.top}, the list says {APP.top}",
            "product/more:v1: is not in the list",
        ]
        remove(here / "remote" / layout.blob_path(Digest.of(MULTI.blobs[0])))
        damaged = verified(target, "--list", "bundle.tar", code=4)
        assert images_of(damaged)["multi:v1"] == ("damaged", True)
        put(here / "more.list", b"none/such:v1\n")
        missing = verified(target, "--list", "more.list", code=1)
        assert missing["differences"] == ["none/such:v1: is listed (line 1) but missing here"]


def _list(receipt: dict[str, object]) -> list[dict[str, object]]:
    images = receipt["images"]
    assert isinstance(images, list)
    return images


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("registry.site:5000/product", True),
        ("localhost/x", True),
        ("https://r.example", True),
        ("r.example/product", True),
        ("lost.tar", False),
        ("dir.d/lost.tar", False),
        ("/srv/registry:5000/x", False),
        ("./r.example/x", False),
        ("site", False),
    ],
)
def test_what_is_a_registry_and_what_a_file_that_is_not_there(target: str, expected: bool) -> None:
    assert is_registry(target) == expected


def test_a_configured_name_is_a_registry_unless_a_file_is_called_so(here: Path) -> None:
    put(here / "regwrap.yaml", b"registries: {harbor: {url: 'http://harbor.example'}}\n")
    assert [is_registry(target) for target in ("harbor/product", "harbor", "port/product")] == [True, True, False]
    put(here / "harbor/product", b"a bundle under another name")
    assert not is_registry("harbor/product")


class Person:
    """Puts the next medium into the one drive when asked for it."""

    def __init__(self, drive: Path, media: Sequence[Path]) -> None:
        self.drive, self.media = drive, list(media)

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        shutil.rmtree(self.drive, ignore_errors=True)
        self.drive.mkdir()
        shutil.copy(self.media.pop(0), self.drive)
        return "\n"


@pytest.mark.parametrize("count", [3, 10])
def test_damage_is_told_also_where_the_media_came_one_by_one(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    """Volumes alone are on the media, and by what is there at the end it can't be told which one is damaged; of ten,
    the first two have bundle.json, and one of them is on the disk."""
    data, drive = bytearray((here / "bundle.tar").read_bytes()), here / "usb"
    data[data.index(BASE)] ^= 1
    (here / "bundle.tar").unlink()
    size = len(data) // count + 1
    media = [put(here / f"made/bundle.tar.{n + 1:03}", bytes(data[n * size : (n + 1) * size])) for n in range(count)]
    if int(data[124:135], 8) > size:  # what is in front of all
        shutil.copy(media.pop(0), here)
    person = Person(drive, media)
    person.readline()
    monkeypatch.setattr(sys, "stdin", person)
    assert regwrap("verify", "bundle.tar", "--volumes-from", "usb") == 4
    assert person.media == []
    told = capsys.readouterr()
    assert f"blob {Digest.of(BASE)} does not match its digest" in told.out + told.err
