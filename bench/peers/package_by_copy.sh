#!/usr/bin/env bash
# The package step of the first flows: an emptied registry, the whole list copied into it once more, tar of its storage.
#
#     package_by_copy.sh COPY_SCRIPT SOURCE_HOST:PORT IMAGES.LIST WORK_DIR OUTPUT.tar
#
# WORK_DIR/storage must be empty; the registry is a new process, since the old one would remember what was deleted.
set -euo pipefail
work=$4 output=$5

cat >"$work/registry.yml" <<YAML
version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: "$work/storage"}
  maintenance: {uploadpurging: {enabled: false}}
http: {addr: "127.0.0.1:0"}
YAML
setpriv --pdeathsig KILL docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
registry=$!
trap 'kill $registry; wait $registry || true' EXIT
until address=$(grep -oE -m 1 'listening on 127\.0\.0\.1:[0-9]+' "$work/registry.log"); do
  kill -0 $registry
  sleep 0.02
done

"$1" "$2" "${address#listening on }" "$3"
tar -C "$work/storage" -cf "$output" docker
sync -f "$output"
