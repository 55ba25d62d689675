#!/usr/bin/env bash
# A list from one registry to another in one process. Of each repository only the last component is kept: --scoped
# would make names of SOURCE_HOST:PORT, and a colon is not allowed there.
#
#     skopeo_sync.sh SOURCE_HOST:PORT DEST_HOST:PORT IMAGES.LIST
set -euo pipefail
yaml=$(mktemp --suffix=.yaml)
trap 'rm -f "$yaml"' EXIT
{
  printf '%s:\n  tls-verify: false\n  images:\n' "$1"
  sed -E 's/^(.*):([^:]+)$/    \1: ["\2"]/' "$3"
} >"$yaml"
skopeo --insecure-policy --registries-conf /dev/null sync --src yaml --dest docker --all --preserve-digests \
  --dest-tls-verify=false "$yaml" "$2"
