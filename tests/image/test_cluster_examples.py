"""The examples of clusters: their schemas hold, and what they name fits. The compose file runs in test_image.py."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.image.conftest import ROOT

pytestmark = pytest.mark.tools
CLUSTER: Final = ROOT / "examples/cluster"
SAMPLES: Final = ROOT / "tests/samples"


def ran(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_compose_file_is_one() -> None:
    ran("check_jsonschema", "--builtin-schema", "vendor.compose-spec", f"{CLUSTER / 'compose.yaml'}")


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
