"""Syncs from lists of other tools, with the real skopeo and docker-registry; and skopeo reads the same list alike."""

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from regwrap.commands.sync import SyncOptions, SyncResult, sync_images
from regwrap.lists.imagelist import HOST_IS_DROPPED, Rewrite, parse_images
from regwrap.report.text import plan_text
from tests.builders import Image, make_image, make_multi_image, storage_problems
from tests.conftest import StartRegistry
from tests.tools.test_sync_real import Served, assert_served, serve

__all__ = ["serve"]  # a fixture

pytestmark = pytest.mark.tools

IMAGES: Mapping[str, Image] = {
    "team/app:1.10": make_image("app"),
    "team/multi:v1": make_multi_image("multi"),
    "library/tool:v2": make_image("tool", kind="docker"),
}
Serve = Callable[[Mapping[str, Image]], Served]


def synced(served: Served, text: str, rewrite: Rewrite = HOST_IS_DROPPED, *, dry_run: bool = False) -> SyncResult:
    result = sync_images(served.bench.job, parse_images(text.encode(), "list", rewrite), SyncOptions(dry_run=dry_run))
    assert result.report is None or [failed.error for failed in result.report.failed] == []
    return result


def skopeo_yaml(host: str) -> str:
    digest = IMAGES["library/tool:v2"].top
    return f"""
{host}:
  tls-verify: false
  images:
    team/app: [1.10]
    team/multi:
      - v1
    library/tool:
      - {digest}
"""


def images_lock(host: str) -> str:
    return f"""
---
apiVersion: imgpkg.carvel.dev/v1alpha1
kind: ImagesLock
images:
- annotations:
    kbld.carvel.dev/id: {host}/team/app:1.10
  image: {host}/team/app@{IMAGES["team/app:1.10"].top}
- image: {host}/team/multi@{IMAGES["team/multi:v1"].top}
"""


def untagged(name: str) -> str:
    return f"{name.partition(':')[0]}:{str(IMAGES[name].top).replace(':', '-')}.untagged"


def test_skopeo_sync_list_is_synced(serve: Serve, loopback_registry: StartRegistry) -> None:
    served = serve(IMAGES)
    synced(served, skopeo_yaml(served.host))
    assert storage_problems(served.bench.archive) == set()
    there = {"team/app:1.10", "team/multi:v1"}
    expected = {name: IMAGES[name] for name in there} | {untagged("library/tool:v2"): IMAGES["library/tool:v2"]}
    assert_served(loopback_registry(served.bench.archive).host, expected)


def test_images_lock_is_synced(serve: Serve, loopback_registry: StartRegistry) -> None:
    served = serve(IMAGES)
    synced(served, images_lock(served.host))
    assert storage_problems(served.bench.archive) == set()
    expected = {"team/app:1.10": IMAGES["team/app:1.10"], untagged("team/multi:v1"): IMAGES["team/multi:v1"]}
    assert_served(loopback_registry(served.bench.archive).host, expected)


def test_rewrite_is_shown_by_a_dry_run_and_carried_out(serve: Serve, loopback_registry: StartRegistry) -> None:
    served = serve(IMAGES)
    rewrite, line = Rewrite(prefix="mirror/", keep_host=True), f"{served.host}/team/app:1.10\n"
    dest = f"mirror/{served.host.replace(':', '_')}/team/app:1.10"
    planned = synced(served, line, rewrite, dry_run=True)
    assert f"{served.host}/team/app:1.10 -> {dest}" in plan_text(planned.plan)
    synced(served, line, rewrite)
    assert_served(loopback_registry(served.bench.archive).host, {dest: IMAGES["team/app:1.10"]})


def test_host_alone_is_a_repository_that_registries_serve(serve: Serve, loopback_registry: StartRegistry) -> None:
    served = serve(IMAGES)
    synced(served, skopeo_yaml(served.host), Rewrite(keep_host=True))
    kept = f"{served.host.replace(':', '_')}/team/multi:v1"
    assert_served(loopback_registry(served.bench.archive).host, {kept: IMAGES["team/multi:v1"]})


def test_skopeo_itself_reads_the_list(serve: Serve, tmp_path: Path) -> None:
    served = serve(IMAGES)
    path = tmp_path / "sync.yaml"
    path.write_text(skopeo_yaml(served.host))
    done = subprocess.run(
        ["skopeo", "sync", "--all", "--dry-run", "--src", "yaml", "--dest", "docker", path, "127.0.0.1:1"],
        env={"PATH": os.environ["PATH"], "HOME": f"{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    ours = parse_images(path.read_bytes(), "list")
    assert all(f'from="docker://{entry.source}"' in done.stderr for entry in ours.entries), done.stderr
