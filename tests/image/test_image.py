"""The built image: what it says of itself, the same twice, and a release inside it at three levels of privilege."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from regwrap.core.model import Digest
from regwrap.storage.store import Storage
from tests.baked import baked_registry, umoci
from tests.builders import make_storage, storage_problems
from tests.conftest import StartRegistry
from tests.dockerd import Docker, started_dockerd
from tests.image.compose import composed
from tests.image.conftest import ROOT, BuiltImage, build_image
from tests.registry import LoopbackRegistry
from tests.release.conftest import Scene, all_kinds
from tests.release.regwrap_cli import raw_digest
from tests.tls import HTPASSWD, LOGIN, make_certificate, write_authfile

pytestmark = pytest.mark.tools
_PRIVILEGED = ("--user", "0", "--cap-add", "SYS_ADMIN")
_ROOT = ("--user", "0")
_PLAIN = ()
_OTHER = ("--user", "54321")
_PLAIN_WITH_NAMESPACES = ("--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined")
_TOUR = """
    regwrap doctor --json >doctor.json
    regwrap sync images.list --report report.json
    regwrap sync images.list | grep "0 copied, 8 already there, 0 failed"
    regwrap lock images.list && regwrap lock images.list --check
    regwrap package images.list --locked -o selected.tar
    regwrap package images.list --history history --strategy overlay -o overlay.tar
    regwrap release images.list -o release.tar --with-tool
    sha256sum -c release.tar.sha256 && python3 regwrap.pyz inspect release.tar
    cmp selected.tar release.tar && cmp overlay.tar release.tar
    regwrap verify release.tar --list images.list

    regwrap push release.tar site/product | grep "8 copied, 0 already there, 0 failed"
    regwrap serve release.tar --addr 127.0.0.1:0 >served & server=$!
    until grep -q http served; do sleep 0.1; done
    skopeo inspect --raw --tls-verify=false "docker://$(sed 's|http://||' served)/app:v1" | sha256sum >app.served
    kill $server; wait $server

    regwrap deploy release.tar deployed
    regwrap verify deployed --list images.list
    cp -r deployed less && echo app:v1 | regwrap gc less --keep - --offline | tee gc.told
    regwrap verify less
    regwrap workspace images.list --history history -- \\
      sh -ec 'skopeo list-tags --tls-verify=false docker://$REGWRAP_REGISTRY/app >tags.json'
    regwrap bake release.tar --to oci:baked:v1
    chmod -R --silent a+rX . || :  # what is not ours can be read already
"""


@dataclass(frozen=True)
class Container:
    """The image in a Docker daemon of its own; `work` is /release, a directory of the machine."""

    docker: Docker
    name: str
    work: Path

    def __call__(
        self, rights: tuple[str, ...], *command: str, volumes: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        mounts = ("--volume", f"{self.work}:/release") if volumes else ()
        return self.docker("run", "--rm", "--network", "host", *rights, *mounts, self.name, *command)


@pytest.fixture(scope="module")
def docker(image: BuiltImage) -> Iterator[Docker]:
    with started_dockerd("overlay2") as docker:
        loaded = docker("load", "--input", f"{image.archive}")
        assert loaded.returncode == 0, loaded.stderr
        yield docker


@pytest.fixture
def container(docker: Docker, image: BuiltImage) -> Iterator[Container]:
    with TemporaryDirectory(prefix="image-", dir="/var/tmp") as name:
        work = Path(name)
        work.chmod(0o777)
        yield Container(docker, image.name, work)


@pytest.fixture
def closed(container: Container, loopback_registry: StartRegistry) -> LoopbackRegistry:
    """Configured as `cicd` with every image, by TLS and a password; `site`, which is returned, is such a one too."""
    place = container.work / "registries"
    certificate = make_certificate(place)
    (place / "htpasswd").write_text(HTPASSWD)
    extra = {
        "http": {"tls": {"certificate": f"{certificate.cert}", "key": f"{certificate.key}"}},
        "auth": {"htpasswd": {"realm": "tests", "path": f"{place}/htpasswd"}},
    }
    cicd = loopback_registry(make_storage(place / "cicd", all_kinds()), extra=extra)
    site = loopback_registry(place / "site", extra=extra)
    (container.work / "regwrap.yaml").write_text(
        "registries:\n"
        + "".join(
            f"  {name}: {{url: 'https://{host}', cert_dir: registries/certs.d, authfile: {name}.json}}\n"
            for name, host in (("cicd", cicd.host), ("site", site.host))
        )
        + "source: cicd\narchive: ./archive\n"
    )
    for name, host in (("cicd", cicd.host), ("site", site.host)):
        write_authfile(container.work / f"{name}.json", host, LOGIN)
    return site


@pytest.mark.parametrize("rights", [_PRIVILEGED, _PLAIN_WITH_NAMESPACES], ids=["root", "plain"])
def test_the_whole_tour_in_it(
    container: Container, closed: LoopbackRegistry, loopback_registry: StartRegistry, rights: tuple[str, ...]
) -> None:
    """With its own programs alone; what comes of it is looked at from outside."""
    images = {name: f"{image.top}" for name, image in all_kinds().items()}
    (container.work / "images.list").write_text("".join(f"{name}\n" for name in images))
    make_storage(container.work / "history", {name: all_kinds()[name] for name in ("app:v1", "multi/oci:v1")})

    done = container(rights, "sh", "-ec", _TOUR)

    assert done.returncode == 0, done.stdout + done.stderr
    work = container.work
    assert all(command["works"] for command in json.loads((work / "doctor.json").read_text())["commands"])
    assert len(json.loads((work / "report.json").read_text())["images"]) == len(images)
    pushed = Storage(closed.root)
    assert {
        name: f"{pushed.resolve(f'product/{repository}', tag)}"
        for name in images
        for repository, _, tag in [name.partition(":")]
    } == images
    assert (work / "app.served").read_text().partition(" ")[0] == images["app:v1"].partition(":")[2]
    deployed = loopback_registry(work / "deployed").host
    assert {name: raw_digest(deployed, name) for name in images} == images
    left = loopback_registry(work / "less").host
    assert raw_digest(left, "app:v1") == images["app:v1"]
    assert sorted(json.loads((work / "tags.json").read_text())["Tags"]) == ["v1", "v2"]
    umoci("unpack", "--image", f"{work}/baked:v1", work / "unpacked")
    assert storage_problems(work / "unpacked/rootfs/var/lib/registry") == set()


@pytest.fixture
def ci(tmp_path: Path, loopback_registry: StartRegistry) -> LoopbackRegistry:
    return loopback_registry(make_storage(tmp_path / "ci", all_kinds()))


def test_it_says_what_it_is_and_when_it_was_made(image: BuiltImage) -> None:
    config = image.config
    seconds = subprocess.run(
        ["git", "-C", ROOT, "log", "-1", "--format=%cI"], capture_output=True, text=True, check=True
    )
    inner = config["config"]
    assert isinstance(inner, dict)
    labels = inner["Labels"]
    assert labels["org.opencontainers.image.title"] == "regwrap"
    assert re.fullmatch(r"\d+\.\d+\.\d+", labels["org.opencontainers.image.version"])
    assert re.fullmatch(r"[0-9a-f]{40}", labels["org.opencontainers.image.revision"])
    assert f"{config['created']}"[:10] == labels["org.opencontainers.image.created"][:10]
    assert f"{config['created']}"[:7] == seconds.stdout[:7]
    assert inner["User"] == "1000:0"
    assert "REGWRAP_SCRATCH=/scratch" in inner["Env"]


def test_it_is_a_base_for_a_bundle_that_it_then_serves(image: BuiltImage, scene: Scene, tmp_path: Path) -> None:
    """docker-registry is in it, so it needs no other image to carry a release into."""
    push = ["buildah", "push", "--quiet", image.name, f"oci:{tmp_path}/own:v1"]
    subprocess.run(push, check=True, capture_output=True)
    assert scene.cli("release", "images.list", "--source", scene.host, "-o", "r.tar").returncode == 0
    done = scene.cli("bake", "r.tar", "--to", "oci:out:v1", "--base", f"oci:{tmp_path}/own:v1")
    assert done.returncode == 0, done.stderr
    umoci("unpack", "--image", f"{scene.directory}/out:v1", tmp_path / "bundle")
    with baked_registry(tmp_path / "bundle") as host:
        found = {name: raw_digest(host, name) for name in scene.images}
    assert found == {name: str(one.top) for name, one in scene.images.items()}


def test_its_archive_is_loaded_by_containerd_and_by_what_podman_reads_with(image: BuiltImage, docker: Docker) -> None:
    run = ["ctr", "--address", f"{docker.containerd}", "--namespace", "test", "images"]
    subprocess.run([*run, "import", "--no-unpack", image.archive], check=True, capture_output=True)
    listed = subprocess.run([*run, "list", "--quiet"], check=True, capture_output=True, text=True)
    assert listed.stdout.split() == [image.name]
    subprocess.run(["sha256sum", "-c", f"{image.archive.name}.sha256"], cwd=image.output, check=True)
    subprocess.run(["buildah", "pull", "--quiet", f"docker-archive:{image.archive}"], check=True, capture_output=True)


def test_a_cluster_of_it_syncs(container: Container, ci: LoopbackRegistry) -> None:
    (container.work / "images.list").write_text("app:v1\n")
    sync = f"regwrap sync images.list --source {ci.host} --dest /release/archive --cluster local:2"
    done = container(_PLAIN, "sh", "-c", f"python3 -m dask worker --version && {sync}")
    assert done.returncode == 0, done.stderr
    assert "1 copied, 0 already there, 0 failed" in done.stdout


def test_its_size_is_told_and_within_the_limit(image: BuiltImage) -> None:
    told = re.search(r"(\d+) MB unpacked \(limit (\d+)\)", image.said)
    assert told
    assert 100 < int(told[1]) <= int(told[2])
    assert "MB /usr/bin" in image.said


def test_a_larger_one_fails_and_says_so(tmp_path: Path) -> None:
    text = (ROOT / "container/build").read_text()
    script = text[text.index("tell_size() {") : text.index("unshare=\n")]
    (tmp_path / "size.limit").write_text("# MB\n1\n")
    (tmp_path / "sizes").write_text("900000 .\n900000 ./usr\n")
    (tmp_path / "regwrap.cdx.json").write_text('{"bom-ref": "x"}')
    set_up = f'say() {{ echo "$*" >&2; }}; here={tmp_path} output={tmp_path} image=i engine=true'
    command = ["bash", "-c", f"{set_up}\n{script}\ntell_size"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "larger than container/size.limit allows" in done.stderr


def test_the_bill_of_materials_has_debian_and_python_packages_with_versions(image: BuiltImage) -> None:
    bill = json.loads((image.output / "regwrap.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    parts = {part["purl"].partition("?")[0] for part in bill["components"] if "purl" in part}
    assert any(part.startswith("pkg:deb/debian/skopeo@1.18.") for part in parts)
    assert any(part.startswith("pkg:deb/debian/docker-registry@2.8.") for part in parts)
    pinned = re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "container/requirements.txt").read_text(), re.MULTILINE)
    assert len(pinned) >= 5
    assert {f"pkg:pypi/{name}@{version}" for name, version in pinned} <= parts
    # sources that are compiled into Go programs, known by Debian
    assert any("golang-github-containers-storage" in part for part in parts)


def test_two_builds_of_one_state_in_two_places_are_one_image(image: BuiltImage, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for name in ("container", "regwrap"):
        shutil.copytree(
            ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"), copy_function=shutil.copy
        )
    for name in ("pyproject.toml", "README.md", "hatch_build.py"):
        shutil.copy(ROOT / name, copy / name)
    config = image.config
    labels = config["config"]["Labels"]
    time = subprocess.run(["git", "-C", ROOT, "log", "-1", "--format=%ct"], capture_output=True, text=True, check=True)
    settings = {"REVISION": labels["org.opencontainers.image.revision"], "SOURCE_DATE_EPOCH": time.stdout.strip()}

    other = build_image(copy, image.name, tmp_path / "output", **settings)

    assert other.digest == image.digest
    bills, checksums = (
        [(built.output / name).read_bytes() for built in (image, other)]
        for name in ("regwrap.cdx.json", f"{image.archive.name}.sha256")
    )
    assert bills[0] == bills[1]
    assert checksums[0] == checksums[1]


@pytest.mark.parametrize("rights", [_PRIVILEGED, _ROOT, _PLAIN, _OTHER], ids=["sys_admin", "root", "plain", "any-user"])
def test_a_release_and_its_deployment_work_inside(
    container: Container, ci: LoopbackRegistry, loopback_registry: StartRegistry, rights: tuple[str, ...]
) -> None:
    (container.work / "images.list").write_text("".join(f"{name}\n" for name in all_kinds()))
    script = f"""
        regwrap release images.list --source {ci.host} -o release.tar &&
        regwrap verify release.tar --list images.list &&
        regwrap deploy release.tar /release/registry && chmod -R a+rX /release/registry
    """
    done = container(rights, "sh", "-ec", script)
    assert done.returncode == 0, done.stderr
    customer = loopback_registry(container.work / "registry")
    for name, image in all_kinds().items():
        assert raw_digest(customer.host, name) == f"{image.top}"


def test_with_the_capability_an_overlay_finds_the_volume_by_itself_and_packs_the_same_bytes(
    container: Container, ci: LoopbackRegistry
) -> None:
    (container.work / "images.list").write_text("".join(f"{name}\n" for name in all_kinds()))
    make_storage(container.work / "history", {name: all_kinds()[name] for name in ("app:v1", "multi/oci:v1")})
    script = f"""
        regwrap package images.list --source {ci.host} --history history --strategy overlay -o overlay.tar
        regwrap release images.list --source {ci.host} -o selected.tar
        cmp overlay.tar selected.tar
    """
    done = container(_PRIVILEGED, "sh", "-ec", script)
    assert done.returncode == 0, done.stderr
    assert "the upper layer in /scratch" in done.stderr


@pytest.mark.parametrize("rights", [_ROOT, _PLAIN], ids=["root", "plain"])
def test_without_the_capability_doctor_and_package_say_what_is_missing(
    container: Container, ci: LoopbackRegistry, rights: tuple[str, ...]
) -> None:
    (container.work / "images.list").write_text("app:v1\n")
    make_storage(container.work / "history", {})
    package = f"regwrap package images.list --source {ci.host} --history history --strategy overlay -o o.tar"
    done = container(rights, "sh", "-c", f"regwrap doctor; echo exit $?; {package}; echo exit $?")
    doctor, _, packaged = done.stdout.partition("exit 0\n")
    assert re.search(r"^package --strategy overlay +no +overlay +see below$", doctor, re.MULTILINE), done.stdout
    assert re.search(r"^release +works$", doctor, re.MULTILINE)
    assert packaged == "exit 3\n"
    for text in (doctor, done.stderr):
        assert "in a user namespace: forbidden by a seccomp filter" in text
        assert ("the capability CAP_SYS_ADMIN is missing" in text) == (rights == _ROOT)
        assert "--cap-add SYS_ADMIN" in text
        assert "--strategy select" in text


def test_the_tools_have_the_pinned_versions_and_bash_completes(container: Container) -> None:
    done = container(_PLAIN, "bash", "-ic", "skopeo --version; docker-registry --version; complete -p regwrap; id -un")
    assert re.search(r"^skopeo version 1\.18\.", done.stdout, re.MULTILINE)
    assert re.search(r"^docker-registry .* v?2\.8\.", done.stdout, re.MULTILINE)
    assert "-F _regwrap_completion regwrap" in done.stdout
    assert done.stdout.endswith("regwrap\n")
    files = container(_PLAIN, "sh", "-c", "cd /usr/local/share; cat zsh/site-functions/_regwrap; ls fish/*")
    assert "#compdef regwrap" in files.stdout
    assert "regwrap.fish" in files.stdout


def test_where_it_can_be_read_only_it_still_works(container: Container, ci: LoopbackRegistry) -> None:
    (container.work / "images.list").write_text("app:v1\n")
    rights = (
        "--read-only",
        "--tmpfs",
        "/tmp",
        "--user",
        f"{os.getuid()}:0",
        "--env",
        "REGWRAP_ARCHIVE=/release/archive",
    )
    done = container(rights, "regwrap", "release", "images.list", "--source", ci.host, "-o", "r.tar")
    assert done.returncode == 0, done.stderr
    digest = Digest.of((container.work / "r.tar").read_bytes())
    assert f"{digest}".partition(":")[2] in (container.work / "r.tar.sha256").read_text()


_REGISTRY = (
    "sh", "-ec", 'echo "$0" >/tmp/registry.yml; exec docker-registry serve /tmp/registry.yml',
    json.dumps({"version": 0.1, "storage": {"filesystem": {}}, "http": {"addr": ":5000"}}),
)  # fmt: skip


def test_the_cluster_of_the_compose_file_syncs(container: Container) -> None:
    """By the file's commands, settings and volumes, and by the line that it tells to type."""
    work, file, images = container.work, ROOT / "examples/cluster/compose.yaml", all_kinds()
    make_storage(work / "ci", images)
    (work / "images.list").write_text("".join(f"{name}\n" for name in images))
    (work / "config.yaml").write_text("registries:\n  ci:\n    url: http://ci:5001\nsource: ci\n")
    (work / "auth.json").write_text("{}")
    settings = {"REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": "/ci", "REGISTRY_HTTP_ADDR": ":5001"}
    source = {"environment": settings, "volumes": ["./ci:/ci:ro"]}
    typed = re.search(r"docker compose run --rm client (regwrap .+)", file.read_text())
    assert typed
    with composed(container.docker, container.name, file, work, {"ci": source}) as composition:
        composition.up("ci", *_REGISTRY)
        composition.up("scheduler")
        composition.up("worker", count=2)
        wait = "from distributed import Client; Client('tcp://scheduler:8786').wait_for_workers(2, 60)"
        composition.run("client", "python3", "-c", wait)
        assert composition.run("client").count("  yes") == 2
        assert composition.run("client", *typed[1].split()).startswith("8 copied, 0 already there, 0 failed")
        composition.up("registry", *_REGISTRY)
        composition.run("client", "regwrap", "verify", "/release/archive", "--list", "/lists/images.list")
        served = composition.run(
            "client", "skopeo", "inspect", "--raw", "--tls-verify=false", "docker://registry:5000/app:v1"
        )
        assert Digest.of(served.encode()) == images["app:v1"].top
