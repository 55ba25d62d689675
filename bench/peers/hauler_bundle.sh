#!/usr/bin/env bash
# A list from a registry into hauler's archive, which is compressed; as many images at a time as regwrap copies.
#
#     hauler_bundle.sh SOURCE_HOST:PORT IMAGES.LIST WORK_DIR OUTPUT.tar.zst
set -euo pipefail
sed "s|^|$1/|" "$2" >"$3/images.txt"
hauler store sync --store "$3/store" --image-txt "$3/images.txt" --concurrency 8
hauler store save --store "$3/store" --filename "$4"
sync -f "$4"
