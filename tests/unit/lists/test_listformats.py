"""Lists of other tools: what is read of each format, what is noted, and for every refusal the exact line."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regwrap.core.errors import UsageError
from regwrap.lists.imagelist import HOST_IS_DROPPED, ImageList, Rewrite, failed_list, parse_images
from regwrap.lists.line import MAX_IMAGES
from regwrap.lists.sniff import is_document
from tests.unit.lists.test_imagelist import spelled_lines

pytestmark = pytest.mark.usefixtures("parser")
FIXED = settings(derandomize=True, deadline=None)
HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"
UNTAGGED = f"sha256-{HEX}.untagged"
SAMPLES = Path(__file__).parents[2] / "samples/lists"
NO_MEANING = "has no meaning here:"
CREDENTIALS = f"{NO_MEANING} credentials are read from an authfile (skopeo login)"
TLS = f"{NO_MEANING} set the registry's connection in registries: of the configuration"
OWN = f"{NO_MEANING} regwrap runs once per call and has its own settings"


def parsed(text: str | bytes, rewrite: Rewrite = HOST_IS_DROPPED) -> ImageList:
    return parse_images(text.encode() if isinstance(text, str) else text, "f", rewrite)


def lines_of(images: ImageList) -> list[tuple[int, str]]:
    return [(entry.line, entry.text) for entry in images.entries]


def notes_of(images: ImageList) -> list[str]:
    return [note.removeprefix(f"{images.name}:") for note in images.notes]


def refused(text: str | bytes) -> list[str]:
    with pytest.raises(UsageError) as caught:
        parsed(text)
    assert caught.value.hint
    problems = caught.value.problems or (caught.value.message,)
    assert all(line.isprintable() for line in problems)
    return [line.removeprefix("f:") for line in problems]


def sample(name: str) -> ImageList:
    return parse_images((SAMPLES / name).read_bytes(), "f")


# --- a sample of each format


def test_skopeo_sync_lists_tags_and_digests_of_repositories() -> None:
    images = sample("skopeo-sync.yaml")
    assert lines_of(images) == [
        (5, "registry.example.com:5000/team/app:1.10 => team/app:1.10"),
        (6, "registry.example.com:5000/team/app:2.0-rc1 => team/app:2.0-rc1"),
        (7, f"registry.example.com:5000/team/app@{DIGEST} => team/app:{UNTAGGED}"),
        (9, "registry.example.com:5000/team/web:latest => team/web:latest"),
        (20, "docker.io/library/redis:7.2 => library/redis:7.2"),
        (20, "docker.io/library/redis:7 => library/redis:7"),
        (23, "quay.io/coreos/etcd:v3.5.1 => coreos/etcd:v3.5.1"),
    ]
    assert notes_of(images) == [
        "2: read as a list of skopeo sync, with 7 images",
        "7: a digest without a tag is kept under the tag sha256-….untagged",
        f"10: skopeo sync's `registry.example.com:5000.credentials` {CREDENTIALS}",
        f"13: skopeo sync's `registry.example.com:5000.tls-verify` {TLS}",
        f"14: skopeo sync's `registry.example.com:5000.cert-dir` {TLS}",
        "9: `latest` is a moving tag; pin a digest",
    ]


@pytest.mark.parametrize("name", ["image-syncer.yaml", "image-syncer.json"])
def test_image_syncer_maps_sources_to_destinations(name: str) -> None:
    images = sample(name)
    assert [text for _line, text in lines_of(images)] == [
        "quay.io/coreos/etcd:v3.5.1 => mirror/etcd:v3.5.1",
        "quay.io/coreos/etcd:v3.5.2 => mirror/etcd:v3.5.2",
        "docker.io/library/busybox:1.36 => base/busybox:1.36",
        "docker.io/library/busybox:1.36 => other/box:stable",
        f"registry.example.com:5000/app@{DIGEST} => team/app:{UNTAGGED}",
    ]
    assert [line for line, _text in lines_of(images)] == ([3, 3, 5, 6, 7] if "yaml" in name else [11, 11, 13, 14, 16])
    assert ("2: image-syncer's `auth` " + CREDENTIALS in notes_of(images)) == ("json" in name)


def test_regsync_lists_images_with_targets() -> None:
    images = sample("regsync.yml")
    assert lines_of(images) == [
        (15, "docker.io/library/busybox:1.36 => library/busybox:1.36 platform=linux/amd64"),
        (21, "ghcr.io/team/tool:v1 => team/tool:v1"),
        (24, "ghcr.io/team/tool:v2 => team/tool:latest"),
    ]
    assert notes_of(images) == [
        "2: read as a list of regsync, with 3 images",
        f"5: regsync's `creds.user` {CREDENTIALS}",
        f"6: regsync's `creds.pass` {CREDENTIALS}",
        f"8: regsync's `creds.tls` {TLS}",
        f"9: regsync's `x-owner` {NO_MEANING} it is a custom extension",
        f"11: regsync's `defaults.interval` {OWN}",
        f"12: regsync's `defaults.parallel` {OWN}",
        f"19: regsync's `sync.schedule` {OWN}",
        f"20: regsync's `sync.backup` {OWN}",
        "25: a target without a tag becomes latest, as in regsync",
        "15: registry.example.org is left out: the destination's registry comes from --dest or the archive",
    ]


def test_hauler_lists_images_with_annotations_for_all() -> None:
    images = sample("hauler.yaml")
    assert lines_of(images) == [
        (12, "reg.example.com/neuvector/scanner:5 => neuvector/scanner:5 platform=linux/amd64"),
        (13, "docker.io/longhornio/longhorn-ui:v1.6.0 => longhornio/longhorn-ui:v1.6.0 platform=linux/arm64"),
        (15, f"gcr.io/distroless/base@{DIGEST} => distroless/base:{UNTAGGED} platform=linux/amd64"),
        (16, "reg.example.com/box:1 => custom/box:2 platform=linux/amd64"),
        (25, "docker.io/library/box:1 => library/box:1"),
    ]
    assert notes_of(images) == [
        "2: read as a list of hauler, with 5 images",
        "12: signatures and SBOMs, which hauler copies too, are not copied: only listed images are",
        "15: a digest without a tag is kept under the tag sha256-….untagged",
        "29: documents of the kind Charts are not read, only images are",
    ]


def test_images_lock_lists_digests_under_the_tags_that_kbld_resolved() -> None:
    images = sample("images-lock.yml")
    assert lines_of(images) == [
        (8, f"docker.io/library/nginx@{DIGEST} => library/nginx:1.25"),
        (11, f"registry.example.com:5000/team/app@{DIGEST} => team/app:{UNTAGGED}"),
        (14, f"quay.io/team/own:v1@{DIGEST} => team/own:v1"),
    ]
    assert notes_of(images) == [
        "2: read as a list of imgpkg, with 3 images",
        "11: a digest without a tag is kept under the tag sha256-….untagged",
    ]


@pytest.mark.parametrize("path", sorted(SAMPLES.iterdir()), ids=lambda path: path.name)
@pytest.mark.parametrize("rewrite", [Rewrite(), Rewrite(prefix="m/"), Rewrite(keep_host=True)], ids=str)
def test_failed_list_of_a_document_means_the_same(path: Path, rewrite: Rewrite) -> None:
    images = parse_images(path.read_bytes(), "f", rewrite)
    again = parse_images(failed_list(images.entries).encode(), "failed.list", rewrite)
    assert [(e.source, e.dest, e.platforms) for e in again.entries] == [
        (e.source, e.dest, e.platforms) for e in images.entries
    ]


def test_what_a_format_leaves_open_is_rewritten_and_what_it_says_is_not() -> None:
    skopeo = parsed("r.io:80: {images: {a: ['1']}}", Rewrite(prefix="m/", keep_host=True))
    lock = parsed(
        f"kind: ImagesLock\napiVersion: imgpkg.carvel.dev/v1\nimages: [{{image: 'r.io/a@{DIGEST}'}}]",
        Rewrite(prefix="m/"),
    )
    syncer = parsed("r.io/a:1: x.io/b", Rewrite(prefix="m/", keep_host=True))
    assert [str(i.entries[0].dest) for i in (skopeo, lock, syncer)] == ["m/r.io_80/a:1", f"m/a:{UNTAGGED}", "b:1"]


def test_rewrite_that_makes_no_repository_is_an_error_of_its_place() -> None:
    with pytest.raises(UsageError, match=r"^f:3:5: rewrite: gives '.*write a destination$"):
        parsed("'[::1]:80':\n  images: {a:\n  [ '1' ]}", Rewrite(keep_host=True))


# --- recognising


@pytest.mark.exhaustive
@FIXED
@given(spelled_lines())
def test_line_of_ours_is_never_taken_for_another_format(line: tuple[str, object, object, object]) -> None:
    assert not is_document(line[0].encode())
    assert not is_document(b"\xef\xbb\xbf# a: b\r\n\r\n" + line[0].encode() + b"\r\na:\r\n")


@pytest.mark.parametrize(
    "text", ["", "#", "# a: b\n", "a:1\nb: c\n", "-a:1\n", "[::1]:5000/a:1", "a:" * 4096 + "1", "r.io/a:1 name=x:\n"]
)
def test_anything_else_remains_a_plain_list(text: str) -> None:
    assert not is_document(text.encode())


@pytest.mark.parametrize("before", ["", "\ufeff", "# images\n\n", "---\n", "%YAML 1.1\n---\n", "\r\n # x\r\n"])
@pytest.mark.parametrize("text", ["r.io/a:1: r.io/b\n", '"r.io/a:1": r.io/b\n', '{"r.io/a:1": "r.io/b"}'])
def test_document_is_recognised_by_its_first_line(before: str, text: str) -> None:
    assert [entry.text for entry in parsed(before + text).entries] == ["r.io/a:1 => b:1"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("r.io/team:\n  images: {a: ['1']}\n", "r.io/team/a:1 => team/a:1"),
        ("# x\nr.io/team:\n\n # y\n images:\n  a: ['1']\n", "r.io/team/a:1 => team/a:1"),
    ],
)
def test_a_path_above_what_belongs_to_it_is_no_image_without_its_tag(text: str, line: str) -> None:
    assert [entry.text for entry in parsed(text).entries] == [line]
    (problem,) = refused("r.io/team/app:\n- x.io/app:1\n")
    assert problem.startswith("1:1: `r.io/team/app` without a tag means all tags")


@pytest.mark.parametrize("before", ["", "\ufeff", "# images\n\n"])
def test_json_may_be_indented_with_tabs(before: str) -> None:
    (entry,) = parsed(f'{before}{{\n\t"r.io/a:1":\t"r.io/b"\n}}').entries
    assert entry.text == "r.io/a:1 => b:1"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\n", "1:1: YAML or JSON, but not a list of images; supported are sequences of references, and the"),
        ("{}", "1:1: YAML or JSON, but not a list"),
        ('"a:1"', "1:1: YAML or JSON, but not a list"),
        ("images:\n  exporter: team/exporter@sha256:0\n", "1:1: YAML or JSON, but not a list of images"),
        ("---\n", "1:1: YAML or JSON, but not a list"),
        ("# x\n---\na:1\nb:1\n", "3:1: YAML or JSON, but not a list"),
        ("quay.io:\n  username: a\n  password: s3cret\n", "1:1: YAML or JSON, but not a list"),
        ("kind: Deployment\n", "1:7: the kind 'Deployment' is not a list of images"),
        ("kind: Images\n---\nkind: Deployment\n", "3:7: the kind 'Deployment' is not a list of images"),
        ("kind: ImagesLock\n---\nkind: ImagesLock\n", "1:7: the kind 'ImagesLock' is not a list of images"),
        ("kind: Images\n---\na: b\n", "3:1: a document without a kind is not a list of images"),
        ("r.io/a:1: b\n---\nr.io/c:1: d\n", "3:1: a second document; only hauler's lists have more than one"),
        ("kind: Images\nspec: {}\n", "1:1: `apiVersion`: expected content.hauler.cattle.io/v1"),
        ("kind: Images\napiVersion: v1\n", "2:13: `apiVersion`: expected content.hauler.cattle.io/v1"),
        ("kind: ImagesLock\napiVersion: v0\n", "2:13: `apiVersion`: expected imgpkg.carvel.dev/v1alpha1"),
        ("kind: ImagesLock\n", "1:1: `ImagesLock.apiVersion` is missing"),
        ("version: 2\nsync: []\n", "1:10: `version`: only 1 is supported"),
    ],
)  # fmt: skip
def test_what_is_no_known_list_is_refused_by_name(text: str, problem: str) -> None:
    (first,) = refused(text)
    assert first.strip().startswith(problem)


def test_list_without_images_is_empty() -> None:
    for text in (
        "sync: []\n",
        "kind: ImagesLock\napiVersion: imgpkg.carvel.dev/v1alpha1\nimages: []\n",
        "r.io: {images: {}}",
    ):
        assert parsed(text).entries == ()


# --- what would change which images there are

HAULER = "apiVersion: content.hauler.cattle.io/v1\nkind: Images\n"
ZARF = "kind: ZarfPackageConfig\n"
LOCK = "apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\n"
PATTERN = (
    "selects tags by a pattern, whose tags change over time: list the tags (see skopeo list-tags),"
    " or put the pattern under images: in the configuration, for regwrap lock"
)
ALL_TAGS = "list them (skopeo list-tags)"
ALREADY = "is already the destination of line"
VARIABLES = "templates and variables are not expanded, and"


def regsync(entry: str) -> str:
    return f"sync:\n- {{{entry}}}\n"


def repository(tags: str) -> str:
    return regsync(f"source: r.io/a, target: x.io/b, type: repository, tags: {{{tags}}}")


def hauler(image: str, kind: str = "Images") -> str:
    return f"{HAULER.replace('Images', kind)}spec: {{images: [{{{image}}}]}}\n"


def annotated(annotation: str, image: str = "name: a") -> str:
    return f"{HAULER}metadata: {{annotations: {{hauler.dev/{annotation}}}}}\nspec: {{images: [{{{image}}}]}}\n"


def lock(image: str) -> str:
    return f"{LOCK}images: [{{{image}}}]\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        # skopeo sync
        ("r.io:\n  images-by-tag-regex:\n    a: ^v1\n", f"2:3: `r.io.images-by-tag-regex` {PATTERN}"),
        ("r.io:\n  images-by-semver: {a: '>=1'}\n", f"2:3: `r.io.images-by-semver` {PATTERN}"),
        ("r.io:\n  images:\n    a: []\n", f"3:5: `r.io/a` without tags means all of them: {ALL_TAGS}"),
        ("r.io:\n  images:\n    a:\n", f"3:5: `r.io/a` without tags means all of them: {ALL_TAGS}"),
        (
            "r.io:\n  images: {a: [x]}\n  tls_verify: no\n",
            "3:3: unknown key `r.io.tls_verify`; did you mean tls-verify?",
        ),
        (
            "r.io:\n  images: {a: [x]}\n  zzz: no\n",
            "3:3: unknown key `r.io.zzz`; known are images, images-by-tag-regex,",
        ),
        # image-syncer
        ("r.io/a: x.io/b\n", f"1:1: `r.io/a` without a tag means all tags: {ALL_TAGS}"),
        ("r.io/a:/v.*/: x.io/b\n", f"1:1: `r.io/a:/v.*/` {PATTERN}"),
        ("r.io/a:1: x.io/$NS/b\n", f"1:11: {VARIABLES} $ is not allowed in a reference"),
        ("r.io/a:1,2: x.io/b:1\n", "1:13: the source has 2 tags, the destination 1"),
        ("r.io/a:1: x.io/b:1,2\n", "1:11: the source has 1 tag, the destination 2"),
        ("r.io/a:1,: x.io/b\n", "1:1: not a tag: ''"),
        (f"r.io/a@{DIGEST},2: x.io/b\n", "1:1: not a tag: '2'"),
        (f"r.io/a@{DIGEST}: x.io/b@{DIGEST}\n", "1:81: a destination has no digest; put it at the source"),
        ("r.io/a:1: ''\n", "1:11: `r.io/a:1`: expected a string, got nothing"),
        ("r.io/a:1: []\n", "1:11: `r.io/a:1`: the destination is missing"),
        (f"r.io/a:1,-{'x' * 79}: b\n", f"1:1: not a tag: '-{'x' * 79}'"),
        (f"r.io/a:1,-{'x' * 80}: b\n", f"1:1: not a tag: '-{'x' * 79}…'"),
        # regsync
        (regsync("source: a, target: b, type: repository"), f"2:3: an entry of type repository without tags {PATTERN}"),
        (repository("allow: ['v1.*']"), f"2:69: `sync.tags.allow` 'v1.*' {PATTERN}"),
        (repository("allow: [v1], deny: [v2]"), f"2:74: `sync.tags.deny` {PATTERN}"),
        (repository("semverRange: ['>=1']"), f"2:61: `sync.tags.semverRange` {PATTERN}"),
        (regsync("source: r.io, target: x.io, type: registry"), f"2:38: `sync.type` 'registry' {PATTERN}, each with"),
        (regsync("source: a, target: b"), "2:3: `sync.type` is missing"),
        (regsync("source: [a], target: b, type: image"), "2:12: `sync.source`: expected a string, got a list"),
        (regsync("source: {a: b}, target: b, type: image"), "2:12: `sync.source`: expected a string, got a mapping"),
        (regsync("source: a, type: image"), "2:3: `sync.target` is missing"),
        (regsync("source: 'r.io/{{env}}:1', target: b:1, type: image"), f"2:12: {VARIABLES} {{{{ is not allowed"),
        (regsync("source: 'ocidir://a', target: b:1, type: image"), "2:12: not a host: 'ocidir:'"),
        (regsync("source: a, target: b, type: image, platform: amd64"), "2:49: expected a platform such as"),
        (
            regsync("source: a, target: b, type: image, referrers: true"),
            "2:39: `sync.referrers` requests unlisted images",
        ),
        ("sync: []\ndefaults:\n  digestTags: true\n", "3:3: `defaults.digestTags` requests unlisted images"),
        ("sync: []\ndefaults:\n  mediaTypes: [a]\n", "3:3: `defaults.mediaTypes` excludes images of other types"),
        ("sync: []\ncreds:\n- registry: r.io\n  pathPrefix: x\n", "4:3: `creds.pathPrefix` changes the images' source"),
        ("sync: []\nsnyc: []\n", "2:1: unknown key `snyc`; did you mean sync?"),
        # hauler
        (hauler("name: a, key: k.pub"), "3:27: `spec.images.key` requires signed images"),
        (hauler("name: a, local: true"), "3:27: `spec.images.local` reads the image from a Docker daemon"),
        (hauler("platform: linux/amd64"), "3:17: `spec.images.name` is missing"),
        (hauler("name: a, add-images: true", "Charts"), "3:27: `add-images` requests the images of a chart"),
        (annotated("key: k"), "3:26: `hauler.dev/key` requires signed images"),
        (
            annotated("rewrite: k"),
            "3:26: `hauler.dev/rewrite` changes the images' destination: set rewrite: in the configuration",
        ),
        (annotated("x: k"), "3:26: unknown key `hauler.dev/x`; "),
        (annotated("registry: foo"), "4:24: not a host: 'foo'"),
        # ImagesLock
        (lock("image: 'r.io/a:1'"), "3:18: `images.image`: a lock names digests (name@sha256:…)"),
        (lock("annotations: {}"), "3:10: `images.image` is missing"),
        (f"{LOCK}spec: {{}}\n", "3:1: unknown key `spec`; known are apiVersion, kind, images"),
    ],
)
def test_what_would_change_the_images_is_refused_with_key_and_line(text: str, problem: str) -> None:
    (first,) = refused(text)
    assert first.startswith(problem)


@pytest.mark.parametrize(
    "text",
    [
        "r.io: {images: {a: ['1']}, images-by-tag-regex: {}, images-by-semver: }\n",
        regsync("source: a:1, target: a:1, type: image, referrers: false, digestTags: false, mediaTypes: []"),
        hauler("name: a:1, key: '', local: false, use-tlog-verify: false, exclude-extras: true"),
    ],
)
def test_key_that_says_nothing_is_neither_refused_nor_noted(text: str) -> None:
    assert [
        note for note in notes_of(parsed(text)) if "read as a list" not in note and "docker.io is left out" not in note
    ] == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("r.io: {images: {a: ['1']}}\nS.io: {images: {a: ['1']}}\n", f"2:21: a:1 {ALREADY} 1, with another source"),
        ("x.io/a:1: r.io/c\n\ny.io/b:1: r.io/c\n", f"3:11: c:1 {ALREADY} 1, with another source"),
        (
            regsync("source: a:1, target: r.io/c:1, type: image")
            + "- {source: a:1, target: r.io/c:1, type: image, platform: linux/amd64}\n",
            f"3:12: c:1 {ALREADY} 2, for other platforms",
        ),
        (
            f"{LOCK}images:\n- image: r.io/a:1@{DIGEST}\n- image: r.io/a:1@sha256:{'0' * 64}\n",
            f"5:10: a:1 {ALREADY} 4, with another source",
        ),
    ],
)
def test_two_sources_for_one_destination_are_refused_naming_both_lines(text: str, problem: str) -> None:
    assert refused(text) == [problem]


def test_repeated_image_is_one_entry_and_a_note() -> None:
    images = parsed("r.io:\n  images:\n    a:\n    - '1'\n    - '1'\n")
    assert len(images.entries) == 1
    assert "5: repeats line 4" in notes_of(images)


def test_every_problem_is_reported_at_once_in_the_order_of_the_file() -> None:
    text = "r.io:\n  images:\n    A: [x]\n    b: []\n    c: [1, '', -x]\n  images-by-semver: {d: 1}\nx.io: 5\n"
    assert [problem.partition(": ")[0] for problem in refused(text)] == ["3:9", "4:5", "5:12", "5:16", "6:3", "7:7"]


@pytest.mark.parametrize(
    ("text", "places"),
    [
        (
            f"{HAULER}spec:\n  images:\n  - name: A\n  - name: ok:1\n  - name: b:$C\n  - rewrite: c\n",
            ["5:11", "7:11", "8:5"],
        ),
        ("r.io/A:1: b\nr.io/a:1: b\nr.io/c: d\nr.io/e:1: F\n", ["1:1", "3:1", "4:11"]),
        ("r.io/a:1: [b:$C, c:1, D]\n", ["1:12", "1:23"]),
        ("images:\n  r.io/A:1: b\n  r.io/B:1: b\n", ["2:3", "3:3"]),
        ("- A:1\n- a:1\n- {tag: v1}\n", ["1:3", "3:3"]),
        (
            regsync("source: A, target: b, type: image") + "- {source: a, target: B, type: image}\n- {type: image}\n",
            ["2:12", "3:23", "4:3"],
        ),
        (repository("allow: [v.*, v1, w.*]"), ["2:69", "2:78"]),
        (f"{LOCK}images:\n- image: a\n- image: B\n", ["4:10", "5:10"]),
        (f"{ZARF}components:\n- images: e\n- images: [A, b:1]\n- images: [c:1, D]\n", ["3:11", "4:12", "5:17"]),
        ("r.io: 5\nx.io: {images: {A: [x]}}\n", ["1:7", "2:21"]),
        (
            "kind: ImageSetConfiguration\nmirror:\n  additionalImages: [{name: A}, {name: b}, {tag: v}]\n",
            ["3:22", "3:44"],
        ),
    ],
)
def test_a_fault_hides_no_other_one(text: str, places: list[str]) -> None:
    assert [problem.partition(": ")[0] for problem in refused(text)] == places


# --- wrong types and hostile files

SHAPES = [
    "5", "[]", "{}", "x", "''", "~", "[[]]", "[{}]", "{x: y}", "[5]", "[~]", "2024-01-01",
    "0x" + "f" * 5000, "!!binary eA=="
]  # fmt: skip
PLACES = [
    "r.io: @\nx.io: {images: {a: ['1']}}\n",
    "r.io: {images: @}\n",
    "r.io: {images: {a: @}}\n",
    "r.io: {images: {a: [@]}}\n",
    "r.io: {images: {a: ['1']}, images-by-semver: @}\n",
    "r.io: {images: {a: ['1']}, credentials: @}\n",
    "r.io/a:1: @\n",
    "r.io/a:1: [@]\n",
    "auth: @\nimages: {r.io/a:1: b}\n",
    "images: @\n",
    "images: {r.io/a:1: @}\n",
    "sync: @\n",
    "sync: [@]\n",
    "sync: []\ndefaults: @\n",
    "sync: []\ncreds: @\n",
    "sync: []\ncreds: [@]\n",
    "sync: []\nversion: @\n",
    regsync("source: @, target: b, type: image"),
    regsync("source: a, target: @, type: image"),
    regsync("source: a, target: b, type: @"),
    regsync("source: a, target: b, type: image, platform: @"),
    "kind: @\n",
    "kind: Images\napiVersion: @\n",
    f"{HAULER}metadata: @\n",
    f"{HAULER}metadata: {{annotations: @}}\n",
    f"{HAULER}spec: @\n",
    f"{HAULER}spec: {{images: @}}\n",
    f"{HAULER}spec: {{images: [@]}}\n",
    annotated("platform: @"),
    annotated("registry: @"),
    hauler("name: @"),
    hauler("name: a, rewrite: @"),
    hauler("name: a, exclude-extras: @"),
    hauler("name: a, add-images: @", "Charts"),
    f"{LOCK}images: @\n",
    f"{LOCK}images: [@]\n",
    lock("image: @"),
    lock(f"image: 'r.io/a@{DIGEST}', annotations: @"),
    lock(f"image: 'r.io/a@{DIGEST}', annotations: {{kbld.carvel.dev/id: @}}"),
]


def images_or_error(data: str | bytes) -> ImageList | UsageError:
    try:
        return parsed(data)
    except UsageError as error:
        return error


def assert_sound(result: ImageList | UsageError) -> None:
    """All that an image needs, or an error that says where and stays short."""
    if isinstance(result, UsageError):
        assert all(line.startswith("f:") for line in result.problems or (result.message,))
        assert sum(map(len, result.problems or (result.message,))) < 2000
        return
    assert all(entry.dest.tag for entry in result.entries)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.exhaustive
def test_any_type_at_any_place_is_read_or_refused_with_its_line(place: str) -> None:
    for shape in SHAPES:
        assert_sound(images_or_error(place.replace("@sha256", "#").replace("@", shape).replace("#", "@sha256")))


BOMB = "a: &a [x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, "3:29: aliases unfold to more than 10 times the file: *b and what follows is not unfolded"),
        ("sync:\n- *a\n", "2:3: the alias *a has no anchor before it"),
        ("sync:\n- <<: [x]\n  source: a\n", "2:8: << merges mappings, and this is none"),
        ("r.io/a:1: b\nr.io/a:1: c\n", '2:1: the key "r.io/a:1" stands twice, first in line 1'),
        ('{"r.io/a:1": "b",\n "r.io/a:1": "c"}', '2:2: the key "r.io/a:1" stands twice, first in line 1'),
        ("r.io:\n  images: {a: [x], a: [y]}\n", '2:20: the key "a" stands twice, first in line 2'),
        ("r.io/a:1: !!python/object/apply:os.system [x]\n", "1:11: the tag "),
        ("r.io/a:1: !x b\n", '1:11: the tag "!x" is not supported'),
        ("r.io: {? [a] : b}\n", "1:10: a key must be a string"),
        ("r.io/a:1: b\n? ~\n: c\n", "2:3: a key must be a string"),
        ("r.io:\n  images: [\n", "3:1: while parsing a flow"),
        ("r.io:\n\timages: x\n", "2:1: while scanning for the next token"),
        ("r.io/a:\nr.io/b:1\n", "1:7: the tag is missing after the colon"),
        ("r.io/a:1: b\nr.io/b:1: '\x07'\n", "2:12: a control character, which YAML does not allow"),
        ("r.io/a:1: " + "[" * 2000, "1:"),
        ("r.io/a:1: " + "{a: " * 2000, "1:"),
    ],
)  # fmt: skip
def test_hostile_yaml_is_one_error_with_its_line(text: str, problem: str) -> None:
    (first,) = refused(text)
    assert first.startswith(problem)


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (b"r.io/a:1: b\n\xff", "2:1: the byte 0xff"),
        (b"\xef\xbb\xbf# \xc3\xa9\nr.io/a:1: \xc3\xa9\xe9", "2:12: the byte 0xe9"),
        (b"r.io/a:1: \xed\xa0\x80", "1:11: the byte 0xed"),
    ],
)
def test_document_that_is_no_utf8_is_refused_with_line_and_column(data: bytes, where: str) -> None:
    assert refused(data) == [f"{where} is not UTF-8"]


@pytest.mark.exhaustive
def test_a_document_may_be_larger_than_a_mebibyte() -> None:
    text = "sync:\n" + "".join(
        f"- {{type: image, source: r.example.com/team/app:{number}, target: t.example.com/team/app:{number}}}\n"
        f"# {'why it is there, at length ' * 80}\n"
        for number in range(500)
    )
    assert len(text) > 1024**2
    assert len(parsed(text).entries) == 500


def test_a_document_has_as_many_images_as_a_list_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regwrap.lists.formats.values.MAX_IMAGES", 3)
    assert len(parsed("- a:1\n- b:1\n- c:1\n").entries) == 3
    assert refused("- a:1\n- b:1\n- c:1\n- d:1\n") == ["4: more than 3 images"]


@pytest.mark.exhaustive
def test_tags_times_destinations_do_not_grow_without_end() -> None:
    tags = ",".join(f"t{number}" for number in range(1000))
    dests = ",".join(f"b{number}" for number in range(1000))
    (problem,) = refused(f"---\n? r.io/a:{tags}\n: [{dests}]\n")
    assert problem.endswith(f"more than {MAX_IMAGES} images")


def test_a_problem_beside_the_images_hides_none_of_theirs() -> None:
    text = (
        "sync:\n- {source: a, type: image}\ncreds:\n- {registry: r.io, pathPrefix: x}\ndefaults: {digestTags: true}\n"
    )
    assert [problem.partition(" ")[0] for problem in refused(text)] == ["2:3:", "4:20:", "5:12:"]


def test_no_more_problems_of_a_kind_than_anyone_reads_are_listed() -> None:
    problems = refused("r.io:\n  images:\n" + "".join(f"    A{number}: [x]\n" for number in range(500)))
    assert len(problems) == 11
    assert problems[-1].endswith("and 490 more of this kind")


def test_secrets_are_in_no_message() -> None:
    for text in (
        "r.io: {credentials: {username: u, password: s3cret}, images: {a: s3cret}}\n",
        "r.io: {images: {a: [x]}, credentials: s3cret}\nx.io: s3cret\n",
        "sync: [s3cret]\ncreds: [{registry: r.io, pass: s3cret, pathPrefix: x}]\n",
        "auth: s3cret\nimages: {r.io/a:1: {password: s3cret}}\n",
    ):
        assert "s3cret" not in "\n".join(refused(text))


TOKENS = [
    "r.io", "/a", ":1", ": ", "\n", "  ", "- ", "[", "]", "{", "}", ",", "images", "sync", "kind", "Images", "~", "'",
    '"', "&a ", "*a", "source", "target", "type", "image", "<<", "? ", "---\n", DIGEST, "@", "apiVersion", "\t", "#",
    "é", "!x ",
]  # fmt: skip
STARTS = ["", "---\n", "{", "r.io: ", "sync: ", HAULER, LOCK]


@FIXED
@given(st.sampled_from(STARTS), st.lists(st.sampled_from(TOKENS), max_size=25))
@pytest.mark.exhaustive
def test_any_text_is_a_list_or_a_usage_error(start: str, tokens: list[str]) -> None:
    assert_sound(images_or_error(start + "".join(tokens)))


@pytest.mark.parametrize("path", sorted(SAMPLES.iterdir()), ids=lambda path: path.name)
@pytest.mark.exhaustive
def test_broken_sample_is_a_list_or_a_usage_error(path: Path) -> None:
    data, chance = path.read_bytes(), random.Random(7)
    for _ in range(60):
        broken = bytearray(data)
        for _ in range(3):
            at = chance.randrange(len(broken))
            broken[at : at + chance.randrange(4)] = chance.choice(
                [b"", b":", b"\n", b"- ", b"\xff", b"{", b"'", b"*a", b" "]
            )
        assert_sound(images_or_error(bytes(broken)))


# --- forms that several tools share


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("- r.io/a:1\n- image: r.io/b\n  tag: '7'\n", ["r.io/a:1 => a:1", "r.io/b:7 => b:7"]),
        ('["r.io/a:1",\n\t"busybox:1"]', ["r.io/a:1 => a:1", "docker.io/library/busybox:1 => library/busybox:1"]),
        ("images:\n- r.io/a:1\n- {repository: r.io/b, version: v2}\n", ["r.io/a:1 => a:1", "r.io/b:v2 => b:v2"]),
    ],
)
def test_a_sequence_of_references_is_a_list(text: str, lines: list[str]) -> None:
    assert [line for _number, line in lines_of(parsed(text))] == lines


def test_a_sequence_of_something_else_is_one_error_for_each_kind() -> None:
    problems = refused("- {pod: a}\n" * 30)
    assert problems[0] == "1:3: not an image: expected a string, or a mapping with image: and tag:"
    assert len(problems) == 11


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- image: r.io/a:1\n  dest: x/a:1\n", "2:3: unknown key `images.dest`; known are image, tag and the like"),
        ("- {name: r.io/a, tag: v1, platform: linux/arm64}\n", "1:27: unknown key `images.platform`"),
        ("- r.io/a:1\n- docker-archive:v.tar\n", "2:3: `docker-archive:v.tar` is a file or directory: write it as"),
        ("images:\n- oci:layout:v1\n", "2:3: `oci:layout:v1` is a file or directory"),
    ],
)
def test_what_a_sequence_says_beyond_references_is_not_dropped(text: str, problem: str) -> None:
    (told,) = refused(text)
    assert told.startswith(problem)


def test_zarf_and_oc_mirror_are_read_as_far_as_they_list_images() -> None:
    zarf = parsed((SAMPLES / "zarf.yaml").read_bytes())
    assert [line for _number, line in lines_of(zarf)] == [
        "ghcr.io/stefanprodan/podinfo:6.4.0 => stefanprodan/podinfo:6.4.0",
        "docker.io/library/busybox:1.37.0 => library/busybox:1.37.0",
    ]
    assert notes_of(zarf) == [
        "2: read as a list of zarf, with 2 images",
        "10: zarf's `charts` are not read, only images are",
    ]
    component = f"{ZARF}components:\n- {{name: a, charts: [], files: [x], images: [a:1]}}\n"
    assert notes_of(parsed(component))[1:] == ["3: zarf's `files` are not read, only images are"]
    mirror = "kind: ImageSetConfiguration\nmirror:\n  additionalImages: [{name: r.io/ubi:9}]\n"
    assert lines_of(parsed(mirror)) == [(3, "r.io/ubi:9 => ubi:9")]
    (problem,) = refused(f"{mirror}  operators: [{{catalog: r.io/catalog:1}}]\n")
    assert problem.startswith("4:3: `mirror.operators` selects images that only oc-mirror can resolve")


def test_tags_of_a_repository_that_are_no_patterns_are_those_tags() -> None:
    images = parsed(repository("allow: ['v1.0', 1.10]"))
    assert lines_of(images) == [(2, "r.io/a:v1.0 => b:v1.0"), (2, "r.io/a:1.10 => b:1.10")]


@pytest.mark.parametrize("host", ['{{ env \\"TARGET\\" }}', "${TARGET}", "$TARGET"])
def test_a_template_in_the_place_of_a_destinations_host_is_left_out_as_hosts_are(host: str) -> None:
    for text in (
        regsync(f'source: "r.io/a:1", target: "{host}/team/a:1", type: image'),
        f'"r.io/a:1": "{host}/team/a:1"\n',
    ):
        images = parsed(text)
        assert [line for _number, line in lines_of(images)] == ["r.io/a:1 => team/a:1"]
        (note,) = (note for note in notes_of(images) if "left out" in note)
        assert "is left out: the destination's registry comes from --dest or the archive" in note
    refused(regsync(f'source: "r.io/a:1", target: "{host}/team/{{{{x}}}}:1", type: image'))


def test_lines_that_repeat_others_are_one_note() -> None:
    entry = "- {source: team/app:1, target: '@.example.com/team/app:1', type: image}\n"
    images = parsed("sync:\n" + "".join(entry.replace("@", host) for host in "abc"))
    assert lines_of(images) == [(2, "docker.io/team/app:1 => team/app:1")]
    assert [note for note in notes_of(images) if "repeat" in note] == ["3: repeats line 2; 2 lines repeat others"]


def test_aliases_and_merged_mappings_are_followed() -> None:
    text = "x-a: &a {type: image, platform: linux/amd64}\nsync:\n- <<: *a\n  source: r.io/a:1\n  target: x.io/b:1\n"
    assert lines_of(parsed(text)) == [(4, "r.io/a:1 => b:1 platform=linux/amd64")]


def test_a_lock_of_carvel_that_is_empty_or_has_several_faults() -> None:
    head = "apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\n"
    assert parsed(f"{head}images:\n").entries == ()
    problems = refused(f"{head}images:\n- {{image: team/app:1}}\n- {{image: team/web:1}}\n- {{}}\n")
    assert [line.partition(" ")[0] for line in problems] == ["4:11:", "5:11:", "6:3:"]


def test_a_configuration_of_oc_mirror_without_a_mirror_is_refused() -> None:
    (problem,) = refused("kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v1alpha2\n")
    assert problem == "1:1: `mirror` is missing"


def test_a_regsync_repository_names_its_tags() -> None:
    text = "version: 1\nsync:\n- {source: r.example/a, target: s.example/a, type: repository, tags: %s}\n"
    assert [entry for _line, entry in lines_of(parsed(text % "{allow: [v1]}"))] == ["r.example/a:v1 => a:v1"]
    for tags, said in (("{}", "`sync.tags` without tags"), ("{allow: ['v.*']}", "`sync.tags.allow`")):
        (problem,) = refused(text % tags)
        assert said in problem
