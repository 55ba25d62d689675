#!/usr/bin/env bash
# A list from one registry to another. imgpkg keeps digests, not tags, in the repository that it is told.
#
#     imgpkg_copy.sh SOURCE_HOST:PORT DEST_HOST:PORT IMAGES.LIST [8]
set -euo pipefail
sed -E 's/^(.*):[^:]+$/& \1/' "$3" |
  xargs -P "${4:-8}" -L1 bash -c 'imgpkg copy --registry-insecure --tty=false -i "$0/$2" --to-repo "$1/$3"' "$1" "$2"
