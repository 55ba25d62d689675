#!/usr/bin/env bash
# A list from one registry to another: one `skopeo copy` a line, as many at a time as the last word says.
#
#     skopeo_copy.sh SOURCE_HOST:PORT DEST_HOST:PORT IMAGES.LIST [1]
set -euo pipefail
xargs -P "${4:-1}" -I{} \
  skopeo --insecure-policy --registries-conf /dev/null copy --quiet --all --preserve-digests \
  --src-tls-verify=false --dest-tls-verify=false "docker://$1/{}" "docker://$2/{}" <"$3"
