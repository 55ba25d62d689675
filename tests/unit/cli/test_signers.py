"""Signers that are asked for are asked, or the command says that it can't: nobody believes in a check that was none."""

from pathlib import Path

import pytest

from tests.builders import make_image, make_storage, put
from tests.bundles import make_bundle
from tests.unit.cli.test_verify import regwrap

IMAGES = {"app:v1": make_image("app")}
COMMANDS = {
    "verify": ("verify", "site"),
    "verify-cluster": ("verify", "site", "--cluster", "local:1"),
    "verify-registry": ("verify", "127.0.0.1:1/product", "--list", "bundle.tar"),
    "push": ("push", "site", "127.0.0.1:1/product"),
    "serve": ("serve", "site", "--dry-run", "--addr", "127.0.0.1:0"),
}
OPTIONS = {
    "signers": ("--signers", "signers"),
    "signature": ("--signature", "bundle.tar.sig"),
    "both": ("--signers", "nowhere", "--signature", "nowhere.sig"),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_bundle(tmp_path, IMAGES)
    make_storage(tmp_path / "site", IMAGES)
    for name in ("signers", "bundle.tar.sig"):
        put(tmp_path / name, b"")
    for name in ("HOME", "TMPDIR"):
        monkeypatch.setenv(name, f"{tmp_path}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.usefixtures("here")
def test_a_signature_of_what_can_have_none_is_not_looked_at_in_silence(
    capsys: pytest.CaptureFixture[str], command: str, options: str
) -> None:
    words = COMMANDS[command]
    assert regwrap(*words, *OPTIONS[options]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert f"{words[1]} has no signature of a bundle: it is a storage or a registry" in told
    assert "--signed-by KEY" in told


def test_signers_of_the_configuration_are_for_bundles_and_storages_stay_as_they_are(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(here / "regwrap.yaml", b"signers: signers\n")
    assert [regwrap(*COMMANDS[command]) for command in ("verify", "serve")] == [0, 0]
    (here / "bundle.tar.sig").unlink()
    assert [regwrap("verify", "bundle.tar"), regwrap("serve", "bundle.tar", "--dry-run")] == [4, 4]
    assert "the bundle is not signed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        *COMMANDS.values(),
        ("export", "site", "layout", "--format", "oci"),
        ("bake", "site", "--to", "oci:baked:1"),
        ("bake", "site", "--to", "oci:baked:1", "--history"),
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("here")
def test_a_base_of_what_is_no_delta_is_refused(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    """Else somebody believes that it was looked at."""
    assert regwrap(*words, "--base", "bundle.tar") == 2
    told = capsys.readouterr().err
    assert f"{words[1]} is no delta: it is a storage or a registry" in told
    assert "leave out --base" in told
