"""The first minutes: init, and lists from manifests and from what a registry has."""

import re
from pathlib import Path

import pytest

from regwrap.storage import layout
from tests.builders import make_image, make_storage, put
from tests.conftest import StartRegistry
from tests.release.conftest import Scene
from tests.release.regwrap_cli import Cli, typed

pytestmark = pytest.mark.tools

PODS = """
kind: Pod
apiVersion: v1
spec: {containers: [{image: "HOST/app:v1"}, {image: "HOST/library/tool:1.0"}, {image: $(LATER)}]}
"""


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


def in_order(scene: Scene) -> list[str]:
    return sorted(scene.images, key=lambda name: name.split(":"))


# --- from a registry


def test_what_a_registry_has_is_a_list_that_brings_it_all(scene: Scene) -> None:
    listed = scene.cli("list", "from-registry", scene.host)
    assert listed.returncode == 0, listed.stderr
    assert lines(listed.stdout) == [f"{scene.host}/{name}" for name in in_order(scene)]
    assert listed.stdout.startswith(f"# {len(scene.images)} images, by regwrap list from-registry {scene.host}\n")
    done = scene.cli("sync", "-", stdin=listed.stdout)
    assert f"{len(scene.images)} copied, 0 already there, 0 failed" in done.stdout


def test_a_prefix_is_a_path_and_a_name_of_the_configuration_will_do(scene: Scene) -> None:
    (scene.directory / "regwrap.yaml").write_text(f"registries: {{cicd: {{url: {scene.host}}}}}\n")
    below = lines(scene.cli("list", "from-registry", "cicd/app").stdout)
    assert [line.partition("/")[2] for line in below] == [
        "app:v1",
        "app:v2",
        "app/sidecar:v1",
        "app/sidecar/deep:v1",
    ]
    nothing = scene.cli("list", "from-registry", "cicd/ap")
    assert nothing.returncode == 1
    assert "cicd/ap has no tagged images" in nothing.stderr


def test_a_storage_directory_is_listed_without_a_host(scene: Scene) -> None:
    listed = scene.cli("list", "from-registry", scene.ci_root, "-o", "all.list")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout == ""
    text = (scene.directory / "all.list").read_text()
    assert lines(text) == in_order(scene)
    assert f"; read it with --source {scene.ci_root}\n" in text
    done = scene.cli("sync", "all.list", "--source", scene.ci_root)
    assert f"{len(scene.images)} copied" in done.stdout


def test_a_catalog_of_many_pages_is_read_to_its_end(cli: Cli, loopback_registry: StartRegistry, tmp_path: Path) -> None:
    image = make_image("one")
    root = make_storage(tmp_path / "many", {"team/app-0000:v1": image})
    for number in range(1, 1205):  # a page has 1000
        name = f"team/app-{number:04}"
        put(root / layout.tag_link(name, "v1"), f"{image.top}".encode())
        (root / layout.repository_path(name) / "_layers").mkdir()  # by which the registry knows a repository
    listed = cli("list", "from-registry", loopback_registry(root).host)
    assert listed.returncode == 0, listed.stderr
    found = [line.partition("/")[2] for line in lines(listed.stdout)]
    assert found == [f"team/app-{number:04}:v1" for number in range(1205)]


# --- from manifests


def test_manifests_on_standard_input_become_a_list_that_is_read(scene: Scene) -> None:
    listed = scene.cli("list", "from-manifests", stdin=PODS.replace("HOST", scene.host))
    assert listed.returncode == 0, listed.stderr
    assert lines(listed.stdout) == [f"{scene.host}/app:v1", f"{scene.host}/library/tool:1.0"]
    assert "note: <stdin>:4: `image`: templates and variables are not expanded" in listed.stderr
    assert "2 copied" in scene.cli("sync", "-", stdin=listed.stdout).stdout


def test_manifests_without_images_are_an_error_and_write_nothing(cli: Cli) -> None:
    empty = cli("list", "from-manifests", "-o", "x.list", stdin="")
    assert empty.returncode == 2
    assert "no images found" in empty.stderr
    assert "helm template" in empty.stderr.splitlines()[-1]
    template = cli("list", "from-manifests", "-o", "x.list", stdin="spec:\n  replicas: {{replicas}}\n  image: a/b:1\n")
    assert template.returncode == 2
    assert "<stdin>:2:13: is a template ({{): render it first" in template.stderr
    absent = cli("list", "from-manifests", "absent.yaml")
    assert absent.returncode == 2
    assert list(cli.directory.glob("*.list")) == []


def test_what_cannot_be_read_among_much_is_told_and_the_rest_is_listed(cli: Cli) -> None:
    broken = cli("list", "from-manifests", stdin="a: [1\n---\nimage: a.io/a:1\nargs: [--x=a.io/b:2]\n")
    assert broken.returncode == 1
    assert lines(broken.stdout) == ["a.io/a:1", "", "a.io/b:2  # <stdin>:4 args"]
    told = broken.stderr.splitlines()
    assert told[0].startswith("regwrap: <stdin>:")
    assert told[0].endswith("this document is left out")
    assert told[-1] == "1 image from image:, 1 from elsewhere, 1 noted, in 1 file"
    sure = cli("list", "from-manifests", "--sure", "--quiet", stdin="image: a.io/a:1\nargs: [--x=a.io/b:2]\n")
    assert (sure.returncode, lines(sure.stdout), sure.stderr) == (0, ["a.io/a:1"], "")


def test_what_is_not_there_is_commented_out_by_check(scene: Scene) -> None:
    digest = scene.images["app:v1"].top
    text = f"[{{image: HOST/app:v1}}, {{image: 'HOST/app@{digest}'}}, {{image: HOST/app:v9}}, HOST/other:1]"
    checked = scene.cli("list", "from-manifests", "--check", stdin=text.replace("HOST", scene.host))
    assert checked.returncode == 1
    untagged = f"{scene.host}/app@{digest} => app:sha256-{digest.hex}.untagged"
    assert lines(checked.stdout) == [untagged, f"{scene.host}/app:v1", ""]
    assert f"# not there: {scene.host}/app:v9\n" in checked.stdout
    assert f"# not there: {scene.host}/other:1  # <stdin>:1 \n" in checked.stdout
    assert f"note: {scene.host}/app:v9 is not there; its line is commented out" in checked.stderr
    there = scene.cli("list", "from-manifests", "--check", stdin=PODS.replace("HOST", scene.host))
    assert there.returncode == 0, there.stderr
    (scene.directory / "regwrap.yaml").write_text("retry: {outage: 0}\n")
    nobody = scene.cli("list", "from-manifests", "--check", stdin="image: 127.0.0.1:1/a:1")
    assert nobody.returncode == 1
    assert lines(nobody.stdout) == ["127.0.0.1:1/a:1"]
    assert "note: 127.0.0.1:1/a:1: " in nobody.stderr


# --- init


def test_init_then_a_release_from_nothing_else(scene: Scene) -> None:
    (scene.directory / "pods.yaml").write_text(PODS.replace("HOST", scene.host))
    options = ("--source", scene.host, "--archive", "./kept", "--from-manifests", "pods.yaml", "--yes")
    made = scene.cli("init", "product", *options)
    assert made.returncode == 0, made.stderr
    assert made.stdout == "product/images.list\nproduct/regwrap.yaml\n"
    assert re.search(rf"cicd +{scene.host} .* allowed .* open without a login", made.stderr)  # as doctor says it
    assert "next: cd product, edit images.list, regwrap release" in made.stderr
    product = Cli(scene.directory / "product", scene.cli.zygote)
    done = product("release", "images.list", "-o", "r.tar")
    assert done.returncode == 0, done.stderr
    assert (product.directory / "kept/docker/registry/v2").is_dir()
    with (product.directory / "images.list").open("a") as file:
        file.write("app:v2\n")  # from the configured source
    assert "1 copied, 2 already there" in product("sync", "images.list").stdout


def test_init_tells_what_it_could_not_read_by_its_exit_code(cli: Cli) -> None:
    made = cli("init", "--from-manifests", "-", "--yes", stdin="a: [1\n---\nimage: a.io/a:1\n")
    assert made.returncode == 1
    assert made.stderr.startswith("regwrap: <stdin>:2:1: ")
    assert "this document is left out" in made.stderr
    assert lines((cli.directory / "images.list").read_text()) == ["a.io/a:1"]


def test_init_tells_of_a_registry_that_does_not_answer_and_keeps_its_files(cli: Cli) -> None:
    made = cli("init", "--source", "127.0.0.1:1", "--archive", "127.0.0.1:2", "--yes")
    assert made.returncode == 0
    for name, port in (("cicd", 1), ("archive", 2)):
        assert re.search(rf"{name} +127\.0\.0\.1:{port} .*NO: 127\.0\.0\.1:{port} could not be reached", made.stderr)
    assert "next: correct regwrap.yaml, regwrap doctor, edit images.list" in made.stderr
    assert "127.0.0.1" not in cli("init", "--source", "127.0.0.1:1", "--yes", "--force", "--quiet").stderr


def test_init_takes_the_list_of_a_running_archive(scene: Scene) -> None:
    made = scene.cli("init", "p", "--source", scene.host, "--from-registry", f"{scene.host}/multi", "--yes")
    assert made.returncode == 0, made.stderr
    assert len(lines((scene.directory / "p/images.list").read_text())) == 3


def test_init_never_overwrites_without_a_word(cli: Cli) -> None:
    (cli.directory / "images.list").write_text("mine:1\n")
    assert cli("init", "--source", "one.example", "--yes", "-q").returncode == 0
    assert (cli.directory / "images.list").read_text() == "mine:1\n"
    before = (cli.directory / "regwrap.yaml").read_text()

    refused = cli("init", "--source", "two.example", "--yes")

    assert refused.returncode == 2
    assert "regwrap.yaml: already exists, nothing was written" in refused.stderr
    assert (cli.directory / "regwrap.yaml").read_text() == before
    assert cli("init", "--source", "two.example", "--yes", "--force", "-q").returncode == 0
    assert '"two.example"' in (cli.directory / "regwrap.yaml").read_text()
    assert (cli.directory / "images.list").read_text() == "mine:1\n"
    listed = cli("init", "--from-manifests", "-", "--force", stdin="image: other:2")
    assert listed.returncode == 0, listed.stderr
    assert "docker.io/library/other:2" in (cli.directory / "images.list").read_text()


def test_a_registry_that_is_away_is_waited_for_by_a_list_which_says_so_and_not_by_init(cli: Cli) -> None:
    (cli.directory / "regwrap.yaml").write_text("retry: {attempts: 1, outage: 1}\n")
    listed = cli("list", "from-registry", "127.0.0.1:1")
    assert listed.returncode == 3
    assert "waiting up to 1 s for it" in listed.stderr
    made = cli("init", "p", "--yes", "--source", "r.example", "--from-registry", "127.0.0.1:1")
    assert made.returncode == 3
    assert "nothing listens there" in made.stderr
    assert "waiting" not in made.stderr


def test_init_writes_nothing_where_something_is_wrong(cli: Cli) -> None:
    for options in (
        ("--source", "not a host"),
        ("--source", "user:secret@r.example"),
        ("--source", "r.example", "--from-registry", "127.0.0.1:1"),
        ("--source", "r.example", "--from-manifests", "absent.yaml"),
    ):
        done = cli("init", "p", "--yes", *options)
        assert done.returncode in {2, 3}
        assert "secret" not in done.stderr
    assert not (cli.directory / "p").exists()


def test_init_asks_on_a_terminal_and_asks_again_where_an_answer_is_wrong(cli: Cli) -> None:
    environment = {**cli.environment, "TERM": "dumb", "COLUMNS": "200"}
    keys = "no host\n127.0.0.1:1\narchive\n"
    shown = typed(cli.command("init"), keys, "next:", cwd=cli.directory, env=environment)
    assert "Registry to copy images from" in shown
    assert 'expected HOST[:PORT], got "no host"' in shown
    assert "Archive to keep them in" in shown
    text = (cli.directory / "regwrap.yaml").read_text()
    assert 'url: "127.0.0.1:1"' in text
    assert 'storage: "./archive"' in text
