"""Compares regwrap list from-manifests with a plain walk over public manifests, values and bundles.

    python bench/manifests.py DIR

DIR holds a clone of each repository below, bare, as OWNER+NAME.git; what is absent is cloned from GitHub. Nothing of
them is kept here. The walk knows no form but a few keys: it takes each text in each scalar that is written as a
reference. What one has and the other has not is printed, to be judged by eye; the table is Markdown.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import yaml


@dataclass(frozen=True, slots=True)
class Files:
    """Some files of a repository at a commit."""

    name: str
    repository: str
    commit: str
    pattern: str


FILES: Final = (
    Files("Argo CD, install.yaml", "argoproj/argo-cd", "37ee0097cf", "manifests/install.yaml"),
    Files("Longhorn, longhorn.yaml", "longhorn/longhorn", "bb2f2223", "deploy/longhorn.yaml"),
    Files("Longhorn, values", "longhorn/longhorn", "bb2f2223", "chart/values.yaml"),
    Files(
        "KubeVirt HCO, bundle 1.20.0", "kubevirt/hyperconverged-cluster-operator", "03da3cff7", "deploy/index-image/*"
    ),
    Files("strimzi, cluster operator", "strimzi/strimzi-kafka-operator", "8541da1e33", "install/cluster-operator/*"),
    Files("knative eventing 1.23.0", "knative/operator", "b4f2c2549", "cmd/operator/kodata/knative-eventing/1.23.0/*"),
    Files(
        "OLM, all bundles of a catalog",
        "operator-framework/community-operators",
        "1591b5e1",
        "upstream-community-operators/*clusterserviceversion.yaml",
    ),
    Files("Tekton's catalog", "tektoncd/catalog", "55dd80ef", "*"),
    Files("kube-prometheus", "prometheus-operator/kube-prometheus", "4d719f1d", "manifests/*"),
    Files("ondat, values", "ondat/charts", "082640a", "*/values.yaml"),
    Files("gpu-operator, values", "NVIDIA/gpu-operator", "a22dbf671", "deployments/gpu-operator/values.yaml"),
    Files("ingress-nginx, values", "kubernetes/ingress-nginx", "dbb11b92d", "charts/ingress-nginx/values.yaml"),
)
_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE: Final = re.compile(
    rf"(?<![\w./:@%{{}}-])((?:[\w.-]+(?::[0-9]+)?/)?{_PART}(?:/{_PART})*)(?::(\w[\w.-]*))?(?:@(sha256:[0-9a-f]{{64}}))?"
    r"(?![\w/@:{}])"
)
_DESCRIBES: Final = {"description", "example"}


@dataclass(slots=True)
class Found:
    """What the walk has found: each image with the first place where it stands."""

    images: dict[str, str]
    registry: str = ""


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    rows = ["| files | | a reader finds | lines | not in the list | lines beyond | seconds |", f"|{'---|' * 7}"]
    for files in FILES:
        with tempfile.TemporaryDirectory() as place:
            rows.append(_compared(files, _unpacked(files, directory, Path(place))))
    print("\n".join(rows))


def _unpacked(files: Files, directory: Path, place: Path) -> list[Path]:
    clone = directory / f"{files.repository.replace('/', '+')}.git"
    if not clone.exists():
        subprocess.run(["git", "clone", "--bare", f"https://github.com/{files.repository}", clone], check=True)
    git = ["git", "--git-dir", f"{clone}"]
    tree = subprocess.run([*git, "ls-tree", "-r", "--name-only", files.commit], check=True, capture_output=True)
    names = [
        name
        for name in tree.stdout.decode().splitlines()
        if fnmatch(name, files.pattern) and name.endswith((".yaml", ".yml"))
    ]
    archive = subprocess.run([*git, "archive", files.commit, "--", *names], check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", place], check=True, input=archive.stdout)
    return [place / name for name in names if (place / name).is_file()]


def _compared(files: Files, paths: list[Path]) -> str:
    walked = Found({})
    for path in paths:
        walked.registry = ""
        _read(path, walked)
    before = os.times()
    program = f"{Path(sys.executable).parent / 'regwrap'}"
    command = [program, "list", "from-manifests", "--quiet", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    lines = {line.split()[0] for line in done.stdout.splitlines() if line and not line.startswith("#")}
    absent = {image for image in walked.images if not _is_in(image, lines)}
    beyond = {line for line in lines if not _is_in(line, set(walked.images))}
    for image in sorted(absent):
        print(f"{files.name}: not in the list: {image} ({walked.images[image]})")
    for line in sorted(beyond):
        print(f"{files.name}: the walk has not: {line}")
    cells = (files.name, len(paths), len(walked.images), len(lines), len(absent), len(beyond), f"{seconds:.1f}")
    return f"| {' | '.join(map(str, cells))} |"


def _is_in(image: str, others: set[str]) -> bool:
    """Whether another says the same, or more: a tag with its digest."""
    name, _, digest = image.partition("@")
    same = (other for other in others if other.startswith(name) or (digest and other.endswith(digest)))
    return image in others or any(other.partition("@")[0] == name or other.endswith(f"@{digest}") for other in same)


# --- the walk


def _read(path: Path, found: Found) -> None:
    line = 0
    for part in re.split(r"(?m)^(?=---(?:\s|$))", path.read_text(encoding="utf-8-sig", errors="replace")):
        try:
            for node in yaml.compose_all(part, yaml.CSafeLoader):
                if node is not None:
                    _walk(node, "", (f"{path.name}", line), found)
        except yaml.YAMLError as error:
            print(f"{path.name}: a document after line {line} is not read: {f'{error}'.splitlines()[0]}")
        line += part.count("\n")


def _walk(node: yaml.Node, key: str, place: tuple[str, int], found: Found) -> None:
    if isinstance(node, yaml.ScalarNode):
        line = place[1] + node.start_mark.line + 1
        for embedded in _embedded(node.value):
            _walk(embedded, key, (place[0], line - 1), found)
        for image in _in_text(node.value, key):
            found.images.setdefault(image, f"{place[0]}:{line} {key}")
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _walk(item, key, place, found)
    else:
        assert isinstance(node, yaml.MappingNode)
        pairs = [(name.value, value) for name, value in node.value if isinstance(name, yaml.ScalarNode)]
        texts = {name.lower().replace("_", ""): value.value for name, value in pairs if _is_text(value)}
        if key == "image" and "registry" in texts:
            found.registry = found.registry or texts["registry"]
        if image := _in_mapping(texts, found.registry):
            found.images.setdefault(image, f"{place[0]}:{place[1] + node.start_mark.line + 1} {key}")
        for name, value in pairs:
            if name not in _DESCRIBES:
                _walk(value, name, place, found)


def _embedded(text: str) -> list[yaml.Node]:
    if not text.lstrip().startswith(("[", "{")) and "\n" not in text.strip():
        return []
    try:
        nodes = list(yaml.compose_all(text, yaml.CSafeLoader))
    except yaml.YAMLError:
        return []
    return [node for node in nodes if isinstance(node, yaml.MappingNode | yaml.SequenceNode)]


def _is_text(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value not in {"", "~", "null"}


def _in_mapping(texts: dict[str, str], registry: str) -> str:
    """Registry, repository, image and tag as charts have them."""
    name = "/".join(texts[part] for part in ("repository", "image") if part in texts)
    tag = next((texts[part] for part in ("tag", "imagetag", "version") if part in texts), "")
    if not name or not tag or "://" in name or ":" in name.rpartition("/")[2] or not re.fullmatch(r"\w[\w.-]*", tag):
        return ""
    host = texts.get("registry") or ("" if "." in name.partition("/")[0] else registry)
    return _whole(f"{host}/{name}" if host else name, tag, "")


def _in_text(text: str, key: str) -> Iterator[str]:
    for match in _REFERENCE.finditer(text):
        name, tag, digest = match[1], match[2] or "", match[3] or ""
        says_image = key.lower().endswith("image") and match[0] == text
        if digest or (tag and ("/" in name or says_image)):
            yield _whole(name, tag, digest)


def _whole(name: str, tag: str, digest: str) -> str:
    host, slash, rest = name.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, rest = "docker.io", name
    if host in {"docker.io", "index.docker.io"} and "/" not in rest:
        rest = f"library/{rest}"
    host = "docker.io" if host == "index.docker.io" else host
    return f"{host}/{rest}{':' if tag else ''}{tag}{'@' if digest else ''}{digest}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
