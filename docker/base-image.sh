#!/bin/sh
# Build a base image for the Dockerfiles from Debian's packages, and print its name. For machines
# without an image registry:
#
#   BASE_IMAGE=$(sudo docker/base-image.sh) DOCKER_BUILDKIT=1 docker compose up
#
# Starts dockerd if it is not running, and builds the image if it does not exist. Needs root, and
# Debian's docker.io and debootstrap. On failure it exits non-zero with the reason on stderr.
set -eu

image=fashion-classifier-base:bookworm
log=${TMPDIR:-/tmp}/dockerd.log
PATH=$PATH:/usr/sbin:/sbin # folders of dockerd and debootstrap, which some callers lack in PATH

fail() {
    echo "base-image.sh: $1" >&2
    exit 1
}

running() {
    docker info >/dev/null 2>&1
}

command -v docker >/dev/null || fail "there is no docker client; install docker.io"
if ! running; then
    [ "$(id -u)" = 0 ] || fail "dockerd is not running, and only root can start it"
    command -v dockerd >/dev/null || fail "dockerd is not running and not installed; install docker.io"
    # dockerd keeps running after this script. A new session and no inherited output, so that a
    # caller that waits for the end of the session or of the output does not hang.
    setsid dockerd >"$log" 2>&1 </dev/null &
    seconds=0
    until running; do
        [ $((seconds += 1)) -le 30 ] || fail "dockerd does not answer; its last log lines: $(tail -n 3 "$log")"
        sleep 1
    done
fi

if ! docker image inspect "$image" >/dev/null 2>&1; then
    [ "$(id -u)" = 0 ] || fail "the image $image does not exist, and only root can build it"
    command -v debootstrap >/dev/null || fail "the image $image does not exist; install debootstrap to build it"
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root/system" \
        >"$root/log" 2>&1 || fail "debootstrap: $(tail -n 3 "$root/log")"
    # Leave out caches, documentation and translations (size), and files of this host (privacy).
    tar --directory "$root/system" --create \
        --exclude='./var/cache/apt/*.bin' --exclude='./var/cache/apt/archives/*.deb' --exclude='./var/lib/apt/lists/*' \
        --exclude='./usr/share/doc/*' --exclude='./usr/share/info/*' --exclude='./usr/share/locale/*' \
        --exclude='./usr/share/man/*' --exclude='./var/log/*.log' \
        --exclude=./etc/hostname --exclude=./etc/resolv.conf . |
        docker import --change 'CMD ["python3"]' - "$image" >"$root/log" 2>&1 || fail "docker import: $(cat "$root/log")"
fi
echo "$image"
