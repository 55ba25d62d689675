"""Images in Kubernetes YAML and Helm's values: what a user would find by eye, and nothing that is none."""

import pytest

from regwrap.core.errors import UsageError
from regwrap.lists.imagelist import list_text, parse_images
from regwrap.lists.manifests import MAX_MANIFEST_BYTES, FoundImages, find_images

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
    assert names(text) == ["quay.io/prometheus/prometheus:v2.50.0", "quay.io/thanos/thanos:v0.34"]


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


def test_what_runs_and_what_others_wrote_is_not_asked_for() -> None:
    text = """
apiVersion: v1
kind: Pod
metadata: {annotations: {image: old/one:1}}
spec: {containers: [{image: "a.io/a:1"}]}
status: {containerStatuses: [{image: "sha256:0000", imageID: "docker://x"}]}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
spec: {versions: [{schema: {openAPIV3Schema: {properties: {image: {type: string}, spec: {image: default}}}}}]}
"""
    assert names(text) == ["a.io/a:1"]


def test_names_are_written_out() -> None:
    assert names("[{image: nginx}, {image: index.docker.io/library/nginx}, {image: docker.io/nginx:latest}]") == [
        "docker.io/library/nginx:latest"
    ]


def test_a_digest_that_another_place_knows_counts_for_the_tag() -> None:
    text = f"[{{image: 'a.io/a:1'}}, {{image: 'a.io/a:1@{DIGEST}'}}, {{image: 'a.io/a@{DIGEST}'}}]"
    assert names(text) == [f"a.io/a:1@{DIGEST}"]


def test_what_is_not_understood_is_told_with_its_line() -> None:
    text = """
a: {image: "$(IMAGE)"}
b: {image: ""}
c: {image: {repository: team/app, tag: ""}}
d: {image: {name: app, tag: v1}}
e: {image: Not A Name}
f: {image: "ok.io/f:1"}
"""
    result = found(text)
    assert [str(image) for image in result.images] == ["ok.io/f:1"]
    assert [note.split(": ")[0] for note in result.notes] == [f"x.yaml:{line}" for line in (2, 3, 4, 5, 6)]
    assert "x.yaml:3: `image`: says no whole image; what fills it in (helm template) has to come first" in result.notes


def test_images_that_a_list_would_confuse_are_told() -> None:
    text = (
        f"[{{image: 'a.io/x:1'}}, {{image: 'b.io/x:1'}}, {{image: 'a.io/y:1@{DIGEST}'}}, {{image: 'a.io/y:1@{OTHER}'}}]"
    )
    first, second = found(text).notes
    assert first.startswith("a.io/x:1 and b.io/x:1 would all go to x:1")
    assert second.startswith(f"a.io/y:1@{DIGEST} and a.io/y:1@{OTHER} would all go to y:1")


def test_what_was_found_reads_back_as_a_list() -> None:
    images = found(f"[{{image: 'a.io/x:1'}}, {{image: nginx}}, {{image: 'a.io/z@{DIGEST}'}}]").images
    entries = parse_images(list_text(images, "3 images").encode(), "images.list").entries
    assert [entry.source for entry in entries] == list(images)
    assert str(entries[1].dest) == f"z:sha256-{'6b' * 32}.untagged"


def test_json_is_read_too_and_text_inside_of_text_is_not() -> None:
    assert names('{"kind": "Pod", "apiVersion": "v1", "spec": {"containers": [{"image": "a.io/a:1"}]}}') == ["a.io/a:1"]
    assert names("kind: ConfigMap\napiVersion: v1\ndata: {x: 'image: b.io/b:1'}\nimage: a.io/a:1") == ["a.io/a:1"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a: &x [1]\nb: *x\n", "aliases"),
        (b"a: !!python/object/apply:os.system [id]\n", "x.yaml"),
        (b"image: {{ .Values.image }}\n", "x.yaml:1:"),
        (b"a: {" * 3000, "x.yaml"),
        (b"\xff\xfe", "not UTF-8"),
        (b"a: b\x01\n", "control character"),
        (b"image: a\nimage: b\n", "stands twice"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "larger than 16 MiB"),
    ],
)
def test_hostile_or_broken_yaml_is_an_error_with_its_place(data: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        find_images([("x.yaml", data)])
    assert raised.value.hint


def test_notes_have_an_end() -> None:
    result = found("[" + ", ".join(f"{{image: 'Bad{number}'}}" for number in range(300)) + "]")
    assert len(result.notes) == 101
    assert result.notes[-1] == "200 notes more"
