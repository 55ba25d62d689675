#!/usr/bin/env bash
# The package step as the pipeline did it by hand before regwrap: an overlay of the history, a registry on top of it,
# skopeo for each line, the registry's own garbage collection, tar. The history is only read.
#
# Root, and from Debian 12: skopeo docker-registry util-linux tar. SOURCE is asked over plain HTTP.
set -euo pipefail

if (($# != 5)); then
  echo "usage: ${0##*/} SOURCE_HOST:PORT IMAGES.LIST HISTORY_STORAGE WORK_DIR OUTPUT.tar" >&2
  exit 2
fi

# In a mount namespace of its own, whatever way this ends, no mount is left behind.
if [[ -z ${SEED_OVERLAY_NAMESPACE-} ]]; then
  SEED_OVERLAY_NAMESPACE=1 exec unshare --mount --propagation private "$BASH" "$0" "$@"
fi

source=$1
list=$(realpath -e "$2")
history=$(realpath -e "$3")
mkdir -p "$4"
work=$(realpath -e "$4")
output=$(realpath -m "$5")

upper=$work/upper
merged=$work/merged
repositories=$merged/docker/registry/v2/repositories
config=$work/registry.yml
log=$work/registry.log

# REGISTRY_* would override the configuration. For root, skopeo's cache of blob locations is the whole machine's unless
# it takes the user for another one.
unset "${!REGISTRY_@}"
export XDG_DATA_HOME=$work/share _CONTAINERS_ROOTLESS_UID=1000

fail() {
  echo "${0##*/}: $1" >&2
  exit 1
}

# Bash runs a trap only after the program in the foreground has ended, but at once while it waits. So programs that take
# long run in the background; setpriv sees to kill -9, and to what a killed program has started itself.
start() { setpriv --pdeathsig KILL "$@" & }

run() {
  start "$@"
  wait $!
}

clean_up() {
  local started
  mapfile -t started < <(jobs -p)
  kill "${started[@]}" 2>/dev/null || true
  wait
  # What was killed last may take a moment to let go.
  for _ in {1..50}; do
    mountpoint -q "$merged" || break
    umount "$merged" 2>/dev/null || sleep 0.1
  done
  rm -rf --one-file-system "$upper" "$work/work" "$merged" "$work/share" "$config" "$log"
}

mount_overlay() {
  [[ $history$work != *[,:\\\"]* ]] || fail "mount cannot take , : \\ or \" in $history or $work"
  # Without -p: leftovers of another run are not to be built upon, and not ours to remove.
  mkdir "$upper"
  mkdir "$work/work" "$merged"
  trap clean_up EXIT
  mount -t overlay overlay -o "lowerdir=$history,upperdir=$upper,workdir=$work/work" "$merged"
}

# Blobs and _layers stay, and the registry says "already exists" for them; without _manifests no image is left.
drop_manifests() {
  run find "$repositories" -name _manifests -prune -exec setpriv --pdeathsig KILL rm -rf {} +
}

start_registry() {
  cat >"$config" <<YAML
version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: "$merged"}
  delete: {enabled: true}
  maintenance: {uploadpurging: {enabled: false}}
http: {addr: "127.0.0.1:0"}
YAML
  : >"$log"
  start docker-registry serve "$config" >"$log" 2>&1
  registry=$!
  for _ in {1..750}; do
    address=$(grep -oE -m 1 'listening on 127\.0\.0\.1:[0-9]+' "$log") && break
    kill -0 "$registry" 2>/dev/null || break
    sleep 0.02
  done
  address=${address#listening on }
  [[ -n $address ]] || fail "docker-registry did not start: $(tail -n 5 "$log")"
}

# It has to be gone before the collection: the two must not work on one storage at the same time.
stop_registry() {
  kill "$registry"
  wait "$registry" || true
}

copy_images() {
  local image
  while read -r image; do
    run skopeo --insecure-policy --registries-conf /dev/null copy --quiet --all --preserve-digests \
      --src-tls-verify=false --dest-tls-verify=false "docker://$source/$image" "docker://$address/$image"
  done <"$list"
}

# A repository can lie below another one, so only its own directories go, then what has become empty.
remove_unlisted() (
  cd "$repositories"
  mapfile -t layers < <(find . -name '_*' -prune -name _layers -printf '%P\n')
  for repository in "${layers[@]%/_layers}"; do
    [[ ! -d $repository/_manifests ]] || continue
    rm -rf "$repository/_layers" "$repository/_uploads"
    rmdir -p --ignore-fail-on-non-empty "$repository"
  done
)

trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

mount_overlay
drop_manifests
start_registry
copy_images
remove_unlisted
stop_registry
run docker-registry garbage-collect "$config" >/dev/null
run tar -C "$merged" -cf "$output" docker
run sync -f "$output"
