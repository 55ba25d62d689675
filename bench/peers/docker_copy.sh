#!/usr/bin/env bash
# A list from one registry to another as it was done at first: docker pull, tag, push, one image after the other, or as
# many at a time as the last word says. Of an index, docker takes the image of its own platform only.
#
#     DOCKER_HOST=unix://… docker_copy.sh SOURCE_HOST:PORT DEST_HOST:PORT IMAGES.LIST [1]
set -euo pipefail
xargs -P "${4:-1}" -I{} sh -euc '
  docker pull --quiet "$1/$3" >/dev/null
  docker tag "$1/$3" "$2/$3"
  docker push --quiet "$2/$3" >/dev/null' copy "$1" "$2" {} <"$3"
