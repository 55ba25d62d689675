"""A delta with what it requires is the whole bundle, byte for byte; one that lies is refused and changes nothing."""

import json
import os
import random
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

import pytest

from regwrap.bundle.base import StorageBase
from regwrap.bundle.contents import BundleContents, RequiredBlob, parse_contents
from regwrap.bundle.delta import Older, read_older, since
from regwrap.bundle.examine import verify_bundle
from regwrap.bundle.inspection import inspect_bundle
from regwrap.bundle.opened import opened_bases, opened_image_set
from regwrap.bundle.read import opened_bundle
from regwrap.bundle.releases import known_checksum
from regwrap.bundle.structure import structure_problems, unseen_images
from regwrap.commands.join import JoinReport, join_bundles
from regwrap.core.errors import ImagesFailedError, IntegrityError, RegwrapError, UsageError
from regwrap.core.listener import SILENT, Silent
from regwrap.core.model import Digest
from regwrap.report.text import inspect_text, join_text
from regwrap.storage import layout
from regwrap.storage.store import Storage
from tests.builders import (
    Image,
    Kind,
    flip,
    make_config,
    make_image,
    make_layer,
    make_manifest,
    make_multi_image,
    make_storage,
    put,
    snapshot,
    storage_problems,
)
from tests.bundles import contents_of, make_bundle, older, packed, parts_of, write_bundle
from tests.fakes import Listening

KINDS: Final[tuple[Kind, ...]] = ("oci", "docker")
BASE = make_layer("base")
KEPT, MULTI = make_image("kept", layers=[BASE, make_layer("kept")]), make_multi_image("multi")
OLD, NEW = (make_image(seed, layers=[BASE, make_layer(seed)]) for seed in ("old", "new"))
FIRST = {"app:1": OLD, "kept:1": KEPT, "multi:1": MULTI}
SECOND = {"app:2": NEW, "kept:1": KEPT, "multi:1": MULTI}


@dataclass(frozen=True)
class Vendor:
    """An archive with everything, and the bundles of two releases and the delta between them."""

    root: Path
    first: Path
    second: Path
    delta: Path

    def contents(self, images: Mapping[str, Image], name: str) -> BundleContents:
        return replace(contents_of(self.root, *images), name=name)


@pytest.fixture
def vendor(tmp_path: Path) -> Vendor:
    root = make_storage(tmp_path / "archive", {**FIRST, **SECOND})
    places = Vendor(root, *(tmp_path / name for name in ("v1.tar", "v2.tar", "v2-delta.tar")))
    first, second = places.contents(FIRST, "acme-1"), places.contents(SECOND, "acme-2")
    write_bundle(places.first, first, root)
    write_bundle(places.second, second, root)
    write_bundle(places.delta, since(second, [older(first)]), root)
    return places


def joined(output: Path, *bundles: Path) -> JoinReport:
    *bases, delta = bundles
    return join_bundles(bases, delta, output, lock_timeout=0, listener=Silent())


def altered(path: Path, contents: BundleContents, root: Path) -> Path:
    """A delta that says something else of what it requires, and fits its tar."""
    return write_bundle(path.with_name("altered.tar"), contents, root)


def verified(path: Path, *bases: Path) -> tuple[str, ...]:
    with opened_bases(bases, lock_timeout=0, listener=Silent()) as opened:
        return verify_bundle(path, None, SILENT, bases=opened).problems


# --- what a delta is


def test_a_delta_has_what_is_new_and_says_what_it_requires_of_which_release(vendor: Vendor) -> None:
    with opened_bundle(vendor.delta) as delta:
        contents = delta.contents
    new = {Digest.of(raw) for raw in (*NEW.blobs, *NEW.manifests)} - {Digest.of(BASE)}
    assert {digest for digest, _size in contents.blobs} == new
    needed = {Digest.of(raw) for image in SECOND.values() for raw in (*image.blobs, *image.manifests)}
    assert {blob.digest for blob in contents.required} == needed - new
    assert {blob.release for blob in contents.required} == {"acme-1"}
    assert contents.whole == vendor.contents(SECOND, "acme-2")
    assert contents.id == contents.whole.id  # it is the same release
    document = json.loads(contents.to_json())
    assert (document["format"], parse_contents(contents.to_json())) == (2, contents)
    assert document["required"][0] == {
        "digest": f"{contents.required[0].digest}", "release": "acme-1", "size": contents.required[0].size,
    }  # fmt: skip


def test_without_anything_in_common_it_is_the_whole_bundle(vendor: Vendor, tmp_path: Path) -> None:
    other = contents_of(make_storage(tmp_path / "other", {"x:1": make_image("x")}), "x:1")
    whole = contents_of(vendor.root, *SECOND)
    assert since(whole, [older(other)]) == whole
    assert since(whole, [older(other)]).format == 1


def test_the_same_older_releases_give_the_same_delta_whatever_their_order(vendor: Vendor) -> None:
    first, second = vendor.contents(FIRST, "acme-1"), vendor.contents(SECOND, "acme-2")
    app = contents_of(vendor.root, "app:2")
    blobs = {digest: size for digest, size in second.blobs if digest not in dict(app.blobs)}
    several = [older(first), Older("", blobs), Older(f"{app.id}", app.sizes)]
    assert since(second, several) == since(second, several[::-1])
    releases = {blob.digest: blob.release for blob in since(second, several).required}
    assert releases[KEPT.top] == "acme-1"  # and not the nameless one, which has it as well
    assert releases[NEW.top] == f"{app.id}"


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.replace(b'"release": "acme-1"', b'"release": "a/b"', 1),
        lambda raw: raw.replace(b'"release": "acme-1"', b'"release": 7', 1),
        lambda raw: raw.replace(b'"release": "acme-1"', b'"release": "sha256:12"', 1),
        lambda raw: raw.replace(b' "required": [\n', b' "required": [],\n "more": [\n'),
        lambda raw: raw.replace(b'"required"', b'"requires"'),
    ],
)
def test_a_list_of_another_form_is_refused(vendor: Vendor, change: object) -> None:
    with opened_bundle(vendor.delta) as delta:
        raw = delta.contents.to_json()
    assert callable(change)
    with pytest.raises(IntegrityError):
        parse_contents(change(raw))


def test_what_is_in_the_bundle_can_not_be_required(vendor: Vendor) -> None:
    second = vendor.contents(SECOND, "acme-2")
    digest, size = second.blobs[0]
    for size_said in (size, size + 1):
        twice = replace(second, required=(RequiredBlob(digest=digest, size=size_said, release=""),))
        with pytest.raises(IntegrityError, match="requires a blob that is in the bundle"):
            parse_contents(twice.to_json())
    two = tuple(RequiredBlob(digest=d, size=s, release="") for d, s in second.blobs[:2])
    with pytest.raises(IntegrityError, match="not sorted"):
        parse_contents(replace(second, blobs=second.blobs[2:], required=two[::-1]).to_json())


# --- since what


def test_bundles_their_index_deltas_and_receipts_say_what_a_site_has(vendor: Vendor, tmp_path: Path) -> None:
    first, second = vendor.contents(FIRST, "acme-1"), vendor.contents(SECOND, "acme-2")
    (tmp_path / "bundle.json").write_bytes(first.to_json())
    paths = [f"{path}" for path in (vendor.first, tmp_path / "bundle.json", vendor.delta)]
    of_bundle, of_index, of_delta = read_older(paths)
    assert of_bundle == of_index == older(first)
    assert (of_delta.label, dict(of_delta.blobs)) == ("acme-2", second.sizes)
    (tmp_path / "images.list").write_text("app:1\n")
    with pytest.raises(UsageError, match="is a list"):
        read_older([f"{tmp_path / 'images.list'}"])


# --- join


def test_joined_with_its_base_it_is_the_whole_byte_for_byte(vendor: Vendor, tmp_path: Path) -> None:
    output = tmp_path / "joined.tar"
    report = joined(output, vendor.first, vendor.delta)
    assert output.read_bytes() == vendor.second.read_bytes()
    assert (report.images, report.delta_bytes + report.base_bytes) == (3, sum(s for _d, s in report_blobs(vendor)))
    assert join_text(report).startswith(f"{output} (acme-2): 3 images, ")


def report_blobs(vendor: Vendor) -> tuple[tuple[Digest, int], ...]:
    return vendor.contents(SECOND, "acme-2").blobs


BESIDE = ("joined.json", "joined.tar.par2", "joined.tar.vol0+1.par2")


@pytest.mark.parametrize("checksum", ["", "of an earlier one", f"{'0' * 64}  joined.tar\n"])
def test_what_stands_beside_an_earlier_file_goes_when_one_is_joined(
    vendor: Vendor, tmp_path: Path, checksum: str
) -> None:
    """Its recovery data would repair this release into the earlier one."""
    for name in BESIDE:
        put(tmp_path / name, b"of an earlier one")
    put(tmp_path / "joined.tar.sha256", checksum.encode())
    put(tmp_path / "joined.tar.sig", b"a signature is of a release, and whoever wants one checks it")
    listener = Listening()
    join_bundles([vendor.first], vendor.delta, tmp_path / "joined.tar", lock_timeout=0, listener=listener)
    assert sorted(path.name for path in tmp_path.glob("joined*")) == ["joined.tar", "joined.tar.sig"]
    assert listener.lines == [
        f"{tmp_path}/joined.tar.sha256 was of another file, and is removed"
    ] * checksum.startswith("0")


def test_what_the_vendor_has_put_beside_the_joined_file_stays(vendor: Vendor, tmp_path: Path) -> None:
    sha256 = sha256_of(vendor.second)
    for name in BESIDE:
        put(tmp_path / name, b"the vendor's")
    put(tmp_path / "joined.tar.sha256", f"{sha256}  joined.tar\n{'0' * 64}  regwrap.pyz\n".encode())
    listener, output = Listening(), tmp_path / "joined.tar"
    join_bundles([vendor.first], vendor.delta, output, lock_timeout=0, listener=listener)
    names = sorted(path.name for path in tmp_path.glob("joined*"))
    assert names == sorted([*BESIDE, "joined.tar", "joined.tar.sha256"])
    assert known_checksum(output) == sha256_of(output)
    assert listener.lines == [f"{output} is the vendor's file: its sha256 is what joined.tar.sha256 says"]


def sha256_of(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def test_a_storage_is_a_base_as_well(vendor: Vendor, tmp_path: Path) -> None:
    site = make_storage(tmp_path / "site", FIRST)
    joined(tmp_path / "joined.tar", site, vendor.delta)
    assert (tmp_path / "joined.tar").read_bytes() == vendor.second.read_bytes()


@pytest.mark.exhaustive
def test_every_pair_of_ten_random_releases_gives_the_whole_back(tmp_path: Path) -> None:
    chance = random.Random(7)
    releases = [_random_release(chance) for _ in range(10)]
    root = make_storage(tmp_path / "archive", {name: image for images in releases for name, image in images.items()})
    contents = [replace(contents_of(root, *images), name=f"v{n}") for n, images in enumerate(releases)]
    wholes = [packed(parts_of(item, root)) for item in contents]
    for number, whole in enumerate(wholes):
        (tmp_path / f"v{number}.tar").write_bytes(whole)
    for old in range(10):
        for new in {*range(10)} - {old}:
            delta = since(contents[new], [older(contents[old])])
            write_bundle(tmp_path / "delta.tar", delta, root)
            if delta.required:
                joined(tmp_path / "joined.tar", tmp_path / f"v{old}.tar", tmp_path / "delta.tar")
            else:
                (tmp_path / "delta.tar").rename(tmp_path / "joined.tar")
            assert (tmp_path / "joined.tar").read_bytes() == wholes[new], (old, new)


def _random_release(chance: random.Random) -> dict[str, Image]:
    """Few layers in many images, of sizes around a block's; a name has always the same image."""
    names = chance.sample([f"{name}/{part}" for name in "abc" for part in "xyz"], chance.randint(1, 6))
    return {f"{name}:{tag}": _image_of(name, tag) for name in names for tag in (chance.randint(1, 3),)}


def _image_of(name: str, tag: int) -> Image:
    own = random.Random(f"{name}:{tag}")
    if own.random() < 0.3:
        return make_multi_image(f"{name}{tag}")
    return make_image(
        name, layers=[make_layer(f"{own.randint(0, 5)}"), *own.sample([make_layer(f"{n}") for n in range(9)], 2)]
    )


@pytest.mark.slow
def test_a_chain_of_deltas_needs_each_of_them_and_not_its_wholes(tmp_path: Path) -> None:
    layers = [make_layer(f"layer-{n}") for n in range(4)]
    releases = [{f"app:{n}": make_image(f"{n}", layers=layers[: n + 1]), "kept:1": KEPT} for n in range(4)]
    root = make_storage(tmp_path / "archive", {name: image for images in releases for name, image in images.items()})
    contents = [replace(contents_of(root, *images), name=f"v{n}") for n, images in enumerate(releases)]
    wholes = [write_bundle(tmp_path / f"v{n}.tar", item, root) for n, item in enumerate(contents)]
    deltas = [wholes[0]]
    for number in range(1, 4):
        known = read_older([f"{deltas[-1]}"])  # a delta stands for its whole release
        deltas.append(write_bundle(tmp_path / f"d{number}.tar", since(contents[number], known), root))
    step = wholes[0]
    for number in range(1, 4):
        output = tmp_path / f"joined-{number}.tar"
        joined(output, step, deltas[number])
        assert output.read_bytes() == wholes[number].read_bytes()
        step = output
    joined(tmp_path / "at-once.tar", *deltas)  # the last of them, with all before it
    assert (tmp_path / "at-once.tar").read_bytes() == wholes[3].read_bytes()
    with pytest.raises(ImagesFailedError, match="lacks"):
        joined(tmp_path / "never.tar", wholes[0], deltas[3])


def test_a_whole_bundle_is_not_joined(vendor: Vendor, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a delta"):
        joined(tmp_path / "out.tar", vendor.delta, vendor.first)
    assert not (tmp_path / "out.tar").exists()


def test_a_base_that_lacks_something_is_told_what(vendor: Vendor, tmp_path: Path) -> None:
    other = make_bundle(tmp_path / "other", {"kept:1": KEPT})
    with pytest.raises(
        ImagesFailedError, match=r"requires \d+ blobs .* lacks \d+ of them .* of release acme-1"
    ) as told:
        joined(tmp_path / "out.tar", other, vendor.delta)
    assert any(f"{MULTI.top}" in line and "multi:1" in line and "acme-1" in line for line in told.value.problems)
    assert not any(f"{KEPT.top}" in line for line in told.value.problems)
    assert not (tmp_path / "out.tar").exists()


def test_a_base_whose_blob_is_damaged_is_named_and_nothing_is_written(vendor: Vendor, tmp_path: Path) -> None:
    layer = KEPT.blobs[-1]
    vendor.first.write_bytes(vendor.first.read_bytes().replace(layer, bytes(len(layer))))
    with pytest.raises(IntegrityError, match="not written") as told:
        joined(tmp_path / "out.tar", vendor.first, vendor.delta)
    (line,) = told.value.problems
    assert line.startswith(f"{vendor.first}: ")
    assert f"{Digest.of(layer)}" in line
    assert [path.name for path in tmp_path.glob("out*")] == []


def test_a_delta_whose_blob_is_damaged_is_named(vendor: Vendor, tmp_path: Path) -> None:
    layer = NEW.blobs[-1]
    vendor.delta.write_bytes(vendor.delta.read_bytes().replace(layer, bytes(len(layer))))
    with pytest.raises(IntegrityError) as told:
        joined(tmp_path / "out.tar", vendor.first, vendor.delta)
    assert told.value.problems[0].startswith(f"{vendor.delta}: ")


def test_two_damaged_blobs_are_told_in_the_order_of_their_digests(vendor: Vendor, tmp_path: Path) -> None:
    layers = [BASE, KEPT.blobs[-1], *MULTI.blobs]
    for layer in layers:
        vendor.first.write_bytes(vendor.first.read_bytes().replace(layer, bytes(len(layer))))
    with pytest.raises(IntegrityError, match="not written") as told:
        joined(tmp_path / "out.tar", vendor.first, vendor.delta)
    assert told.value.problems == tuple(
        f"{vendor.first}: blob {digest} does not match its digest ({layout.blob_path(digest)})"
        for digest in sorted(map(Digest.of, layers))
    )


def test_what_lies_side_by_side_in_a_base_is_copied_at_once(
    vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the kernel, which shares large ranges on some file systems, and small ones on none."""
    first = vendor.contents(FIRST, "acme-1")
    delta = write_bundle(tmp_path / "delta.tar", replace(since(first, [older(first)]), name="again"), vendor.root)
    ranges, copy = list[int](), os.copy_file_range

    def copied(source: int, to: int, count: int, offset: int, at: int) -> int:
        ranges.append(count)
        return copy(source, to, count, offset, at)

    monkeypatch.setattr(os, "copy_file_range", copied)
    joined(tmp_path / "out.tar", vendor.first, delta)
    assert len(ranges) == 1


def test_how_far_a_join_is_can_be_seen(vendor: Vendor, tmp_path: Path) -> None:
    listening = Listening()
    join_bundles([vendor.first], vendor.delta, tmp_path / "out.tar", lock_timeout=0, listener=listening)
    total = sum(size for _digest, size in report_blobs(vendor))
    assert (listening.steps, sum(listening.told)) == ([("join", total)], total)


# --- what a base lacks


def test_each_blob_is_told_with_its_images_as_far_as_they_are_known(tmp_path: Path) -> None:
    """With the release that has it, where one is named; an image whose manifest is elsewhere may need any of its
    repository's, and one whose manifest is damaged may need any as well."""
    three, four, hidden, rotten, free = (make_layer(name) for name in ("three", "four", "hidden", "rotten", "free"))
    images = {f"app:{n}": make_image(f"{n}", layers=[four, *([three] if n > 1 else []), b""]) for n in range(1, 5)}
    images |= {"gone:1": make_image("gone", layers=[hidden]), "rot:1": make_image("rot", layers=[rotten, free])}
    root = make_storage(tmp_path / "archive", images)
    contents, gone, rot = contents_of(root, *images), images["gone:1"], images["rot:1"]
    known = {
        "v2": (three, gone.raw, b""), "v1": (four, rotten), "": (hidden, free),
    }  # fmt: skip
    sites = [Older(label, {Digest.of(data): len(data) for data in datas}) for label, datas in known.items()]
    delta = write_bundle(tmp_path / "delta.tar", since(contents, sites), root)
    delta.write_bytes(delta.read_bytes().replace(rot.raw, bytes(len(rot.raw))))
    base = make_bundle(tmp_path / "base", {"other:1": make_image("other")})
    with pytest.raises(
        ImagesFailedError, match=rf"^{delta} requires 7 blobs from elsewhere, and {base} lacks 7"
    ) as told:
        joined(tmp_path / "out.tar", base, delta)
    assert told.value.message.endswith(" of release v1, v2; nothing was changed")
    users = {
        four: " of app:1, app:2, app:3 and 1 more; it is in release v1",
        three: " of app:2, app:3, app:4; it is in release v2",
        b"": " of app:1, app:2, app:3 and 1 more; it is in release v2",
        gone.raw: " of gone:1; it is in release v2",
        hidden: " of gone",
        rotten: " of rot; it is in release v1",
        free: " of rot",
    }
    lines = {Digest.of(data): f"blob {Digest.of(data)} ({len(data)} B){text}" for data, text in users.items()}
    assert told.value.problems == tuple(lines[digest] for digest in sorted(lines))


@pytest.mark.parametrize(("count", "more"), [(20, ()), (21, ("and 1 more blob",)), (25, ("and 5 more blobs",))])
def test_of_many_blobs_the_first_are_told_and_how_many_more_there_are(
    tmp_path: Path, count: int, more: tuple[str, ...]
) -> None:
    layers = [f"layer {n}".encode() for n in range(count)]
    root = make_storage(tmp_path / "archive", {"app:1": make_image("app", layers=layers)})
    contents = since(contents_of(root, "app:1"), [Older("", {Digest.of(layer): len(layer) for layer in layers})])
    delta = write_bundle(tmp_path / "delta.tar", contents, root)
    base = make_bundle(tmp_path / "base", {"other:1": make_image("other")})
    with pytest.raises(ImagesFailedError, match=rf"lacks {count} of them \([^)]* B\); nothing was changed$") as told:
        joined(tmp_path / "out.tar", base, delta)
    assert (len(told.value.problems), told.value.problems[20:]) == (20 + len(more), more)
    with pytest.raises(UsageError, match=r"must come from what the site has$"):
        opened_image_set(delta, lock_timeout=0, listener=Silent()).__enter__()


def test_the_releases_that_are_needed_are_named_in_order(tmp_path: Path) -> None:
    layers = [f"layer {n}".encode() for n in range(6)]
    root = make_storage(tmp_path / "archive", {"app:1": make_image("app", layers=layers)})
    sites = [Older(f"v{n}", {Digest.of(layer): len(layer)}) for n, layer in enumerate(layers)]
    receipt = Older("", sites[0].blobs)
    delta = write_bundle(tmp_path / "delta.tar", since(contents_of(root, "app:1"), [receipt, *sites[1:]]), root)
    with pytest.raises(UsageError, match=r"must come from v1, v2, v3, v4, v5$"):
        opened_image_set(delta, lock_timeout=0, listener=Silent()).__enter__()
    with pytest.raises(ImagesFailedError, match="of release v1, v2, v3, v4, v5; nothing"):
        joined(tmp_path / "out.tar", make_bundle(tmp_path / "base", {"other:1": make_image("other")}), delta)


def test_a_blob_without_a_byte_may_be_required_of_a_storage(tmp_path: Path) -> None:
    images = {"app:1": make_image("app", layers=[b"", BASE])}
    root = make_storage(tmp_path / "archive", images)
    whole, site = contents_of(root, *images), Older("", {Digest.of(data): len(data) for data in (b"", BASE)})
    delta = write_bundle(tmp_path / "delta.tar", since(whole, [site]), root)
    joined(tmp_path / "out.tar", root, delta)
    assert (tmp_path / "out.tar").read_bytes() == packed(parts_of(whole, root))


# --- hostile deltas


def _lying(vendor: Vendor, digest: Digest, *, size: int) -> Path:
    """A delta that says another size of a blob that it requires."""
    delta = since(vendor.contents(SECOND, "acme-2"), [older(vendor.contents(FIRST, "acme-1"))])
    required = tuple(replace(b, size=size) if b.digest == digest else b for b in delta.required)
    return altered(vendor.delta, replace(delta, required=required), vendor.root)


def test_a_size_that_is_another_one_in_the_base_is_refused(vendor: Vendor, tmp_path: Path) -> None:
    path = _lying(vendor, Digest.of(BASE), size=len(BASE) + 1)
    with pytest.raises(IntegrityError, match="does not fit") as told:
        joined(tmp_path / "out.tar", vendor.first, path)
    assert f"has {len(BASE)} bytes in {vendor.first}" in told.value.problems[0]


def test_a_base_that_lies_in_the_same_way_is_refused_by_the_manifests(vendor: Vendor, tmp_path: Path) -> None:
    """The base has a longer blob under the same digest, and says so in its own bundle.json."""
    longer = tmp_path / "evil"
    make_storage(longer, FIRST)
    (longer / layout.blob_path(Digest.of(BASE))).write_bytes(BASE + b"!")
    first = vendor.contents(FIRST, "acme-1")
    blobs = tuple((d, size + (d == Digest.of(BASE))) for d, size in first.blobs)
    evil = write_bundle(tmp_path / "evil.tar", replace(first, blobs=blobs), longer)
    path = _lying(vendor, Digest.of(BASE), size=len(BASE) + 1)
    with pytest.raises(IntegrityError, match="inconsistent") as told:
        joined(tmp_path / "out.tar", evil, path)
    assert any(f"has {len(BASE) + 1} bytes, its manifest says {len(BASE)}" in line for line in told.value.problems)
    assert verified(path, evil) != ()


def test_a_required_manifest_that_is_another_one_is_refused(vendor: Vendor, tmp_path: Path) -> None:
    site = make_storage(tmp_path / "site", FIRST)
    other = KEPT.raw.replace(b"schemaVersion", b"SchemaVersion")
    (site / layout.blob_path(KEPT.top)).write_bytes(other)
    for base in (site, vendor.first):
        vendor.first.write_bytes(vendor.first.read_bytes().replace(KEPT.raw, other))
        with pytest.raises(IntegrityError, match="inconsistent"):
            joined(tmp_path / "out.tar", base, vendor.delta)


def test_a_blob_that_no_image_needs_can_not_be_required(vendor: Vendor) -> None:
    delta = since(vendor.contents(SECOND, "acme-2"), [older(vendor.contents(FIRST, "acme-1"))])
    alien = RequiredBlob(digest=OLD.top, size=len(OLD.raw), release="acme-1")
    required = tuple(sorted((*delta.required, alien), key=lambda blob: blob.digest))
    path = altered(vendor.delta, replace(delta, required=required), vendor.root)
    assert f"blob {OLD.top} belongs to no image" in verified(path)
    assert f"blob {OLD.top} belongs to no image" in verified(path, vendor.first)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.exhaustive
def test_a_delta_with_any_bit_turned_is_refused_or_harmless(vendor: Vendor, tmp_path: Path, seed: int) -> None:
    chance, data = random.Random(seed), vendor.delta.read_bytes()
    for _ in range(40):
        turned = bytearray(data)
        turned[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        (tmp_path / "turned.tar").write_bytes(turned)
        try:
            joined(tmp_path / "out.tar", vendor.first, tmp_path / "turned.tar")
        except RegwrapError:
            assert not (tmp_path / "out.tar").exists()
            continue
        with opened_bundle(tmp_path / "out.tar") as out:  # the name of a release, this one's or another's
            assert replace(out.contents, name="") == contents_of(vendor.root, *SECOND)
        (tmp_path / "out.tar").unlink()


# --- what can be said of a delta


def test_verify_alone_says_what_it_did_not_look_at_and_with_a_base_looks_at_all(vendor: Vendor) -> None:
    alone = verify_bundle(vendor.delta, None, SILENT)
    assert alone.problems == ()
    assert "blobs (" in alone.notes[0]
    assert "2 images" in alone.notes[1]
    assert {image.image for image in alone.inventory.images} == {"app:2", "kept:1", "multi:1"}
    assert Digest.of(BASE) not in alone.inventory.blobs
    with opened_bundle(vendor.first) as base:
        report = verify_bundle(vendor.delta, None, SILENT, bases=[base])
    assert (report.problems, report.notes) == ((), ())
    assert (report.blobs, report.inventory.blobs) == (len(report_blobs(vendor)), dict(report_blobs(vendor)))
    flip(vendor.root / layout.blob_path(Digest.of(KEPT.blobs[-1])))
    bases = (StorageBase(Storage(vendor.root)),)
    (problem,) = verify_bundle(vendor.delta, None, SILENT, bases=bases).problems
    assert f"{Digest.of(KEPT.blobs[-1]).hex}" in problem
    assert verify_bundle(vendor.delta, None, SILENT, bases=bases, trusted=True).problems == ()


def test_inspect_names_the_releases_that_a_delta_builds_on_once_and_in_order(vendor: Vendor, tmp_path: Path) -> None:
    second = vendor.contents(SECOND, "acme-2")
    named = [Older(f"acme-{n}", {digest: size}) for n, (digest, size) in enumerate(second.blobs[:-1])]
    contents = since(second, [*reversed(named), Older("", dict(second.blobs[-1:]))])
    path = write_bundle(tmp_path / "of-many.tar", contents, vendor.root)
    assert inspect_bundle(path).since == tuple(sorted(each.label for each in named))


def test_inspect_shows_what_is_not_in_it_and_sizes_where_they_are_known(vendor: Vendor) -> None:
    alone = inspect_bundle(vendor.delta)
    assert (alone.since, alone.unseen) == (("acme-1",), ("kept:1", "multi:1"))
    assert "but in acme-1" in inspect_text(alone)
    digest = alone.images[0].digest
    assert digest in inspect_text(alone)
    assert digest not in inspect_text(alone, full=False)
    assert f"  {digest[:19]}  " in inspect_text(alone, full=False)
    assert "?" in inspect_text(alone)
    with opened_bundle(vendor.first) as base:
        with_base = inspect_bundle(vendor.delta, [base])
    whole = inspect_bundle(vendor.second)
    assert (with_base.images, with_base.blobs, with_base.blob_bytes) == (whole.images, whole.blobs, whole.blob_bytes)
    assert with_base.id == whole.id
    assert with_base.file_bytes == vendor.delta.stat().st_size


def test_an_image_set_of_a_delta_is_that_of_the_whole(vendor: Vendor) -> None:
    with (
        opened_image_set(vendor.delta, lock_timeout=0, listener=Silent(), bases=[vendor.first]) as delta,
        opened_image_set(vendor.second, lock_timeout=0, listener=Silent()) as whole,
    ):
        assert delta.contents == whole.contents
        assert all(delta.copy(digest) for digest in whole.contents.sizes)
        piece = delta.blob("kept", Digest.of(KEPT.blobs[-1]))
        assert piece is not None
        with piece.file:
            assert piece.digest() == Digest.of(KEPT.blobs[-1])
    with (
        pytest.raises(UsageError, match="is a delta") as told,
        opened_image_set(vendor.delta, lock_timeout=0, listener=Silent()),
    ):
        pass
    assert told.value.message.endswith("must come from acme-1")


def test_plain_tar_over_a_storage_that_has_the_base_is_right(vendor: Vendor, tmp_path: Path) -> None:
    site = make_storage(tmp_path / "site", FIRST)
    with tarfile.open(vendor.delta) as tar:  # by hand: what `extractall` has to be told differs between Pythons
        for member in filter(tarfile.TarInfo.isreg, tar):
            data = tar.extractfile(member)
            assert data
            put(site / member.name, data.read())
    assert storage_problems(site) == set()
    assert {tag: Storage(site).resolve(*tag.split(":")) for tag in SECOND} == {t: i.top for t, i in SECOND.items()}


def test_of_a_delta_alone_only_what_is_in_it_is_judged(vendor: Vendor) -> None:
    with opened_bundle(vendor.delta) as delta:
        assert structure_problems(delta) == []
    other = NEW.raw.replace(b'"size": ', b'"size":  ')
    assert len(other) != len(NEW.raw)
    delta_contents = since(vendor.contents(SECOND, "acme-2"), [older(vendor.contents(FIRST, "acme-1"))])
    platforms = tuple(replace(image, media_type="other") for image in delta_contents.images)
    path = altered(vendor.delta, replace(delta_contents, images=platforms), vendor.root)
    assert any("app:2: bundle.json says 'other'" in line for line in verified(path))
    assert len(verified(path)) == 1
    assert len(verified(path, vendor.first)) == 3


def test_an_index_whose_image_is_elsewhere_is_no_problem_of_a_delta(vendor: Vendor, tmp_path: Path) -> None:
    """Its platforms can't be told, nor what its repository links to."""
    child = MULTI.manifests[0]
    for required, unseen in (((child,), ("multi:1",)), ((MULTI.blobs[0],), ()), ((KEPT.raw, BASE), ("kept:1",))):
        site = Older("", {Digest.of(data): len(data) for data in required})
        contents = since(vendor.contents(SECOND, "acme-2"), [site])
        with opened_bundle(write_bundle(tmp_path / "part.tar", contents, vendor.root)) as delta:
            assert structure_problems(delta) == []
            assert unseen_images(delta) == unseen
    with opened_bundle(vendor.second) as whole:
        assert unseen_images(whole) == ()


def test_an_image_that_is_elsewhere_may_have_just_what_another_one_has(tmp_path: Path) -> None:
    config, layer = make_config([BASE]), BASE
    kinds: dict[str, Image] = {
        f"app:{kind}": Image((make_manifest(config, [layer], kind),), (config, layer)) for kind in KINDS
    }
    root = make_storage(tmp_path / "archive", kinds)
    raw = kinds["app:docker"].raw
    contents = since(contents_of(root, *kinds), [Older("", {Digest.of(raw): len(raw)})])
    with opened_bundle(write_bundle(tmp_path / "delta.tar", contents, root)) as delta:
        assert structure_problems(delta) == []


def test_a_storage_that_is_read_is_left_as_it_is(vendor: Vendor, tmp_path: Path) -> None:
    """Also without a lock of its own: who may not write there may read."""
    before = snapshot(vendor.root)
    with opened_image_set(vendor.root, lock_timeout=0, listener=Silent()):
        assert snapshot(vendor.root) == before
    joined(tmp_path / "out.tar", vendor.root, vendor.delta)
    assert snapshot(vendor.root) == before
