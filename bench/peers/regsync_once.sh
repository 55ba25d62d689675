#!/usr/bin/env bash
# A list from one registry to another in one process, eight images at a time.
#
#     regsync_once.sh SOURCE_HOST:PORT DEST_HOST:PORT IMAGES.LIST [8]
set -euo pipefail
yaml=$(mktemp --suffix=.yaml)
trap 'rm -f "$yaml"' EXIT
{
  printf 'version: 1\ncreds:\n'
  printf '  - {registry: "%s", tls: disabled, reqConcurrent: 8}\n' "$1" "$2"
  printf 'defaults: {parallel: %s}\nsync:\n' "${4:-8}"
  while read -r image; do
    printf '  - {source: "%s/%s", target: "%s/%s", type: image}\n' "$1" "$image" "$2" "$image"
  done <"$3"
} >"$yaml"
regsync once --config "$yaml"
