#!/usr/bin/env bash
# Makes 20 listed images and a few unlisted ones, offline, and pushes them to a registry on loopback that plays the
# CI registry. Same digests on each run: every time stamp is fixed, every byte comes from a counter.
#
#   make_images.sh LAYOUT_DIR HOST:PORT LIST_FILE
#
# LAYOUT_DIR must not exist; it becomes an OCI layout with one tag per row of the table below. LIST_FILE becomes the
# images.list that a release job would have in git.
set -euo pipefail
umask 022 # modes go into the layers, so they must not depend on who runs this

if [[ $# -ne 3 || $1 == *:* ]]; then
    # umoci and skopeo split "oci:DIR:TAG" at the colons, so DIR can't hold one.
    echo "usage: $0 LAYOUT_DIR HOST:PORT LIST_FILE   (no ':' in LAYOUT_DIR)" >&2
    exit 2
fi
layout=$1 registry=$2 list_file=$3
created=2024-01-01T00:00:00Z
scratch_dir=$(mktemp -d)
trap 'rm -rf -- "$scratch_dir"' EXIT
mkdir "$scratch_dir/home" "$scratch_dir/content"

# An image is the layers of the image that it is built on, plus one layer with KiB of new data. So all on one base share
# the base's layer, all on one runtime two layers. "format": oci as umoci made it; v2s2 converted to docker schema 2 when
# pushed; "part" is pushed only as a child of an index.
#
# tag          built on     arch   KiB   pushed as                  format
table='
minimal        -            amd64  600   base/minimal:1             oci
full           -            amd64  2400  base/full:12               oci
minimal-arm    -            arm64  600   -                          part
python         full         amd64  1500  runtime/python:3.11        oci
java           full         amd64  2000  runtime/java:17            oci
nginx          minimal      amd64  500   runtime/nginx:1.22         v2s2
app-1          python       amd64  300   platform/app:v1            oci
app-2          python       amd64  320   platform/app:v2            oci
sidecar        minimal      amd64  120   platform/app/sidecar:v1    oci
worker         python       amd64  200   platform/app/worker:v1     v2s2
web            nginx        amd64  250   platform/web:v1            oci
orders         java         amd64  260   platform/orders:v1         oci
billing        java         amd64  270   platform/billing:v1        v2s2
reports        python       amd64  180   platform/reports:v1        oci
toolbox        minimal      amd64  90    library/toolbox:1.36       v2s2
database       full         amd64  800   library/database:15        oci
metrics        full         amd64  400   monitoring/metrics:2.4     oci
dashboards     nginx        amd64  350   monitoring/dashboards:9    oci
alerts         minimal      amd64  150   monitoring/alerts:0.25     v2s2
backup         python       amd64  110   tools/backup:v3            oci
migrate        java         amd64  130   tools/migrate:v1           oci
gateway-amd64  minimal      amd64  160   -                          part
gateway-arm64  minimal-arm  arm64  160   -                          part
agent-amd64    minimal      amd64  140   platform/agent:v1-amd64    v2s2
agent-arm64    minimal-arm  arm64  140   platform/agent:v1-arm64    v2s2
'

each_row() { # FUNCTION: called with the six columns of each row
    local tag parent arch kib reference format
    while read -r tag parent arch kib reference format; do
        [[ -z $tag ]] || "$1" "$tag" "$parent" "$arch" "$kib" "$reference" "$format" </dev/null
    done <<<"$table"
}

# The user's and the machine's settings (proxies, mirrors, credentials) redirect even a loopback address, so programs that
# talk to the registry get an environment made from nothing and an empty HOME.
hermetic() {
    # Root's skopeo keeps its cache of known blobs in /var/lib/containers whatever HOME says, shared with the whole
    # machine; with the first variable (internal to skopeo's library, harmless if unknown) it follows XDG_DATA_HOME.
    env -i PATH="$PATH" HOME="$scratch_dir/home" _CONTAINERS_ROOTLESS_UID=1000 XDG_DATA_HOME="$scratch_dir/home" "$@"
}

push() { # OPTION... TAG REFERENCE
    hermetic skopeo --insecure-policy copy --quiet --dest-tls-verify=false "${@:1:$#-2}" \
        "oci:$layout:${*: -2:1}" "docker://$registry/${*: -1}"
}

make_contents() { # one directory per row: a file of bytes that don't compress, as layers of real images don't
    hermetic python3 - "$scratch_dir/content" "$table" <<'PYTHON'
import hashlib, os, pathlib, sys

root, table = pathlib.Path(sys.argv[1]), sys.argv[2]
for tag, _, _, kib, *_ in filter(None, map(str.split, table.splitlines())):
    folder = root / tag
    folder.mkdir()
    (folder / "data").write_bytes(hashlib.shake_256(tag.encode()).digest(int(kib) * 1024))
    # umoci ends a layer's tar without padding and end blocks; a last member without data keeps it readable for all tars.
    (folder / "zz-end").symlink_to("data")
    for path in (folder / "data", folder / "zz-end", folder):
        os.utime(path, (0, 0), follow_symlinks=False)
PYTHON
}

build() { # TAG PARENT ARCH ...
    local tag=$1 parent=$2 arch=$3
    if [[ $parent == - ]]; then
        umoci new --image "$layout:$tag"
        parent=$tag
    fi
    # --rootless stores owner 0:0 whoever runs this; without --history.created the time of day gets into the config.
    umoci insert --rootless --image "$layout:$parent" --tag "$tag" \
        --history.created "$created" --history.created_by "insert $tag" "$scratch_dir/content/$tag" "/opt/$tag"
    umoci config --image "$layout:$tag" --no-history --created "$created" --os linux --architecture "$arch" \
        --config.entrypoint "/opt/$tag/data" --config.label "demo.name=$tag"
}

push_row() { # TAG PARENT ARCH KIB REFERENCE FORMAT
    case $6 in
        oci) push --preserve-digests "$1" "$5" ;;
        v2s2) push --format v2s2 "$1" "$5" ;; # a conversion: the digest can't be preserved
        part) ;;
    esac
}

# Both lists below are indented the way nobody's JSON library does it by default: who re-serialises them changes the digest.

add_oci_index() { # TAG CHILD-TAG...: an entry of the layout's index.json that is an index itself; after the last umoci
    hermetic python3 - "$layout" "$@" <<'PYTHON'
import hashlib, json, pathlib, sys

layout, name, children = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
REF_NAME, INDEX = "org.opencontainers.image.ref.name", "application/vnd.oci.image.index.v1+json"
top = json.loads((layout / "index.json").read_text())
tags = {entry["annotations"][REF_NAME]: entry for entry in top["manifests"]}

def child(tag):
    fields = {key: tags[tag][key] for key in ("mediaType", "digest", "size")}
    return fields | {"platform": {"architecture": tag.rpartition("-")[2], "os": "linux"}}

index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [child(tag) for tag in children]}
data = json.dumps(index, indent=3).encode()
digest = hashlib.sha256(data).hexdigest()
(layout / "blobs/sha256" / digest).write_bytes(data)
entry = {"mediaType": INDEX, "digest": f"sha256:{digest}", "size": len(data), "annotations": {REF_NAME: name}}
top["manifests"].append(entry)
(layout / "index.json").write_text(json.dumps(top))
PYTHON
}

push_docker_list() { # REPOSITORY TAG ARCH...: of the children TAG-ARCH, already pushed
    hermetic python3 - "$registry" "$@" <<'PYTHON'
import hashlib, json, sys, urllib.request

registry, repository, tag, *arches = sys.argv[1:]
DOCKER = "application/vnd.docker.distribution.manifest"

def request(reference, **options):
    url = f"http://{registry}/v2/{repository}/manifests/{reference}"
    with urllib.request.urlopen(urllib.request.Request(url, **options), timeout=30) as answer:
        return answer.read()

def child(arch):
    data = request(f"{tag}-{arch}", headers={"Accept": f"{DOCKER}.v2+json"})
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    platform = {"architecture": arch, "os": "linux"}
    return {"mediaType": f"{DOCKER}.v2+json", "size": len(data), "digest": digest, "platform": platform}

kind = f"{DOCKER}.list.v2+json"
body = {"schemaVersion": 2, "mediaType": kind, "manifests": [child(arch) for arch in arches]}
request(tag, method="PUT", data=json.dumps(body, indent=3).encode(), headers={"Content-Type": kind})
PYTHON
}

pushed_digest() { # REFERENCE
    local sum
    sum=$(hermetic skopeo inspect --raw --tls-verify=false "docker://$registry/$1" | sha256sum) || return 1
    echo "sha256:${sum%% *}"
}

make_contents
umoci init --layout "$layout"
each_row build
add_oci_index gateway gateway-amd64 gateway-arm64
each_row push_row
push --all --preserve-digests gateway platform/gateway:v1
push_docker_list platform/agent v1 amd64 arm64

pinned=$(pushed_digest tools/backup:v3) # by itself: a failure inside a here-document would go unseen
# Not listed, and so not in the release: the bases, and the tags of the docker list's children.
cat >"$list_file" <<LIST
# What release 1.0 of the demo product ships. Nothing here names a registry: the list is the same in CI and on site.

runtime/python:3.11
runtime/java:17
runtime/nginx:1.22
platform/app:v1
platform/app:v2
platform/app/sidecar:v1         # a repository below another one
platform/app/worker:v1
platform/web:v1
platform/orders:v1
platform/billing:v1
platform/reports:v1
platform/agent:v1               # a docker manifest list, whole
platform/gateway:v1             platform=linux/amd64,linux/arm64
library/toolbox:1.36
library/database:15
monitoring/dashboards:9
monitoring/alerts:0.25
monitoring/metrics:2.4 => vendor/metrics:2.4
tools/backup:v3@$pinned
tools/migrate:v1
LIST
