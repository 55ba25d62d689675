#!/usr/bin/env bash
# A list from one registry to another as it was done at first: docker pull, tag, push, one image after the other.
# Of an index, docker takes the image of its own platform only.
#
#     DOCKER_HOST=unix://… docker_copy.sh SOURCE_HOST:PORT DEST_HOST:PORT IMAGES.LIST
set -euo pipefail
while read -r image; do
  docker pull --quiet "$1/$image" >/dev/null
  docker tag "$1/$image" "$2/$image"
  docker push --quiet "$2/$image" >/dev/null
done <"$3"
