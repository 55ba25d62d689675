"""A list split into shards: every image in one, and nothing moves that need not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regwrap.core.model import ParseError
from regwrap.lists.imagelist import ImageList, parse_images
from regwrap.lists.shards import Shard, shard_images, shard_of

NAMES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 9)), unique=True, max_size=40).map(
    lambda drawn: [f"team-{team}/app-{app}:v{tag}" for team, app, tag in drawn]
)


def listed(names: list[str]) -> ImageList:
    return parse_images("\n".join(names).encode(), "images.list")


def parts(names: list[str], count: int) -> list[set[str]]:
    shards = (shard_images(listed(names), Shard(number, count)) for number in range(1, count + 1))
    return [{str(entry.dest) for entry in shard.entries} for shard in shards]


@pytest.mark.exhaustive
@settings(derandomize=True, deadline=None)
@given(NAMES, st.integers(1, 7))
def test_every_image_is_in_one_shard(names: list[str], count: int) -> None:
    found = parts(names, count)
    assert set.union(*found) == set(names)
    assert sum(map(len, found)) == len(names)


@settings(derandomize=True, deadline=None)
@given(NAMES, st.integers(1, 7))
@pytest.mark.exhaustive
def test_another_image_moves_none(names: list[str], count: int) -> None:
    before, after = parts(names, count), parts(["new/one:1", *names], count)
    assert [found - {"new/one:1"} for found in after] == [found - {"new/one:1"} for found in before]


@settings(derandomize=True, deadline=None)
@given(NAMES, st.integers(1, 6))
@pytest.mark.exhaustive
def test_one_shard_more_takes_from_the_others_only(names: list[str], count: int) -> None:
    before, after = parts(names, count), parts(names, count + 1)
    assert all(now <= then for now, then in zip(after, before, strict=False))


@pytest.mark.slow
def test_the_tags_of_a_repository_stay_together_and_many_are_spread() -> None:
    names = [f"team/app-{number}:{tag}" for number in range(300) for tag in ("v1", "v2")]
    found = parts(names, 3)
    for part in found:
        assert {name.replace(":v1", ":v2") for name in part} == {name for name in part if name.endswith(":v2")}
        assert 150 < len(part) < 250


@pytest.mark.parametrize("text", ["", "1", "0/1", "2/1", "1/0", "1/1001", "-1/2", "1/2/3", " 1/2", "a/b", "01/2"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(ParseError, match="2/5"):
        Shard.parse(text)


def test_a_shard_is_its_text() -> None:
    assert str(Shard.parse("2/5")) == "2/5"
    assert str(Shard.parse("1000/1000")) == "1000/1000"


@pytest.mark.parametrize(
    ("key", "numbers"),
    [
        ("docker.io/library/redis", [1, 2, 2, 2, 279]),
        ("r.example/team/app", [1, 2, 2, 2, 278]),
        ("team/tool", [1, 2, 2, 4, 450]),
    ],
)
def test_which_shard_an_image_is_in_is_the_same_on_each_machine_and_in_each_version(
    key: str, numbers: list[int]
) -> None:
    """Else an image is in the shard of no machine, or in two, while one of them has another version."""
    assert [shard_of(key, count) for count in (1, 2, 3, 5, 1000)] == numbers
