"""The examples for CI systems: their schemas hold, and their script lines do what they promise, shard by shard."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.builders import make_image, make_storage
from tests.conftest import StartRegistry
from tests.image.conftest import ROOT
from tests.release.conftest import Scene, all_kinds
from tests.release.regwrap_cli import Cli
from tests.tls import HTPASSWD, LOGIN, make_certificate, write_authfile

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
def job(tmp_path: Path, cli: Cli, loopback_registry: StartRegistry) -> Job:
    """A company whose registry has TLS, by a CA of its own, and wants a login."""
    images, certificate, users = all_kinds(), make_certificate(tmp_path / "tls"), tmp_path / "htpasswd"
    users.write_text(HTPASSWD)
    settings = {
        "http": {"tls": {"certificate": f"{certificate.cert}", "key": f"{certificate.key}"}},
        "auth": {"htpasswd": {"realm": "tests", "path": f"{users}"}},
    }
    root = make_storage(tmp_path / "ci", images)
    host = loopback_registry(root, settings).host
    config = cli.directory / "regwrap.yaml"
    config.write_text(f"registries: {{ci: {{url: 'https://{host}', cert_dir: {certificate.directory}}}}}\n")
    (cli.directory / "images.list").write_text("".join(f"{name}\n" for name in images))
    authfile = write_authfile(cli.directory / "auth.json", host, LOGIN)
    shared = tmp_path / "shared"
    variables = {
        "SOURCE": host,
        "ARCHIVE": f"{shared}/archive",
        "KEPT": f"{shared}/releases",
        "REGWRAP_CONFIG": f"{config}",
        "REGISTRY_AUTH_FILE": f"{authfile}",
    }
    done = cli("lock", "images.list", "--source", host, env=variables)
    assert done.returncode == 0, done.stderr
    return Job(Scene(cli=cli, host=host, ci_root=root, images=images), variables)


def succeeded(done: "subprocess.CompletedProcess[str]") -> "subprocess.CompletedProcess[str]":
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def assert_released(job: Job, tag: str, place: str = ".", receipt: str = "receipt-{tag}.json") -> None:
    """The bundle is the release of the tag with the list's images; the merged report has each of them once, copied by a
    shard. Beside it lies what a site and an auditor need."""
    directory, bundle = job.directory / place, f"release-{tag}.tar"
    inspected = json.loads(job.scene.cli("inspect", directory / bundle, "--json").stdout)
    assert inspected["name"] == tag
    assert {image["image"] for image in inspected["images"]} == set(job.scene.images)
    summed = subprocess.run(["sha256sum", "-c", f"{bundle}.sha256"], cwd=directory, check=True, capture_output=True)
    assert summed.stdout == f"{bundle}: OK\nregwrap.pyz: OK\n".encode()
    assert json.loads((directory / f"release-{tag}.json").read_text())["id"] == inspected["id"]
    merged = json.loads((directory / "report.json").read_text())
    assert merged["release"] == {"name": tag, "id": inspected["id"], "sha256": _sha256_of(directory / bundle)}
    assert sorted(merged["shards"]) == ["1/3", "2/3", "3/3"]
    assert {image["image"]: image["outcome"] for image in merged["images"]} == dict.fromkeys(job.scene.images, "copied")
    assert json.loads((directory / receipt.format(tag=tag)).read_text())["verdict"] == "valid"
    page = (directory / f"release-{tag}.html").read_text()
    facts = json.loads((directory / f"release-{tag}.json").read_text())
    assert all(text in page for text in (f"<h1>{tag}</h1>", facts["id"], facts["sha256"]))


def _sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def change_one_image(job: Job) -> None:
    """What the next release has new."""
    make_storage(job.scene.ci_root, {"app:v1": make_image("changed")})
    done = job.scene.cli("lock", "images.list", "--source", job.scene.host, env=job.variables)
    assert done.returncode == 0, done.stderr


def kept_files(job: Job, patterns: Iterable[str]) -> None:
    """What an example keeps is there."""
    for pattern in patterns:
        assert list(job.directory.glob(pattern)) or pattern.startswith("failed-"), pattern


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
    common = {name: f"{value}" for name, value in pipeline["variables"].items() if name not in job.variables}
    for index in range(1, total + 1):
        variables = {"CI_NODE_INDEX": f"{index}", "CI_NODE_TOTAL": f"{total}", "GITLAB_CI": "true"}
        done = succeeded(job("\n".join(pipeline["sync"]["script"]), shell="bash", **variables))
        assert re.search(r"^\x1b\[0Ksection_start:\d+:regwrap_sync_\w+\[collapsed=true\]\r", done.stderr, re.MULTILINE)
        assert "section_end:" in done.stderr
    release = "\n".join(pipeline["release"]["script"])
    succeeded(job(release, GITLAB_CI="true", CI_COMMIT_TAG="v1.1", **common))

    assert_released(job, "v1.1")
    assert cases(job.directory) == set(job.scene.images)
    kept_files(job, [path for name in ("sync", "release") for path in pipeline[name]["artifacts"]["paths"]])
    assert (job.directory / "notes.md").read_text() == "The first release.\n"
    change_one_image(job)
    succeeded(job(release, GITLAB_CI="true", CI_COMMIT_TAG="v1.2", **common))
    told = succeeded(job("\n".join(pipeline["notes"]["script"])))
    assert "### 1 changed" in told.stdout
    assert pipeline["notes"]["release"]["description"] == "notes.md"


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
    actor, token = LOGIN.split(":")
    values = {"github.actor": actor, "github.token": token}
    for shard in shards:
        values["matrix.shard"] = f"{shard}"
        summary = job.directory / f"summary-{shard}.md"
        done = succeeded(run_steps(job, "sync", values, GITHUB_STEP_SUMMARY=f"{summary}"))
        assert "::group::regwrap: sync\n" in done.stderr
        assert "::endgroup::\n" in done.stderr
        assert base64.b64encode(LOGIN.encode()).decode() not in done.stdout + done.stderr
        assert f"(shard {shard}/{len(shards)})" in summary.read_text()
    auth = job.directory / "temp/auth.json"
    assert auth.stat().st_mode & 0o077 == 0
    assert set(json.loads(auth.read_text())["auths"]) == {job.scene.host}
    summary = job.directory / "summary.md"
    common = {"GITHUB_STEP_SUMMARY": f"{summary}"}
    succeeded(run_steps(job, "release", values, GITHUB_REF_NAME="v1.1", **common))
    assert_released(job, "v1.1")
    assert "| IMAGE | SIZE | ALONE |" in summary.read_text()
    uploads = [step["with"] for step in github()["jobs"]["release"]["steps"] if "upload" in step.get("uses", "")]
    kept_files(job, [path for upload in uploads for path in upload["path"].split()])
    change_one_image(job)
    succeeded(run_steps(job, "release", values, GITHUB_REF_NAME="v1.2", **common))
    assert "### 1 changed" in (job.directory / "notes.md").read_text()


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
    parts = re.findall(r"'(\w+)'", axis[2])
    assert re.findall(r"unstash 'shard-(\w+)'", text) == parts
    for value in parts:
        succeeded(job(sync, **{axis[1]: value}))
    succeeded(job(package, TAG_NAME="v1.1"))
    assert_released(job, "v1.1")
    assert cases(job.directory) == set(job.scene.images)
    kept_files(
        job, [path for paths in re.findall(r"(?:artifacts|includes): '(.*?)'", text) for path in paths.split(", ")]
    )
    change_one_image(job)
    succeeded(job(package, TAG_NAME="v1.2"))
    assert "### 1 changed" in (job.directory / "notes.md").read_text()


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
    for index in range(sync["spec"]["completions"]):
        succeeded(run_pod(job, sync, JOB_COMPLETION_INDEX=f"{index}"))
    succeeded(run_pod(job, package))
    assert_released(job, "v1.1", place="archive/v1.1", receipt="receipt.json")
    kept_files(job, [f"archive/v1.1/{name}" for name in ("images.list", "images.lock", "notes.md", "junit.xml")])
    change_one_image(job)
    succeeded(run_pod(job, package, VERSION="v1.2"))
    assert "### 1 changed" in (job.directory / "archive/v1.2/notes.md").read_text()


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
