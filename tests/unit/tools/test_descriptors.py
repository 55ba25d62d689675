"""How many images at a time the limit of open files allows."""

import resource

import pytest

from regwrap.tools.descriptors import affordable_jobs


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The kernel's limits, soft and hard; the last counts."""
    known = [(1024, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _which: known[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _which, new: known.append(new))
    return known


def test_what_is_enough_is_left_alone(limits: list[tuple[int, int]]) -> None:
    said: list[str] = []
    assert affordable_jobs(32, said.append) == 32
    assert (said, limits) == ([], [(1024, 4096)])


def test_the_soft_limit_is_raised_as_far_as_the_run_needs(limits: list[tuple[int, int]]) -> None:
    said: list[str] = []
    assert affordable_jobs(64, said.append) == 64
    assert (said, limits[-1]) == ([], (1728, 4096))


def test_where_the_hard_limit_is_too_low_fewer_work_and_it_is_said(limits: list[tuple[int, int]]) -> None:
    limits.append((256, 512))
    said: list[str] = []
    assert affordable_jobs(32, said.append) == 13
    assert limits[-1] == (512, 512)
    assert said == ["note: only 512 files may be open (ulimit -n): 13 images at a time instead of 32"]


def test_one_is_always_tried(limits: list[tuple[int, int]]) -> None:
    limits.append((16, 16))
    assert affordable_jobs(8, lambda _text: None) == 1
