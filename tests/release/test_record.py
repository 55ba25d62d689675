"""Reports on the command line: files, GitHub's words, what is merged and shown."""

import json
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from regwrap.core.model import Digest
from tests.builders import make_image, make_storage
from tests.conftest import StartRegistry
from tests.faultserver import Fault, faulty_proxy
from tests.release.conftest import Scene
from tests.release.regwrap_cli import Cli

pytestmark = pytest.mark.tools


def report_of(path: Path) -> dict[str, dict[str, object]]:
    return {image["image"]: image for image in json.loads(path.read_text())["images"]}


def test_a_sync_that_fails_in_part_is_reported_in_every_form(scene: Scene) -> None:
    directory = scene.directory
    (directory / "some.list").write_text("# some\napp:v1\nno/such:v9\n")
    github = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": f"{directory}/summary.md"}
    done = scene.cli("sync", "some.list", "--source", scene.host, "--report", "r.json", "--junit", "r.xml", env=github)
    assert done.returncode == 1
    found = report_of(directory / "r.json")
    assert (found["app:v1"]["outcome"], found["no/such:v9"]["outcome"]) == ("copied", "failed")
    assert found["app:v1"]["bytes_sent"] == sum(map(len, set(scene.images["app:v1"].blobs)))
    assert found["no/such:v9"]["error"] == f"{scene.host} has no no/such:v9"
    cases = ElementTree.parse(directory / "r.xml").iter("testcase")
    assert {(case.get("name"), case.find("failure") is not None) for case in cases} == {
        ("app:v1", False),
        ("no/such:v9", True),
    }
    assert f"::error file=some.list,line=3::no/such:v9: {scene.host} has no no/such:v9%0A" in done.stderr
    assert "**1 failed**" in (directory / "summary.md").read_text()
    assert f"{scene.host}  2 " in done.stderr

    shown = scene.cli("report", "show", "r.json")
    assert shown.returncode == 1
    assert "no/such:v9  failed" in shown.stdout


def test_outside_of_github_nothing_is_said_in_its_words(scene: Scene) -> None:
    done = scene.cli("sync", "-", "--source", scene.host, stdin="no/such:v9\n", env={"CI": "true"})
    assert done.returncode == 1
    assert "::error" not in done.stdout + done.stderr


def test_reports_of_shards_are_merged(scene: Scene) -> None:
    for number in (1, 2):
        shard = ("--shard", f"{number}/2", "--report", f"{number}.json")
        assert scene.cli("sync", "images.list", "--source", scene.host, *shard).returncode == 0
    merged = scene.cli("report", "merge", "1.json", "2.json", "-o", "all.json", "--junit", "all.xml")
    assert merged.returncode == 0, merged.stderr
    document = json.loads((scene.directory / "all.json").read_text())
    assert document["shards"] == ["1/2", "2/2"]
    assert set(report_of(scene.directory / "all.json")) == set(scene.images)
    assert document["totals"]["copied"] == len(scene.images)
    assert scene.cli("report", "show", "all.json").returncode == 0
    assert len(list(ElementTree.parse(scene.directory / "all.xml").iter("testcase"))) == len(scene.images)


def test_what_is_there_is_counted_as_not_sent(scene: Scene) -> None:
    args = ("sync", "images.list", "--source", scene.host, "--report", "r.json")
    assert scene.cli(*args).returncode == 0
    assert scene.cli(*args).returncode == 0
    for name, image in scene.images.items():
        found = report_of(scene.directory / "r.json")[name]
        size = sum(map(len, {*image.manifests, *image.blobs}))
        assert (found["outcome"], found["bytes_sent"], found["bytes_skipped"]) == ("already there", 0, size)


def test_a_tag_of_the_archive_that_is_moved_is_an_outcome(scene: Scene) -> None:
    args = ("sync", "images.list", "--source", scene.host, "--report", "r.json")
    assert scene.cli(*args).returncode == 0
    other = make_image("quite another")
    make_storage(scene.ci_root, {"app:v1": other})
    assert scene.cli(*args).returncode == 0
    found = report_of(scene.directory / "r.json")["app:v1"]
    assert (found["outcome"], found["digest"], found["tag_now"]) == ("moved", str(other.top), None)


def test_a_tag_that_moves_during_the_run_is_told(cli: Cli, tmp_path: Path, loopback_registry: StartRegistry) -> None:
    image, other = make_image("one"), make_image("quite another")
    root = make_storage(tmp_path / "ci", {"a/b:1": image})
    layer = f"GET .*{Digest.of(image.blobs[-1])}"
    (cli.directory / "images.list").write_text("a/b:1\n")
    with faulty_proxy(loopback_registry(root).host, [Fault("slow", layer, times=1, seconds=3)]) as proxy:
        running = cli.start("sync", "images.list", "--source", proxy.host, "--report", "r.json")
        deadline = time.monotonic() + 60
        while not proxy.asked(layer):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        make_storage(root, {"a/b:1": other})
        _stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 0, stderr
    assert f"a/b:1: drifted: copied {image.top}; the source's tag is now {other.top}" in stderr
    found = report_of(cli.directory / "r.json")["a/b:1"]
    assert (found["outcome"], found["digest"], found["tag_now"]) == ("copied", str(image.top), str(other.top))


def test_a_release_is_reported_also_where_it_fails(scene: Scene) -> None:
    release, name = ("release", "images.list", "--source", scene.host, "-o", "r.tar"), ("--name", "acme-1")
    good = scene.cli(*release, *name, "--report", "good.json")
    assert good.returncode == 0, good.stderr
    report = json.loads((scene.directory / "good.json").read_text())
    facts = json.loads((scene.directory / "r.json").read_text())
    known = {"name": "acme-1", "id": facts["id"], "sha256": facts["sha256"]}
    assert (report["command"], report["release"]) == ("release", known)
    with (scene.directory / "images.list").open("a") as file:
        file.write("no/such:v9\n")
    bad = scene.cli(*release, *name, "--report", "bad.json")
    assert bad.returncode == 1
    assert report_of(scene.directory / "bad.json")["no/such:v9"]["outcome"] == "failed"
    assert json.loads((scene.directory / "bad.json").read_text())["release"] == {
        "name": "acme-1",
        "id": None,
        "sha256": None,
    }


def test_a_release_that_would_be_too_large_is_not_begun_and_its_size_is_in_the_jobs_summary(scene: Scene) -> None:
    summary = scene.directory / "summary.md"
    words = ("release", "images.list", "--source", scene.host, "-o", "r.tar")
    refused = scene.cli(*words, "--max-size", "1kB", env={"GITHUB_STEP_SUMMARY": f"{summary}"})
    assert refused.returncode == 1
    assert "more than the 1.0 kB of --max-size; nothing was written" in refused.stderr
    assert not list(scene.directory.glob("r.*"))
    assert not (scene.directory / "home/.local/share/regwrap/archive/docker").exists()
    assert "| IMAGE | SIZE | ALONE |" in summary.read_text()
    summary.unlink()
    done = scene.cli(*words, env={"GITHUB_STEP_SUMMARY": f"{summary}"})
    assert done.returncode == 0, done.stderr
    facts = json.loads((scene.directory / "r.json").read_text())
    assert f"Release (without a name), id {facts['id']}\n\n| IMAGE | SIZE | ALONE |" in summary.read_text()
    since = scene.cli(*words[:-1], "delta.tar", "--since", "r.tar", "--max-size", "1GB")
    assert since.returncode == 0
    assert ", 0 B of it new since r.tar; the bundle would have" in since.stderr


def test_a_file_that_is_no_report_and_a_report_that_cannot_be_written(cli: Cli) -> None:
    (cli.directory / "images.list").write_text("")
    for args in (("report", "show", "images.list"), ("report", "show", "absent.json")):
        done = cli(*args)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
    refused = cli("sync", "images.list", "--report", "no/such/dir/r.json")
    assert refused.returncode == 2
    assert cli("sync", "images.list", "--dry-run", "--report", "r.json").returncode == 2
