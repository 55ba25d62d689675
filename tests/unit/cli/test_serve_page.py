"""What a browser gets from serve: of a bundle as it was opened, of a storage as it is now."""

from pathlib import Path

import pytest

from regwrap.bundle.by_repository import StorageSource
from regwrap.cli import serve_page
from regwrap.cli.serve_page import front_page
from regwrap.storage.store import Storage
from tests.builders import make_image, make_multi_image, make_storage
from tests.bundles import bundle_image_set, make_bundle

IMAGES = {"team/app:v1": make_image("app"), "multi:v1": make_multi_image("multi")}


def pulled(page: str) -> set[str]:
    lines = page.replace("<wbr>", "").split("docker pull ")[1:]
    return {line.partition("<")[0] for line in lines}


def test_a_bundles_page_has_its_id_and_the_command_for_each_image(tmp_path: Path) -> None:
    path = make_bundle(tmp_path, IMAGES, name="acme-1.0")
    (tmp_path / f"{path.name}.sha256").write_text(f"{'5' * 64}  {path.name}\n")
    with bundle_image_set(path) as image_set:
        page = front_page(path, image_set)
        path.rename(tmp_path / "elsewhere.tar")  # what was opened is served on
        shown = page("r.example:5000")
        assert pulled(shown) == {f"r.example:5000/{name}" for name in IMAGES}
        assert pulled(page("[::1]:80")) == {f"[::1]:80/{name}" for name in IMAGES}
    assert "<h1>acme-1.0</h1>" in shown
    assert f"<code>{image_set.contents.id}</code>" in shown


def test_a_storages_page_is_what_is_there_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_storage(tmp_path / "site", {"team/app:v1": IMAGES["team/app:v1"]})
    page = front_page(root, StorageSource(name=f"{root}", storage=Storage(root)))
    monkeypatch.setattr(serve_page, "_SECONDS", 1e-9)
    assert pulled(page("r.example")) == {"r.example/team/app:v1"}
    make_storage(root, {"new:v2": IMAGES["multi:v1"]})
    assert pulled(page("r.example")) == {"r.example/team/app:v1", "r.example/new:v2"}
