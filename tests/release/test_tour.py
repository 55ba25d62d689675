"""From images.list to a pull from the deployed storage, as a release engineer would do it."""

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from regwrap.cli.catalog import COMMANDS
from tests.conftest import StartRegistry
from tests.release.conftest import Scene
from tests.release.regwrap_cli import Cli, raw_digest

pytestmark = pytest.mark.tools


def test_a_release_is_deployed_and_served_with_the_same_digests(scene: Scene, loopback_registry: StartRegistry) -> None:
    cli, site = scene.cli, scene.directory / "site"

    released = cli("release", "images.list", "--source", scene.host, "-o", "release-v1.1.tar")
    assert released.returncode == 0, released.stderr
    checked = subprocess.run(["sha256sum", "-c", "release-v1.1.tar.sha256"], cwd=scene.directory, check=False)
    assert checked.returncode == 0
    facts = json.loads((scene.directory / "release-v1.1.json").read_text())
    assert facts["images"] == len(scene.images)
    assert facts["tools"]["skopeo"]

    for command in (
        ("deploy", "release-v1.1.tar", "site"),
        ("deploy", "release-v1.1.tar", "site"),
        ("verify", "site", "--list", "images.list"),
        ("verify", "release-v1.1.tar", "--list", "images.list"),
    ):
        done = cli(*command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert not (site / ".regwrap/deploy").exists()

    host = loopback_registry(site).host
    assert {name: raw_digest(host, name) for name in scene.images} == {
        name: str(image.top) for name, image in scene.images.items()
    }


def test_plain_tar_unpacks_to_a_storage_that_a_registry_serves(
    scene: Scene, loopback_registry: StartRegistry, tmp_path: Path
) -> None:
    assert scene.cli("release", "images.list", "--source", scene.host, "-o", "r.tar").returncode == 0
    plain = tmp_path / "plain"
    plain.mkdir()
    subprocess.run(["tar", "-xf", scene.directory / "r.tar", "-C", plain], check=True)

    host = loopback_registry(plain).host

    assert {raw_digest(host, name) for name in scene.images} == {str(i.top) for i in scene.images.values()}


def test_package_gives_the_same_bytes_under_any_umask_and_environment(scene: Scene) -> None:
    cli = scene.cli
    assert cli("sync", "images.list", "--source", scene.host).returncode == 0
    digests = set()
    odd = {"TZ": "Asia/Tokyo", "LANG": "de_DE.UTF-8", "TAR_OPTIONS": "--remove-files", "SOURCE_DATE_EPOCH": "99"}
    for number, (mask, env) in enumerate(((0o022, {}), (0o077, odd), (0o000, {"POSIXLY_CORRECT": "1"}))):
        old = os.umask(mask)
        try:
            done = cli("package", "images.list", "-o", f"{number}.tar", env=env)
        finally:
            os.umask(old)
        assert done.returncode == 0, done.stderr
        digests.add(hashlib.sha256((scene.directory / f"{number}.tar").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_second_sync_says_that_all_is_there_and_starts_no_skopeo(scene: Scene) -> None:
    first = scene.cli("sync", "images.list", "--source", scene.host)
    assert f"{len(scene.images)} copied, 0 already there, 0 failed" in first.stdout
    again = scene.cli("sync", "images.list", "--source", scene.host, "--verbose")
    assert f"0 copied, {len(scene.images)} already there, 0 failed" in again.stdout
    assert "skopeo" not in again.stderr


def test_dry_run_names_a_reason_for_each_image_and_makes_nothing(scene: Scene) -> None:
    done = scene.cli("sync", "images.list", "--source", scene.host, "--dry-run")
    assert done.returncode == 0
    assert done.stdout.count("not there yet") == len(scene.images)
    assert not scene.archive.exists()


def test_failed_lines_are_a_list_again_and_the_others_are_copied(scene: Scene) -> None:
    (scene.directory / "some.list").write_text("app:v1\nno/such:v9  # gone\nmulti/oci:v7 => other:v7\n")
    done = scene.cli("sync", "some.list", "--source", scene.host)
    assert done.returncode == 1
    assert "1 copied, 0 already there, 2 failed" in done.stdout
    assert f"{scene.host} has no no/such:v9" in done.stderr
    assert (scene.directory / "failed.list").read_text() == (
        "# failed of some.list\nno/such:v9\nmulti/oci:v7 => other:v7\n"
    )
    assert scene.cli("sync", "failed.list", "--source", scene.host, "--dry-run").returncode == 1


def test_what_an_earlier_run_of_the_list_left_goes_when_nothing_fails_any_more(scene: Scene) -> None:
    (failed, listed), words = ((scene.directory / n) for n in ("failed.list", "some.list")), ("--source", scene.host)
    listed.write_text("app:v1\nno/such:v9\n")
    refused = scene.cli("release", "some.list", *words, "-o", "r.tar")
    assert refused.returncode == 1
    assert "retry them with: regwrap sync failed.list" in refused.stderr
    assert failed.read_text() == "# failed of some.list\nno/such:v9\n"
    assert scene.cli("sync", "images.list", *words).returncode == 0
    assert failed.exists()  # of another list
    shard = scene.cli("sync", "some.list", *words, "--shard", "1/1")
    assert shard.returncode == 1
    assert (scene.directory / "failed-1-of-1.list").read_text() == failed.read_text()
    listed.write_text("app:v1\n")
    assert scene.cli("sync", "some.list", *words).returncode == 0
    assert not failed.exists()


def test_every_bad_line_is_reported_and_nothing_is_started(scene: Scene) -> None:
    (scene.directory / "bad.list").write_text("ok:v1\n--help\nUPPER:v1\na:v1 => x:1\nb:v1 => x:1\n$(id):v1\n")
    done = scene.cli("sync", "bad.list", "--source", scene.host)
    assert done.returncode == 2
    assert [int(n) for n in re.findall(r"bad\.list:(\d+):", done.stderr)][:1] == [2]
    for line in ("bad.list:2:", "bad.list:3:", "bad.list:5:", "bad.list:6:"):
        assert line in done.stderr
    assert "Traceback" not in done.stderr
    assert not scene.archive.exists()


def test_a_list_is_read_from_standard_input_and_the_result_is_json(scene: Scene) -> None:
    done = scene.cli("sync", "-", "--source", scene.host, "--json", "--quiet", stdin="app:v1\n")
    assert done.returncode == 0
    assert json.loads(done.stdout)["copied"][0]["copy"]["entry"]["dest"] == "app:v1"
    assert done.stderr == ""


def test_renamed_and_partial_images_arrive_as_the_list_says(scene: Scene, loopback_registry: StartRegistry) -> None:
    lines = "app:v1 => vendor/app:1\nmulti/oci:v1 platform=linux/arm64\n"
    (scene.directory / "images.list").write_text(lines)
    cli = scene.cli
    assert cli("release", "images.list", "--source", scene.host, "-o", "r.tar").returncode == 0
    shown = json.loads(cli("inspect", "r.tar", "--json").stdout)
    assert [(i["image"], i["platforms"], i["omitted"]) for i in shown["images"]] == [
        ("multi/oci:v1", ["linux/arm64"], 1),
        ("vendor/app:1", ["linux/amd64"], 0),
    ]
    assert cli("deploy", "r.tar", "site").returncode == 0
    assert cli("verify", "site", "--list", "images.list").returncode == 0
    host = loopback_registry(scene.directory / "site").host
    assert raw_digest(host, "multi/oci:v1") == str(scene.images["multi/oci:v1"].top)
    assert raw_digest(host, "vendor/app:1") == str(scene.images["app:v1"].top)


def test_a_platform_that_an_image_does_not_have_is_named(scene: Scene) -> None:
    lines = "multi/oci:v1 platform=linux/riscv64\napp:v1 platform=linux/arm64\n"
    done = scene.cli("sync", "-", "--source", scene.host, stdin=lines)
    assert done.returncode == 1
    assert "has no linux/riscv64; it has linux/amd64, linux/arm64" in done.stderr
    assert "is for linux/amd64, not for linux/arm64" in done.stderr


def test_verify_names_what_is_not_in_the_list(scene: Scene) -> None:
    assert scene.cli("release", "images.list", "--source", scene.host, "-o", "r.tar").returncode == 0
    (scene.directory / "other.list").write_text("app:v1\nnew/one:v1\n")
    done = scene.cli("verify", "r.tar", "--list", "other.list")
    assert done.returncode == 1
    assert "new/one:v1: is listed (line 2) but missing here" in done.stdout
    assert "multi/oci:v1: is not in the list" in done.stdout
    assert "damage" not in done.stderr.replace("undamaged", "")


def test_a_site_with_two_releases_is_verified_against_each_of_them(scene: Scene) -> None:
    cli = scene.cli
    for number, names in enumerate(("app:v1\nlibrary/tool:1.0\n", "app:v2\n"), 1):
        (scene.directory / f"v1.{number}.list").write_text(names)
        assert cli("release", f"v1.{number}.list", "--source", scene.host, "-o", f"v1.{number}.tar").returncode == 0
        assert cli("deploy", f"v1.{number}.tar", "site").returncode == 0
    for number, others in ((1, "1 other image is"), (2, "2 other images are")):
        checked = cli("verify", "site", "--list", f"v1.{number}.list")
        assert (checked.returncode, checked.stderr) == (0, ""), checked.stderr
        assert checked.stdout.endswith(f": valid; {others} not in the list\n")
    exact = cli("verify", "site", "--list", "v1.2.list", "--exact")
    assert exact.returncode == 1
    assert "app:v1: is not in the list" in exact.stdout
    assert cli("verify", "site", "--exact").returncode == 2
    assert cli("verify", "site", "--list", "v1.1.tar").returncode == 0
    remembered = json.loads(cli("releases", "site", "--json").stdout)["releases"]
    assert sorted(item["images"] for item in remembered) == [1, 2]
    for item in remembered:
        assert item["state"] == "current"
        assert item["sha256"] in {
            (scene.directory / f"v1.{number}.tar.sha256").read_text().split()[0] for number in (1, 2)
        }


def test_a_rotten_archive_never_ships_and_release_mends_it(scene: Scene) -> None:
    cli = scene.cli
    assert cli("sync", "images.list", "--source", scene.host).returncode == 0
    layer = max(scene.archive.glob("docker/registry/v2/blobs/sha256/*/*/data"), key=lambda path: path.stat().st_size)
    data = bytearray(layer.read_bytes())
    data[len(data) // 2] ^= 1
    layer.write_bytes(data)

    refused = cli("package", "images.list", "-o", "r.tar")
    assert refused.returncode == 4
    assert layer.parent.name in refused.stderr
    assert "regwrap sync --hash" in refused.stderr
    assert not list(scene.directory.glob("r.tar*"))

    mended = cli("release", "images.list", "--source", scene.host, "-o", "r.tar")
    assert mended.returncode == 0, mended.stderr
    assert "damaged in the archive" in mended.stderr
    assert cli("verify", "r.tar").returncode == 0

    assert "cache" not in cli("deploy", "r.tar", "site").stderr
    there = scene.directory / "site" / layer.relative_to(scene.archive)
    there.write_bytes(data)
    again = cli("deploy", "r.tar", "site")  # docker-registry runs here, as the source
    assert "1 damaged blob was repaired: restart the registry if it runs on this directory" in again.stderr


def test_a_named_release_says_its_name_and_id_everywhere(scene: Scene) -> None:
    cli = scene.cli
    released = cli("release", "images.list", "--source", scene.host, "--name", "acme-2.4.1", "-o", "r.tar")
    assert released.returncode == 0, released.stderr
    again = cli("package", "images.list", "--name", "acme-2.4.1", "-o", "again.tar")
    assert again.returncode == 0, again.stderr
    assert (scene.directory / "r.tar").read_bytes() == (scene.directory / "again.tar").read_bytes()
    bundle_json = subprocess.run(
        ["tar", "-xOf", "r.tar", "bundle.json"], cwd=scene.directory, check=True, capture_output=True
    ).stdout
    identity = f"sha256:{hashlib.sha256(bundle_json).hexdigest()}"
    facts = json.loads((scene.directory / "r.json").read_text())
    assert (facts["name"], facts["id"]) == ("acme-2.4.1", identity)
    assert f"release acme-2.4.1, id {identity}" in cli("inspect", "r.tar").stdout
    assert cli("deploy", "r.tar", "site").returncode == 0
    refused = cli("package", "images.list", "--name", "two words", "-o", "no.tar")
    assert (refused.returncode, (scene.directory / "no.tar").exists()) == (2, False)
    assert "--name" in refused.stderr


def test_an_empty_list_makes_a_valid_empty_bundle(scene: Scene) -> None:
    done = scene.cli("release", "-", "-o", "r.tar", stdin="# nothing yet\n")
    assert done.returncode == 0, done.stderr
    assert scene.cli("verify", "r.tar").returncode == 0
    assert scene.cli("deploy", "r.tar", "site").returncode == 0


def test_a_storage_is_a_source_and_a_registry_a_destination(
    scene: Scene, loopback_registry: StartRegistry, tmp_path: Path
) -> None:
    (scene.directory / "some.list").write_text("app:v1\napp/sidecar:v1\nmulti/oci:v1\nmulti/docker:v1\n")
    dest = loopback_registry(tmp_path / "dest").host
    done = scene.cli("sync", "some.list", "--source", scene.ci_root, "--dest", dest)
    assert done.returncode == 0, done.stderr
    for name in ("app:v1", "app/sidecar:v1", "multi/oci:v1", "multi/docker:v1"):
        assert raw_digest(dest, name) == str(scene.images[name].top)
    again = scene.cli("sync", "some.list", "--source", scene.ci_root, "--dest", dest)
    assert "0 copied, 4 already there" in again.stdout


def test_the_archive_of_sync_is_collected_and_still_makes_the_bundle(scene: Scene) -> None:
    cli = scene.cli
    assert cli("sync", "images.list", "--source", scene.host).returncode == 0
    (scene.directory / "one.list").write_text("app:v1\n")
    (scene.directory / "two.list").write_text("multi/oci:v1\nno/such:v1\n")
    args = ("gc", scene.archive, "--keep", "one.list", "--keep", "two.list")
    told = cli(*args, "--dry-run")
    assert told.returncode == 0
    assert re.search(r"^app/sidecar:v1 +not in the list$", told.stdout, flags=re.MULTILINE)
    assert "note: no/such:v1 is to be kept and is not there" in told.stderr
    done = cli(*args, "--json", "--quiet")  # regwrap's own: --offline is not needed
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["kept"] == 2
    assert len(json.loads(done.stdout)["images"]) == len(scene.images) - 2
    assert cli("verify", scene.archive).returncode == 0
    assert cli("package", "one.list", "-o", "r.tar").returncode == 0
    again = cli("sync", "images.list", "--source", scene.host)
    assert f"{len(scene.images) - 2} copied, 2 already there" in again.stdout
    assert cli("verify", scene.archive, "--list", "images.list").returncode == 0


def test_gc_of_a_storage_that_a_registry_serves_needs_a_word(scene: Scene) -> None:
    refused = scene.cli("gc", scene.ci_root, "--keep-last", "1")
    assert refused.returncode == 2
    assert "give --offline" in refused.stderr
    assert scene.cli("gc", scene.ci_root, "--keep-last", "1", "--offline").returncode == 0
    nothing = scene.cli("gc", scene.ci_root, "--keep", "-", "--offline")
    assert nothing.returncode == 2
    assert "nothing would remain" in nothing.stderr


def test_the_page_of_all_commands_has_each_and_only_options_that_exist(cli: Cli) -> None:
    page = (Path(__file__).parents[2] / "docs/commands.md").read_text()
    tour = re.findall(r"^regwrap ([a-z]+)((?: (?:show|from-[a-z]+))?[^#\n]*)#", page, flags=re.MULTILINE)
    assert {verb for verb, _rest in tour} == {entry.words[0] for entry in COMMANDS}
    for verb, rest in tour:
        below = re.match(r" (show|from-[a-z]+)", rest)
        usage = cli(verb, *(below.groups() if below else ()), "--help").stdout
        for option in re.findall(r"(?<= )--?[a-z]+", rest):
            assert option in usage


def test_doctor_is_content_where_all_is_there_and_says_what_to_install(cli: Cli) -> None:
    doctor = cli("doctor", "--json")
    assert doctor.returncode == 0, doctor.stdout
    lost = cli("doctor", env={"PATH": "/nonexistent"})
    assert lost.returncode == 3
    assert "apt-get install skopeo" in lost.stdout


def test_list_of_another_tool_is_released_and_verified_under_rewritten_names(scene: Scene) -> None:
    cli = scene.cli
    (scene.directory / "regwrap.yaml").write_text("rewrite: {prefix: mirror/}\n")
    text = f"{scene.host}:\n  tls-verify: false\n  images: {{app: [v1, v2], library/tool: ['1.0']}}\n"
    (scene.directory / "any.name").write_text(text)
    names = {"mirror/app:v1", "mirror/app:v2", "mirror/library/tool:1.0"}

    planned = cli("sync", "-", "--dry-run", stdin=text)
    assert planned.returncode == 0, planned.stderr
    assert "note: <stdin>:1: read as a list of skopeo sync, with 3 images" in planned.stderr
    assert all(f" -> {name}" in planned.stdout for name in names)

    released = cli("release", "any.name", "-o", "r.tar")
    assert released.returncode == 0, released.stderr
    inspected = json.loads(cli("inspect", "r.tar", "--json").stdout)
    assert {image["image"] for image in inspected["images"]} == names
    assert cli("verify", "r.tar", "--list", "any.name").returncode == 0
    (scene.directory / "regwrap.yaml").unlink()
    assert cli("verify", "r.tar", "--list", "any.name").returncode == 1


def test_list_that_regwrap_cannot_follow_is_refused_before_anything_is_started(cli: Cli) -> None:
    done = cli("sync", "-", stdin="r.example:\n  images-by-semver: {app: '>=1'}\n")
    assert done.returncode == 2
    assert "<stdin>:2:3: `r.example.images-by-semver` selects tags by a pattern" in done.stderr
