"""A command starts with what it needs: the libraries of others would double the time of a short run."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.tools


@pytest.mark.parametrize(
    ("command", "not_needed"),
    [
        ("verify", {"sh", "asyncio", "urllib3", "http.client", "yaml", "tenacity"}),
        ("deploy", {"sh", "asyncio", "urllib3", "http.client", "yaml", "tenacity"}),
        ("package", {"urllib3", "http.client", "yaml", "tenacity"}),
        ("sync", {"yaml", "http.server"}),
        ("--version", {"sh", "urllib3", "yaml", "tenacity", "regwrap.core.model"}),
    ],
)
def test_what_a_command_may_never_use_is_not_loaded_for_it(command: str, not_needed: set[str]) -> None:
    code = f"import sys; from regwrap.cli.app import make_app; make_app({{{command!r}}}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "regwrap.cli.catalog" in loaded
    assert not loaded & {*not_needed, "pydantic"}
