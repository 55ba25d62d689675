"""Names at the destination."""

import pytest

from regwrap.core.errors import UsageError
from regwrap.core.model import Digest, ParseError
from regwrap.lists.imagelist import ImageEntry
from regwrap.lists.naming import Naming, Rename, entry_of, renamed


def entries(*names: str) -> tuple[ImageEntry, ...]:
    pairs = [name.split(":") for name in names]
    return tuple(entry_of(repository, tag, Digest("a" * 64)) for repository, tag in pairs)


def dests(naming: Naming, *names: str) -> list[str]:
    return [str(entry.dest) for entry in renamed(entries(*names), naming)]


def test_a_prefix_stands_in_front_and_the_source_keeps_its_name() -> None:
    assert dests(Naming(), "team/app:v1", "tool:1") == ["team/app:v1", "tool:1"]
    assert dests(Naming(prefix="product/x"), "team/app:v1") == ["product/x/team/app:v1"]
    assert renamed(entries("team/app:v1"), Naming(prefix="p"))[0].source.repository == "team/app"


def test_flat_keeps_the_last_part_and_two_images_of_one_name_are_an_error() -> None:
    assert dests(Naming(prefix="p", flat=True), "team/app:v1", "other/app:v2") == ["p/app:v1", "p/app:v2"]
    with pytest.raises(UsageError) as caught:
        renamed(entries("team/app:v1", "other/app:v1", "x:v1"), Naming(flat=True))
    assert caught.value.detail.count("would be app:v1, as another image too") == 2


def test_a_name_that_gets_too_long_is_an_error() -> None:
    with pytest.raises(UsageError, match="cannot have these names"):
        renamed(entries(f"{'a' * 200}:v1"), Naming(prefix="b" * 60))


def test_the_first_rename_that_fits_counts_and_only_whole_parts_of_a_name_fit() -> None:
    renames = (Rename.parse("team/app=apps/main"), Rename.parse("team=squad"))
    names = ("team/app:v1", "team/app/worker:v1", "team/application:v1", "teams/x:v1", "team/y/z:v1")
    assert dests(Naming(prefix="p", renames=renames), *names) == [
        "p/apps/main:v1", "p/apps/main/worker:v1", "p/squad/application:v1", "p/teams/x:v1", "p/squad/y/z:v1",
    ]  # fmt: skip
    assert dests(Naming(flat=True, renames=renames[:1]), "team/app:v1", "other/app:v1") == ["apps/main:v1", "app:v1"]


@pytest.mark.parametrize("text", ["team", "=x", "team=", "Team=x", "team=a:b", ""])
def test_what_is_no_rename_is_said_so(text: str) -> None:
    with pytest.raises(ParseError, match="is not OLD=NEW"):
        Rename.parse(text)


def test_a_rename_that_concerns_no_image_is_an_error() -> None:
    with pytest.raises(UsageError, match="no image is named tem or tem/"):
        renamed(entries("team/app:v1"), Naming(renames=(Rename("tem", "x"),)))


def test_an_image_that_is_of_no_list_has_no_line() -> None:
    (entry,) = entries("team/app:v1")
    assert (entry.where, entry.at("bundle")) == ("team/app:v1", "bundle")
