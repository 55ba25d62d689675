"""Three releases at one site: a tenth of the images changes, one is dropped, one renamed, one tag moved by mistake."""

import json
import subprocess
from pathlib import Path
from random import Random

import pytest

from tests.builders import Image, make_image, make_layer, make_storage, storage_problems
from tests.conftest import StartRegistry
from tests.release.regwrap_cli import Cli, raw_digest

pytestmark = pytest.mark.tools
BASE = make_layer("base", Random(1).randbytes(50_000))


def image(name: str) -> Image:
    return make_image(name, layers=[BASE, make_layer(name)])


def product() -> dict[str, Image]:
    """Twenty images with versions, and one with a tag that should not move."""
    return {**{f"svc{n}:1.0": image(f"{n}-1.0") for n in range(20)}, "base:stable": image("stable")}


FIRST = product()
SECOND = {
    **{name: found for name, found in FIRST.items() if name not in {"svc3:1.0", "svc7:1.0", "svc19:1.0", "svc18:1.0"}},
    "svc3:1.1": image("3-1.1"),
    "svc7:1.1": image("7-1.1"),
    "platform/svc18:1.0": FIRST["svc18:1.0"],
    "base:stable": image("moved by mistake"),
}
THIRD = {**SECOND, "svc5:1.2": image("5-1.2"), "base:stable": FIRST["base:stable"]}
del THIRD["svc5:1.0"]


def deploy_all(cli: Cli) -> None:
    """What the site did with each: the tag that had moved was seen, and replaced when somebody said so."""
    assert cli("deploy", "acme-1.tar", "site").returncode == 0
    for number, (old, new) in ((2, (FIRST, SECOND)), (3, (SECOND, THIRD))):
        both = f"base:stable: is {old['base:stable'].top}, acme-{number}.tar has {new['base:stable'].top}"
        for words in ((), ("--dry-run",)):
            refused = cli("deploy", f"acme-{number}.tar", "site", *words)
            assert refused.returncode == 2
            assert both in refused.stderr
        replaced = cli("deploy", f"acme-{number}.tar", "site", "--existing", "replace")
        assert replaced.returncode == 0, replaced.stderr
        assert f"base:stable  {old['base:stable'].top} -> {new['base:stable'].top}" in replaced.stdout


def states(cli: Cli) -> dict[str, str]:
    releases = json.loads(cli("releases", "site", "--json").stdout)["releases"]
    return {release["name"]: release["state"] for release in releases}


def killed_often(cli: Cli, site: Path, *args: str) -> None:
    """Killed at random moments, the site stays valid; run again, it is done."""
    random = Random(22)
    for _number in range(6):
        process = cli.start(*args)
        try:
            process.wait(timeout=0.2 + random.random())
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        assert storage_problems(site) == set()
    done = cli(*args)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def released(cli: Cli, loopback_registry: StartRegistry, tmp_path: Path) -> Cli:
    """The three bundles."""
    host = loopback_registry(make_storage(tmp_path / "ci", {})).host
    for number, images in enumerate((FIRST, SECOND, THIRD), 1):
        make_storage(tmp_path / "ci", images)
        renamed = {"platform/svc18:1.0": "svc18:1.0 => platform/svc18:1.0"}
        make_storage(tmp_path / "ci", {"svc18:1.0": FIRST["svc18:1.0"]})
        (cli.directory / "images.list").write_text("".join(f"{renamed.get(name, name)}\n" for name in images))
        words = ("--source", host, "--name", f"acme-{number}", "-o", f"acme-{number}.tar")
        done = cli("release", "images.list", *words)
        assert done.returncode == 0, done.stderr
    return cli


def test_three_releases_from_the_first_tar_to_the_audit(released: Cli, loopback_registry: StartRegistry) -> None:
    cli, site = released, released.directory / "site"
    change = json.loads(cli("diff", "acme-1.tar", "acme-2.tar", "--format", "json").stdout)
    assert {kind: [i["image"] for i in change[kind]] for kind in ("added", "removed", "renamed", "changed")} == {
        "added": ["svc3:1.1", "svc7:1.1"],
        "removed": ["svc19:1.0", "svc3:1.0", "svc7:1.0"],
        "renamed": ["platform/svc18:1.0"],
        "changed": ["base:stable"],
    }
    assert cli("diff", "acme-1.tar", "acme-1.tar", "--exit-code").returncode == 0

    deploy_all(cli)
    # the third has the tag as the first had it, so nothing of the first is another image
    assert states(cli) == {"acme-1": "current", "acme-2": "partly replaced", "acme-3": "current"}

    receipts = []
    for _number in range(3):
        assert cli("verify", "site", "--list", "acme-3.tar", "--receipt", "receipt.json").returncode == 0
        receipts.append(json.loads((cli.directory / "receipt.json").read_text()))
        del receipts[-1]["time"]
    assert receipts[0] == receipts[1] == receipts[2]

    killed_often(cli, site, "rollback", "site", "acme-2")
    assert states(cli)["acme-2"] == "current"
    host = loopback_registry(site).host
    assert raw_digest(host, "base:stable") == str(SECOND["base:stable"].top)
    assert cli("rollback", "site", "acme-3").returncode == 0

    killed_often(cli, site, "gc", "site", "--keep-releases", "2", "--offline")
    assert states(cli) == {"acme-1": "incomplete", "acme-2": "partly replaced", "acme-3": "current"}
    refused = cli("rollback", "site", "acme-1")
    assert refused.returncode == 1
    assert "svc19:1.0: manifest" in refused.stderr
    for number in (2, 3):
        assert cli("rollback", "site", f"acme-{number}").returncode == 0
        assert cli("verify", "site", "--list", f"acme-{number}.tar").returncode == 0
