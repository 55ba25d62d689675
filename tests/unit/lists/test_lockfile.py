"""The text of a lock, and what it says of a list."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from regwrap.core.errors import UsageError
from regwrap.core.model import Digest, ImageRef, ParseError, Platform
from regwrap.lists.imagelist import ImageList, Rewrite, parse_images
from regwrap.lists.lock import Change, LockedImage, changes, lock_path, lock_text, locked_list, parse_lock, read_lock

ONE, TWO = Digest.of(b"one"), Digest.of(b"two")
AMD, ARM = Platform("linux", "amd64"), Platform("linux", "arm64", "v8")


def listed(*lines: str, rewrite: Rewrite | None = None) -> ImageList:
    return parse_images("\n".join(lines).encode(), "images.list", rewrite or Rewrite())


def locked(line: str, digest: Digest = ONE, size: int | None = 1234) -> LockedImage:
    (entry,) = listed(line).entries
    source = ImageRef.parse(f"{entry.source}@{digest}" if entry.source.digest is None else f"{entry.source}")
    platforms = (AMD, ARM) if size is not None else ()
    return LockedImage(source=source, dest=entry.dest, chosen=entry.platforms, platforms=platforms, size=size)


IMAGES = (
    locked("b/app:v1"),
    locked("docker.io/redis:7 => third/redis:7 platform=linux/arm64/v8,linux/amd64", TWO),
    locked("localhost:5000/a:1"),
    locked(f"r.example/chart@{TWO} => charts/one:1", size=0),
    locked("team/x:1 => h.io/docker.io/team/x:1"),
    locked("a/plain:1", size=None),
    replace(locked("a/artifact:1", size=77), platforms=()),
)


def by_dest(images: Iterable[LockedImage]) -> tuple[LockedImage, ...]:
    return tuple(sorted(images, key=lambda image: image.dest))


def test_a_lock_is_read_back_as_it_was_written() -> None:
    text = lock_text(IMAGES)
    assert parse_lock(text.encode(), "images.lock").images == by_dest(IMAGES)
    assert lock_text(reversed(IMAGES)) == text


def test_a_lock_reads_well() -> None:
    header, first, second = lock_text(IMAGES[:2]).splitlines()
    assert header.startswith("# Written by regwrap lock")
    assert first == f"b/app:v1@{ONE} => b/app:v1  # linux/amd64,linux/arm64/v8 1234 bytes"
    assert second == (
        f"docker.io/library/redis:7@{TWO} => third/redis:7 platform=linux/amd64,linux/arm64/v8"
        "  # linux/amd64,linux/arm64/v8 1234 bytes"
    )


def test_a_lock_is_a_list_whose_images_go_where_the_lock_says() -> None:
    rewrite = Rewrite(prefix="mirror/", keep_host=True)
    entries = listed(*lock_text(IMAGES).splitlines(), rewrite=rewrite).entries
    found = {(entry.source, entry.dest, entry.platforms) for entry in entries}
    assert found == {(image.source, image.dest, image.chosen) for image in IMAGES}


def test_a_comment_of_somebodys_is_no_fact() -> None:
    (image,) = parse_lock(f"a:1@{ONE} # reviewed 12 bytes\n".encode(), "images.lock").images
    assert (image.platforms, image.size) == ((), None)


def test_a_list_is_no_lock(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"images\.lock:2: a/b:2 has no digest"):
        parse_lock(f"a/b:1@{ONE}\na/b:2\n".encode(), "images.lock")
    with pytest.raises(UsageError, match="does not exist"):
        read_lock(tmp_path / "images.lock")


def test_an_image_without_a_digest_is_locked_to_nothing() -> None:
    image = replace(locked("a/b:1"), source=ImageRef.parse("a/b:1"))
    with pytest.raises(ParseError, match="a/b:1 has no digest"):
        _ = image.digest


def test_the_lock_lies_beside_its_list() -> None:
    assert lock_path("lists/images.list", None) == Path("lists/images.lock")
    assert lock_path("-", Path("my.lock")) == Path("my.lock")
    with pytest.raises(UsageError, match="standard input"):
        lock_path("-", None)


def test_a_locked_list_has_the_digests_and_the_lines_of_the_list() -> None:
    lock = parse_lock(lock_text([locked("a/b:1"), locked("team/api:v2", TWO)]).encode(), "images.lock")
    found = locked_list(listed("# one", "a/b:1"), lock, lambda image: image.repository == "team/api")
    assert [(str(entry.source), entry.line, entry.locked) for entry in found.entries] == [
        (f"a/b:1@{ONE}", 2, True),
        (f"team/api:v2@{TWO}", 0, True),
    ]


@pytest.mark.parametrize(
    "line", ["a/b:2", "a/b:1 => a/c:1", "r.io/a/b:1", "a/b:1 platform=linux/amd64", f"a/b:1@{TWO}", "# nothing"]
)
def test_a_lock_of_another_list_is_refused(line: str) -> None:
    lock = parse_lock(lock_text([locked("a/b:1")]).encode(), "images.lock")
    with pytest.raises(UsageError) as raised:
        locked_list(listed(line), lock, lambda _image: False)
    assert "regwrap lock" in raised.value.hint


def test_changes() -> None:
    lock = parse_lock(lock_text(map(locked, ("a:1", "b:1", "c:1", "d:1", "e:1"))).encode(), "images.lock")
    now = zip(
        listed("a:1", "b:1", "c:1", "new:1", "e:1 platform=linux/amd64").entries,
        (ONE, TWO, None, TWO, ONE),
        strict=True,
    )
    assert [(str(c.image), c.what, c.old, c.new) for c in changes(lock, now)] == [
        ("b:1", "moved", ONE, TWO),
        ("c:1", "gone", ONE, None),
        ("d:1", "no longer listed", ONE, None),
        ("e:1", "listed otherwise", ONE, ONE),
        ("new:1", "not locked yet", None, TWO),
    ]
    assert changes(lock, ((entry, ONE) for entry in listed("a:1", "b:1", "c:1", "d:1", "e:1").entries)) == ()
    assert isinstance(changes(lock, ())[0], Change)
