#!/usr/bin/env bash
# Hides all repositories of a storage below an overlay: one directory, marked as opaque before the mount. The kernel
# ignores a mark that comes later.
#
#     unshare --mount --propagation private hide_by_opaque.sh HISTORY_STORAGE WORK_DIR [PYTHON]
set -euo pipefail
history=$1
work=$2
python=${3:-python3}
repositories=docker/registry/v2/repositories

mkdir -p "$work"/{work,merged} "$work/upper/$repositories"
# setfattr would be one more package to install.
"$python" -IS -c 'import os, sys; os.setxattr(sys.argv[1], "trusted.overlay.opaque", b"y")' "$work/upper/$repositories"
mount -t overlay overlay -o "lowerdir=$history,upperdir=$work/upper,workdir=$work/work" "$work/merged"

# A mark that is not understood is ignored without a word.
left=$(ls -A "$work/merged/$repositories")
[[ -z $left ]] || { echo "repositories are still seen: ${left:0:200}" >&2; exit 1; }
[[ -d $work/merged/docker/registry/v2/blobs ]] || { echo "the blobs are hidden too" >&2; exit 1; }
