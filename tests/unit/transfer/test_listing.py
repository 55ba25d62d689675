"""Tags of many repositories: one that cannot be read hides no other, and what ends the run ends it."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from regwrap.bundle.by_repository import StorageSource
from regwrap.core.errors import HostDownError, RegwrapError, ToolError, UsageError
from regwrap.core.location import Location
from regwrap.storage.store import Storage
from regwrap.transfer.endpoints import Endpoints
from regwrap.transfer.listing import tags_of
from tests.builders import make_image, make_storage
from tests.fakes import Scripted
from tests.unit.transfer.between import Between, between

APP = make_image("app")


@pytest.fixture
def two(scripted: Scripted, tmp_path: Path) -> Iterator[Between]:
    with between(scripted, tmp_path / "root") as found:
        for name in ("a:1", "b:1", "b:2", "c:1"):
            found.source.hold(name, APP)
        yield found


def listed(two: Between, *names: str) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    with ExitStack() as stack:
        job = two.job()
        endpoints = Endpoints(job=job, stack=stack)
        found = tags_of(job, endpoints.registry(two.place(two.source)), names)
    return dict(found.tags), found.unread


def test_tags_come_by_repository(two: Between) -> None:
    assert listed(two, "a", "b") == ({"a": ("1",), "b": ("1", "2")}, ())


def test_one_that_cannot_be_read_is_told_and_hides_no_other(two: Between) -> None:
    two.source.fails = lambda request: 500 if "/v2/b/tags" in request else None
    tags, (unread,) = listed(two, "a", "b", "c")
    assert tags == {"a": ("1",), "c": ("1",)}
    assert unread.startswith("b is left out: ")
    assert "500" in unread


def test_one_that_is_named_and_does_not_exist_is_told(two: Between) -> None:
    tags, (unread,) = listed(two, "a", "gone")
    assert tags == {"a": ("1",)}
    assert unread == f"gone is left out: {two.source.host} names it, and says that it does not exist"


def test_where_none_can_be_read_that_is_the_error(two: Between) -> None:
    two.source.fails = lambda _request: 500
    with pytest.raises(ToolError, match="500"):
        listed(two, "a", "b")
    two.source.fails = lambda _request: None
    with pytest.raises(RegwrapError, match="says that it does not exist"):
        listed(two, "gone")
    assert listed(two) == ({}, ())


def test_a_run_that_is_stopped_leaves_nothing_out_in_silence(two: Between) -> None:
    def stop(request: str) -> int | None:
        if "/v2/b/tags" in request:
            two.scripted.runner.stopping.set()
            return 500
        return None

    two.source.fails = stop
    with pytest.raises(ToolError, match=two.source.host):
        listed(two, "a", "b", "c")


def test_a_host_that_is_down_ends_the_list(two: Between) -> None:
    job = two.job()

    class Down(StorageSource):
        def tags(self, repository: str) -> tuple[str, ...]:
            if repository == "b":
                raise HostDownError("r.io is down", host="r.io")
            return super().tags(repository)

    root = make_storage(two.root, {"a:1": APP, "b:1": APP})
    end = StorageSource(name="x", storage=Storage(root))
    assert dict(tags_of(job, end, ("a", "gone")).tags) == {"a": ("1",), "gone": ()}
    with pytest.raises(HostDownError):
        tags_of(job, Down(name="x", storage=Storage(root)), ("a", "b"))


def test_a_directory_is_no_registry(two: Between) -> None:
    with ExitStack() as stack:
        endpoints = Endpoints(job=two.job(), stack=stack)
        with pytest.raises(UsageError, match="has neither a url nor a storage"):
            endpoints.registry(Location(name="odd", storage=two.root))
