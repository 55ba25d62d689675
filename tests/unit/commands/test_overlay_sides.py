"""An overlay's sides on plain directories: nothing is mounted here."""

import os
from pathlib import Path

import pytest

from regwrap.commands.overlay_sides import check_history, check_merged, check_place, link_known_layers
from regwrap.core.errors import IntegrityError, ToolError, UsageError
from regwrap.core.model import Digest
from regwrap.storage import layout
from regwrap.storage.store import Storage, real_root
from regwrap.tools.overlay import Hiding, MountMode, Overlay, check_mountable, try_overlay
from regwrap.tools.runner import Tool
from regwrap.tools.scratch import overlay_directory
from tests.builders import empty, make_image, make_storage, put, remove
from tests.fakes import Answer, Scripted

USER = MountMode(new_user=True, user_marks=True)
ROOT = MountMode(new_user=False, user_marks=False)


def make_overlay(mode: MountMode) -> Overlay:
    return Overlay(lower=(Path("/l"),), upper=Path("/u"), work=Path("/w"), merged=Path("/m"), mode=mode)


def test_what_a_distribution_may_have_switched_on_is_switched_off() -> None:
    assert (
        make_overlay(ROOT).options == "lowerdir=/l,upperdir=/u,workdir=/w,index=off,metacopy=off,redirect_dir=nofollow"
    )
    assert make_overlay(USER).options.endswith(",userxattr")


@pytest.mark.parametrize("name", ["a,b", "a:b", "a\\b", 'a"b', "a\nb", "a\x7fb"])
def test_paths_that_mount_misreads_are_refused_with_the_character(name: str) -> None:
    with pytest.raises(UsageError, match="do not accept") as caught:
        check_mountable(Path("/srv", name), "the history")
    assert repr(name[1]) in caught.value.message


def test_paths_that_mount_takes_are_let_through() -> None:
    check_mountable(Path("/srv/a b=c#d'e/ü"), "the history")


def trial(*answers: tuple[str, int, str]) -> list[Answer]:
    return [
        Answer(when=(Tool.UNSHARE,), stdout=said.encode(), exit_code=code, stderr=error.encode())
        for said, code, error in answers
    ]


GENERAL = "mount: /x: wrong fs type, bad option, bad superblock on overlay, missing codepage or helper program.\n more"


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    history, place = tmp_path / "history", tmp_path / "place"
    history.mkdir()
    place.mkdir()
    return history, place


def test_the_first_way_that_takes_marks_is_taken_even_after_one_that_can_do_without(
    scripted: Scripted, places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    scripted.launcher.answers += trial(
        ("mounted written removed", 0, ""), ("mounted", 1, "denied"), ("mounted written marked", 0, "")
    )
    assert try_overlay(scripted.runner, lower=places[0], place=places[1]) == USER
    assert list(places[1].iterdir()) == []


def test_without_marks_old_images_are_removed(
    scripted: Scripted, places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    scripted.launcher.answers += trial(("mounted written removed", 0, ""))
    assert try_overlay(scripted.runner, lower=places[0], place=places[1]).hiding is Hiding.REMOVE


@pytest.mark.parametrize(
    ("said", "error", "text"),
    [
        ("", GENERAL, "which the kernel refuses (mount: /x: wrong fs type"),
        ("mounted", "cannot create new: Read-only file system", "can be mounted and then not be used"),
        ("mounted written", "", "where nothing can be hidden"),
        ("", "unshare: unshare failed: Operation not permitted", "forbidden by"),
        ("", "mount: /x: must be superuser to use mount.", "forbidden by"),
    ],
)
def test_what_did_not_work_is_named(
    scripted: Scripted,
    places: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    *,
    said: str,
    error: str,
    text: str,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    scripted.launcher.answers += trial((said, 1, error))
    with pytest.raises(ToolError) as caught:
        try_overlay(scripted.runner, lower=places[0], place=places[1])
    assert text in caught.value.detail
    assert "--strategy select" in caught.value.hint
    assert ("--upper" in caught.value.hint) == ("forbidden" not in text)


def test_a_blob_lies_above_or_below(tmp_path: Path) -> None:
    image = make_image("a")
    below = make_storage(tmp_path / "below", {"a:v1": image})
    storage = Storage(tmp_path / "above", below=(below,))
    blob, other = (Digest.of(data) for data in image.blobs)
    put(tmp_path / "above" / layout.blob_path(other), b"another")

    assert storage.blob_path(blob) == below / layout.blob_path(blob)
    assert storage.read_blob(other) == b"another"
    assert list(storage.repositories()) == []


def test_links_of_listed_repositories_are_known_but_not_those_to_nothing(tmp_path: Path) -> None:
    images = {name: make_image(name) for name in ("a:v1", "a/b:v1", "c:v1")}
    history = make_storage(tmp_path / "history", images)
    absent, broken = (Digest.of(data) for data in images["a/b:v1"].blobs)
    remove(history / layout.blob_path(absent))
    empty(history / layout.layer_link("a/b", broken))

    assert link_known_layers(history, tmp_path / "upper", ["a", "a/b", "new"]) == 2

    upper = Storage(tmp_path / "upper")
    assert {r: set(upper.layers(r)) for r in ("a", "a/b", "c")} == {
        "a": {Digest.of(data) for data in images["a:v1"].blobs},
        "a/b": set(),
        "c": set(),
    }
    assert list(upper.blobs()) == []


def test_merged_must_show_the_list_and_nothing_else(tmp_path: Path) -> None:
    merged = make_storage(tmp_path / "merged", {"a:v1": make_image("a"), "old:v1": make_image("old")})
    check_merged(merged, {"a", "old"})
    with pytest.raises(IntegrityError, match="still shows old"):
        check_merged(merged, {"a"})
    with pytest.raises(IntegrityError, match="does not show new"):
        check_merged(merged, {"a", "old", "new"})


def test_a_history_with_links_in_its_skeleton_is_refused(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "history", {"a:v1": make_image("a")})
    check_history(root)
    prefix = next((root / layout.BLOBS).iterdir())
    prefix.rename(tmp_path / "moved")
    prefix.symlink_to(tmp_path / "moved")
    with pytest.raises(UsageError, match=f"{prefix.name} is a symbolic link"):
        check_history(root)


def test_the_increment_never_lies_in_the_history(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="read-only"):
        check_place(tmp_path, tmp_path / "inside")
    check_place(tmp_path / "history", tmp_path)


def test_what_another_run_holds_stays_and_what_a_dead_one_left_goes(tmp_path: Path) -> None:
    scratch, place = tmp_path / "scratch", tmp_path / "place"
    scratch.mkdir()
    with overlay_directory(place, scratch) as living:
        dead = place / "regwrap-dead"
        (dead / "work/work").mkdir(parents=True)
        (dead / ".regwrap-run").touch()
        (dead / "work/work").chmod(0)
        foreign = place / "regwrap-foreign"
        foreign.mkdir()
        with overlay_directory(place, scratch) as mine:
            assert {path.name for path in place.iterdir()} == {living.name, mine.name, "regwrap-foreign"}
    assert [path.name for path in place.iterdir()] == ["regwrap-foreign"]


def test_a_directory_that_was_made_for_the_increment_is_removed_again(tmp_path: Path) -> None:
    with overlay_directory(tmp_path / "a/b", tmp_path) as run:
        assert run.parent == tmp_path / "a/b"
    assert not (tmp_path / "a/b").exists()
    with pytest.raises(UsageError, match="is not a directory"), overlay_directory(put(tmp_path / "f", b""), tmp_path):
        pass


def test_a_storage_has_one_name_unless_that_leads_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert real_root(tmp_path / "link") == (tmp_path / "real").resolve()
    assert real_root(tmp_path / "absent") == (tmp_path / "absent").resolve()
