"""Which blobs travel, in which order, and whose they are."""

from dataclasses import replace

from regwrap.core.manifest import Descriptor
from regwrap.transfer import needs
from regwrap.transfer.plan import Copy
from tests.unit.transfer.test_plan import blob, copy

BIG, MIDDLE, SMALL, TINY = blob("big", 1000), blob("middle", 500), blob("small", 10), blob("tiny", 1)


def needs_of(copies: tuple[Copy, ...]) -> tuple[needs.Need, ...]:
    """As for a storage: all that belongs to an image is wanted."""
    return needs.needs_of(copies, lambda copy: copy.closure.blobs)


def needing(name: str, *blobs: Descriptor, there: tuple[Descriptor, ...] = ()) -> Copy:
    bare = copy(f"{name}:1", missing=blobs)
    return replace(bare, closure=replace(bare.closure, blobs=(*blobs, *there)))


def test_each_blob_travels_once_and_all_that_need_it_are_named() -> None:
    found = needs_of((needing("a", BIG, SMALL), needing("b", BIG, MIDDLE), needing("c", SMALL)))
    assert sorted((need.blob.size, [str(copy.entry.dest) for copy in need.copies]) for need in found) == [
        (10, ["a:1", "c:1"]),
        (500, ["b:1"]),
        (1000, ["a:1", "b:1"]),
    ]


def test_large_ones_come_first_and_an_images_small_ones_behind_them() -> None:
    found = needs_of((needing("a", TINY, MIDDLE), needing("b", SMALL, BIG), needing("c", TINY, SMALL)))
    assert [need.blob.size for need in found] == [1000, 10, 500, 1]
    assert [str(need.first.entry.dest) for need in found] == ["b:1", "b:1", "a:1", "a:1"]


def test_what_the_destination_has_is_needed_all_the_same() -> None:
    found = needs_of((needing("a", SMALL, there=(BIG, MIDDLE)), needing("b", MIDDLE)))
    assert {need.blob.size: need.is_there for need in found} == {1000: True, 500: False, 10: False}


def test_nothing_that_is_needed_is_nothing_to_do() -> None:
    assert needs_of((needing("a"),)) == ()


def test_a_registry_wants_what_the_image_s_own_repository_lacks() -> None:
    found = needs.needs_of((needing("a", SMALL, there=(BIG,)), needing("b", BIG)), lambda copy: copy.missing)
    assert [(need.blob.size, [str(copy.entry.dest) for copy in need.copies]) for need in found] == [
        (1000, ["b:1"]),
        (10, ["a:1"]),
    ]
