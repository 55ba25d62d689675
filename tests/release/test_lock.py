"""Locks on the command line: what is written, what a locked run takes where tags move, rules, shards."""

import json
import re
import shutil
from pathlib import Path

import pytest

from regwrap.lists.shards import Shard
from regwrap.storage import layout
from regwrap.storage.store import Storage
from tests.builders import Image, make_image, make_storage, snapshot, storage_problems
from tests.conftest import StartRegistry
from tests.release.conftest import Scene
from tests.release.regwrap_cli import Cli, raw_digest

pytestmark = pytest.mark.tools

OTHER = make_image("quite another")


def move_tag(scene: Scene, name: str, image: Image) -> None:
    """Push `image` under a tag that is there: the old manifest stays, as in any registry."""
    make_storage(scene.ci_root, {name: image})


def remove_tag(scene: Scene, name: str) -> None:
    repository, _, tag = name.partition(":")
    shutil.rmtree((scene.ci_root / layout.tag_link(repository, tag)).parents[1])


def lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


def locked(scene: Scene) -> Scene:
    done = scene.cli("lock", "images.list", "--source", scene.host)
    assert done.returncode == 0, done.stderr
    return scene


def test_a_lock_has_a_sorted_line_an_image_with_digest_platforms_and_size(scene: Scene) -> None:
    locked(scene)
    found = lines(scene.directory / "images.lock")
    dests = [line.partition(" => ")[2].partition(" ")[0] for line in found]
    assert dests == sorted(scene.images, key=lambda name: name.split(":"))
    by_name = {line.partition("@")[0]: line for line in found}
    for name, image in scene.images.items():
        size = sum(map(len, {*image.manifests, *image.blobs}))
        assert f"{name}@{image.top} => {name}  # " in by_name[name]
        assert by_name[name].endswith(f" {size} bytes")
    assert "# linux/amd64,linux/arm64 " in by_name["multi/oci:v1"]


def test_a_lock_of_what_has_not_changed_is_the_same_and_from_a_storage_too(scene: Scene) -> None:
    locked(scene)
    text = (scene.directory / "images.lock").read_text()
    again = scene.cli("lock", "images.list", "--source", scene.host)
    assert f"{len(scene.images)} images, 0 changed" in again.stdout
    assert (scene.directory / "images.lock").read_text() == text
    assert scene.cli("lock", "images.list", "--source", scene.ci_root, "-o", "storage.lock").returncode == 0
    assert (scene.directory / "storage.lock").read_text() == text


def test_a_lock_is_a_list(scene: Scene) -> None:
    locked(scene)
    assert scene.cli("sync", "images.lock", "--source", scene.host).returncode == 0
    assert scene.cli("package", "images.lock", "-o", "r.tar").returncode == 0
    assert scene.cli("verify", "r.tar", "--list", "images.lock").returncode == 0


def test_check_names_what_has_moved_and_what_is_gone(scene: Scene) -> None:
    locked(scene)
    same = scene.cli("lock", "images.list", "--check", "--source", scene.host)
    assert (same.returncode, same.stdout) == (0, f"images.lock: {len(scene.images)} images, all as locked\n")
    move_tag(scene, "app:v1", OTHER)
    remove_tag(scene, "library/tool:1.0")
    (scene.directory / "images.list").write_text("".join(f"{n}\n" for n in scene.images if n != "multi/oci:v1"))
    with (scene.directory / "images.list").open("a") as file:
        file.write("app:v1 => new:v1\n")
    before = (scene.directory / "images.lock").read_text()
    changed = scene.cli("lock", "images.list", "--check", "--source", scene.host)
    assert changed.returncode == 1
    old = {name: str(image.top) for name, image in scene.images.items()}
    assert [line.split() for line in changed.stdout.splitlines()] == [
        ["moved", "app:v1", old["app:v1"], "->", str(OTHER.top)],
        ["gone", "library/tool:1.0", old["library/tool:1.0"], "->", "-"],
        ["no", "longer", "listed", "multi/oci:v1", old["multi/oci:v1"], "->", "-"],
        ["not", "locked", "yet", "new:v1", "-", "->", str(OTHER.top)],
    ]
    assert (scene.directory / "images.lock").read_text() == before


def test_a_locked_sync_takes_the_digest_though_the_tag_has_moved_and_says_so(
    scene: Scene, loopback_registry: StartRegistry
) -> None:
    locked(scene)
    move_tag(scene, "app:v1", OTHER)
    remove_tag(scene, "app:v2")
    plan = scene.cli("sync", "images.list", "--locked", "--dry-run", "--source", scene.host)
    assert re.search(r"copy +app:v1@.*not there yet", plan.stdout)
    assert re.search(rf"  app:v1: copying .*; the source's tag is now {OTHER.top}", plan.stdout)

    done = scene.cli("sync", "images.list", "--locked", "--source", scene.host)

    assert done.returncode == 0, done.stderr
    assert f"{len(scene.images)} copied" in done.stdout
    assert "2 tags drifted at the source" in done.stdout
    old = scene.images["app:v1"].top
    assert f"app:v1: drifted: copied {old}; the source's tag is now {OTHER.top}" in done.stderr
    assert "the source's tag is gone" in done.stderr
    archive = loopback_registry(scene.archive).host
    assert raw_digest(archive, "app:v1") == str(old)
    # as a plain list the lock does not look away
    strict = scene.cli("sync", "images.lock", "--source", scene.host)
    assert strict.returncode == 1
    assert f"app:v1 is {OTHER.top} now, the list says {old}" in strict.stderr


def test_a_locked_release_is_the_same_though_tags_have_moved(scene: Scene) -> None:
    locked(scene)
    first = scene.cli("release", "images.list", "--locked", "--source", scene.host, "-o", "one.tar")
    assert first.returncode == 0, first.stderr
    move_tag(scene, "app:v1", OTHER)
    second = scene.cli("release", "images.list", "--locked", "--source", scene.host, "-o", "two.tar")
    assert second.returncode == 0, second.stderr
    assert (scene.directory / "one.tar").read_bytes() == (scene.directory / "two.tar").read_bytes()
    assert scene.cli("sync", "images.list", "--source", scene.host).returncode == 0
    refused = scene.cli("package", "images.list", "--locked", "--strategy", "select", "-o", "three.tar")
    assert refused.returncode == 1
    assert f"the archive has {OTHER.top}" in refused.stderr


def test_sync_can_lock_first(scene: Scene) -> None:
    done = scene.cli("sync", "images.list", "--lock", "--lock-file", "my.lock", "--source", scene.host)
    assert done.returncode == 0, done.stderr
    assert len(lines(scene.directory / "my.lock")) == len(scene.images)
    assert scene.cli("package", "images.list", "--lock-file", "my.lock", "-o", "r.tar").returncode == 0


def test_a_lock_of_another_list_is_refused_and_a_list_that_fails_is_not_locked(scene: Scene) -> None:
    locked(scene)
    with (scene.directory / "images.list").open("a") as file:
        file.write("no/such:v1\n")
    stale = scene.cli("sync", "images.list", "--locked", "--source", scene.host)
    assert stale.returncode == 2
    assert "images.list:9: no/such:v1 is not in images.lock, or differs there" in stale.stderr
    before = (scene.directory / "images.lock").read_text()
    failed = scene.cli("lock", "images.list", "--source", scene.host)
    assert failed.returncode == 1
    assert f"{scene.host} has no no/such:v1" in failed.stderr
    assert (scene.directory / "images.lock").read_text() == before


# --- rules


VERSIONS = ("v1.0.0", "v1.1.0", "v1.2.0", "v1.3.0-rc.1", "v2.0.0", "nightly")


@pytest.fixture
def many(cli: Cli, tmp_path: Path, loopback_registry: StartRegistry) -> Scene:
    images = {f"team/{name}:{tag}": make_image(f"{name} {tag}") for name in ("api", "web") for tag in VERSIONS}
    images |= {"other/tool:v1.0.0": make_image("tool"), "single:v1": make_image("single")}
    root = make_storage(tmp_path / "many", images)
    (cli.directory / "images.list").write_text("single:v1\n")
    rules = 'images:\n  - {match: "team/*:v*", semver: ">=1 <2", newest: 2}\n'
    (cli.directory / "regwrap.yaml").write_text(rules)
    return Scene(cli=cli, host=loopback_registry(root).host, ci_root=root, images=images)


def test_rules_become_lines_of_the_lock_and_are_refused_without_it(many: Scene) -> None:
    for command in (("sync",), ("package", "-o", "r.tar"), ("release", "-o", "r.tar")):
        refused = many.cli(command[0], "images.list", "--source", many.host, *command[1:])
        assert refused.returncode == 2
        assert "regwrap lock" in refused.stderr
    locked(many)
    meant = ["single:v1", *(f"team/{name}:{tag}" for name in ("api", "web") for tag in ("v1.1.0", "v1.2.0"))]
    assert [line.partition("@")[0] for line in lines(many.directory / "images.lock")] == meant

    released = many.cli("release", "images.list", "--locked", "--source", many.host, "-o", "r.tar")

    assert released.returncode == 0, released.stderr
    shown = json.loads(many.cli("inspect", "r.tar", "--json").stdout)
    assert [image["image"] for image in shown["images"]] == meant


def test_what_takes_no_lock_takes_the_lock_as_its_list(many: Scene) -> None:
    locked(many)
    assert many.cli("sync", "images.list", "--locked", "--source", many.host).returncode == 0
    for command in (("verify", many.archive, "--list"), ("gc", many.archive, "--dry-run", "--keep")):
        refused = many.cli(*command, "images.list")
        assert refused.returncode == 2
        assert "regwrap lock" in refused.stderr
        assert many.cli(*command, "images.lock").returncode == 0
    kept = many.cli("gc", many.archive, "--dry-run", "--keep", "images.lock")
    assert "5 tags would be kept, 0 images would be deleted" in kept.stdout


def test_an_image_that_a_list_and_a_rule_mean_is_the_lists(many: Scene) -> None:
    (many.directory / "images.list").write_text(f"team/api:v1.2.0@{many.images['team/api:v1.2.0'].top}\n")
    locked(many)
    assert len(lines(many.directory / "images.lock")) == 4
    (many.directory / "images.list").write_text("other/tool:v1.0.0 => team/api:v1.2.0\n")
    both = many.cli("lock", "images.list", "--source", many.host)
    assert both.returncode == 2
    assert "team/api:v1.2.0 is the destination of team/api:v1.2.0, by a rule" in both.stderr


def test_a_new_version_is_in_the_lock_only_after_it_is_written_anew(many: Scene) -> None:
    locked(many)
    move_tag(many, "team/api:v1.4.0", OTHER)
    assert many.cli("sync", "images.list", "--locked", "--source", many.host).returncode == 0
    assert "v1.4.0" not in Storage(many.archive).tags("team/api")
    check = many.cli("lock", "images.list", "--check", "--source", many.host)
    assert check.returncode == 1
    assert re.search(r"^not locked yet +team/api:v1\.4\.0 ", check.stdout, flags=re.MULTILINE)
    assert re.search(r"^no longer listed +team/api:v1\.1\.0 ", check.stdout, flags=re.MULTILINE)
    from_storage = many.cli("lock", "images.list", "--source", many.ci_root)
    assert from_storage.returncode == 0
    assert "2 changed" in from_storage.stdout


# --- shards


def test_shards_into_one_archive_are_the_storage_of_one_run(scene: Scene) -> None:
    args = ("sync", "images.list", "--source", scene.host)
    copied = 0
    for number in (1, 2, 3):
        done = scene.cli(*args, "--archive", "./parts", "--shard", f"{number}/3")
        assert done.returncode == 0, done.stderr
        copied += int(done.stdout.partition(" copied")[0])
    assert copied == len(scene.images)
    assert scene.cli(*args, "--archive", "./whole").returncode == 0
    assert contents(scene.directory / "parts") == contents(scene.directory / "whole")
    assert storage_problems(scene.directory / "parts") == set()


def contents(root: Path) -> dict[str, object]:
    return {name: state for name, state in snapshot(root).items() if not name.startswith(".regwrap")}


def test_shards_of_a_lock_are_the_lock(scene: Scene) -> None:
    locked(scene)
    found: list[str] = []
    for number in (1, 2):
        path = scene.directory / f"{number}.lock"
        shard = ("--shard", f"{Shard(number, 2)}", "--source", scene.host)
        assert scene.cli("lock", "images.list", *shard, "-o", path).returncode == 0
        assert scene.cli("lock", "images.list", *shard, "--check").returncode == 0
        found += lines(path)
    assert sorted(found) == sorted(lines(scene.directory / "images.lock"))


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "a/b", "1/1001"])
def test_a_wrong_shard_is_a_usage_error(cli: Cli, shard: str) -> None:
    done = cli("sync", "-", "--source", "127.0.0.1:1", "--shard", shard)
    assert done.returncode == 2
    assert "expected a shard such as 2/5" in done.stderr
