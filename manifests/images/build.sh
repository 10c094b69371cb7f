#!/bin/bash
# Builds the images from the Containerfiles beside this script, without a registry and without a daemon, into OCI archives.
# usage: build.sh OUT_DIR [IMAGE…]     images: cni busybox pause coredns (all by default)
# Prints "reference<TAB>archive" for each. An archive is named after what went into it and built only when it is not there.
# Environment: OUTBOARD_TAG (lab), OUTBOARD_BIN (where cargo put the programs), OUTBOARD_TOOLS (where setup.sh put the tools).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$here/../..
tag=${OUTBOARD_TAG:-lab}
bin=${OUTBOARD_BIN:-$checkout/target/x86_64-unknown-linux-gnu/debug}
tools=${OUTBOARD_TOOLS:-$("$checkout/e2e/tools/setup.sh" --print-bin)}
out=${1:?usage: build.sh OUT_DIR [IMAGE…]}
shift
(($#)) || set -- cni busybox pause coredns

mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
exec 9>"$out/.lock"
flock 9
trap 'rm -rf "$work"' EXIT

program() { # FROM TO: a program of ours without its debug information
    [[ -x $1 ]] || { echo "images: $1 is not there: run 'make build' (or 'make setup' for a tool)" >&2; exit 1; }
    mkdir -p "$(dirname "$2")"
    objcopy --strip-debug "$1" "$2" 2>/dev/null || cp "$1" "$2"
}

with_libraries() { # PROGRAM ROOT: a dynamic program of this distribution, with all that ldd names, at the same paths
    mkdir -p "$2$(dirname "$1")"
    cp -L "$1" "$2$1"
    local lib
    ldd "$1" | grep -oE '/[^ ]+' | while read -r lib; do
        mkdir -p "$2$(dirname "$lib")"
        cp -L "$lib" "$2$lib"
    done
}

stage() { # IMAGE ROOT
    case $1 in
    cni)
        local p
        for p in outboard cni-node cni-controller; do program "$bin/$p" "$2/usr/bin/$p"; done
        with_libraries /usr/sbin/nft "$2"
        mkdir -p "$2/tmp" "$2/run" "$2/etc"
        ;;
    busybox)
        mkdir -p "$2/bin" "$2/etc" "$2/tmp" "$2/www"
        cp /bin/busybox "$2/bin/busybox"
        local applet
        for applet in $(busybox --list); do
            [[ $applet == busybox ]] || ln -s busybox "$2/bin/$applet"
        done
        # busybox's own wget verifies no certificate.
        with_libraries /usr/bin/curl "$2"
        echo 'root:x:0:0:root:/:/bin/sh' >"$2/etc/passwd"
        chmod 1777 "$2/tmp"
        ;;
    pause) program "$bin/pause" "$2/pause" ;;
    coredns) program "$tools/coredns" "$2/coredns" ;;
    *) echo "images: no image is called $1" >&2; exit 1 ;;
    esac
}

for image in "$@"; do
    root=$work/$image/root
    mkdir -p "$root"
    stage "$image" "$root"
    # Names, modes and contents, but no times: the same inputs give the same name.
    hash=$({ cat "$here/$image/Containerfile"; tar -C "$work/$image" --sort=name --mtime=@0 --owner=0 --group=0 -c root; } | sha256sum | cut -c1-16)
    archive=$out/$image-$tag-$hash.tar
    if [[ ! -e $archive ]]; then
        reference=docker.io/outboard/$image:$tag
        buildah --storage-driver vfs --root "$work/storage" --runroot "$work/run" bud --isolation chroot --quiet \
            --timestamp 0 -f "$here/$image/Containerfile" -t "$reference" "$work/$image" >&2
        buildah --storage-driver vfs --root "$work/storage" --runroot "$work/run" push --quiet \
            "$reference" "oci-archive:$archive.new:$reference" >&2
        mv "$archive.new" "$archive"
        # Archives of older contents are of no use; keep the last few for other checkouts.
        ls -t "$out/$image-$tag"-*.tar | tail -n +5 | xargs -r rm -f
    fi
    touch "$archive"
    printf 'docker.io/outboard/%s:%s\t%s\n' "$image" "$tag" "$archive"
    rm -rf "${work:?}/$image"
done
