"""Mirrors: the list names a registry, the bytes come from the first mirror that has the image."""

import pytest

from tests.builders import make_image, put, storage_problems
from tests.fieldregistry import field_registry
from tests.release.regwrap_cli import Cli

pytestmark = pytest.mark.tools

LIBRARY, TEAM, OWN = make_image("library"), make_image("team"), make_image("own")


def test_the_first_mirror_that_has_the_image_gives_it(cli: Cli) -> None:
    near = {"hub/library/app:1": LIBRARY}
    far = {"library/app:1": LIBRARY, "team/app:1": TEAM}
    with field_registry(near) as first, field_registry(far) as second, field_registry({"own/app:1": OWN}) as origin:
        settings = (
            "retry: {attempts: 2, wait: 0, outage: 0}\nregistries:\n"
            f"  hub: {{url: docker.io, mirrors: ['127.0.0.1:1', '{first.host}/hub', '{second.host}']}}\n"
            f"  own: {{url: '{origin.host}', mirrors: ['{first.host}/hub']}}\n"
        )
        put(cli.directory / "regwrap.yaml", settings.encode())
        put(
            cli.directory / "images.list",
            f"docker.io/app:1\nindex.docker.io/team/app:1\n{origin.host}/own/app:1\n".encode(),
        )
        plan = cli("sync", "images.list", "--dry-run")
        done = cli("sync", "images.list")
        locked = cli("lock", "images.list")
    assert f"{first.host}/hub/library/app:1 -> library/app:1" in plan.stdout
    assert f"{second.host}/team/app:1 -> team/app:1" in plan.stdout
    assert "3 copied, 0 already there, 0 failed" in done.stdout, done.stderr
    assert done.stderr.count("note: skipping the mirror 127.0.0.1:1 for docker.io/") == 1
    assert locked.returncode == 0, locked.stderr
    assert f"docker.io/library/app:1@{LIBRARY.top}" in (cli.directory / "images.lock").read_text()
    assert storage_problems(cli.directory / "home/.local/share/regwrap/archive") == set()
