"""Export and import without a program: names, files, partial indexes, and an import that fails at every step."""

import os
from functools import partial
from pathlib import Path

import pytest

from regwrap.bundle.discovery import full_name, history_image_set, storage_image_set, tree_image_set
from regwrap.bundle.merge import ImportOptions
from regwrap.commands.export import ExportOptions, export_images
from regwrap.commands.import_tree import import_images
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.listener import Silent
from regwrap.core.model import Digest
from regwrap.core.moves import Existing
from regwrap.forms.tree import Form
from regwrap.storage import commit as commit_module
from regwrap.storage import layout
from regwrap.storage.commit import Owner, RealFiles
from regwrap.storage.store import Storage
from regwrap.storage.tree import Tree
from tests.builders import make_image, make_multi_image, make_storage, remove, storage_problems
from tests.crashing import Died, DyingFiles
from tests.lost import lose

IMAGES = {"app:v1": make_image("app"), "team/multi:v1": make_multi_image("multi"), "app/v1:x": make_image("deep")}


def taking(*, existing: Existing = Existing.FAIL) -> ImportOptions:
    return ImportOptions(existing=existing, dry_run=False, lock_timeout=0)


def export(root: Path, target: Path, form: Form = Form.DIR) -> None:
    scratch = target.parent / f"{target.name}.scratch"
    scratch.mkdir()
    options = ExportOptions(form=form, dry_run=False, scratch=scratch)
    export_images(storage_image_set(Storage(root)), target, options, Silent())


def test_an_export_is_on_the_disk_before_it_has_its_name_and_its_name_is_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_name = list[bool]()
    target = tmp_path / "export"

    def synced(_descriptor: int) -> int:
        has_name.append(target.exists())
        return 0

    monkeypatch.setattr(commit_module._LIBC, "syncfs", synced)
    export(make_storage(tmp_path / "root", {"app:v1": make_image("app")}), target, Form.OCI)
    assert has_name == [False, True]


def test_an_export_names_each_blob_that_the_disk_does_not_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_storage(tmp_path / "root", IMAGES)
    lost = [Digest.of(IMAGES[name].blobs[1]) for name in ("app:v1", "app/v1:x")]
    for digest in lost:
        lose(monkeypatch, root / layout.blob_path(digest))
    with pytest.raises(IntegrityError, match="is damaged; nothing was changed") as raised:
        export(root, tmp_path / "export")
    assert sorted(raised.value.problems) == sorted(
        f"blob {digest} cannot be read: Input/output error" for digest in lost
    )
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize(
    ("name", "named", "expected"),
    [
        ("app:v1", None, "app:v1"),
        ("team/app/v1", None, "team/app:v1"),
        ("docker.io/library/x:1", None, "docker.io/library/x:1"),
        ("v1", "team/app", "team/app:v1"),
        (None, "team/app:v1", "team/app:v1"),
        ("app:v1", "other:v2", "app:v1"),
    ],
)
def test_an_image_has_its_own_name_or_the_one_that_is_given(name: str | None, named: str | None, expected: str) -> None:
    assert full_name(name, named) == expected


@pytest.mark.parametrize("name", [None, "v1", "127.0.0.1:5000/app:v1", "UPPER:v1", "app:", "../app:v1", "app:v 1"])
def test_what_names_no_image_is_refused(name: str | None) -> None:
    with pytest.raises(UsageError):
        full_name(name, None)


@pytest.mark.slow
@pytest.mark.parametrize("form", list(Form))
def test_a_partial_index_stays_partial(tmp_path: Path, form: Form) -> None:
    root = make_storage(tmp_path / "ci", IMAGES)
    child = Digest.of(IMAGES["team/multi:v1"].manifests[0])
    remove(root / layout.revision_link("team/multi", child))
    remove(root / layout.blob_path(child))
    export(root, tmp_path / "tree", form)
    report = import_images(tree_image_set(f"{tmp_path}/tree", named=None), tmp_path / "back", taking(), Silent())
    assert report.omitted == 1
    assert storage_image_set(Storage(tmp_path / "back")).contents == storage_image_set(Storage(root)).contents


def test_a_lost_manifest_is_not_taken_for_one_that_was_left_out(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "ci", IMAGES)
    remove(root / layout.blob_path(Digest.of(IMAGES["team/multi:v1"].manifests[0])))
    with pytest.raises(IntegrityError) as caught:
        storage_image_set(Storage(root))
    assert "is missing" in caught.value.problems[0]


def test_history_has_no_image_and_no_link_that_dangles(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "ci", IMAGES)
    lost = Storage(root).layers("app")[0]
    remove(root / layout.blob_path(lost))
    contents = history_image_set(Storage(root)).contents
    assert contents.images == ()
    linked = {digest for repository in contents.repositories for digest in repository.layers}
    assert lost not in linked
    assert linked <= {digest for digest, _size in contents.blobs}


@pytest.mark.exhaustive
def test_an_import_that_dies_at_any_step_leaves_no_half_image_and_is_done_by_the_next(tmp_path: Path) -> None:
    export(make_storage(tmp_path / "ci", IMAGES), tmp_path / "tree")
    image_set = tree_image_set(f"{tmp_path}/tree", named=None)
    count = DyingFiles(RealFiles(Owner.of(Tree(tmp_path))), left=10_000)
    import_images(image_set, tmp_path / "whole", taking(), Silent(), lambda _owner: count)
    for number in range(0, len(count.done), 5):
        root = tmp_path / f"back-{number}"
        dying = DyingFiles(RealFiles(Owner.of(Tree(tmp_path))), left=number, half=True)
        with pytest.raises(Died):
            import_images(image_set, root, taking(), Silent(), partial(_given, dying))
        assert not storage_problems(root)
        import_images(image_set, root, taking(), Silent())
        assert storage_image_set(Storage(root)).contents == image_set.contents


def test_a_directory_that_is_no_storage_is_not_imported_into(tmp_path: Path) -> None:
    export(make_storage(tmp_path / "ci", IMAGES), tmp_path / "tree")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/file").touch()
    with pytest.raises(UsageError, match="neither empty nor a storage"):
        import_images(tree_image_set(f"{tmp_path}/tree", named=None), tmp_path / "home", taking(), Silent())


@pytest.mark.slow
def test_a_new_file_system_is_imported_into(tmp_path: Path) -> None:
    export(make_storage(tmp_path / "ci", IMAGES), tmp_path / "tree")
    (tmp_path / "back/lost+found").mkdir(parents=True)
    image_set = tree_image_set(f"{tmp_path}/tree", named=None)
    import_images(image_set, tmp_path / "back", taking(), Silent())
    assert storage_image_set(Storage(tmp_path / "back")).contents == image_set.contents


def test_the_inside_of_a_storage_is_not_imported_into(tmp_path: Path) -> None:
    export(make_storage(tmp_path / "ci", IMAGES), tmp_path / "tree")
    with pytest.raises(UsageError, match="seems to be a directory inside a storage"):
        import_images(tree_image_set(f"{tmp_path}/tree", named=None), tmp_path / "ci/docker", taking(), Silent())


def test_a_directory_that_can_t_be_read_is_not_left_out_in_silence(tmp_path: Path) -> None:
    export(make_storage(tmp_path / "root", IMAGES), tmp_path / "tree")
    descriptor = os.open(tmp_path / "tree", os.O_RDONLY)
    for _ in range(20):  # deeper than a path can name
        os.mkdir("d" * 250, dir_fd=descriptor)
        inner = os.open("d" * 250, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    with pytest.raises(OSError, match="too long"):
        tree_image_set(f"{tmp_path}/tree", named=None)


def _given(files: DyingFiles, _owner: Owner) -> DyingFiles:
    return files
