"""What each command starts, in order: the whole of it, on real files and a registry in this process.

`DIR` is where the command is typed, `OWN` a directory that regwrap has made for this run, `HOST` the registry, `N` a
number or a random name, `GLOBAL` skopeo's options for its own configuration, `SCRIPT` a shell script of tools/overlay.
"""

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from regwrap.bundle.by_repository import StorageSource
from regwrap.cli.app import make_app
from regwrap.cli.program import exit_code_of
from regwrap.core.model import Digest
from regwrap.registry.server import ServeOptions, served_contents
from regwrap.storage.store import Storage
from regwrap.tools.launcher import ShLauncher
from tests.builders import make_image, make_multi_image
from tests.bundles import make_bundle
from tests.fakes import Answer, ScriptedLauncher, make_scripted
from tests.unit.cli import programs

IMAGES = {"app:v1": make_image("app"), "multi:v1": make_multi_image("multi")}
HERE = "--mount --propagation private --pid --fork --kill-child"
UNSHARE = f"unshare {HERE}" if os.geteuid() == 0 else f"unshare --user --map-root-user {HERE}"
MARKS = "" if os.geteuid() == 0 else ",userxattr"
TOOLS = ("skopeo", "curl", "tar", "setpriv", "docker-registry", "unshare", "mount", "umoci", "par2")
VERSIONS = [f"{tool} --version" for tool in TOOLS]


@dataclass
class Desk:
    """A directory with an images.list, in which commands are typed. `host` is a registry that has the images."""

    directory: Path
    host: str
    launcher: ScriptedLauncher = field(default_factory=ScriptedLauncher)

    def typed(self, line: str, *answers: Answer, code: int = 0) -> list[str]:
        """What `regwrap LINE` starts."""
        self.launcher = ScriptedLauncher(list(answers))
        words = shlex.split(line.replace("HOST", self.host))
        assert exit_code_of(lambda: make_app(words)(words, prog_name="regwrap")) == code
        self.launcher.assert_all_used()
        return [self._shown(started.argv) for started in self.launcher.started]

    def _shown(self, argv: tuple[str, ...]) -> str:
        text = shlex.join("SCRIPT" if "mount -t" in word else word for word in argv)
        for pattern, name in (
            (re.escape(self.host), "HOST"),
            (re.escape(f"{self.directory}"), "DIR"),
            (r"\S+/installed/programs/", ""),
            (r"(DIR|DIR/tmp|/dev/shm)/regwrap-\w+", "OWN"),
            (r"(?<=OWN/)(tmp\w{8}|registry-\w+)", "N"),
            (r"(?<=regwrap-)\d+|(?<=--sockfd )\d+|(?<=/proc/self/fd/)\d+", "N"),
            (r"--insecure-policy .* --tmpdir \S+( --command-timeout \S+)?", "GLOBAL"),
        ):
            text = re.sub(pattern, name, text)
        return text


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """Programs answer from the script of one `typed`; the environment is this test's own."""
    scripted = make_scripted(tmp_path / "installed")
    directory = tmp_path / "desk"
    for name in [name for name in os.environ if name.startswith("REGWRAP_")]:
        monkeypatch.delenv(name)
    for name, value in (("HOME", "home"), ("XDG_DATA_HOME", "data"), ("TMPDIR", "tmp")):
        (directory / value).mkdir(parents=True)
        monkeypatch.setenv(name, f"{directory / value}")
    monkeypatch.setenv("PATH", scripted.runner.search_path)
    monkeypatch.chdir(directory)
    (directory / "images.list").write_text("\n".join(IMAGES))
    make_bundle(directory, IMAGES)  # bundle.tar, and archive/ that it was made from
    contents = StorageSource(name="archive", storage=Storage(directory / "archive"))
    with served_contents(contents, ServeOptions()) as served:
        found = Desk(directory, served.host)
        # the Runner's seam, where the guard of conftest.py stands too
        monkeypatch.setattr(ShLauncher, "start", lambda _self, argv, **options: found.launcher.start(argv, **options))
        yield found


def tar_of(storage: str) -> str:
    return (
        "tar --create --file /proc/self/fd/N --format=gnu --blocking-factor 128 --owner=0 --group=0 --numeric-owner"
        " --mtime=@0 --mode=a-st,u=rw,go=r --hard-dereference --no-recursion --null --verbatim-files-from"
        f" -C OWN/N/front -T OWN/N/members-0 -C {storage} -T OWN/N/members-1"
    )


CURL = "curl --disable --parallel --parallel-immediate --parallel-max 1 --silent --show-error --config -"


@pytest.mark.slow
def test_sync_reads_all_blobs_of_a_registry_through_one_curl(desk: Desk) -> None:
    assert desk.typed("sync images.list --source HOST --jobs 1", programs.curl()) == [CURL]
    assert desk.typed("sync images.list --source HOST") == []  # all is there


@pytest.mark.slow
def test_sync_with_the_engine_copy_starts_a_skopeo_for_each_platform_of_an_image(desk: Desk) -> None:
    line = "sync images.list --source HOST --archive ./new --jobs 1 --engine copy"
    amd, arm = (Digest.of(raw) for raw in IMAGES["multi:v1"].manifests[:2])
    sources = (f"multi@{amd}", f"multi@{arm}", f"app@{IMAGES['app:v1'].top}")
    assert desk.typed(line, programs.skopeo_copy(*IMAGES.values())) == [
        "skopeo GLOBAL copy --quiet --retry-times 0 --all --preserve-digests --src-tls-verify=false --src-no-creds"
        " --dest-shared-blob-dir DIR/new/.regwrap/sync/blobs --dest-oci-accept-uncompressed-layers"
        f" -- docker://HOST/{source} oci:DIR/new/.regwrap/sync/copies/{number}:image"
        for number, source in enumerate(sources, 1)
    ]


@pytest.mark.slow
def test_sync_from_a_storage_starts_nothing(desk: Desk) -> None:
    assert desk.typed("sync images.list --source ./archive --archive ./other") == []


@pytest.mark.slow
def test_lock_starts_nothing(desk: Desk) -> None:
    assert desk.typed("lock images.list --source HOST") == []
    assert desk.typed("lock images.list --source HOST --check") == []


@pytest.mark.slow
def test_package_starts_tar(desk: Desk) -> None:
    line = "package images.list --archive ./archive -o release.tar"
    assert desk.typed(line, programs.tar()) == [tar_of("DIR/archive")]


@pytest.mark.slow
def test_join_starts_nothing(desk: Desk) -> None:
    (desk.directory / "app.list").write_text("app:v1")
    desk.typed("package app.list --archive ./archive -o base.tar", programs.tar())
    desk.typed("package images.list --archive ./archive --since base.tar -o delta.tar", programs.tar())
    assert desk.typed("join base.tar delta.tar -o joined.tar") == []


def test_repair_has_par2_look_at_the_bundle_and_mend_it(desk: Desk) -> None:
    (desk.directory / "bundle.tar.par2").touch()
    assert desk.typed("repair bundle.tar", Answer(when=("par2", "repair"))) == [
        "par2 repair -q -q -B DIR DIR/bundle.tar.par2 DIR/bundle.tar"
    ]


@pytest.mark.slow
def test_release_notes_versions_reads_the_registry_and_packs(desk: Desk) -> None:
    line = "release images.list --source HOST --archive ./new --jobs 1 -o release.tar"
    answers = (programs.versions(), programs.curl(), programs.tar())
    assert desk.typed(line, *answers) == [*VERSIONS, CURL, tar_of("DIR/new")]


@pytest.mark.slow
def test_workspace_tries_the_overlay_and_starts_a_registry_on_it(desk: Desk) -> None:
    """The registry fails here, since there is no mount; what comes after it is in tests/release/test_workspace.py."""
    fails = Answer(when=("unshare",), exit_code=1)
    line = "workspace images.list --source HOST --history ./archive -- true"
    assert desk.typed(line, programs.overlay_trial(), fails, code=3) == [
        f"{UNSHARE} sh -c SCRIPT sh"
        " lowerdir=OWN/trial/lower:DIR/archive,upperdir=OWN/trial/upper,workdir=OWN/trial/work,"
        f"index=off,metacopy=off,redirect_dir=nofollow{MARKS} OWN/trial/merged regwrap-trial",
        f"{UNSHARE} sh -c SCRIPT sh lowerdir=OWN:DIR/archive,upperdir=OWN/upper,workdir=OWN/work,"
        f"index=off,metacopy=off,redirect_dir=nofollow{MARKS} regwrap-N OWN/merged docker-registry serve OWN/N.yml",
    ]


@pytest.mark.slow
def test_bake_has_umoci_make_the_layout_and_configure_the_image(desk: Desk) -> None:
    answers = (programs.umoci_init(), programs.umoci_config())
    assert desk.typed("bake bundle.tar --to oci:baked:v1", *answers) == [
        "umoci init --layout OWN/layout",
        "umoci config --image OWN/layout:v1 --no-history --created 1970-01-01T00:00:00Z"
        " --config.env REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=/var/lib/registry --config.exposedports 5000/tcp",
    ]


@pytest.mark.parametrize("wrong", [{"Env": 5}, {"Env": []}, {"ExposedPorts": ["5000/tcp"]}, {"Entrypoint": {}}])
def test_bake_makes_nothing_of_what_umoci_did_not_configure(
    desk: Desk, wrong: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    desk.typed("bake bundle.tar --to oci:baked:v1", programs.umoci_init(), programs.umoci_config(**wrong), code=3)
    assert "umoci exited with 0 but did not configure the image" in capsys.readouterr().err
    assert not (desk.directory / "baked").exists()


def test_doctor_asks_for_versions_and_tries_an_overlay(desk: Desk) -> None:
    assert desk.typed("doctor", programs.versions(), programs.overlay_trial()) == [
        *VERSIONS,
        f"{UNSHARE} sh -c SCRIPT sh"
        " lowerdir=OWN/trial/lower:OWN/history,upperdir=OWN/trial/upper,workdir=OWN/trial/work,"
        f"index=off,metacopy=off,redirect_dir=nofollow{MARKS} OWN/trial/merged regwrap-trial",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "init product --source HOST --yes",
        "list from-manifests rendered.yaml -o rendered.list",
        "list from-registry ./archive -o all.list",
        "list from-registry HOST -o all.list",
        "deploy bundle.tar ./site",
        "push bundle.tar HOST",
        "serve bundle.tar --addr 127.0.0.1:0 --dry-run",
        "verify bundle.tar --list images.list",
        "verify ./archive",
        "inspect bundle.tar --html bundle.html",
        "diff images.list bundle.tar --format markdown",
        "export bundle.tar exported",
        "import oci:layout ./imported",
        "gc ./archive --keep images.list --offline",
        "releases ./archive --adopt bundle.tar",
        "rollback ./archive ID",
        "report show report.json --html report.html",
        "report merge report.json report.json -o all.json --junit all.xml",
    ],
)
def test_what_installs_checks_converts_and_tidies_up_starts_nothing(desk: Desk, line: str) -> None:
    (desk.directory / "rendered.yaml").write_text("kind: Pod\nspec: {containers: [{image: r.example/app:v1}]}\n")
    if "report.json" in line:
        desk.typed("sync images.list --source ./archive --archive ./other --report report.json")
    if "ID" in line:
        desk.typed("releases ./archive --adopt bundle.tar")
        line = line.replace("ID", next((desk.directory / "archive/.regwrap/releases").glob("*.note")).stem)
    if "oci:layout" in line:
        desk.typed("export bundle.tar layout --format oci")
    assert desk.typed(line) == []
