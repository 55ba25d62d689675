"""What a run is asked for: a list, its lock, and rules of the configuration, which mean nothing without a lock."""

from pathlib import Path

import pytest

from regwrap.core.errors import UsageError
from regwrap.core.model import Digest
from regwrap.lists.imagelist import Rewrite, parse_images
from regwrap.lists.rules import ImageRule, make_rule
from regwrap.lists.shards import Shard
from regwrap.lists.wanted import Wanted
from tests.builders import put

ONE, TWO = Digest.of(b"one"), Digest.of(b"two")


def rule(match: str) -> ImageRule:
    return make_rule(match, semver=None, newest=None, platforms=())


def wanted(text: str, *rules: str, shard: Shard | None = None) -> Wanted:
    images = parse_images(text.encode(), "images.list")
    return Wanted(images=images, rules=tuple(map(rule, rules)), rewrite=Rewrite(), shard=shard)


def test_without_rules_and_a_lock_the_list_is_what_counts() -> None:
    found = wanted("team/app:1\n")
    assert found.under(None) is found.images


@pytest.mark.parametrize("text", ["", "team/app:1\n", f"team/app:1\nteam/tool:1@{ONE}\n"])
def test_rules_without_a_lock_are_refused_by_name(text: str) -> None:
    """Else a release would have other images each day, or none of those that the rules mean."""
    with pytest.raises(UsageError, match=r"rules under images: \(team/\*:v1\.\*, other\)") as raised:
        wanted(text, "team/*:v1.*", "other").under(None)
    assert "regwrap lock" in raised.value.hint


def test_of_many_rules_some_are_named() -> None:
    with pytest.raises(UsageError, match=r"\(a0, a1, a2, a3, a4\)"):
        wanted("", *(f"a{number}" for number in range(9))).under(None)


def test_a_list_in_which_each_line_has_a_digest_is_a_lock_itself() -> None:
    found = wanted(f"team/app:1@{ONE}\nteam/tool:1@{TWO}\n", "team/*")
    assert found.under(None) is found.images


def test_under_a_lock_images_have_its_digests_and_rules_theirs(tmp_path: Path) -> None:
    lock = put(tmp_path / "images.lock", f"team/app:1@{ONE}\nteam/tool:2@{TWO}\n".encode())
    entries = wanted("team/app:1\n", "team/tool:*", "other/*").under(lock).entries
    assert {f"{entry.dest}": entry.source.digest for entry in entries} == {"team/app:1": ONE, "team/tool:2": TWO}
    with pytest.raises(UsageError, match=r"team/tool:2 is neither in images\.list nor in a rule"):
        wanted("team/app:1\n", "other/*").under(lock)
    with pytest.raises(UsageError, match="does not exist"):
        wanted("team/app:1\n").under(tmp_path / "absent.lock")
    (tmp_path / "directory").mkdir()
    with pytest.raises(UsageError, match="directory cannot be read: Is a directory"):
        wanted("team/app:1\n").under(tmp_path / "directory")


def test_a_shard_has_a_part_of_the_images() -> None:
    found = wanted("\n".join(f"team/app-{number}:1" for number in range(20)))
    assert all(found.has(entry) for entry in found.images.entries)
    parts = [
        {entry.dest for entry in found.images.entries if wanted("", shard=Shard.parse(f"{part}/2")).has(entry)}
        for part in (1, 2)
    ]
    assert parts[0].isdisjoint(parts[1])
    assert parts[0] | parts[1] == {entry.dest for entry in found.images.entries}
    assert all(parts)
