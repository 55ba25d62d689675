"""A bundle into a registry that is not ours: TLS and a password in front, Harbor's projects, killed in the middle."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from regwrap.core.model import Digest
from regwrap.storage import layout
from tests.builders import Image, make_image, make_layer, make_multi_image, make_storage, storage_problems
from tests.bundles import contents_of, listed, make_bundle, packed, parts_of
from tests.conftest import StartRegistry
from tests.faultserver import Fault, faulty_proxy
from tests.harbor import USER, FakeHarbor, fake_harbor
from tests.release.conftest import all_kinds
from tests.release.regwrap_cli import Cli, raw_digest
from tests.tls import HTPASSWD, LOGIN, make_certificate, write_authfile

pytestmark = pytest.mark.tools

KILLS = int(os.environ.get("REGWRAP_KILLS", "5"))


def digests_of(images: dict[str, Image]) -> dict[str, str]:
    return {name: str(image.top) for name, image in images.items()}


@dataclass(frozen=True)
class Site:
    """A registry with TLS and a password, configured as `site`; `bundle.tar` beside it has `images`."""

    cli: Cli
    host: str
    root: Path
    cert_dir: Path
    images: dict[str, Image]

    def digest(self, name: str) -> str:
        """What the registry gives, by skopeo."""
        done = subprocess.run(
            [
                "skopeo",
                "inspect",
                "--raw",
                "--cert-dir",
                self.cert_dir,
                "--creds",
                LOGIN,
                f"docker://{self.host}/{name}",
            ],
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
            capture_output=True,
            check=True,
            timeout=60,
        )
        return str(Digest.of(done.stdout))


@pytest.fixture
def site(tmp_path: Path, cli: Cli, loopback_registry: StartRegistry) -> Site:
    certificate = make_certificate(tmp_path / "tls")
    users = tmp_path / "htpasswd"
    users.write_text(HTPASSWD)
    registry = loopback_registry(
        tmp_path / "site",
        {
            "http": {"tls": {"certificate": f"{certificate.cert}", "key": f"{certificate.key}"}},
            "auth": {"htpasswd": {"realm": "tests", "path": f"{users}"}},
        },
    )
    authfile = write_authfile(tmp_path / "auth.json", registry.host, LOGIN)
    (cli.directory / "regwrap.yaml").write_text(
        f"registries:\n  site:\n    url: https://{registry.host}\n    authfile: {authfile}\n"
        f"    cert_dir: {certificate.directory}\n"
    )
    images = all_kinds()
    make_bundle(tmp_path, images).rename(cli.directory / "bundle.tar")
    return Site(cli, registry.host, registry.root, certificate.directory, images)


def test_every_kind_of_image_arrives_with_its_digest_and_the_second_push_sends_nothing(site: Site) -> None:
    done = site.cli("push", "bundle.tar", "site/product")
    assert done.returncode == 0, done.stderr
    assert f"{len(site.images)} copied, 0 already there, 0 failed" in done.stdout
    assert {name: site.digest(f"product/{name}") for name in site.images} == digests_of(site.images)
    assert storage_problems(site.root) == set()

    again = site.cli("push", "bundle.tar", "site/product", "--verbose")
    assert f"0 copied, {len(site.images)} already there, 0 failed; 0 B sent" in again.stdout
    assert "skopeo" not in again.stderr


def test_a_storage_is_pushed_as_a_bundle_is_and_is_not_written_to(site: Site, tmp_path: Path) -> None:
    before = sorted((tmp_path / "archive").rglob("*"))
    done = site.cli("push", tmp_path / "archive", f"{site.host}", env={"REGWRAP_CONFIG": "regwrap.yaml"})
    assert done.returncode == 0, done.stderr
    assert {name: site.digest(name) for name in site.images} == digests_of(site.images)
    assert sorted((tmp_path / "archive").rglob("*")) == before


def test_dry_run_names_each_image_and_changes_nothing(site: Site) -> None:
    done = site.cli("push", "bundle.tar", "site/product", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("not there yet") == len(site.images)
    assert " -> product/multi/nested:v1" in done.stdout
    assert not (site.root / layout.REPOSITORIES).exists()


def test_shared_blobs_travel_once_and_the_report_says_what_was_sent(site: Site) -> None:
    done = site.cli("push", "bundle.tar", "site", "--json", "--quiet")
    report = json.loads(done.stdout)
    blobs = {blob for image in site.images.values() for blob in image.blobs}
    assert sum(item["sent"] for item in report["copied"]) == sum(map(len, blobs))
    assert done.stderr == ""


def test_names_that_collide_and_bad_destinations_are_usage_errors(site: Site) -> None:
    cli = site.cli
    make_bundle(cli.directory, {"a/app:v1": make_image("a"), "b/app:v1": make_image("b")})
    collided = cli("push", "bundle.tar", "site/x", "--flat")
    assert collided.returncode == 2
    assert "a/app:v1" in collided.stderr
    assert "as another image too" in collided.stderr
    for dest, said in (
        ("siet", 'did you mean "site"?'),
        ("site/Upper", "cannot prefix a repository's name"),
        ("site/../x", "cannot prefix a repository's name"),
    ):
        done = cli("push", "bundle.tar", dest)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert not (site.root / layout.REPOSITORIES).exists()


def test_a_tag_that_is_another_image_there_is_moved_only_when_told_to(site: Site) -> None:
    cli, before = site.cli, site.images["app:v1"]
    assert cli("push", "bundle.tar", "site").returncode == 0
    other = {"app:v1": make_image("another"), "team/new:v1": make_image("new")}
    make_bundle(cli.directory, other)
    for flags in ((), ("--dry-run",)):
        refused = cli("push", "bundle.tar", "site", *flags)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert f"app:v1: is {before.top}, bundle.tar has {other['app:v1'].top}" in refused.stderr
        assert "--replace-tags" in refused.stderr
    assert site.digest("app:v1") == str(before.top)
    assert not (site.root / layout.REPOSITORIES / "team/new").exists()

    planned = cli("push", "bundle.tar", "site", "--replace-tags", "--dry-run")
    assert "the tag points to another image there" in planned.stdout
    done = cli("push", "bundle.tar", "site", "--replace-tags")
    assert done.returncode == 0, done.stderr
    assert {name: site.digest(name) for name in other} == digests_of(other)


def test_images_get_other_names_there_and_the_report_has_each(site: Site) -> None:
    done = site.cli(
        "push", "bundle.tar", "site/p", "--rename", "multi=many", "--report", "push.json", "--junit", "push.xml"
    )
    assert done.returncode == 0, done.stderr
    assert site.digest("p/many/nested:v1") == str(site.images["multi/nested:v1"].top)
    assert site.digest("p/app:v1") == str(site.images["app:v1"].top)
    record = json.loads((site.cli.directory / "push.json").read_text())
    assert (record["command"], record["list"]) == ("push", "bundle.tar")
    assert record["totals"]["copied"] == len(site.images)
    assert {image["source"].partition("@")[0]: image["image"] for image in record["images"]}["multi/oci:v1"] == (
        "p/many/oci:v1"
    )
    assert (site.cli.directory / "push.xml").read_text().count("<testcase") == len(site.images)
    shown = site.cli("report", "show", "push.json")
    assert shown.returncode == 0, shown.stderr
    lost = site.cli("push", "bundle.tar", "site/p", "--report", "bundle.tar")
    assert (lost.returncode, "would be overwritten" in lost.stderr) == (2, True)


def test_a_wrong_password_is_said_for_each_image(site: Site, tmp_path: Path) -> None:
    write_authfile(tmp_path / "auth.json", site.host, "ci:wrong")
    done = site.cli("push", "bundle.tar", "site")
    assert done.returncode == 1
    assert "skopeo login" in done.stderr


def test_an_account_in_a_credential_helper_is_used(site: Site, tmp_path: Path) -> None:
    (tmp_path / "auth.json").write_text(json.dumps({"credHelpers": {site.host: "tests"}}))
    user, _, secret = LOGIN.partition(":")
    helper = tmp_path / "bin/docker-credential-tests"
    helper.parent.mkdir()
    helper.write_text(f"#!/bin/sh\necho '{json.dumps({'ServerURL': site.host, 'Username': user, 'Secret': secret})}'\n")
    helper.chmod(0o755)
    env = {"PATH": f"{helper.parent}:{os.environ['PATH']}"}
    done = site.cli("push", "bundle.tar", "site", env=env)
    assert done.returncode == 0, done.stderr
    assert {name: site.digest(name) for name in site.images} == digests_of(site.images)


def test_damage_is_found_before_or_named_and_never_pushed(site: Site) -> None:
    bundle = site.cli.directory / "bundle.tar"
    layer = max((blob for image in site.images.values() for blob in image.blobs), key=len)
    data = bundle.read_bytes()
    place = data.index(layer) + len(layer) // 2
    bundle.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    refused = site.cli("push", "bundle.tar", "site", "--verify")
    assert refused.returncode == 4
    assert not (site.root / layout.REPOSITORIES).exists()

    done = site.cli("push", "bundle.tar", "site", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert sorted(item["entry"]["dest"] for item in report["failed"]) == ["app/sidecar:v1", "app:v1", "app:v2"]
    assert all("is damaged at the source" in item["error"] for item in report["failed"])
    assert storage_problems(site.root) == set()

    bundle.write_bytes(data[:-65536])
    assert site.cli("push", "bundle.tar", "site").returncode == 4


def test_a_part_of_an_index_fails_alone_with_what_to_do(site: Site, tmp_path: Path) -> None:
    images = {"multi:v1": make_multi_image("m"), "app:v1": make_image("a")}
    root = make_storage(tmp_path / "partial", images)
    contents = contents_of(root, listed("multi:v1", "linux/arm64"), "app:v1")
    (site.cli.directory / "part.tar").write_bytes(packed(parts_of(contents, root)))
    done = site.cli("push", "part.tar", "site")
    assert done.returncode == 1
    assert "1 copied, 0 already there, 1 failed" in done.stdout
    assert "does not accept partial indexes, and multi:v1 has some platforms only" in done.stderr
    assert site.digest("app:v1") == str(images["app:v1"].top)
    planned = site.cli("push", "part.tar", "site", "--dry-run")
    assert planned.returncode == 1
    assert "fail  multi:v1" in planned.stdout
    assert "does not accept partial indexes" in planned.stdout

    rewritten = site.cli("push", "part.tar", "site", "--platform-index", "rewrite")
    assert rewritten.returncode == 0, rewritten.stderr
    new = site.digest("multi:v1")
    assert f"REWRITTEN for the platforms that are there: {images['multi:v1'].top} -> {new}" in rewritten.stderr
    again = site.cli("push", "part.tar", "site", "--platform-index", "rewrite")
    assert "0 copied, 2 already there, 0 failed" in again.stdout
    assert storage_problems(site.root) == set()
    assert site.cli("push", "part.tar", "site", "--platform-index", "rewrite", "--dry-run").returncode == 0


# --- killed, and what it costs


@dataclass(frozen=True)
class Big:
    """Enough bytes that a signal lands in the middle of the work."""

    cli: Cli
    host: str
    root: Path
    images: dict[str, Image]


@pytest.fixture
def big(tmp_path: Path, cli: Cli, loopback_registry: StartRegistry) -> Big:
    shared = make_layer("shared", random.Random(7).randbytes(8_000_000))
    images = {
        f"team/app-{n:02}:v1": make_image(
            f"{n}", layers=[shared, make_layer(f"own-{n}", random.Random(n).randbytes(1_500_000))]
        )
        for n in range(16)
    }
    make_bundle(tmp_path, images).rename(cli.directory / "bundle.tar")
    registry = loopback_registry(tmp_path / "dest")
    return Big(cli, registry.host, registry.root, images)


def linked_layers(root: Path) -> set[str]:
    # os.walk passes over what the registry removes meanwhile; rglob fails on it
    places = (Path(place) for place, _names, files in os.walk(root / layout.REPOSITORIES) if "link" in files)
    return {place.name for place in places if place.parent.parent.name == "_layers"}


def assert_settles(root: Path) -> None:
    """The registry lives on, and may still be at work on what the killed client had sent."""
    deadline = time.monotonic() + 10
    while True:
        try:
            problems = storage_problems(root)
        except FileNotFoundError as error:
            problems = {f"{error}"}
        if not problems:
            return
        assert time.monotonic() < deadline, problems
        time.sleep(0.05)


def test_a_killed_push_is_complete_after_the_next_one_which_sends_only_what_is_missing(big: Big) -> None:
    dice = random.Random(22)
    args = ("push", "bundle.tar", f"{big.host}/product", "-j", "4")
    blobs = {blob for image in big.images.values() for blob in image.blobs}
    for number in range(KILLS):
        process = big.cli.start(*args)
        deadline = time.monotonic() + 60
        while len(linked_layers(big.root)) < 1 + 4 * number and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(dice.uniform(0, 0.2))  # the moment is what is random here
        process.kill()
        process.communicate()
        assert_settles(big.root)
    missing = sum(len(blob) for blob in blobs if Digest.of(blob).hex not in linked_layers(big.root))
    done = big.cli(*args, "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert sum(item["sent"] for item in json.loads(done.stdout)["copied"]) == missing
    assert {n: raw_digest(big.host, f"product/{n}") for n in big.images} == digests_of(big.images)
    assert list((big.cli.directory / "scratch").iterdir()) == []


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_push_in_the_middle_of_an_image(
    cli: Cli, tmp_path: Path, loopback_registry: StartRegistry, signum: signal.Signals, code: int
) -> None:
    layers = [make_layer(f"{n}", random.Random(n).randbytes(1000)) for n in range(40)]
    make_bundle(cli.directory, {"app:v1": make_image("many", layers=layers)})
    dest = loopback_registry(tmp_path / "dest")
    with faulty_proxy(dest.host, [Fault("slow", "^PUT .*/blobs/", seconds=2)]) as proxy:
        process = cli.start("push", "bundle.tar", proxy.host)
        deadline = time.monotonic() + 60
        while len(linked_layers(dest.root)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        started = time.monotonic()
        process.send_signal(signum)
        _out, err = process.communicate(timeout=60)
    assert time.monotonic() - started < 40  # all of it takes 80
    assert process.returncode == code
    assert "rerun to continue" in err
    assert cli("push", "bundle.tar", dest.host).returncode == 0


@pytest.mark.parametrize(("times", "code"), [(1, 0), (10**9, 1)])
def test_a_web_page_that_answers_a_push_is_named_and_has_put_nothing(
    cli: Cli, tmp_path: Path, loopback_registry: StartRegistry, times: int, code: int
) -> None:
    make_bundle(cli.directory, {"app:v1": make_image("one")})
    dest = loopback_registry(tmp_path / "dest")
    with faulty_proxy(dest.host, [Fault("html", "^PUT .*/manifests/", times=times)]) as proxy:
        done = cli("push", "bundle.tar", proxy.host)
    assert done.returncode == code, done.stderr
    assert "check the address: a proxy or login page answered instead of the registry" in done.stderr or code == 0
    assert "Please log in" in done.stderr
    assert cli("push", "bundle.tar", dest.host).returncode == 0


def used(directory: Path) -> int:
    """Bytes on disk below `directory`, as du counts them; what goes away meanwhile does not count."""
    total = 0
    for root, names, files in os.walk(directory):
        for name in (*names, *files):
            with suppress(FileNotFoundError):
                total += os.lstat(f"{root}/{name}").st_blocks * 512
    return total


def test_a_push_takes_less_than_a_twentieth_of_the_bundle_on_disk(big: Big) -> None:
    size = (big.cli.directory / "bundle.tar").stat().st_size
    before = used(big.cli.directory)
    process = big.cli.start("push", "bundle.tar", f"{big.host}/product")
    most, looks = 0, 0
    while process.poll() is None:
        most, looks = max(most, used(big.cli.directory) - before), looks + 1
        time.sleep(0.01)
    _out, err = process.communicate()
    assert process.returncode == 0, err
    assert looks > 10
    assert most < size // 20


# --- Harbor


@pytest.fixture
def harbor(tmp_path: Path, cli: Cli, loopback_registry: StartRegistry) -> Iterator[FakeHarbor]:
    with fake_harbor(loopback_registry(tmp_path / "harbor").host, "library") as fake:
        authfile = write_authfile(tmp_path / "auth.json", fake.host, USER)
        (cli.directory / "regwrap.yaml").write_text(
            f"registries:\n  harbor:\n    url: http://{fake.host}\n    authfile: {authfile}\n"
        )
        make_bundle(tmp_path, all_kinds()).rename(cli.directory / "bundle.tar")
        yield fake


def test_a_project_that_is_not_there_is_named_before_anything_is_sent(cli: Cli, harbor: FakeHarbor) -> None:
    done = cli("push", "bundle.tar", "harbor/product")
    assert done.returncode == 2
    assert f"Harbor {harbor.host} has no project product" in done.stderr
    assert "--create-projects" in done.stderr
    told = cli("push", "bundle.tar", "harbor/product", "--dry-run", "--create-projects")
    assert told.returncode == 0, told.stderr
    assert "project product does not exist; it would be created" in told.stderr
    assert harbor.created == []


def test_missing_projects_are_created_private_and_used(cli: Cli, harbor: FakeHarbor) -> None:
    done = cli("push", "bundle.tar", "harbor/product", "--create-projects")
    assert done.returncode == 0, done.stderr
    assert harbor.created == [{"project_name": "product", "metadata": {"public": "false"}}]
    images = all_kinds()
    assert {n: raw_digest(harbor.upstream, f"product/{n}") for n in images} == digests_of(images)
    again = cli("push", "bundle.tar", "harbor/product", "--create-projects")
    assert f"0 copied, {len(images)} already there" in again.stdout
    assert len(harbor.created) == 1


def test_an_account_that_may_not_create_projects_is_told_so(cli: Cli, harbor: FakeHarbor) -> None:
    harbor.may_create = False
    done = cli("push", "bundle.tar", "harbor/product", "--create-projects")
    assert done.returncode == 3
    assert "refused to create the project product (403)" in done.stderr
    assert "Only system admin can create project" in done.stderr


def test_a_name_without_a_project_is_refused(cli: Cli, harbor: FakeHarbor) -> None:
    done = cli("push", "bundle.tar", "harbor")
    assert done.returncode == 2
    assert "app:v1" in done.stderr
    assert "give DEST/PROJECT" in done.stderr
    assert harbor.created == []


def test_another_registry_needs_no_projects(site: Site) -> None:
    done = site.cli("push", "bundle.tar", "site/product", "--create-projects")
    assert done.returncode == 0, done.stderr
    assert "is not Harbor" in done.stderr
