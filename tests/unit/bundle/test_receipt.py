"""A receipt says of each image what was found of it, and is read back as the list of what was there."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from regwrap.bundle.as_list import opened_listing, read_listing
from regwrap.bundle.examine import VerifyReport, verify_storage
from regwrap.bundle.inventory import FoundImage, Inventory
from regwrap.bundle.receipt import Receipt, ReceiptFacts, parse_receipt, parse_summary, receipt_of, receipt_text
from regwrap.core.errors import UsageError
from regwrap.core.listener import SILENT
from regwrap.core.model import Digest
from regwrap.lists.imagelist import parse_images
from regwrap.storage import layout
from regwrap.storage.store import Storage
from tests.builders import flip, make_image, make_layer, make_multi_image, make_storage, put, remove

BASE = make_layer("base")
ONE, TWO = make_image("one", layers=[BASE]), make_image("two", layers=[BASE, make_layer("two")])
MULTI = make_multi_image("multi")
IMAGES = {"a:1": ONE, "b:1": TWO, "m:1": MULTI}
FACTS = ReceiptFacts(
    time="2026-01-01T00:00:00Z",
    host="site",
    target="site",
    kind="storage",
    looked_at="bytes",
    list="images.list",
    release="",
    id="",
)


def receipt_on(root: Path, lines: str | None = None, facts: ReceiptFacts = FACTS) -> Receipt:
    entries = None if lines is None else parse_images(lines.encode(), "images.list").entries
    return receipt_of(verify_storage(root, entries, SILENT), facts, entries)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_storage(tmp_path / "site", IMAGES)


def told(receipt: Receipt) -> dict[str, tuple[str, bool | None]]:
    return {image.image: (image.verdict, image.listed) for image in receipt.images}


def test_without_a_list_all_that_is_there_is_valid_and_nothing_is_said_of_a_list(root: Path) -> None:
    receipt = receipt_on(root)
    assert receipt.verdict == "valid"
    assert told(receipt) == dict.fromkeys(IMAGES, ("valid", None))
    blobs = {data for image in IMAGES.values() for data in (*image.blobs, *image.manifests)}
    assert receipt.total == sum(map(len, blobs))
    assert list(receipt.blobs) == sorted(map(Digest.of, blobs))


def test_each_image_has_its_verdict(root: Path) -> None:
    lines = f"r.io/a:1@{TWO.top} => a:1\nm:1\nabsent:1\n"
    receipt = receipt_on(root, lines)
    assert receipt.verdict == "differs"
    assert told(receipt) == {
        "a:1": ("differs", True), "absent:1": ("missing", True), "b:1": ("valid", False), "m:1": ("valid", True),
    }  # fmt: skip
    by_name = {image.image: image for image in receipt.images}
    assert by_name["a:1"].problems == (f"is {ONE.top}, the list says {TWO.top}",)
    assert by_name["absent:1"].digest is None
    assert by_name["m:1"].platforms == ("linux/amd64", "linux/arm64")
    assert [image.partial for image in receipt.images] == [False] * 4


def test_a_blob_of_wrong_bytes_damages_all_images_that_need_it(root: Path) -> None:
    flip(Storage(root).blob_path(Digest.of(BASE)))
    receipt = receipt_on(root, "a:1\nb:1\nm:1\n")
    assert receipt.verdict == "damaged"
    assert told(receipt) == {"a:1": ("damaged", True), "b:1": ("damaged", True), "m:1": ("valid", True)}
    assert all(f"blob {Digest.of(BASE)} is damaged" in image.problems for image in receipt.images[:2])


def test_what_is_damaged_is_damaged_whatever_the_list_says(root: Path) -> None:
    remove(root / layout.tag_index_link("a", "1", ONE.top))
    receipt = receipt_on(root, f"r.io/a:1@{TWO.top} => a:1\n")
    assert receipt.verdict == "damaged"
    (image,) = (image for image in receipt.images if image.image == "a:1")
    assert image.verdict == "damaged"
    assert [("index link" in line, "the list says" in line) for line in image.problems] == [
        (True, False), (False, True),
    ]  # fmt: skip


def test_a_receipt_has_one_order_whatever_was_found_first() -> None:
    """The same state gives the same receipt: two of them can be compared."""
    blobs = {Digest.of(f"{number}".encode()): number for number in range(9)}
    images = tuple(
        FoundImage(
            image=f"a:{number}", digest=digest, platforms=("linux/amd64",), partial=False, blobs=frozenset(blobs)
        )
        for digest, number in blobs.items()
    )
    inventory = Inventory(images=images[::-1], blobs=blobs, damaged=frozenset(blobs))
    report = VerifyReport(path=Path("site"), images=9, blobs=9, bytes=36, problems=("x",), inventory=inventory)
    receipt = receipt_of(report, FACTS, None)
    assert [image.image for image in receipt.images] == [image.image for image in images]
    assert list(receipt.blobs.items()) == sorted(blobs.items())
    assert {image.problems for image in receipt.images} == {tuple(f"blob {d} is damaged" for d in sorted(blobs))}


def test_an_image_of_some_platforms_is_partial(root: Path) -> None:
    lost = Digest.of(MULTI.manifests[1])
    remove(root / layout.revision_link("m", lost))
    remove(root / layout.blob_path(lost))
    for blob in MULTI.blobs:
        if f"{Digest.of(blob)}".encode() not in MULTI.manifests[0]:
            remove(root / layout.layer_link("m", Digest.of(blob)))
    receipt = receipt_on(root)
    (image,) = (image for image in receipt.images if image.image == "m:1")
    assert image.partial
    images, _blobs = parse_receipt(receipt_text(receipt).encode(), "r")
    assert {f"{e.dest}": tuple(map(str, e.platforms)) for e in images.entries}["m:1"] == ("linux/amd64",)


def test_a_receipt_is_the_list_of_what_was_there(root: Path, tmp_path: Path) -> None:
    text = receipt_text(receipt_on(root, "a:1\nabsent:1\n"))
    path = put(tmp_path / "r.json", text.encode())
    entries = read_listing(f"{path}", io.BytesIO()).entries
    assert [(f"{e.dest}", e.source.digest, e.locked, e.platforms, e.line) for e in entries] == [
        (name, image.top, True, (), 0) for name, image in IMAGES.items()
    ]
    again = parse_images("\n".join(entry.text for entry in entries).encode(), "again.list").entries
    assert [(e.dest, e.source.digest) for e in again] == [(e.dest, e.source.digest) for e in entries]
    with opened_listing(f"{path}", io.BytesIO()) as listing:
        assert listing.images.entries == entries
        assert listing.blobs == receipt_on(root).blobs
        assert listing.contents is None


def test_what_was_called_damaged_does_not_count_as_there(root: Path) -> None:
    """A delta would leave out a blob that the site has not."""
    wrong = Digest.of(BASE)
    flip(Storage(root).blob_path(wrong))
    _images, blobs = parse_receipt(receipt_text(receipt_on(root)).encode(), "r")
    assert wrong not in blobs
    assert blobs[TWO.top] == len(TWO.raw)


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], bytes]:
    def made(document: dict[str, Any]) -> bytes:
        change(document)
        return json.dumps(document).encode()

    return made


@pytest.mark.parametrize(
    "change",
    [
        lambda _document: b"[]",
        lambda _document: b"{",
        lambda _document: b"[" * 100_000,
        changed(lambda document: document.update(receipt=2)),
        changed(lambda document: document.update(receipt=0)),
        changed(lambda document: document.pop("images")),
        changed(lambda document: document["images"][0].update(digest="sha256:12")),
        changed(lambda document: document["images"][0].update(image="a")),
        changed(lambda document: document["images"][0].update(image="../a:1")),
        changed(lambda document: document["images"][0].update(image="a:.1")),
        changed(lambda document: document["images"][0].update(image="a:.1", digest=None)),
        changed(lambda document: document.update(problems=[5])),
        changed(lambda document: document.update(blobs={"x": 1})),
        changed(lambda document: document.update(blobs={f"{ONE.top}": -1})),
    ],
)
def test_what_is_no_receipt_is_refused_by_name(root: Path, change: Callable[[dict[str, Any]], bytes]) -> None:
    data = change(json.loads(receipt_text(receipt_on(root))))
    with pytest.raises(UsageError, match=r"^r\.json is no receipt of version 1: ") as raised:
        parse_receipt(data, "r.json")
    assert "regwrap verify --receipt" in raised.value.hint


def test_a_summary_has_the_facts_and_counts(root: Path) -> None:
    facts = replace(FACTS, release="acme-1.0", id=f"{ONE.top}")
    flip(Storage(root).blob_path(Digest.of(BASE)))
    receipt = receipt_on(root, "a:1\nabsent:1\n", facts)
    summary = parse_summary(receipt_text(receipt).encode(), "r")
    assert (summary.facts, summary.verdict, summary.images) == (facts, "damaged", 4)
    assert summary.problems == len(receipt.problems) + len(receipt.differences) == 2
    plain = replace(FACTS, list="")
    assert parse_summary(receipt_text(receipt_on(root, None, plain)).encode(), "r").facts == plain
    nameless = replace(FACTS, id="x")
    assert parse_summary(receipt_text(receipt_on(root, None, nameless)).encode(), "r").facts == nameless
    for text in (b"[]", b"{", b"[" * 100_000, receipt_text(receipt).replace('"receipt": 1', '"receipt": 2').encode()):
        with pytest.raises(UsageError, match="is no receipt of version 1"):
            parse_summary(text, "r")
