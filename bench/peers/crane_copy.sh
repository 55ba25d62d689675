#!/usr/bin/env bash
# A list from one registry to another: one `crane copy` a line, eight at a time.
#
#     crane_copy.sh SOURCE_HOST:PORT DEST_HOST:PORT IMAGES.LIST [8]
set -euo pipefail
xargs -P "${4:-8}" -I{} crane copy --insecure "$1/{}" "$2/{}" <"$3"
