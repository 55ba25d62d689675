"""A bundle is a function of its bundle.json, and whatever is damaged or forged is an IntegrityError, never a crash."""

import json
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from regwrap.bundle.contents import (
    MAX_BUNDLE_JSON_BYTES,
    BundleContents,
    RequiredBlob,
    links_end,
    parse_contents,
)
from regwrap.bundle.read import HASH_THREADS, hash_all, opened_bundle, parse_header
from regwrap.bundle.structure import structure_problems
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.model import Digest
from regwrap.core.release_id import ReleaseId
from tests.builders import make_image, make_multi_image, make_storage, open_below
from tests.bundles import (
    BLOCK,
    RECORD,
    Part,
    contents_of,
    filled,
    header,
    listed,
    make_bundle,
    member,
    packed,
    parts_of,
    summed,
    wrong_blobs,
)

MULTI, SINGLE, DOCKER = make_multi_image("multi"), make_image("single"), make_image("docker", kind="docker")
IMAGES = {"a/b:1": MULTI, "a/b:2": SINGLE, "z:1": DOCKER}
EVIL = "../../evil"
Parts = list[Part]
Change = Callable[[Parts], Parts]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_storage(tmp_path_factory.mktemp("bundle") / "archive", IMAGES)


@pytest.fixture(scope="module")
def contents(archive: Path) -> BundleContents:
    return contents_of(archive, *IMAGES)


@pytest.fixture(scope="module")
def parts(contents: BundleContents, archive: Path) -> Parts:
    return parts_of(contents, archive)


def problems_of(path: Path) -> list[str]:
    """All that a reader finds; raises where not even the structure can be read."""
    with opened_bundle(path) as bundle:
        return [*structure_problems(bundle), *wrong_blobs(bundle)]


def refused(place: Path, data: bytes) -> str:
    """What a reader says of these bytes; fails the test where it takes them, or writes anything beside them."""
    path = place / "bundle.tar"
    path.write_bytes(data)
    try:
        text = "\n".join(problems_of(path))
    except IntegrityError as error:
        text = str(error) if f"{path}: " in str(error) else ""
    assert text, "it was taken, or the message does not name the file"
    assert [child.name for child in place.iterdir()] == ["bundle.tar"]
    return text


# --- bundle.json


def test_writing_and_parsing_is_identity(contents: BundleContents) -> None:
    assert parse_contents(contents.to_json()) == contents
    assert parse_contents(contents.to_json()).to_json() == contents.to_json()


def test_an_empty_bundle_is_one(tmp_path: Path) -> None:
    empty = BundleContents(images=(), repositories=(), blobs=())
    assert parse_contents(empty.to_json()) == empty
    (tmp_path / "bundle.tar").write_bytes(packed(parts_of(empty, tmp_path)))
    assert problems_of(tmp_path / "bundle.tar") == []


def test_the_canonical_form_is_the_documented_one(contents: BundleContents) -> None:
    raw = contents.to_json()
    assert raw == json.dumps(json.loads(raw), indent=1, sort_keys=True).encode() + b"\n"
    assert set(json.loads(raw)) == {"blobs", "format", "images", "repositories"}


def test_the_canonical_form_is_what_json_dumps_writes_whatever_is_in_it(contents: BundleContents) -> None:
    image, *_ = contents.images
    blob = contents.blobs[0][0]
    strange = replace(image, media_type='\u00e9 "\\ \n\u2028\x7f', omitted=(blob, blob))
    for images in ((strange,), ()):
        for required in ((), (RequiredBlob(digest=blob, size=0, release="v1"),) * 2):
            raw = replace(contents, name="v2", images=images, required=required).to_json()
            document = json.loads(raw)
            assert raw == _canonical(document)
            assert (document["name"], len(document.get("required", ()))) == ("v2", len(required))
            assert [one["mediaType"] for one in document["images"]] == [one.media_type for one in images]


def test_a_name_is_in_the_bundle_and_changes_its_identity(contents: BundleContents) -> None:
    """Without one the bytes are those of format 1; with one a reader of format 1 refuses the bundle."""
    named = replace(contents, name="acme-2.4.1")
    document = json.loads(named.to_json())
    assert (document["format"], document.pop("name")) == (2, "acme-2.4.1")
    assert {**document, "format": 1} == json.loads(contents.to_json())
    assert parse_contents(named.to_json()) == named
    assert len({contents.id, named.id, replace(contents, name="acme-2.4.2").id}) == 3
    assert named.id == Digest.of(named.to_json())
    assert named.release == ReleaseId("acme-2.4.1", named.id)


@pytest.mark.parametrize("name", ["", " ", "a b", "-a", ".a", "a/b", "ä", "a" * 129, "a\n", 7, None])
def test_a_name_that_no_file_could_have_is_refused(contents: BundleContents, name: object) -> None:
    document = {**json.loads(contents.to_json()), "format": 2, "name": name}
    with pytest.raises(IntegrityError):
        parse_contents(_canonical(document))


def test_a_format_and_a_name_that_do_not_fit_are_refused(contents: BundleContents) -> None:
    document = json.loads(contents.to_json())
    for wrong in ({**document, "name": "v1"}, {**document, "format": 2}):
        with pytest.raises(IntegrityError, match="canonical"):
            parse_contents(_canonical(wrong))


@pytest.mark.parametrize("number", [0, 3, 10**30, "1", None, 1.5, [1]])
def test_another_format_says_what_to_do(contents: BundleContents, number: object) -> None:
    document = {**json.loads(contents.to_json()), "format": number}
    with pytest.raises(IntegrityError, match=r"format is .*, this regwrap reads formats 1 and 2") as caught:
        parse_contents(json.dumps(document).encode())
    assert "as new as the bundle" in caught.value.hint


Json = dict[str, object]


def _canonical(document: object) -> bytes:
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda raw: raw[:-1],
        lambda raw: raw + b"\n",
        lambda raw: b" " + raw,
        lambda raw: b"\xef\xbb\xbf" + raw,
        lambda raw: raw.decode().encode("utf-16"),
        lambda raw: raw.replace(b"\n", b"\r\n"),
        lambda raw: raw.replace(b'"format": 1', b'"format": 1.0'),
        lambda raw: raw.replace(b'"format": 1', b'"format": true'),
        lambda raw: raw.replace(b'"format": 1', b'"format": 1,\n "format": 1'),
        lambda raw: raw.replace(b'"a/b"', b'"a\\/b"'),
        lambda raw: raw.replace(b'"a/b"', b'"\\u0061/b"'),
        lambda raw: json.dumps(json.loads(raw)).encode(),
        lambda raw: json.dumps(dict(reversed(json.loads(raw).items())), indent=1).encode() + b"\n",
        lambda raw: raw.replace(b'"sha256:', b'"SHA256:'),
        lambda raw: raw.replace(b'"size": ', b'"size": 0'),
        lambda raw: raw.replace(b'"size": ', b'"size": -'),
        lambda raw: raw.replace(b'"size": ', b'"size": NaN, "x": '),
    ],
)
def test_any_other_spelling_is_refused(contents: BundleContents, rewrite: Callable[[bytes], bytes]) -> None:
    changed = rewrite(contents.to_json())
    assert changed != contents.to_json()
    with pytest.raises(IntegrityError):
        parse_contents(changed)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\0", b"null", b"1", b'"x"', b"[]", b"{}", b'{"format": 1}', b"[" * 100_000, b'{"format":' * 50_000,
        b'{"format": 1, "images": ' + b"[" * 100_000, b"\xff\xfe", b"\x00\xd8", b"{'format': 1}",
        b'{"format": 1' + b"0" * 10_000 + b"}", b'{"blobs": 3, "format": 1, "images": 3, "repositories": 3}',
        b'{"blobs": {"digest": 1}, "format": 1, "images": [], "repositories": []}',
        b'{"blobs": [[]], "format": 1, "images": [], "repositories": []}',
        b'{"blobs": [], "format": 1, "images": [null], "repositories": []}',
        b'{"blobs": [], "format": 1, "images": "ab", "repositories": ""}',
    ],
)  # fmt: skip
def test_what_is_no_bundle_json_is_refused(raw: bytes) -> None:
    with pytest.raises(IntegrityError):
        parse_contents(raw)


HUGE = 10**400
VALUES: list[object] = [None, True, 0, -1, 2**63, HUGE, 1.5, "", "x", "\ud800", "é", [], [[]], {}, {"x": 1}, [1], ["x"]]


def _places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from _places(child, (*path, key))


def _changed(document: Json, path: tuple[str | int, ...], value: object) -> Json:
    copy: Json = json.loads(json.dumps(document))
    at: Any = copy
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return copy


@pytest.mark.exhaustive
def test_no_value_of_any_type_in_any_place_is_a_crash(contents: BundleContents) -> None:
    """What is still canonical and well typed parses to what it says; all else is an IntegrityError."""
    document = json.loads(contents.to_json())
    taken = 0
    for path in _places(document):
        for value in VALUES:
            raw = _canonical(_changed(document, path, value))
            try:
                assert parse_contents(raw).to_json() == raw
                taken += raw != contents.to_json()
            except IntegrityError:
                pass
    assert taken > 0  # a size of 0, a media type of any text: for structure_problems to find


def test_extra_and_missing_keys_are_refused(contents: BundleContents) -> None:
    document = json.loads(contents.to_json())
    for at in (document, document["images"][0], document["repositories"][0], document["blobs"][0]):
        at["zzz"] = 1
        with pytest.raises(IntegrityError, match="canonical"):
            parse_contents(_canonical(document))
        del at["zzz"]
        for key in list(at):
            value = at.pop(key)
            with pytest.raises(IntegrityError):
                parse_contents(_canonical(document))
            at[key] = value


@pytest.mark.parametrize("name", ["../x", "/abs", "a/../b", "a//b", "A", "", "a/", ".", "a\0b", "_layers", "a" * 256])
def test_a_name_that_no_registry_has_is_refused(contents: BundleContents, name: str) -> None:
    image = replace(contents.images[0], repository=name)
    with pytest.raises(IntegrityError, match="not valid in a registry"):
        parse_contents(replace(contents, images=(image,)).to_json())
    repository = replace(contents.repositories[0], name=name)
    with pytest.raises(IntegrityError, match="not valid in a registry"):
        parse_contents(replace(contents, repositories=(repository,)).to_json())


@pytest.mark.parametrize("tag", ["../x", "", ".x", "a/b", "a:b", "x" * 129, "a\n"])
def test_a_tag_that_no_registry_has_is_refused(contents: BundleContents, tag: str) -> None:
    with pytest.raises(IntegrityError, match="not valid in a registry"):
        parse_contents(replace(contents, images=(replace(contents.images[0], tag=tag),)).to_json())


def test_each_list_has_to_be_sorted_and_without_doubles(contents: BundleContents) -> None:
    first = contents.repositories[0]
    others = [
        replace(contents, images=contents.images[::-1]),
        replace(contents, images=(contents.images[0], *contents.images)),
        replace(contents, blobs=contents.blobs[::-1]),
        replace(contents, blobs=(contents.blobs[0], *contents.blobs)),
        replace(contents, repositories=contents.repositories[::-1]),
        replace(contents, repositories=(replace(first, layers=first.layers[::-1]), *contents.repositories[1:])),
        replace(contents, repositories=(replace(first, manifests=first.manifests * 2), *contents.repositories[1:])),
    ]
    for other in others:
        with pytest.raises(IntegrityError, match="not sorted"):
            parse_contents(other.to_json())


# --- a whole bundle


def test_a_whole_bundle_has_no_problems(tmp_path: Path, parts: Parts, contents: BundleContents) -> None:
    path = tmp_path / "bundle.tar"
    path.write_bytes(packed(parts))
    assert path.stat().st_size == contents.tar_bytes
    assert problems_of(path) == []
    with opened_bundle(path) as bundle:
        assert bundle.contents == contents
        assert {d: bundle.read(d) for d in map(Digest.of, SINGLE.blobs)} == {Digest.of(b): b for b in SINGLE.blobs}
        assert bundle.read(Digest.of(b"absent")) is None


def test_hashing_stops_with_the_first_interruption(tmp_path: Path, parts: Parts) -> None:
    path = tmp_path / "bundle.tar"
    path.write_bytes(packed(parts))
    taken: list[int] = []

    def interrupted(count: int) -> None:
        taken.append(count)
        raise KeyboardInterrupt

    with opened_bundle(path) as bundle, pytest.raises(KeyboardInterrupt):
        hash_all(bundle.copy, bundle.contents.blobs, interrupted)
    assert len(taken) <= HASH_THREADS


@pytest.mark.parametrize("names", [(), ("a", "a-b", "a/0", "a/b")])
def test_tags_come_last_and_blobs_first_and_links_by_their_paths(
    contents: BundleContents, names: tuple[str, ...]
) -> None:
    """It is the format: names in order give no paths in order, since a name may go on where a path has a slash."""
    image, repository = contents.images[0], contents.repositories[0]
    if names:
        contents = replace(
            contents,
            images=tuple(sorted((replace(image, repository=name) for name in names), key=lambda image: image.name)),
            repositories=tuple(replace(repository, name=name) for name in names),
        )
        assert parse_contents(contents.to_json()) == contents
    paths = [m.path for m in contents.members]
    kinds = [0 if "/blobs/" in n else 3 if n.endswith("current/link") else 2 if "/tags/" in n else 1 for n in paths]
    assert kinds == sorted(kinds)
    for kind in range(4):
        of_kind = [n for n, k in zip(paths, kinds, strict=True) if k == kind]
        assert of_kind == sorted(of_kind)


# --- damage


def test_a_file_that_is_no_tar(tmp_path: Path) -> None:
    texts = (b"\0", bytes(BLOCK), bytes(RECORD), b"x" * RECORD, b"\x1f\x8b" + bytes(2000), b"PK\3\4" * 500)
    for data in texts:
        refused(tmp_path, data)
    assert "bundle.tar: the file is empty" in refused(tmp_path, b"")
    assert "the tar is cut off at byte 1" in refused(tmp_path, b"x")


@pytest.mark.exhaustive
def test_a_cut_anywhere_is_found(tmp_path: Path, parts: Parts) -> None:
    """At each boundary of members, one byte and one block to either side, and in the middle of header and data."""
    data, places, position = packed(parts), {0, 1}, 0
    for part in parts:
        size = len(member(part))
        places |= {position + n for n in (0, 1, 257, BLOCK, BLOCK + 1, size // 2, size - BLOCK, size - 1)}
        position += size
    places |= {position, position + 1, position + BLOCK, position + 2 * BLOCK, len(data) - 1, len(data) - BLOCK}
    for place in sorted(places - {len(data)}):
        refused(tmp_path, data[:place])


@pytest.mark.parametrize("number", [1, 2])
def test_a_cut_between_two_members_is_told_with_its_place(tmp_path: Path, parts: Parts, number: int) -> None:
    before = b"".join(map(member, parts[:number]))
    assert f"the tar is cut off at byte {len(before)}" in refused(tmp_path, before)


@pytest.mark.slow
def test_how_a_bundle_ends_too_early_is_what_is_said(tmp_path: Path, parts: Parts) -> None:
    """A copy that stopped, or one whose disk lost what came last."""
    data, position = packed(parts), 0
    for part in parts:
        if position:
            assert f"the tar is cut off at byte {position}" in refused(tmp_path, data[:position])
        assert f"the tar is cut off at byte {position + 1}" in refused(tmp_path, data[: position + 1])
        zeroed = data[:position] + bytes(len(data) - position)
        assert f"the tar is cut off before {part.name}" in refused(tmp_path, zeroed)
        position += len(member(part))
        inside = f"the tar is cut off inside {part.name}: it has {position - 1} bytes"
        assert inside in refused(tmp_path, data[: position - 1])
    assert f"the file is cut off: {position} bytes instead of {len(data)}" in refused(tmp_path, data[:position])
    longer = refused(tmp_path, data + bytes(BLOCK))
    assert f"the file has something behind its end: {len(data) + BLOCK} bytes instead of {len(data)}" in longer


@pytest.mark.parametrize("free", [0, BLOCK, 2 * BLOCK, RECORD - BLOCK])
def test_nothing_hides_in_the_last_block_however_the_end_falls(tmp_path: Path, free: int) -> None:
    """Two blocks of zeros end a tar, and a whole record: behind the last link there may be more than a record."""
    images, size = {"app:1": make_image("app", layers=[b"x"])}, 1
    for _ in range(3):  # the index grows with the number of digits
        size += (RECORD - free - links_end(contents_of(make_storage(tmp_path / f"{size}", images), *images))) % RECORD
        images = {"app:1": make_image("app", layers=[bytes(size)])}
    root = make_storage(tmp_path / "root", images)
    contents = contents_of(root, *images)
    assert links_end(contents) % RECORD == (RECORD - free) % RECORD
    place = tmp_path / "place"
    place.mkdir()
    data = packed(parts_of(contents, root))
    (place / "bundle.tar").write_bytes(data)
    assert problems_of(place / "bundle.tar") == []
    assert "data after the last member" in refused(place, data[:-1] + b"x")


@pytest.mark.slow
def test_each_padding_is_looked_at_whatever_sizes_lie_side_by_side(tmp_path: Path) -> None:
    images = {"app:1": make_image("app", layers=[bytes([n]) * (n * 61) for n in range(1, 24)])}
    place = tmp_path / "place"
    place.mkdir()
    data, position = bytearray(make_bundle(tmp_path, images).read_bytes()), 0
    assert problems_of(tmp_path / "bundle.tar") == []
    root = tmp_path / "archive"
    for part in parts_of(contents_of(root, *images), root):
        position += len(member(part))
        if part.name.endswith("/data"):
            data[position - 1] ^= 1
            assert f"padding of {part.name} differs" in refused(place, bytes(data))
            data[position - 1] ^= 1


@pytest.mark.exhaustive
def test_a_zero_filled_tail_is_found(tmp_path: Path, parts: Parts) -> None:
    data, position = packed(parts), 0
    for part in parts:
        for start in (position, position + BLOCK, position + 2 * BLOCK):
            if any(data[start:]):
                refused(tmp_path, data[:start] + bytes(len(data) - start))
        position += len(member(part))


def test_a_wrong_end_is_found(tmp_path: Path, parts: Parts) -> None:
    body, whole = b"".join(map(member, parts)), packed(parts)
    for data in (
        body,
        body + bytes(BLOCK),
        whole + b"x",
        whole + bytes(1),
        whole + bytes(BLOCK),
        whole + bytes(RECORD),
        whole + whole,
        whole[:-1] + b"x",
        body + bytes(2 * BLOCK) + filled(whole, RECORD),
        filled(body + bytes(2 * BLOCK) + b"hidden", RECORD),
        filled(body + bytes(2 * BLOCK) + member(Part("hidden", b"x")) + bytes(2 * BLOCK), RECORD),
    ):
        refused(tmp_path, data)


@pytest.mark.exhaustive
def test_any_flipped_bit_of_header_or_data_is_found(tmp_path: Path, parts: Parts) -> None:
    """One bit in each of many places; the blocks' padding holds nothing and is not looked at."""
    data, dice, position = packed(parts), random.Random(1), 0
    for part in parts:
        block = member(part)
        begin = len(block) - len(filled(part.data, BLOCK))
        in_header = [begin - BLOCK + n for n in (0, 50, 100, 124, 135, 148, 153, 156, 257, 264)]
        in_data = [begin, begin + len(part.data) - 1, begin + dice.randrange(len(part.data))]
        in_name = [0, BLOCK, BLOCK + 50] if begin > BLOCK else []
        for place in (*in_header, *in_data, *in_name):
            changed = bytearray(data)
            changed[position + place] ^= 1 << dice.randrange(8)
            refused(tmp_path, bytes(changed))
        position += len(block)


def _renamed(number: int, name: str) -> Change:
    return lambda parts: [replace(p, name=name) if n == number else p for n, p in enumerate(parts)]


def _of_kind(kind: bytes, number: int = 1) -> Change:
    return lambda parts: [replace(p, kind=kind) if n == number else p for n, p in enumerate(parts)]


def _sized(field: bytes, number: int = 1) -> Change:
    return lambda parts: [replace(p, size_field=field) if n == number else p for n, p in enumerate(parts)]


def _with_data(number: int, change: Callable[[bytes], bytes]) -> Change:
    return lambda parts: [replace(p, data=change(p.data)) if n == number else p for n, p in enumerate(parts)]


CHANGES: dict[str, Change] = {
    "climbs out": _renamed(1, EVIL),
    "absolute": _renamed(1, "/tmp/evil"),
    "absolute, long": _renamed(1, "/" + "x" * 200),
    "not ASCII": _renamed(1, "é" * 80),
    "bundle.json under another name": _renamed(0, "./bundle.json"),
    "bundle.json comes second": lambda parts: [parts[1], parts[0], *parts[2:]],
    "no bundle.json": lambda parts: parts[1:],
    "doubled": lambda parts: [*parts[:2], *parts[1:]],
    "doubled at the end": lambda parts: [*parts, parts[-1]],
    "unlisted at the end": lambda parts: [*parts, Part(EVIL, b"x")],
    "unlisted in the middle": lambda parts: [*parts[:5], Part("docker/x", b"x"), *parts[5:]],
    "first blob missing": lambda parts: [parts[0], *parts[2:]],
    "last tag missing": lambda parts: parts[:-1],
    "swapped": lambda parts: [*parts[:1], parts[2], parts[1], *parts[3:]],
    "tags before blobs": lambda parts: [parts[0], *parts[:0:-1]],
    "one byte more": _with_data(1, lambda data: data + b"x"),
    "one byte less": _with_data(1, lambda data: data[:-1]),
    "a directory before": lambda parts: [Part("docker/", b"", b"5"), *parts],
    "a directory after": lambda parts: [*parts, Part("docker/", b"", b"5")],
    "pax global": lambda parts: [Part("pax", b"19 path=../../evil\n", b"g"), *parts],
    "pax": lambda parts: [*parts[:2], Part("pax", b"19 path=../../evil\n", b"x"), *parts[2:]],
    "long link name": lambda parts: [*parts[:2], Part("././@LongLink", b"x" * 200 + b"\0", b"K"), *parts[2:]],
    "long name twice": lambda parts: [*parts[:1], Part("././@LongLink", b"evil\0", b"L"), *parts[1:]],
    "long name elsewhere": lambda parts: [*parts[:1], Part("evil", b"evil\0", b"L"), *parts[1:]],
    "long name of nothing": lambda parts: [*parts[:1], Part("././@LongLink", b"", b"L"), *parts[1:]],
    "long name without end": lambda parts: [*parts[:1], Part("././@LongLink", b"evil", b"L"), *parts[1:]],
    "long name far too long": lambda parts: [Part("././@LongLink", b"x" * 9999 + b"\0", b"L"), *parts],
    "long name for bundle.json": lambda parts: [Part("././@LongLink", EVIL.encode() + b"\0", b"L"), *parts],
    "long name and no member": lambda parts: [*parts, Part("././@LongLink", b"evil\0", b"L")],
    **{f"type {kind!r}": _of_kind(bytes([kind])) for kind in b"12345671234567SxgKDMNV\0 ~\xff"},
    **{f"bundle.json of type {kind!r}": _of_kind(bytes([kind]), 0) for kind in b"1235L"},
    **{
        f"size {field!r}": _sized(field)
        for field in (
            b"-0000000001\0", b"77777777777\0", b"777777777777", b"\x80" + b"\xff" * 11, b"\xff" * 12,
            b"\x80" + bytes(11), b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7, b" " * 12, bytes(12), b"0000000008\0 ",
            b"abc\0\0\0\0\0\0\0\0\0", b"0x10\0\0\0\0\0\0\0\0", b"00000000000\0",
        )
    },
    "bundle.json of absurd size": _sized(b"77777777777\0", 0),
    "bundle.json of no size": _sized(b"00000000000\0", 0),
    "bundle.json of another world": lambda parts: [Part("bundle.json", b"{}"), *parts[1:]],
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_forged_member_is_found(tmp_path: Path, parts: Parts, name: str) -> None:
    refused(tmp_path, packed(CHANGES[name](parts)))


@pytest.mark.exhaustive
def test_each_member_missing_or_doubled_is_found(tmp_path: Path, parts: Parts) -> None:
    for number in range(len(parts)):
        refused(tmp_path, packed([*parts[:number], *parts[number + 1 :]]))
        refused(tmp_path, packed([*parts[: number + 1], *parts[number:]]))


def test_each_pair_of_members_swapped_is_found(tmp_path: Path, parts: Parts) -> None:
    position = 0
    for n, (part, following) in enumerate(pairwise(parts)):
        text = refused(tmp_path, packed([*parts[:n], following, part, *parts[n + 2 :]]))
        found = f"found {following.name!r} with {len(following.data)}"
        expected = f"expected {part.name} with {len(part.data)} bytes at byte {position}, {found}"
        assert (expected if n else f"the first member is {following.name!r}, not bundle.json") in text
        position += len(member(part))


@pytest.mark.parametrize("length", [100, 101, 102, 4095])
def test_what_is_in_the_place_of_a_member_is_told_by_its_whole_name(tmp_path: Path, parts: Parts, length: int) -> None:
    other = Part("x" * length, b"12")
    assert f"found {other.name!r} with 2" in refused(tmp_path, packed([parts[0], other, *parts[2:]]))


@pytest.mark.parametrize(
    "before",
    [
        Part("././@LongLink", b"x" * 100 + b"\0", b"L"),  # a header has room for it
        Part("././@LongLink", b"x" * 4096 + b"\0", b"L"),
        Part("././@LongLink", b"x" * 150, b"L"),
        Part("././@LongLink", b"\0" + b"x" * 150, b"L"),
        Part("./@LongLink", b"x" * 150 + b"\0", b"L"),
    ],
)
def test_a_long_name_of_another_form_is_called_so(tmp_path: Path, parts: Parts, before: Part) -> None:
    assert "a long name in the tar is not in GNU tar's format" in refused(tmp_path, packed([parts[0], before]))


@pytest.mark.parametrize("number", [1, -1])
@pytest.mark.parametrize("where", ["header", "padding"])
def test_a_member_in_another_form_is_named_with_its_place(
    tmp_path: Path, parts: Parts, number: int, where: str
) -> None:
    """Plain tar would obey a setuid bit; bytes between the members would be carried along unseen."""
    before, own, behind = (b"".join(map(member, p)) for p in (parts[:number], [parts[number]], parts[number:][1:]))
    if where == "padding":
        own = own[:-1] + b"x"
    else:
        head = len(own) - len(filled(parts[number].data, BLOCK)) - BLOCK
        other = summed(own[head : head + BLOCK].replace(b"0000644\0", b"0004755\0", 1))
        own = own[:head] + other + own[head + BLOCK :]
    text = refused(tmp_path, filled(before + own + behind + bytes(2 * BLOCK), RECORD))
    form = f"the header or the padding of {parts[number].name} differs from what regwrap writes (byte {len(before)})"
    assert form in text


@pytest.mark.parametrize("size", [0, 1, 8**10, 8**11 - 1, 8**11, 2**63, 2**87 - 1])
def test_a_size_is_read_as_tar_writes_it(size: int) -> None:
    """In octal digits up to 8 GiB, then in base 256."""
    field = b"" if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    assert parse_header(header(b"name", size if not field else 0, size_field=field), 0) == (b"0", "name", size)


def test_an_index_larger_than_any_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar"
    path.write_bytes(header(b"bundle.json", MAX_BUNDLE_JSON_BYTES + 1))
    os.truncate(path, MAX_BUNDLE_JSON_BYTES + RECORD)
    with pytest.raises(IntegrityError, match=f"bundle.json has {MAX_BUNDLE_JSON_BYTES + 1} bytes, more than"):
        problems_of(path)


def test_what_to_do_about_a_damaged_bundle_is_said_and_about_a_newer_one(
    tmp_path: Path, parts: Parts, contents: BundleContents
) -> None:
    path = tmp_path / "bundle.tar"
    newer = contents.to_json().replace(b'"format": 1', b'"format": 9')
    for data, hint in (
        (packed(parts)[:-1], "copy or build the bundle again"),
        (packed([Part("bundle.json", newer), *parts[1:]]), "use a regwrap as new as the bundle"),
    ):
        path.write_bytes(data)
        with pytest.raises(IntegrityError, match=f"{path}: ") as raised:
            problems_of(path)
        assert hint in raised.value.hint


def test_a_bundle_is_closed_however_its_reading_ends(tmp_path: Path, parts: Parts) -> None:
    path = tmp_path / "bundle.tar"
    path.write_bytes(packed(parts))
    assert problems_of(path) == []
    with pytest.raises(LookupError), opened_bundle(path):
        raise LookupError
    path.write_bytes(b"")
    with pytest.raises(IntegrityError):
        problems_of(path)
    assert open_below(tmp_path) == []


def test_rotten_blobs_are_told_in_their_order_whichever_is_hashed_first() -> None:
    told, blobs = threading.Event(), [(Digest.of(f"{n}".encode()), n) for n in range(4)]

    def work(digest: Digest) -> bool:
        if digest == blobs[0][0]:
            assert told.wait(10)
        return digest in {blobs[1][0], blobs[2][0]}

    def on_bytes(count: int) -> None:
        if count == 3:
            told.set()

    assert list(hash_all(work, blobs, on_bytes)) == [blobs[0][0], blobs[3][0]]


@pytest.mark.slow
def test_a_link_to_another_blob_is_named(tmp_path: Path, parts: Parts) -> None:
    for number, part in enumerate(parts):
        if part.name.endswith("/link"):
            other = f"{Digest.of(b'other')}".encode()
            text = refused(tmp_path, packed([*parts[:number], replace(part, data=other), *parts[number + 1 :]]))
            assert text.startswith(part.name)


def test_header_fields_that_lie_are_found(tmp_path: Path, parts: Parts) -> None:
    whole = packed(parts)
    block = whole[:BLOCK]
    for changed in (
        block[:257] + b"ustar\x0000" + block[265:],  # POSIX
        block[:257] + bytes(8) + block[265:],  # V7
        header(b"bundle.json", len(parts[0].data))[:148] + b"0000000\0" + block[156:],
    ):
        data = (summed(changed) if changed[148:156] != b"0000000\0" else changed) + whole[BLOCK:]
        assert "the header at byte 0 is damaged or not in GNU tar's format" in refused(tmp_path, data)


def test_a_header_or_padding_of_another_form_is_found(tmp_path: Path, parts: Parts) -> None:
    """Plain tar would obey a setuid bit; bytes between the members would be carried along unseen."""
    whole = packed(parts)
    first = summed(whole[:BLOCK].replace(b"0000644\0", b"0004755\0", 1))
    assert "bundle.json differs from what regwrap writes (byte 0)" in refused(tmp_path, first + whole[BLOCK:])
    end = BLOCK + len(parts[0].data)
    assert whole[end : end + 1] == b"\0"
    assert "padding of bundle.json" in refused(tmp_path, whole[:end] + b"x" + whole[end + 1 :])


def forged(tmp_path: Path, archive: Path, contents: BundleContents) -> str:
    return refused(tmp_path, packed(parts_of(contents, archive)))


def test_what_no_image_needs_is_named(tmp_path: Path, archive: Path, contents: BundleContents) -> None:
    without = replace(contents, images=contents.images[:-1])
    assert "z: bundle.json and the images disagree about manifests" in forged(tmp_path, archive, without)
    unlinked = replace(contents, images=contents.images[:-1], repositories=contents.repositories[:-1])
    text = forged(tmp_path, archive, unlinked)
    for data in (*DOCKER.manifests, *DOCKER.blobs):
        assert f"blob {Digest.of(data)} belongs to no image" in text


def test_what_an_image_lacks_is_named(tmp_path: Path, archive: Path, contents: BundleContents) -> None:
    def without(data: bytes) -> str:
        gone = Digest.of(data)
        repositories = tuple(
            replace(
                r,
                manifests=tuple(d for d in r.manifests if d != gone),
                layers=tuple(d for d in r.layers if d != gone),
            )
            for r in contents.repositories
        )
        blobs = tuple(pair for pair in contents.blobs if pair[0] != gone)
        return forged(tmp_path, archive, replace(contents, blobs=blobs, repositories=repositories))

    assert f"a/b:1: its manifest {MULTI.top} is not in the bundle" in without(MULTI.raw)
    child = MULTI.manifests[0]
    assert f"a/b:1: manifest {Digest.of(child)} (linux/amd64) is not in the bundle" in without(child)
    for blob in SINGLE.blobs:
        assert f"a/b:2: blob {Digest.of(blob)} is not in the bundle" in without(blob)


def test_a_repository_that_links_too_little_or_is_missing_is_named(
    tmp_path: Path, archive: Path, contents: BundleContents
) -> None:
    first, second = contents.repositories
    missing = replace(contents, repositories=(first,))
    assert "z: bundle.json does not list the repository" in forged(tmp_path, archive, missing)
    fewer = replace(contents, repositories=(first, replace(second, layers=second.layers[1:])))
    assert "z: bundle.json and the images disagree about layers" in forged(tmp_path, archive, fewer)
    empty = replace(
        contents,
        repositories=(
            first,
            replace(second, layers=(), manifests=()),
        ),
    )
    assert "z: bundle.json and the images disagree about manifests" in forged(tmp_path, archive, empty)


def test_a_blob_whose_manifest_says_another_size_is_named(tmp_path: Path, contents: BundleContents) -> None:
    root = make_storage(tmp_path / "damaged", IMAGES)
    digest = Digest.of(SINGLE.blobs[1])
    path = next(root.rglob(f"{digest.hex}/data"))
    path.write_bytes(path.read_bytes() + b"more")
    size = path.stat().st_size
    changed = replace(contents, blobs=tuple((d, size if d == digest else s) for d, s in contents.blobs))
    data = packed(parts_of(changed, root))
    shutil.rmtree(root)
    assert f"blob {digest} has {size} bytes, its manifest says {size - 4}" in refused(tmp_path, data)


def test_lies_about_an_image_are_named(tmp_path: Path, archive: Path, contents: BundleContents) -> None:
    """`verify --list` trusts bundle.json on platforms, so they have to be those of the manifests."""
    first, second, third = contents.images
    lies = (
        replace(first, omitted=(Digest.of(b"x"),)),
        replace(first, platforms=first.platforms[:1]),
        replace(first, platforms=()),
        replace(first, media_type=third.media_type),
        replace(first, media_type="\ud800"),
    )
    for lie in lies:
        assert "a/b:1: bundle.json " in forged(tmp_path, archive, replace(contents, images=(lie, second, third)))
    lie = replace(second, platforms=first.platforms)
    assert "a/b:2: bundle.json " in forged(tmp_path, archive, replace(contents, images=(first, lie, third)))


def structure_of(path: Path) -> list[str]:
    with opened_bundle(path) as bundle:
        return structure_problems(bundle)


def test_each_image_whose_manifest_is_damaged_is_named(tmp_path: Path, parts: Parts) -> None:
    path, data = tmp_path / "bundle.tar", packed(parts)
    for image in (SINGLE, DOCKER):
        data = data.replace(image.raw, bytes(len(image.raw)))
    path.write_bytes(data)
    lines = [
        f"{name}: manifest {image.top.short} does not match its digest: it is {Digest.of(bytes(len(image.raw))).short}"
        for name, image in (("a/b:2", SINGLE), ("z:1", DOCKER))
    ]
    assert structure_of(path) == lines


def test_of_an_image_whose_config_is_damaged_nothing_else_is_said(
    tmp_path: Path, archive: Path, parts: Parts, contents: BundleContents
) -> None:
    """Its platform can't be told: that the index says another one would be a guess."""
    path, config = tmp_path / "bundle.tar", SINGLE.blobs[0]
    path.write_bytes(packed(parts).replace(config, config.replace(b"amd64", b"arm64")))
    assert structure_of(path) == []
    assert len(problems_of(path)) == 1
    gone = Digest.of(config)
    repositories = tuple(replace(r, layers=tuple(d for d in r.layers if d != gone)) for r in contents.repositories)
    blobs = tuple(blob for blob in contents.blobs if blob[0] != gone)
    path.write_bytes(packed(parts_of(replace(contents, blobs=blobs, repositories=repositories), archive)))
    assert structure_of(path) == [f"a/b:2: blob {gone} is not in the bundle"]


def test_a_platform_that_no_list_can_name_is_no_problem(tmp_path: Path) -> None:
    images = {"odd:1": make_image("odd", platform="Plan 9/68020")}
    path = make_bundle(tmp_path, images)
    assert contents_of(tmp_path / "archive", *images).images[0].platforms == ()
    assert problems_of(path) == []


def test_repositories_that_are_not_listed_are_told_in_their_order(tmp_path: Path) -> None:
    names = ["a", "a-b", "a/b", "a.b", "a_b"]
    root = make_storage(tmp_path / "archive", {f"{name}:1": SINGLE for name in names})
    contents = replace(contents_of(root, *(f"{name}:1" for name in names)), repositories=())
    path = tmp_path / "bundle.tar"
    path.write_bytes(packed(parts_of(contents, root)))
    told = [line.partition(":")[0] for line in structure_of(path) if "does not list the repository" in line]
    assert told == sorted(names)
    assert [image.repository for image in contents.images] != told


def test_an_omitted_manifest_that_is_there_is_named(tmp_path: Path, archive: Path, contents: BundleContents) -> None:
    lie = replace(contents.images[0], omitted=(Digest.of(MULTI.manifests[0]),))
    assert forged(tmp_path, archive, replace(contents, images=(lie, *contents.images[1:])))


def test_a_bundle_with_omitted_platforms_is_whole(tmp_path: Path, archive: Path) -> None:
    some = contents_of(archive, listed("a/b:1", "linux/arm64"))
    path = tmp_path / "bundle.tar"
    path.write_bytes(packed(parts_of(some, archive)))
    assert problems_of(path) == []
    assert some.images[0].omitted == (Digest.of(MULTI.manifests[0]),)
    assert [f"{p}" for p in some.images[0].platforms] == ["linux/arm64"]


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), os.mkfifo, lambda path: path.symlink_to("/dev/null")])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "bundle.tar"
    make(path)
    with pytest.raises(UsageError, match="is not a file"), opened_bundle(path):
        pass


def test_an_absent_bundle_is_the_users_mistake(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path / "a" / "b", Path("/dev/null/x")):
        with pytest.raises(UsageError, match="cannot be read"), opened_bundle(path):
            pass


@pytest.mark.exhaustive
def test_random_damage_is_never_a_crash(tmp_path: Path, parts: Parts) -> None:
    data, dice = packed(parts), random.Random(2)
    used = len(b"".join(map(member, parts)))
    path = tmp_path / "bundle.tar"
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(dice.randrange(1, 4)):
            start, length = dice.randrange(used), dice.choice([1, 12, BLOCK, 5000])
            changed[start : start + length] = dice.randbytes(dice.choice([0, length]))
        path.write_bytes(changed)
        with suppress(IntegrityError):
            problems_of(path)
