#!/bin/sh
# Print the name of a base image for the Dockerfiles on a machine that reaches no image registry:
#
#   BASE_IMAGE=$(sudo docker/base-image.sh) DOCKER_BUILDKIT=1 docker compose up
#
# Starts dockerd where none runs, and makes the image from Debian's packages where there is none yet. Needs root and
# Debian's docker.io and debootstrap. Ends non-zero with the reason on stderr where it cannot: no test depends on it.
set -eu

image=fashion-classifier-base:bookworm
log=${TMPDIR:-/tmp}/dockerd.log
PATH=$PATH:/usr/sbin:/sbin # where dockerd and debootstrap are; not every caller looks there

fail() {
    echo "base-image.sh: $1" >&2
    exit 1
}

running() {
    docker info >/dev/null 2>&1
}

command -v docker >/dev/null || fail "no docker client: install docker.io"
if ! running; then
    [ "$(id -u)" = 0 ] || fail "no Docker engine runs, and starting one takes root"
    command -v dockerd >/dev/null || fail "no Docker engine runs and there is no dockerd: install docker.io"
    # Its own session and no inherited output, so that a caller that waits for either is not held up.
    setsid dockerd >"$log" 2>&1 </dev/null &
    seconds=0
    until running; do
        [ $((seconds += 1)) -le 30 ] || fail "dockerd does not answer; its last words: $(tail -n 3 "$log")"
        sleep 1
    done
fi

if ! docker image inspect "$image" >/dev/null 2>&1; then
    [ "$(id -u)" = 0 ] || fail "there is no image $image, and making it takes root"
    command -v debootstrap >/dev/null || fail "there is no image $image and no debootstrap to make it"
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root/system" \
        >"$root/log" 2>&1 || fail "debootstrap: $(tail -n 3 "$root/log")"
    # Left out: caches, documentation and translations for size; what debootstrap copied from this host, to tell nothing.
    tar --directory "$root/system" --create \
        --exclude='./var/cache/apt/*.bin' --exclude='./var/cache/apt/archives/*.deb' --exclude='./var/lib/apt/lists/*' \
        --exclude='./usr/share/doc/*' --exclude='./usr/share/info/*' --exclude='./usr/share/locale/*' \
        --exclude='./usr/share/man/*' --exclude='./var/log/*.log' \
        --exclude=./etc/hostname --exclude=./etc/resolv.conf . |
        docker import --change 'CMD ["python3"]' - "$image" >"$root/log" 2>&1 || fail "docker import: $(cat "$root/log")"
fi
echo "$image"
