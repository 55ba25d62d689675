#!/usr/bin/env bash
# A list from a registry into mindthegap's bundle: a tar of a registry's storage. With one platform it would give images other digests.
#
#     mindthegap_bundle.sh SOURCE_HOST:PORT IMAGES.LIST WORK_DIR OUTPUT.tar
set -euo pipefail
sed "s|^|$1/|" "$2" >"$3/images.txt"
mindthegap create bundle --images-file "$3/images.txt" --output-file "$4" --overwrite \
  --image-pull-concurrency 8 --all-platforms
sync -f "$4"
