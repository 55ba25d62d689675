#!/usr/bin/env bash
# The demo: from a list of images to a registry at a customer's site, and the proof that they are the same images.
# Everything is on this machine, on loopback, as an ordinary user or root.
#
#   run.sh [WORKDIR]     WORKDIR must be empty or absent and is kept; without it a temporary one is used and removed
#
# A line "$ COMMAND" is the command that runs next. Two things are left out of it: skopeo and docker-registry get an
# environment made from nothing, and "regwrap" stands for the executable named by $REGWRAP (default: the checkout's venv).
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
regwrap_bin=${REGWRAP:-$here/../../.venv/bin/regwrap}

die() {
    echo "run.sh: $*" >&2
    exit 1
}

[[ $# -le 1 ]] || die "usage: run.sh [WORKDIR]"
for program in "$regwrap_bin" skopeo umoci docker-registry python3; do
    command -v -- "$program" >/dev/null || die "$program is missing (run: make demo, which installs what it needs)"
done
regwrap_bin=$(realpath -s -- "$(command -v -- "$regwrap_bin")") # the demo changes the directory

server_pids=()
temporary=
cleanup() {
    local pid
    for pid in "${server_pids[@]}"; do
        kill "$pid" 2>/dev/null || true # it may have died already
        wait "$pid" 2>/dev/null || true # nothing may write below the directory while it is being removed
    done
    [[ -z $temporary ]] || rm -rf -- "$temporary"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP # with a trap bash waits for the running command before it cleans up

if [[ $# -eq 1 ]]; then
    mkdir -p -- "$1"
    [[ -z $(ls -A -- "$1") ]] || die "$1 is not empty"
    cd -- "$1"
else
    temporary=$(mktemp -d)
    cd -- "$temporary"
fi
mkdir home
export XDG_DATA_HOME=$PWD/data # regwrap's embedded archive lies here and not among the user's own data

title() {
    printf '\n== %s\n' "$*"
}

run() {
    printf '\n$'
    printf ' %q' "$@"
    printf '\n'
    "$@"
}

hermetic() { # no REGISTRY_*, no proxy, no user's mirrors or credentials: they would redirect even 127.0.0.1
    # The second line moves the cache of known blobs off /var/lib/containers, where root's skopeo keeps it otherwise.
    env -i PATH="$PATH" HOME="$PWD/home" \
        _CONTAINERS_ROOTLESS_UID=1000 XDG_DATA_HOME="$PWD/home" "$@"
}

regwrap() {
    "$regwrap_bin" "$@"
}

skopeo() {
    hermetic skopeo "$@"
}

start_registry() { # NAME STORAGE_DIR VARIABLE: sets VARIABLE to the HOST:PORT that it listens on
    cat >"$1.yaml" <<YAML
version: 0.1
log: {level: info}                     # at info it logs the port it got
http: {addr: "127.0.0.1:0"}            # the kernel picks a free port
storage:                               # no cache key: its memory would not see a deploy into the directory
  filesystem: {rootdirectory: "$2"}
  maintenance: {uploadpurging: {enabled: false}}
YAML
    printf '\n$ docker-registry serve %q >%q 2>&1 &\n' "$1.yaml" "$1.log"
    : >"$1.log" # before the server starts, since it is looked into at once
    # Into a file: a registry whose output nobody reads freezes. Not through "hermetic": $! must be the registry itself,
    # and not a subshell that would leave it behind when killed.
    env -i PATH="$PATH" HOME="$PWD/home" docker-registry serve "$1.yaml" >"$1.log" 2>&1 &
    server_pids+=($!)
    local attempt address
    for ((attempt = 0; attempt < 100; attempt++)); do
        address=$(sed -n 's/.*listening on \(127\.0\.0\.1:[0-9]*\).*/\1/p' "$1.log")
        if [[ -n $address ]]; then
            printf -v "$3" %s "$address"
            echo "$1 listens on $address and serves $2"
            return
        fi
        kill -0 "${server_pids[-1]}" 2>/dev/null || break
        sleep 0.1
    done
    cat -- "$1.log" >&2
    die "$1 did not start"
}

listed_images() { # "SOURCE DEST" for each line of images.list, options and pins left out of DEST
    local source rest dest
    while read -r source rest; do
        [[ $source != '' && $source != '#'* ]] || continue
        dest=$source
        [[ $rest != '=>'* ]] || read -r _ dest _ <<<"$rest"
        echo "$source ${dest%@*}"
    done <images.list
}

raw_digest() { # HOST:PORT REFERENCE: of the bytes that are served, not of what a header says
    local reference=$2 sum
    # skopeo takes a tag or a digest, not both; the digest is what a pinned line means.
    [[ $reference != *:*@* ]] || reference=${2%%:*}@${2#*@}
    sum=$(skopeo inspect --raw --tls-verify=false "docker://$1/$reference" | sha256sum) || return 1
    echo "${sum%% *}"
}

compare_digests() { # SOURCE_REGISTRY SITE_REGISTRY
    local source dest ours theirs verdict total=0 different=0
    printf '\n%-26s %-19s %-19s %s\n' 'image at the site' 'source digest' 'site digest' same
    while read -r source dest; do
        ours=$(raw_digest "$1" "$source") || ours=absent
        theirs=$(raw_digest "$2" "$dest") || theirs=absent
        verdict=yes
        if [[ $ours == absent || $ours != "$theirs" ]]; then
            verdict=NO
            different=$((different + 1))
        fi
        total=$((total + 1))
        printf '%-26s %-19s %-19s %s\n' "$dest" "${ours:0:16}" "${theirs:0:16}" "$verdict"
    done < <(listed_images)
    [[ $total -gt 0 ]] || die "images.list has no image"
    [[ $different -eq 0 ]] || die "$different of $total digests differ."
    printf '\nAll %d digests are equal.\n' "$total"
}

ci='' site='' # set by start_registry

title "A CI registry with about twenty images, and the list of what release 1.0 ships"
start_registry ci-registry "$PWD/ci-storage" ci
run "$here/make_images.sh" layout "$ci" images.list
run cat images.list

title "Is this machine able to do it?"
run regwrap doctor

title "One command: into the archive, then into one package"
run regwrap release images.list --source "$ci" -o release-v1.0.tar
run ls -l release-v1.0.tar release-v1.0.tar.sha256
run sha256sum -c release-v1.0.tar.sha256

title "Again: nothing is to do"
run regwrap sync images.list --source "$ci"

title "What is in it?"
run regwrap inspect release-v1.0.tar

title "On site: unpack into the storage directory of the site's registry, and check every byte"
run regwrap deploy release-v1.0.tar site-storage
run regwrap verify site-storage --list images.list

title "The site's registry serves it"
start_registry site-registry "$PWD/site-storage" site
run skopeo --insecure-policy copy --src-tls-verify=false "docker://$site/platform/app:v1" dir:pulled-app
run ls -l pulled-app

title "The same images, byte for byte?"
compare_digests "$ci" "$site"
