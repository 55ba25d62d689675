"""Images in Kubernetes YAML and Helm's values: what a user would find by eye, and nothing that is none."""

import json
import time
from pathlib import Path
from random import Random

import pytest

from regwrap.core.model import ImageRef
from regwrap.lists.imagelist import parse_images
from regwrap.lists.manifests.find import FoundImages, find_images
from regwrap.lists.manifests.text import manifests_text

SAMPLES = Path(__file__).parents[2] / "samples/manifests"

DIGEST = "sha256:" + "6b" * 32
OTHER = "sha256:" + "7c" * 32
POD = """
    initContainers: [{name: init, image: "busybox:1.36"}]
    containers:
      - {name: main, image: team/app:v1}
      - {name: side, image: "registry.local:5000/side:v2"}
    ephemeralContainers: [{name: debug, image: quay.io/tools/debug:1}]
    volumes: [{name: model, image: {reference: "quay.io/models/m:3", pullPolicy: Always}}]
"""
IN_POD = [
    "docker.io/library/busybox:1.36",
    "docker.io/team/app:v1",
    "quay.io/models/m:3",
    "quay.io/tools/debug:1",
    "registry.local:5000/side:v2",
]


def found(text: str) -> FoundImages:
    return find_images([("x.yaml", text.encode())])


def names(text: str) -> list[str]:
    result = found(text)
    assert result.notes == ()
    return [str(image) for image in result.images]


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("name", sorted(path.stem for path in SAMPLES.glob("*.yaml")))
def test_each_form_gives_what_a_careful_reader_takes(name: str) -> None:
    """`.expected` has the images of `image:`, behind ~ those from elsewhere with line and key, behind ? the beginnings
    of notes, behind ! those of problems."""
    result = find_images([("", (SAMPLES / f"{name}.yaml").read_bytes())])
    got = [
        *map(str, result.images),
        *(f"~ {other.image} {other.where[1:]}" for other in result.elsewhere),
        *(f"? {note[1:]}" for note in result.notes),
        *(f"! {problem[1:]}" for problem in result.problems),
    ]
    expected = (SAMPLES / f"{name}.expected").read_text(encoding="utf-8").splitlines()
    shortened = [line[: len(want)] if want[0] in "?!" else line for line, want in zip(got, expected, strict=False)]
    assert [*shortened, *got[len(expected) :]] == expected


def indented(text: str, by: int) -> str:
    return text.replace("\n", "\n" + " " * by)


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("Pod", ("spec",)),
        ("Deployment", ("spec", "template", "spec")),
        ("StatefulSet", ("spec", "template", "spec")),
        ("DaemonSet", ("spec", "template", "spec")),
        ("ReplicaSet", ("spec", "template", "spec")),
        ("ReplicationController", ("spec", "template", "spec")),
        ("Job", ("spec", "template", "spec")),
        ("CronJob", ("spec", "jobTemplate", "spec", "template", "spec")),
        ("PodTemplate", ("template", "spec")),
    ],
)
def test_every_kind_of_workload_with_all_its_containers(kind: str, path: tuple[str, ...]) -> None:
    nested = "".join(f"\n{'  ' * depth}{key}:" for depth, key in enumerate(path))
    text = f"apiVersion: v1\nkind: {kind}{nested}{indented(POD, 2 * len(path))}"
    assert names(text) == IN_POD


def test_documents_and_lists_are_read_to_the_end_and_each_image_counts_once() -> None:
    item = f"- apiVersion: v1\n  kind: Pod\n  spec:{indented(POD, 2)}"
    items = f"---\napiVersion: v1\nkind: List\nitems:\n{item}\n{item}\n"
    text = f"{items}---\n---\nimage: team/app:v1\n---\nimage: z.io/z:1\n..."
    assert names(text) == [*IN_POD, "z.io/z:1"]


def test_other_resources_are_read_by_their_keys() -> None:
    text = """
apiVersion: monitoring.coreos.com/v1
kind: Prometheus
spec:
  image: quay.io/prometheus/prometheus:v2.50.0
  thanos: {baseImage: quay.io/thanos/thanos, sidecarImage: "quay.io/thanos/thanos:v0.34"}
  backgroundImage: sky.png
"""
    result = found(text)
    assert [str(image) for image in result.all] == [
        "quay.io/prometheus/prometheus:v2.50.0",
        "quay.io/thanos/thanos:v0.34",
    ]
    (note,) = result.notes
    assert note.startswith("x.yaml:6: `baseImage`: quay.io/thanos/thanos: it has no tag beside it")


def test_values_of_a_chart() -> None:
    text = f"""
image: {{registry: docker.io, repository: bitnami/redis, tag: 7.10, pullPolicy: Always}}
metrics:
  image: {{repository: quay.io/exporter, tag: v1, digest: "{DIGEST}"}}
  job: {{repository: nginx, tag: "1.25"}}
grafana: {{image: {{repository: grafana/grafana, tag: "", sha: "{DIGEST.removeprefix("sha256:")}"}}}}
chart: {{repository: "https://charts.example", version: 3}}
"""
    assert names(text) == [
        "docker.io/bitnami/redis:7.10",
        f"docker.io/grafana/grafana@{DIGEST}",
        "docker.io/library/nginx:1.25",
        f"quay.io/exporter:v1@{DIGEST}",
    ]


def test_names_are_written_out() -> None:
    pod = "[{kind: Pod, apiVersion: v1, spec: {containers: [{image: %s}]}}]"
    for name in ("nginx", "index.docker.io/library/nginx", "docker.io/nginx:latest"):
        assert [str(image) for image in found(pod % name).images] == ["docker.io/library/nginx:latest"]


def test_latest_is_taken_only_where_whoever_runs_it_takes_it() -> None:
    (note,) = found("{kind: Pod, apiVersion: v1, spec: {containers: [{image: nginx}]}}").notes
    assert note == "x.yaml:1: `image`: docker.io/library/nginx: no tag: it runs as latest, so latest is listed"
    assert found("{web: {image: nginx}}").all == ()
    (note,) = found("{kind: Pod, apiVersion: v1, spec: {containers: [{image: auto}]}}").notes
    assert "Istio's injector" in note


def test_what_a_schema_sets_where_nothing_is_given_is_sure_of_nothing() -> None:
    """Not even where it is set for a whole object: who runs it may give another."""
    schema = "{openAPIV3Schema: {default: {image: 'a.io/a:1'}}}"
    data = f"apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nspec: {{schema: {schema}}}\n"
    result = find_images([("x.yaml", data.encode())])
    assert result.images == ()
    assert [f"{other.image}" for other in result.elsewhere] == ["a.io/a:1"]


def test_only_what_image_names_is_sure() -> None:
    data = b"image: a.io/a:1\nargs: [a.io/b:1, a.io/a:1]\n"
    result = find_images([("x.yaml", data)])
    assert [str(image) for image in result.images] == ["a.io/a:1"]
    assert [(str(other.image), other.where) for other in result.elsewhere] == [("a.io/b:1", "x.yaml:2 args")]
    assert find_images([("x.yaml", data)], is_sure=True).elsewhere == ()
    assert result.summary == "1 image from image:, 1 from elsewhere, 0 noted, in 1 file"


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com/a:1", "/var/lib/x:ro", "team/data:rw", "node.kubernetes.io/unreachable:NoExecute",
        "app.kubernetes.io/name:x", "system:node/x", "10.0.0.1/8:24", "use a.io/a:1 or a.io/b:2", "a.io:5000",
        "git@example.com:team/repo", "arn:aws:iam::1:role/x", "team/app", "A.io/Not:1", "text/plain;a:b", "{{ x }}/a:1",
    ],
)  # fmt: skip
def test_what_has_nearly_the_shape_of_a_reference_is_none(text: str) -> None:
    assert names(f"value: '{text}'") == []


@pytest.mark.parametrize(
    "text", ["--solver-image=busybox:1", "SIDECAR_IMAGE=busybox:1", "docker://busybox:1", "-image busybox:1"]
)
def test_a_name_without_a_slash_is_one_where_the_flag_or_the_scheme_says_so(text: str) -> None:
    assert [str(other.image) for other in found(f"args: ['{text}']").elsewhere] == ["docker.io/library/busybox:1"]
    assert names("args: [busybox:1, --x=busybox:1]") == []


@pytest.mark.parametrize(
    "text", ["a.io/a:1", "--x=a.io/a:1", "-x a.io/a:1", "X=a.io/a:1", "docker://a.io/a:1", " a.io/a:1 "]
)
def test_a_reference_stands_alone_or_behind_a_flag(text: str) -> None:
    assert [str(other.image) for other in found(f"args: ['{text}']").elsewhere] == ["a.io/a:1"]


def test_a_digest_that_another_place_knows_counts_for_the_tag() -> None:
    text = f"[{{image: 'a.io/a:1'}}, {{image: 'a.io/a:1@{DIGEST}'}}, {{image: 'a.io/a@{DIGEST}'}}]"
    assert names(text) == [f"a.io/a:1@{DIGEST}"]


def test_what_is_not_understood_is_told_with_its_line() -> None:
    text = """
a: {image: "$(IMAGE)"}
b: {image: ""}
c: {image: {repository: team/app, tag: ""}}
d: {image: "${IMAGE}"}
e: {image: Not A Name}
f: {image: "ok.io/f:1"}
"""
    result = found(text)
    assert [str(image) for image in result.images] == ["ok.io/f:1"]
    assert [note.split(": ")[0] for note in result.notes] == [f"x.yaml:{line}" for line in (2, 3, 4, 5, 6)]
    assert "x.yaml:3: `image`: is not a complete image: render it first (helm template)" in result.notes


def test_images_that_a_list_would_confuse_are_told() -> None:
    text = (
        f"[{{image: 'a.io/x:1'}}, {{image: 'b.io/x:1'}}, {{image: 'a.io/y:1@{DIGEST}'}}, {{image: 'a.io/y:1@{OTHER}'}}]"
    )
    first, second = found(text).notes
    assert first.startswith("a.io/x:1 and b.io/x:1 have the same destination x:1")
    assert second.startswith(f"a.io/y:1@{DIGEST} and a.io/y:1@{OTHER} have the same destination y:1")


def test_what_was_found_reads_back_as_a_list() -> None:
    result = found(f"[{{image: 'a.io/x:1'}}, {{image: nginx:1}}, {{image: 'a.io/z@{DIGEST}'}}, 'a.io/other:1']")
    text = manifests_text(result, {ImageRef.parse("docker.io/library/nginx:1")})
    assert "# not there: docker.io/library/nginx:1\n" in text
    assert text.endswith(
        "\n# 1 more, in variables, arguments, ConfigMaps and the like: check each; --sure excludes them\n"
        "a.io/other:1  # x.yaml:1 \n"
    )
    entries = parse_images(text.encode(), "images.list").entries
    assert [str(entry.source) for entry in entries] == ["a.io/x:1", f"a.io/z@{DIGEST}", "a.io/other:1"]
    assert str(entries[1].dest) == f"z:sha256-{'6b' * 32}.untagged"


def test_keys_of_anybody_break_no_line_of_the_list() -> None:
    result = found('{"a\\nb:1 # \\u0007": a.io/a:1}')
    assert len(parse_images(manifests_text(result).encode(), "images.list").entries) == 1


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a: &x [1]\nb: *y\n", "x.yaml:2:4: the alias *y has no anchor before it"),
        (b"image: {{ .Values.image }}\n", "x.yaml:1:8: is a template ({{): render it first"),
        (b"spec:\n  replicas: {{replicas}}\n", "x.yaml:2:13: is a template ({{)"),
        (b"{{- if .Values.x }}\nimage: a/b:1\n{{- end }}\n", "x.yaml:1:1: is a template ({{)"),
        (b"args:\n  - x\n  - [{{x}}]\n", "x.yaml:3:6: is a template ({{)"),
        (b"a: {" * 3000, "x.yaml:1:"),
        (b"\xff\xfe", "x.yaml: not UTF-8 (byte 1)"),
        (b"a: b\x01\n", "x.yaml:1:5: a control character"),
        (b"a:\n\t- b\n", "x.yaml:2:1: while scanning"),
        (b" " * (64 * 1024**2 + 1), "x.yaml: larger than 64 MiB"),
    ],
    ids=range(10),
)
def test_what_is_broken_or_hostile_is_told_with_its_place_and_the_rest_is_read(data: bytes, message: str) -> None:
    result = find_images([("x.yaml", data), ("y.yaml", b"image: a.io/a:1")])
    assert [str(image) for image in result.images] == ["a.io/a:1"]
    (problem,) = result.problems
    assert problem.startswith(message)
    assert problem.isprintable()


def test_a_key_that_stands_twice_is_a_note_as_helm_and_kubectl_take_it() -> None:
    result = found("kind: Pod\nmetadata:\n  labels: {a: 1, a: 2}\nspec:\n  containers: [{image: a.io/a:1}]\n")
    assert [str(image) for image in result.images] == ["a.io/a:1"]
    assert result.problems == ()
    (note,) = result.notes
    assert 'the key "a" stands twice' in note


def test_objects_are_never_made_of_tags() -> None:
    assert names("image: !!python/object/apply:os.system [id]\nother: !Ref x\n") == []


@pytest.mark.usefixtures("parser")
def test_what_aliases_unfold_to_is_bounded_and_told() -> None:
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 12))
    started = time.process_time()
    result = found(f"l0: &l0 [{{image: 'a.io/a:1'}}]\n{levels}image: a.io/b:1\n")
    assert time.process_time() - started < 5
    assert [str(image) for image in result.images] == ["a.io/a:1", "a.io/b:1"]
    (problem,) = result.problems
    assert "aliases unfold to more than 10 times the file" in problem


@pytest.mark.parametrize(
    "line", ["a/" * 200_000, "a: " + " " * 400_000 + "b", "x=" * 200_000, '"' * 400_000, "{{" * 200_000]
)
@pytest.mark.exhaustive
def test_long_lines_cost_little(line: str) -> None:
    started = time.process_time()
    found(json.dumps({"data": {"x": f"first: 1\nimage {line}\n", "y": line}, "image": "a.io/a:1"}))
    found(f"image: a.io/a:1\nb: {line}\n")
    assert time.process_time() - started < 5


def test_aliases_and_merged_mappings_are_followed() -> None:
    text = "base: &base {repository: a.io/a, tag: v1}\nweb: {image: {<<: *base, tag: v2}}\nother: *base\n"
    assert names(text) == ["a.io/a:v1", "a.io/a:v2"]


def test_json_documents_may_follow_one_another_with_tabs_and_all() -> None:
    assert names('{\n\t"image": "a.io/a:1"\n}\n{\n\t"image": "a.io/b:1"\n}\n') == ["a.io/a:1", "a.io/b:1"]
    (note,) = found('{"a": 1}\n{"a": 1}\n\n{"b": 1,\n"b": 2}\n').notes
    assert note.startswith("x.yaml:5:1: the key")


def test_notes_have_an_end() -> None:
    result = found("[" + ", ".join(f"{{image: 'Bad{number}'}}" for number in range(300)) + "]")
    assert len(result.notes) == 101
    assert result.notes[-1] == "200 more notes"


_KEYS = (
    "image", "images", "repository", "registry", "tag", "version", "digest", "name", "newName", "newTag", "kind",
    "apiVersion", "value", "default", "url", "ref", "package", "sidecarImage", "imageTag", "hub", "global",
    "services", "steps", "containers", "spec", "metadata", "status", "annotations", "data", "$schema",
    "properties", "from", "additionalImages", "<<", "reference",
)  # fmt: skip
_TEXTS = (
    "a.io/a:1", "team/app", "busybox:1", "", "x", "latest", "oci://a.io/x", "oci://", "DockerImage", "Template",
    "--x=a.io/a:1", "CustomResourceDefinition", ",", "=", "\n", "a\nb: [1", "{", '{"image": "a.io/b:1"}',
    "image: a.io/c:2\ntag: x", "{{x}}", "$(params.x)", "@sha256:", f"a@{DIGEST}", "a" * 5000, "é/ü:1", "-",
    "\u2028", " ",
)  # fmt: skip


def any_document(random: Random, depth: int) -> object:
    kind = random.random()
    if depth == 0 or kind < 0.4:
        return random.choice([*_TEXTS, None, 1, 1.5, True])
    if kind < 0.6:
        return [any_document(random, depth - 1) for _ in range(random.randrange(4))]
    return {random.choice(_KEYS): any_document(random, depth - 1) for _ in range(random.randrange(6))}


@pytest.mark.exhaustive
def test_any_document_is_read_and_what_was_found_is_a_list() -> None:
    for seed in range(400):
        result = found(json.dumps(any_document(Random(seed), 6)))
        shared = any("have the same destination" in note for note in result.notes)
        if not shared:
            assert len(parse_images(manifests_text(result).encode(), "l").entries) <= len(result.all)


# --- what is near to an image, and what stands around it


def elsewhere(text: str) -> list[tuple[str, str]]:
    return [(f"{other.image}".removeprefix("docker.io/"), other.where) for other in found(text).elsewhere]


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("team/app:v1", ["team/app:v1"]),
        ("team/app:v1 team/web:v2,", ["team/app:v1", "team/web:v2"]),
        ("team/app:v1;team/web:v2", ["team/app:v1", "team/web:v2"]),
        ("APP=team/app:v1,WEB=team/web:v2", ["team/app:v1", "team/web:v2"]),
        ("--sidecar-image=busybox:1.36", ["library/busybox:1.36"]),
        ("busybox:1.36", []),
        ("see team/app:v1 for more", []),
        ("team/app", []),
        ("key=value:NoSchedule", []),
        ("data/dir:ro", []),
        ("node.kubernetes.io/x:y", []),
        (f"team/app@{DIGEST}", [f"team/app@{DIGEST}"]),
    ],
)
def test_arguments_name_images_by_how_they_are_written(text: str, images: list[str]) -> None:
    assert [image for image, _where in elsewhere(f"args: [{json.dumps(text)}]")] == images


def test_a_port_of_a_service_is_no_image() -> None:
    assert elsewhere('tcp: {"8080": "team/app:9000"}') == []
    assert elsewhere('tcp: {"8080": "r.example/team/app:9000"}') == [("r.example/team/app:9000", "x.yaml:1 8080")]
    assert elsewhere('tcp: {name: "team/app:9000"}') == [("team/app:9000", "x.yaml:1 name")]


def test_lines_of_a_script_are_looked_at_one_by_one_with_their_keys() -> None:
    text = """
kind: ConfigMap
apiVersion: v1
data:
  run.sh: |
    set -e
    sidecarImage: busybox:1.36
    other: busybox:1.37
    docker run team/app:v1
"""
    assert elsewhere(text) == [("library/busybox:1.36", "x.yaml:7 run.sh")]


def test_an_image_of_which_nothing_is_said_is_noted_once() -> None:
    for text in ('image: ""', 'image: ""\ntag: v1\n'):
        (note,) = found(text).notes
        assert note == "x.yaml:1: `image`: is not a complete image: render it first (helm template)"
        assert find_images([("x.yaml", text.encode())], is_sure=True).notes == (note,)
    assert found("imageName: web").all == ()
    assert found("imageName: web").notes == ()


def test_a_variable_that_says_image_without_a_tag_is_noted_and_not_lost() -> None:
    (note,) = found("env: [{name: SIDECAR_IMAGE, value: r.example/b}]").notes
    assert note.startswith("x.yaml:1: `SIDECAR_IMAGE`: r.example/b: it has no tag beside it")


def test_a_name_that_no_registry_takes_gets_no_host_twice() -> None:
    for name in ("team/App", "team/${APP}"):
        (note,) = found(f'registry: r.example\nimage: "{name}:v1"\n').notes
        assert note.startswith("x.yaml:2: `image`: ")
        assert "r.example/r.example" not in note


def test_what_is_no_text_is_told_with_the_byte() -> None:
    assert find_images([("x.yaml", b"image: a/b:1\n\xff")]).problems == ("x.yaml: not UTF-8 (byte 14)",)


# --- what is told of many


def test_images_are_in_order_each_once_with_its_first_place() -> None:
    text = "a: ['b.io/b:1', 'a.io/a:1']\nc: ['b.io/b:1', 'c.io/c:2', 'a.io/a:3', 'a.io/a:2']\n"
    assert elsewhere(text) == [
        ("a.io/a:1", "x.yaml:1 a"),
        ("a.io/a:2", "x.yaml:2 c"),
        ("a.io/a:3", "x.yaml:2 c"),
        ("b.io/b:1", "x.yaml:1 a"),
        ("c.io/c:2", "x.yaml:2 c"),
    ]
    assert names("[{image: 'b.io/d:1'}, {image: 'b.io/c:1'}, {image: 'a.io/e:2'}, {image: 'a.io/e:1'}]") == [
        "a.io/e:1", "a.io/e:2", "b.io/c:1", "b.io/d:1",
    ]  # fmt: skip


def test_a_mention_that_says_less_is_left_out_where_only_one_says_more() -> None:
    two = f"a: ['a.io/a:1', 'a.io/a:1@{DIGEST}', 'a.io/a:1@{OTHER}', 'a.io/b@{DIGEST}', 'a.io/b:2@{OTHER}']"
    assert [image for image, _where in elsewhere(two)] == [
        "a.io/a:1", f"a.io/a:1@{DIGEST}", f"a.io/a:1@{OTHER}", f"a.io/b@{DIGEST}", f"a.io/b:2@{OTHER}",
    ]  # fmt: skip
    one = f"a: ['a.io/a:1', 'a.io/a:1@{DIGEST}', 'a.io/b@{DIGEST}', 'a.io/b:2@{DIGEST}']"
    assert [image for image, _where in elsewhere(one)] == [f"a.io/a:1@{DIGEST}", f"a.io/b:2@{DIGEST}"]
    assert found("{image: 'a.io/x:1', b: 'b.io/x:1'}").notes[0].startswith("a.io/x:1 and b.io/x:1 have the same")


@pytest.mark.parametrize(("count", "more"), [(100, []), (101, ["1 more note"]), (102, ["2 more notes"])])
def test_a_hundred_notes_are_told_and_the_number_of_the_others(count: int, more: list[str]) -> None:
    result = found("[" + ", ".join(f"{{image: 'Bad{number}'}}" for number in range(count)) + "]")
    assert [*result.notes[100:]] == more
    assert result.summary == f"0 images from image:, 0 from elsewhere, {count} noted, in 1 file"


@pytest.mark.parametrize(
    ("count", "more"), [(100, []), (101, ["x.yaml: 1 more problem"]), (102, ["x.yaml: 2 more problems"])]
)
def test_a_hundred_problems_of_a_file_are_told_and_the_number_of_the_others(count: int, more: list[str]) -> None:
    result = found("".join(f"a{number}: *x\n" for number in range(count)))
    assert [problem.partition(" the ")[0] for problem in result.problems[:100]] == [
        f"x.yaml:{line}:{4 + len(str(line - 1))}:" for line in range(1, 101)
    ]
    assert [*result.problems[100:]] == more


def test_a_place_that_is_longer_than_a_line_is_cut() -> None:
    (other,) = find_images([("n" * 190, b"a-key-of-some-length: a.io/a:1")]).elsewhere
    assert other.where == f"{'n' * 190}:1 a-key-o"


def test_a_file_as_large_as_the_bound_is_read_and_a_larger_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regwrap.lists.manifests.find.MAX_MANIFEST_BYTES", 100)
    text = b"image: a.io/a:1 #".ljust(100)
    files = [("x.yaml", text), ("y.yaml", text + b" "), ("z.yaml", b"image: a.io/z:1")]
    result = find_images(files)
    assert [f"{image}" for image in result.images] == ["a.io/a:1", "a.io/z:1"]
    (problem,) = result.problems
    assert problem.startswith("y.yaml: larger than")
    assert result.summary == "2 images from image:, 0 from elsewhere, 1 noted, in 3 files"


# --- what counts as an image, by what stands around it

NO_TAG = "it has no tag beside it, and hub or tag may be elsewhere: add the image to the list yourself"
NOT_COMPLETE = "`image`: is not a complete image: render it first (helm template)"
VARIABLES = "`image`: templates and variables are not expanded, and $ is not allowed in a reference"


def told(text: str) -> list[str]:
    """The images of `image:`, behind ~ the others, behind ? the notes."""
    result = found(text)
    assert result.problems == ()
    others = (f"~ {other.image}" for other in result.elsewhere)
    return [*map(str, result.images), *others, *(f"? {note.removeprefix('x.yaml:1: ')}" for note in result.notes)]


def of_kind(spec: str, kind: str = "X") -> str:
    return f"{{kind: {kind}, apiVersion: v1, spec: {{{spec}}}}}"


def in_containers(*containers: str) -> str:
    return of_kind(f"containers: [{', '.join(containers)}]")


IMAGES: dict[str, tuple[str, list[str]]] = {
    "nothing at all is said": ("image:\n", [f"? {NOT_COMPLETE}"]),
    "a picture by its place": ("image: https://example.com/a.png\n", []),
    "a picture by its name": ("image: img/sky.png\n", []),
    "two keys for two images": ("{image: a.io/a:1, imageName: 'a.io/b:2'}", ["a.io/a:1", "~ a.io/b:2"]),
    "a name that is empty": ("{imageName: '', tag: v1}", []),
    "a tag beside a container's image": (in_containers("{image: a.io/a:1, tag: '2'}"), ["a.io/a:1"]),
    "a volume without a tag": (
        "{image: {reference: a.io/m}}",
        ["a.io/m:latest", "? `image.reference`: a.io/m: no tag: it runs as latest, so latest is listed"],
    ),
    "a volume beside a version": ("{image: {reference: 'a.io/m:3', version: v1}}", ["a.io/m:3"]),
    "a digest in the tag beside it": (
        f"{{image: {{repository: a.io/a}}, tag: 'v0.9@{DIGEST}'}}",
        [f"a.io/a:v0.9@{DIGEST}"],
    ),
    "no tag beside it": ("{image: {repository: a.io/a}}", [f"? `image`: a.io/a: {NO_TAG}"]),
    "triggers that fill in nothing": (
        of_kind("triggers: [x, {type: ConfigChange}], template: {spec: {containers: [{image: db}]}}"),
        [
            "docker.io/library/db:latest",
            "? `image`: docker.io/library/db: no tag: it runs as latest, so latest is listed",
        ],
    ),
    "a new tag for a name with one": (
        "images: [{name: b, newName: 'a.io/app:1', newTag: '2'}, {name: c, newName: 'a.io/other:1'}]",
        ["a.io/app:2", "a.io/other:1"],
    ),
    "a new name without a slash": ("images: ['web=busybox:1.36']", ["docker.io/library/busybox:1.36"]),
    "what only looks like old=new": ("images: ['level=info']", []),
    "a key that says images of many": ("extraImages: {proxy: 'busybox:1.36'}", ["~ docker.io/library/busybox:1.36"]),
    "a key that says it of itself": ("imagesFrom: {proxy: 'busybox:1.36'}", []),
    "what runs as latest in a Pod only": (of_kind("web: {image: a.io/a}"), [f"? `image`: a.io/a: {NO_TAG}"]),
    "containers of no resource": ("{containers: [{image: a.io/a}]}", [f"? `image`: a.io/a: {NO_TAG}"]),
    "variables that name hosts": ("env: [{name: HOST, value: r.io/b}, {name: HELPER, value: 'busybox:1'}]", []),
    "two variables for one image": (
        "env: [{name: WEB_IMAGE, value: team/web}, {name: WEB_TAG, value: v4}]",
        ["~ docker.io/team/web:v4"],
    ),
    "sources and a version": ("env: [{name: REPO, value: team/source}, {name: VERSION, value: v1}]", []),
    "a name in a group of images": (
        "parameters: [{name: web.image.name, value: a.io/web}, {name: web.image.tag, value: v1}]",
        ["~ a.io/web:v1"],
    ),
    "a name in another group": ("parameters: [{name: web.name, value: team/x}, {name: web.tag, value: v1}]", []),
    "parts of no image": ("parameters: [{name: web.replicas, value: '2'}, {name: web.port, value: '80'}]", []),
    "a chart at the end of its URL": (
        "{repository: 'oci://r.example/charts/redis', name: redis, version: 1.0.0}",
        ["~ r.example/charts/redis:1.0.0"],
    ),
    "where images are beside one": (
        "{defaultImageRepository: team, webImage: team/web, webTag: v1}",
        ["~ docker.io/team/web:v1"],
    ),
    "a name without a slash": ("{webImage: busybox, webTag: '1.36'}", ["~ docker.io/library/busybox:1.36"]),
    "a digest that counts more": (
        f"{{webImage: team/web, webDigest: '{DIGEST}', tag: v2}}",
        [f"~ docker.io/team/web@{DIGEST}"],
    ),
    "a tag of another image": (
        "{repository: a.io/x, webImage: a.io/web, tag: v1}",
        ["a.io/x:v1", f"? `webImage`: a.io/web: {NO_TAG}"],
    ),
    "a tag that is filled in elsewhere": ("[{webImage: a.io/a, webTag: ''}, {webImage: a.io/b, imageTag: ' '}]", []),
    "a repository within the name": ("{repository: app, image: team/app, tag: v1}", ["docker.io/team/app:v1"]),
    "a name with its own host": ("{repository: team, image: a.io/app, tag: v1}", ["a.io/app:v1"]),
    "a scheme of docker": ("args: ['docker-image://busybox:1']", ["~ docker.io/library/busybox:1"]),
    "hosts and ports": ("args: ['--image-host=localhost:5000', '--image-proxy=a.io:5000']", []),
    "a name below a key of images": ("webImage: {registry: a.io, name: b, tag: '1'}", ["a.io/b:1"]),
    "a name below another key": ("web: {registry: a.io, name: b, tag: '1'}", []),
    "sources of git": ("{repository: 'git@github.com:team/app', version: v1}", []),
    "an empty tag": (
        "{repository: a.io/a, tag: ''}",
        ["? `repository`: a.io/a: its tag is empty: render it first (helm template)"],
    ),
    "a registry and no tag": ("{registry: a.io, repository: a}", [f"? `repository`: a.io/a: {NO_TAG}"]),
    "tags of something": ("{repository: team/a, tags: [v1]}", []),
    "tags of a place of charts": ("{repository: 'https://charts.example/a', tags: [v1]}", []),
    "tags that are none": ("{repository: a.io/a, tags: [~, v1, [x]]}", ["a.io/a:v1"]),
    "a chart by the name of its place": ("{name: redis, repository: '@team/charts', version: 1.0.0}", []),
    "a chart by its name": ("{name: redis, repository: stable, version: 1.0.0}", []),
    "a chart by its key": ("{chart: redis, repository: team/charts, version: 1.0.0}", []),
    "a chart's image by its tag": ("{chart: redis, repository: a.io/redis, tag: v1}", ["a.io/redis:v1"]),
    "an image with name and version": (
        "webImage: {name: redis, repository: stable, version: 1.0.0}",
        ["docker.io/stable/redis:1.0.0"],
    ),
    "annotations": (
        "{kind: X, apiVersion: v1, metadata: {annotations: {image: a.io/a, repository: a.io/b, tag: v1}}}",
        [],
    ),
    "a status of no resource": (
        "[{kind: x, status: {image: a.io/a:1}}, {apiVersion: x, status: {image: a.io/b:1}}]",
        ["a.io/a:1", "a.io/b:1"],
    ),
    "services within something": ("{x: {services: {web: {image: a.io/a}}}}", [f"? `image`: a.io/a: {NO_TAG}"]),
    "services in a list": ("{services: [{image: a.io/a}]}", [f"? `image`: a.io/a: {NO_TAG}"]),
    "something within a service": ("{services: {web: {x: {image: a.io/a}}}}", [f"? `image`: a.io/a: {NO_TAG}"]),
    "something beside services": ("{services: {}, x: {image: a.io/a}}", [f"? `image`: a.io/a: {NO_TAG}"]),
    "what is behind a description": ("{description: x, spec: {image: a.io/a:1}}", ["a.io/a:1"]),
}


@pytest.mark.parametrize(("text", "expected"), IMAGES.values(), ids=list(IMAGES))
def test_what_stands_around_it_makes_an_image_of_a_text_or_does_not(text: str, expected: list[str]) -> None:
    assert told(text) == expected


@pytest.mark.parametrize(
    "first",
    [
        "{image: ''}",
        "{image: {repository: '', tag: v1}}",
        "{image: 'a.io/a:1', tag: '2'}",
        in_containers("{image: auto}"),
        "{repository: quay.io/org, version: v1}",
        "{image: '$(params.image)'}",
    ],
)
def test_no_parameter_is_filled_in_by_an_image_of_the_same_key(first: str) -> None:
    """A placeholder of which nobody is told is an image that is missing at the site."""
    key = "repository" if "quay.io" in first else "image"
    result = found(f"- {first}\n- {{image: $(params.{key})}}\n")
    assert [note.partition(": ")[0] for note in result.notes] == ["x.yaml:1", "x.yaml:2"]
    assert result.notes[-1] == f"x.yaml:2: {VARIABLES}"


def test_of_a_mapping_in_several_lines_the_line_of_the_name_is_told() -> None:
    (note,) = found("a: 1\nrepository: quay.io/org\nversion: v1\n").notes
    assert note.startswith("x.yaml:2: `repository`: is an organisation")
    (note,) = found('registry: r.example\nimage: "team/App:v1"\n').notes
    assert note == "x.yaml:2: `image`: upper case is not allowed in a repository's name: 'team/App'"
    (note,) = found("{repository: team, image: App, tag: v1}").notes
    assert note == "x.yaml:1: `image`: upper case is not allowed in a repository's name: 'team/App'"


def test_problems_of_a_file_are_in_the_order_of_its_lines() -> None:
    problems = found("? [a]\n: *x\n").problems
    assert [problem.partition(": ")[0] for problem in problems] == ["x.yaml:1:3", "x.yaml:2:3"]


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("description: run --image=a.io/a:1", []),
        ("image: a.io/a\ntag: v1\n---\ntext\n", ["~ a.io/a:v1"]),
        ("image: a.io/a\ntag: v1\nx: 1\nx: 2\n", ["~ a.io/a:v1"]),
        ("image: $IMAGE\n---\nb: [\n", []),
        ("image\n" + "a.io/a:1".ljust(4096), ["~ a.io/a:1"]),
        ("image\n" + "y" * 4097 + "\na.io/a:1", ["~ a.io/a:1"]),
        ("a.io/a:1".ljust(4096), ["~ a.io/a:1"]),
        ("a.io/a:1".ljust(4097), []),
    ],
)
def test_a_text_in_a_document_is_a_document_or_lines_or_a_reference(text: str, images: list[str]) -> None:
    assert told(json.dumps({"x": text})) == images


def test_documents_within_documents_are_read_three_deep() -> None:
    value: object = {"image": "a.io/a", "tag": "v1"}
    for depth in range(1, 5):
        value = {"x": json.dumps(value)}
        assert told(json.dumps(value)) == (["~ a.io/a:v1"] if depth <= 3 else [])


@pytest.mark.parametrize(
    ("schema", "images"),
    [
        ("properties: {image: {default: a.io/a:1, example: a.io/b:1}}", ["~ a.io/a:1"]),
        ("properties: {}, default: {image: a.io/a:1}", ["~ a.io/a:1"]),
        ("properties: {webImage: {properties: {name: {default: a.io/x}, tag: {default: v1}}}}", ["~ a.io/x:v1"]),
        ("properties: {}, $defs: {repository: {default: team/x}, tag: {default: v1}}", []),
    ],
)
def test_a_schema_in_json_gives_what_it_sets_where_nothing_is_given(schema: str, images: list[str]) -> None:
    assert told(f"{{$schema: 'https://example.com/s', {schema}}}") == images


def test_what_only_has_the_keys_of_a_schema_is_read_as_it_stands() -> None:
    assert told("{x: {$schema: 'https://example.com/s', properties: {web: {image: a.io/a:1}}}}") == ["a.io/a:1"]
