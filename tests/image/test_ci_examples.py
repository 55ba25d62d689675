"""The examples for CI systems: their schemas hold, and their script lines do what they promise, shard by shard."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.image.conftest import ROOT
from tests.release.conftest import Scene

pytestmark = pytest.mark.tools
CI: Final = ROOT / "examples/ci"
# a parsed example, whose form its schema has checked
Document = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A directory in which a CI's jobs run one after the other, with `regwrap` on their PATH and a common archive."""

    scene: Scene
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        return self.scene.directory

    def __call__(self, script: str, shell: str = "sh", **variables: str) -> "subprocess.CompletedProcess[str]":
        programs = self.directory / "bin"
        programs.mkdir(exist_ok=True)
        regwrap = programs / "regwrap"
        regwrap.write_text(f'#!/bin/sh\nexec {sys.executable} -m regwrap "$@"\n')
        regwrap.chmod(0o755)
        environment = {**self.scene.cli.environment, "CI": "true", **self.variables, **variables}
        environment["PATH"] = f"{programs}:{os.environ['PATH']}"
        environment["PYTHONPATH"] = f"{ROOT}"
        done = subprocess.run(
            [shell, "-ec", script], cwd=self.directory, env=environment, capture_output=True, timeout=120, check=False
        )
        # text=True would make line feeds of the carriage returns in GitLab's markers
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def job(scene: Scene) -> Job:
    assert scene.cli("lock", "images.list", "--source", scene.host).returncode == 0
    return Job(scene, {"SOURCE": scene.host, "ARCHIVE": f"{scene.directory}/shared/archive"})


def succeeded(done: "subprocess.CompletedProcess[str]") -> "subprocess.CompletedProcess[str]":
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def assert_released(job: Job, bundle: str, report: str = "report.json") -> None:
    """The bundle has the list's images, and the merged report has each of them once, copied by one of three shards."""
    inspected = json.loads(job.scene.cli("inspect", bundle, "--json").stdout)
    assert {image["image"] for image in inspected["images"]} == set(job.scene.images)
    merged = json.loads((job.directory / report).read_text())
    assert sorted(merged["shards"]) == ["1/3", "2/3", "3/3"]
    assert {image["image"]: image["outcome"] for image in merged["images"]} == dict.fromkeys(job.scene.images, "copied")


def cases(directory: Path) -> set[str]:
    return {f"{case.get('name')}" for file in directory.glob("junit-*.xml") for case in ET.parse(file).iter("testcase")}


# --- GitLab


def gitlab() -> Document:
    return dict(yaml.safe_load((CI / "gitlab-ci.yml").read_text()))


def test_gitlab_the_schema_holds() -> None:
    check_schema("vendor.gitlab-ci", "gitlab-ci.yml")


def test_gitlab_three_jobs_sync_and_one_packs(job: Job) -> None:
    pipeline = gitlab()
    succeeded(job("\n".join(pipeline["locked"]["script"]), GITLAB_CI="true"))
    total = pipeline["sync"]["parallel"]
    for index in range(1, total + 1):
        variables = {"CI_NODE_INDEX": f"{index}", "CI_NODE_TOTAL": f"{total}", "GITLAB_CI": "true"}
        done = succeeded(job("\n".join(pipeline["sync"]["script"]), shell="bash", **variables))
        assert re.search(r"^\x1b\[0Ksection_start:\d+:regwrap_sync_\w+\[collapsed=true\]\r", done.stderr, re.MULTILINE)
        assert "section_end:" in done.stderr
    succeeded(job("\n".join(pipeline["release"]["script"]), GITLAB_CI="true", CI_COMMIT_REF_SLUG="v1-1"))

    assert_released(job, "release-v1-1.tar")
    assert cases(job.directory) == set(job.scene.images)
    for pattern in (*pipeline["release"]["artifacts"]["paths"], "report-*.json"):
        if pattern != "release-*.json":  # only `release` writes one
            assert list(job.directory.glob(pattern)), pattern


def test_gitlab_a_tag_that_has_moved_is_told_and_allowed(job: Job) -> None:
    pipeline = gitlab()
    moved = (
        (job.directory / "images.lock").read_text().replace(f"{job.scene.images['app:v1'].top}", "sha256:" + "0" * 64)
    )
    (job.directory / "images.lock").write_text(moved)
    done = job("\n".join(pipeline["locked"]["script"]))
    assert done.returncode == pipeline["locked"]["allow_failure"]["exit_codes"]
    assert "app:v1" in done.stdout


# --- GitHub


def github() -> Document:
    return dict(yaml.safe_load((CI / "github-workflow.yml").read_text()))


def resolved(text: str, values: Mapping[str, str]) -> str:
    """`${{ name }}` as GitHub replaces it; a name that is not in `values` is a mistake of the example."""
    return re.sub(r"\$\{\{ *([\w.]+) *\}\}", lambda match: values[match[1]], text)


def run_steps(job: Job, name: str, values: Mapping[str, str], **variables: str) -> "subprocess.CompletedProcess[str]":
    """The `run:` steps of a job, with what they write to $GITHUB_ENV handed on."""
    temp = job.directory / "temp"
    temp.mkdir(exist_ok=True)
    (temp / "env").write_text("")
    common = {"GITHUB_ACTIONS": "true", "GITHUB_ENV": f"{temp}/env", "RUNNER_TEMP": f"{temp}", **variables}
    done: subprocess.CompletedProcess[str] | None = None
    for step in github()["jobs"][name]["steps"]:
        if "run" in step:
            own = {key: resolved(value, values) for key, value in step.get("env", {}).items()}
            handed = dict(line.split("=", 1) for line in (temp / "env").read_text().splitlines())
            done = job(resolved(step["run"], values), shell="bash", **common, **handed, **own)
            if done.returncode:
                break
    assert done is not None
    return done


def test_github_the_schema_holds() -> None:
    check_schema("vendor.github-workflows", "github-workflow.yml")


def test_github_three_jobs_sync_with_a_summary_each_and_one_packs(job: Job) -> None:
    shards = github()["jobs"]["sync"]["strategy"]["matrix"]["shard"]
    for shard in shards:
        values = {"matrix.shard": f"{shard}", "github.actor": "someone", "github.token": "secret-of-the-job"}
        summary = job.directory / f"summary-{shard}.md"
        done = succeeded(run_steps(job, "sync", values, GITHUB_STEP_SUMMARY=f"{summary}"))
        assert "::group::regwrap: sync\n" in done.stderr
        assert "::endgroup::\n" in done.stderr
        assert "secret-of-the-job" not in done.stdout + done.stderr
        assert f"(shard {shard}/{len(shards)})" in summary.read_text()
    auth = job.directory / "temp/auth.json"
    assert auth.stat().st_mode & 0o077 == 0
    assert set(json.loads(auth.read_text())["auths"]) == {job.scene.host}
    succeeded(run_steps(job, "release", {}, GITHUB_REF_NAME="v1.1"))
    assert_released(job, "release-v1.1.tar")


def test_github_what_fails_is_an_annotation_at_its_line(job: Job) -> None:
    (job.directory / "images.list").write_text("app:v1\n# a comment\nno/such:v1\n")
    done = job(
        'regwrap sync images.list --source "$SOURCE" --archive "$ARCHIVE"',
        GITHUB_ACTIONS="true",
        GITHUB_STEP_SUMMARY=f"{job.directory}/summary.md",
    )
    assert done.returncode == 1
    ended = done.stderr.index("::endgroup::")
    assert "::error file=images.list,line=3::no/such:v1: " in done.stderr[ended:]  # not folded away
    assert "**1 failed**" in (job.directory / "summary.md").read_text()


# --- Jenkins


def test_jenkins_three_branches_sync_and_one_stage_packs(job: Job) -> None:
    text = (CI / "Jenkinsfile").read_text()
    assert text.count("{") == text.count("}")
    sync, package = re.findall(r"sh '''\n(.*?)'''", text, re.DOTALL)
    axis = re.search(r"axis \{ name '(\w+)'; values ([^}]*)\}", text)
    assert axis
    for value in re.findall(r"'(\w+)'", axis[2]):
        succeeded(job(sync, **{axis[1]: value}))
    succeeded(job(package, BUILD_NUMBER="17"))
    assert_released(job, "release-17.tar")
    assert cases(job.directory) == set(job.scene.images)


# --- Kubernetes


def test_kubernetes_every_resource_is_valid() -> None:
    command = [sys.executable, "-m", "kubernetes_validate", "--strict", f"{CI}/kubernetes-job.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("passed for resource") == 3


def test_kubernetes_an_indexed_job_syncs_and_another_packs(job: Job) -> None:
    resources = list(yaml.safe_load_all((CI / "kubernetes-job.yaml").read_text()))
    _claim, sync, package = resources
    (job.directory / "archive").mkdir()
    (job.directory / "auth.json").write_text("{}")
    for index in range(sync["spec"]["completions"]):
        succeeded(run_pod(job, sync, JOB_COMPLETION_INDEX=f"{index}"))
    succeeded(run_pod(job, package))
    (job.directory / "archive/report.json").rename(job.directory / "report.json")
    assert_released(job, "archive/release.tar")


def run_pod(job: Job, resource: Document, **variables: str) -> "subprocess.CompletedProcess[str]":
    """The container's command with its volumes' mount points as directories of the test."""
    (container,) = resource["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["sh", "-ec"]
    places = {"/archive": f"{job.directory}/archive", "/list": f"{job.directory}", "/auth": f"{job.directory}"}
    assert set(places) == {mount["mountPath"] for mount in container["volumeMounts"]}

    def placed(text: str) -> str:
        return re.sub(r"(?<![\w/.])(/archive|/list|/auth)(?=/)", lambda match: places[match[1]], text)

    environment = {variable["name"]: placed(variable["value"]) for variable in container["env"]}
    environment["SOURCE"] = job.scene.host
    return job(placed(container["args"][0]), **{**environment, **variables})


def check_schema(schema: str, name: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, f"{CI / name}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_examples_name_the_image_of_this_version() -> None:
    version = re.search(r'__version__ = "(.*)"', (ROOT / "regwrap/__init__.py").read_text())
    assert version
    for example in CI.iterdir():
        assert set(re.findall(r"tools/regwrap:([\w.]+)", example.read_text())) == {version[1]}, example
