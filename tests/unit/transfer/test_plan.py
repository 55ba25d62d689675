"""Plans: what is copied and why, in which order, and how many bytes have to travel."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regwrap.core.closure import Closure, closure_of
from regwrap.core.errors import UsageError
from regwrap.core.location import Engine
from regwrap.core.manifest import Descriptor
from regwrap.core.model import Digest
from regwrap.lists.imagelist import ImageEntry, parse_images
from regwrap.transfer.plan import (
    Copy,
    Lacking,
    Observation,
    Plan,
    Reason,
    Skip,
    Unseen,
    Whole,
    choose_engine,
    make_plan,
)
from tests.builders import make_image

IMAGE, OTHER = make_image("one"), make_image("other")


def entry(name: str = "a/b:1") -> ImageEntry:
    (only,) = parse_images(name.encode(), "images.list").entries
    return only


def closure() -> Closure:
    found = closure_of(IMAGE.top, {Digest.of(raw): raw for raw in IMAGE.manifests}.get)
    assert found is not None
    return found


CLOSURE = closure()


def blob(name: str, size: int) -> Descriptor:
    return Descriptor(media_type="application/octet-stream", digest=Digest.of(name.encode()), size=size)


def lacking(name: str = "a/b:1", *, missing: Sequence[Descriptor] = (), there: Digest | None = None) -> Lacking:
    return Lacking(entry=entry(name), digest=IMAGE.top, there=there, closure=CLOSURE, missing=tuple(missing))


def whole(name: str) -> Whole:
    return Whole(entry=entry(name), digest=IMAGE.top)


def copy(name: str, reason: Reason = Reason.ABSENT, missing: Sequence[Descriptor] = ()) -> Copy:
    return Copy(entry=entry(name), digest=IMAGE.top, reason=reason, closure=CLOSURE, missing=tuple(missing))


def order(plan: Plan) -> list[str]:
    return [str(item.entry.dest) for item in plan.copies]


@pytest.mark.parametrize("storage", [None, "archive"])
@pytest.mark.parametrize("wanted", list(Engine))
def test_an_engine_is_refused_where_it_cannot_copy_to(wanted: Engine, storage: str | None) -> None:
    odd = {Engine.CURL: None, Engine.SYNC: "archive", Engine.STREAM: "archive"}
    if wanted in odd and odd[wanted] == storage:
        with pytest.raises(UsageError, match=f"the engine {wanted} copies .*{storage or 'the archive'} is a") as raised:
            choose_engine(wanted, storage)
        assert "--engine auto" in raised.value.hint
        return
    best = Engine.STREAM if storage is None else Engine.CURL
    assert choose_engine(wanted, storage).engine is (best if wanted is Engine.AUTO else wanted)


def test_nothing_is_planned_for_nothing() -> None:
    assert make_plan(()) == Plan(copies=(), skips=(), unseen=())


def test_each_copy_has_its_reason() -> None:
    plan = make_plan(
        (
            lacking("a/absent:1"),
            lacking("a/moved:1", there=OTHER.top),
            lacking("a/rotten:1", there=IMAGE.top),
        )
    )
    assert plan.copies == (
        copy("a/absent:1", Reason.ABSENT),
        replace(copy("a/moved:1", Reason.REPLACED), replaced=OTHER.top),
        copy("a/rotten:1", Reason.DAMAGED),
    )


def test_a_tag_of_somebody_else_stays_where_that_is_asked_for() -> None:
    moved = lacking("a/moved:1", there=OTHER.top)
    plan = make_plan((moved, lacking("a/absent:1"), lacking("a/rotten:1", there=IMAGE.top)), keep_tags=True)
    assert order(plan) == ["a/absent:1", "a/rotten:1"]
    assert plan.skips == (Skip(entry=moved.entry, digest=IMAGE.top, reason=Reason.KEPT),)


def test_what_is_whole_is_skipped_and_what_was_not_seen_is_kept() -> None:
    unseen = Unseen(entry=entry("a/z:1"), error="no such host", hint="check the name")
    same = whole("a/y:1")
    assert make_plan((unseen, same, lacking("a/x:1"))) == Plan(
        copies=(copy("a/x:1"),),
        skips=(Skip(entry=entry("a/y:1"), digest=IMAGE.top, reason=Reason.SAME),),
        unseen=(unseen,),
    )


def unseen(name: str) -> Unseen:
    return Unseen(entry=entry(name), error="no such host")


KINDS: tuple[Callable[[str], Observation], ...] = (whole, lacking, unseen)


@pytest.mark.slow
@settings(derandomize=True, deadline=None)
@given(kinds=st.lists(st.sampled_from(KINDS), max_size=8))
def test_no_image_is_dropped_in_silence(kinds: list[Callable[[str], Observation]]) -> None:
    names = [f"a/image-{number}:1" for number in range(len(kinds))]
    plan = make_plan(tuple(kind(name) for kind, name in zip(kinds, names, strict=True)))
    entries = [item.entry for items in (plan.copies, plan.skips, plan.unseen) for item in items]
    assert sorted(str(found.dest) for found in entries) == names


def test_what_is_no_observation_is_refused_and_not_left_out() -> None:
    no_observation: Any = copy("a/b:1")
    with pytest.raises(AssertionError):
        make_plan((no_observation,))


def test_big_shared_blobs_go_first() -> None:
    base, small = blob("base", 1000), blob("small", 10)
    plan = make_plan(
        (
            lacking("a/alone-big:1", missing=[blob("huge", 10**9)]),
            lacking("a/small-1:1", missing=[small, blob("x", 500)]),
            lacking("a/small-2:1", missing=[small]),
            lacking("a/base-1:1", missing=[base, small]),
            lacking("a/base-2:1", missing=[base]),
            lacking("a/alone-small:1", missing=[blob("tiny", 1)]),
        )
    )
    assert order(plan) == [
        "a/base-1:1", "a/base-2:1", "a/small-1:1", "a/small-2:1", "a/alone-big:1", "a/alone-small:1",
    ]  # fmt: skip


def test_what_weighs_the_same_goes_by_name() -> None:
    assert order(make_plan(tuple(lacking(f"a/{name}:1") for name in "cab"))) == ["a/a:1", "a/b:1", "a/c:1"]


def test_a_blob_of_several_images_travels_once() -> None:
    base = blob("base", 1000)
    plan = make_plan((lacking("a/a:1", missing=[base, blob("x", 1)]), lacking("a/b:1", missing=[base])))
    assert [item.bytes_missing for item in plan.copies] == [1001, 1000]
    assert plan.bytes_missing == 1001
    assert plan.copies[1].claims == {base.digest}


BLOBS = [blob(f"blob-{n}", size) for n, size in enumerate([0, 1, 5, 5, 100, 100_000])]
MISSING = st.lists(st.lists(st.sampled_from(BLOBS), unique=True), max_size=8)


@pytest.mark.slow
@settings(derandomize=True, deadline=None)
@given(missing=MISSING, seed=st.integers(0, 3))
def test_a_plan_loses_nothing_and_depends_on_no_order(missing: list[list[Descriptor]], seed: int) -> None:
    items = [lacking(f"a/image-{n}:1", missing=blobs) for n, blobs in enumerate(missing)]
    plan = make_plan(tuple(items))
    assert sorted(order(plan)) == sorted(str(item.entry.dest) for item in items)
    assert plan.bytes_missing == sum(b.size for b in {b.digest: b for blobs in missing for b in blobs}.values())
    assert plan.bytes_missing <= sum(item.bytes_missing for item in plan.copies)
    random.Random(seed).shuffle(items)
    assert make_plan(tuple(items)) == plan
