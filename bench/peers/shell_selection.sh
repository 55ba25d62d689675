#!/usr/bin/env bash
# The package step without a registry, as the shell did it: tag link -> manifest -> blobs, read from the archive's
# storage; those blobs are hard-linked into a fresh tree, the link files are written, tar takes the tree.
#
#     shell_selection.sh ARCHIVE_STORAGE IMAGES.LIST WORK_DIR [OUTPUT.tar]
#
# Without OUTPUT it stops before tar. WORK_DIR must be on the archive's file system.
set -euo pipefail
v2=docker/registry/v2
from=$1/$v2
to=$3/tree/$v2
mkdir -p "$to/blobs/sha256" "$to/repositories"

take_blob() { # HEX
  local dir=blobs/sha256/${1:0:2}/$1
  [[ -e $to/$dir/data ]] && return
  mkdir -p "$to/$dir"
  ln "$from/$dir/data" "$to/$dir/data"
}

write_link() { # DIRECTORY HEX
  mkdir -p "$1"
  printf 'sha256:%s' "$2" >"$1/link"
}

# What a manifest names are layers and a config; what an index names are manifests.
take_manifest() { # REPOSITORY HEX
  local file=$from/blobs/sha256/${2:0:2}/$2/data hex
  take_blob "$2"
  write_link "$to/repositories/$1/_manifests/revisions/sha256/$2" "$2"
  if grep -q '"manifests"' "$file"; then
    for hex in $(grep -oE 'sha256:[0-9a-f]{64}' "$file" | cut -c8-); do
      take_manifest "$1" "$hex"
    done
  else
    for hex in $(grep -oE 'sha256:[0-9a-f]{64}' "$file" | cut -c8-); do
      take_blob "$hex"
      write_link "$to/repositories/$1/_layers/sha256/$hex" "$hex"
    done
  fi
}

while read -r image; do
  repository=${image%:*} tag=${image##*:}
  hex=$(<"$from/repositories/$repository/_manifests/tags/$tag/current/link")
  hex=${hex#sha256:}
  take_manifest "$repository" "$hex"
  tags=$to/repositories/$repository/_manifests/tags/$tag
  write_link "$tags/index/sha256/$hex" "$hex"
  write_link "$tags/current" "$hex"
done <"$2"

if [[ -n ${4-} ]]; then
  tar -C "$3/tree" -cf "$4" docker
  sync -f "$4"
fi
