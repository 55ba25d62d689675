#!/usr/bin/env bash
# Hides all images of a storage below an overlay by removing every _manifests: the kernel writes a whiteout for each.
#
#     unshare --mount --propagation private hide_by_removal.sh HISTORY_STORAGE WORK_DIR
set -euo pipefail
history=$1
work=$2
repositories=docker/registry/v2/repositories

mkdir -p "$work"/{upper,work,merged}
mount -t overlay overlay -o "lowerdir=$history,upperdir=$work/upper,workdir=$work/work" "$work/merged"
find "$work/merged/$repositories" -name _manifests -prune -exec rm -rf {} +
