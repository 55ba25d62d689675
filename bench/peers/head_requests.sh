#!/usr/bin/env bash
# The requests that tell whether two registries have the same images, and nothing else: a HEAD of each manifest at both
# ends, by one curl with kept-alive connections. It compares nothing.
#
#     head_requests.sh SOURCE_HOST:PORT DEST_HOST:PORT IMAGES.LIST [8]
set -euo pipefail
types=application/vnd.oci.image.index.v1+json,application/vnd.oci.image.manifest.v1+json
types+=,application/vnd.docker.distribution.manifest.list.v2+json,application/vnd.docker.distribution.manifest.v2+json
sed -E "s#^(.*):([^:]+)\$#url=http://$1/v2/\1/manifests/\2\noutput=/dev/null\nurl=http://$2/v2/\1/manifests/\2\noutput=/dev/null#" "$3" |
  curl --silent --show-error --fail --head --parallel --parallel-max "${4:-8}" --header "Accept: $types" --config -
