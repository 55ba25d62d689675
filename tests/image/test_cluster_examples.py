"""The examples of clusters: their schemas hold, and their commands are those of Dask and of regwrap."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.image.conftest import ROOT
from tests.release.regwrap_cli import Cli

pytestmark = pytest.mark.tools
CLUSTER: Final = ROOT / "examples/cluster"
SAMPLES: Final = ROOT / "tests/samples"


def ran(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_compose_file_is_one() -> None:
    ran("check_jsonschema", "--builtin-schema", "vendor.compose-spec", f"{CLUSTER / 'compose.yaml'}")


@contextmanager
def started(place: Path, command: list[str], *more: str) -> Iterator[None]:
    """A service's command, with an address of the test's."""
    python, *words = command
    assert python == "python3"
    words = [word for word in words if not word.startswith("tcp:")]
    place.mkdir()
    with subprocess.Popen([sys.executable, *words, *more], cwd=place, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def test_the_commands_of_the_compose_file_make_a_cluster(cli: Cli, tmp_path: Path) -> None:
    services = yaml.safe_load((CLUSTER / "compose.yaml").read_text())["services"]
    file = tmp_path / "scheduler.json"
    common = ("--host", "127.0.0.1", "--scheduler-file", f"{file}")
    with started(tmp_path / "scheduler", services["scheduler"]["command"], "--port", "0", *common):
        deadline = time.monotonic() + 60
        while not file.exists() or not file.read_text().endswith("}"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        address = json.loads(file.read_text())["address"]
        with started(tmp_path / "worker", services["worker"]["command"], "--no-nanny", *common):
            regwrap, *words = services["client"]["command"]
            assert regwrap == "regwrap"
            ended = cli(*(address if "scheduler:" in word else word for word in words))
            assert ended.returncode == 0, ended.stdout + ended.stderr
            assert ended.stdout.count("  yes") == 1


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((CLUSTER / "kubernetes.yaml").read_text()))


def test_the_kubernetes_objects_are_valid(tmp_path: Path) -> None:
    """The Dask operator's resource is what the operator defines, and of what it makes pods and a service."""
    cluster, *others = documents()
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(cluster))
    ran("check_jsonschema", "--schemafile", f"{SAMPLES / 'crds/dask-cluster.yaml'}", f"{tmp_path / 'cluster.yaml'}")
    spec = cluster["spec"]
    for role in ("worker", "scheduler"):
        others.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": role}, "spec": spec[role]["spec"]})
    service = spec["scheduler"]["service"]
    others.append({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "scheduler"}, "spec": service})
    for number, document in enumerate(others):
        (tmp_path / f"{number}.yaml").write_text(json.dumps(document))
    ran("kubernetes_validate", "--strict", *(f"{path}" for path in sorted(tmp_path.glob("[0-9]*"))))


def test_the_job_reaches_the_scheduler_by_its_name_and_all_have_the_same_paths() -> None:
    cluster, _policy, job = documents()
    client = job["spec"]["template"]["spec"]
    worker = cluster["spec"]["worker"]["spec"]
    assert f"--cluster=tcp://{cluster['metadata']['name']}-scheduler:8786" in client["containers"][0]["command"]
    assert client["volumes"] == worker["volumes"]
    assert client["containers"][0]["volumeMounts"] == worker["containers"][0]["volumeMounts"]


def test_slurm_starts_workers_of_the_same_python() -> None:
    done = subprocess.run(
        [sys.executable, f"{CLUSTER / 'slurm.py'}", "2"], capture_output=True, text=True, timeout=120, check=True
    )
    assert f"{sys.executable} -m distributed.cli.dask_worker t" in done.stdout
    assert "#SBATCH -J regwrap" in done.stdout
