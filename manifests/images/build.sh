#!/bin/bash
# Builds the images from the Containerfiles beside this script, without a registry and without a daemon, into OCI archives.
# usage: build.sh OUT_DIR [IMAGE…]     images: cni csi engine vhostuser-shim csi-sidecars busybox pause coredns (all by default)
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
(($#)) || set -- cni csi engine vhostuser-shim csi-sidecars busybox pause coredns

mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
exec 9>"$out/.lock"
flock 9
trap 'rm -rf "$work"' EXIT

program() { # FROM TO: a program of ours without debug information and symbols (a panic says file and line without them)
    [[ -x $1 ]] || { echo "images: $1 is not there: run 'make build' (or 'make setup' for a tool)" >&2; exit 1; }
    mkdir -p "$(dirname "$2")"
    objcopy --strip-all "$1" "$2" 2>/dev/null || cp "$1" "$2"
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

with_qemu() { # PROGRAM ROOT: a program of set-up's QEMU, with its libraries (another distribution's) in a directory of their own
    local from=$tools/$1 at=/usr/lib/qemu loader lib
    [[ -e $from ]] || { echo "images: $from is not there: run 'make setup'" >&2; exit 1; }
    mkdir -p "$2/usr/bin" "$2$at"
    cp -L "$from" "$2/usr/bin/$1"
    # Its own loader knows its own libraries; this distribution's must not come in between.
    loader=$(patchelf --print-interpreter "$from")
    "$loader" --list "$from" | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p' | while read -r lib; do
        cp -L "$lib" "$2$at/"
    done
    cp -L "$loader" "$2$at/"
    patchelf --set-interpreter "$at/${loader##*/}" --force-rpath --set-rpath "$at" "$2/usr/bin/$1"
}

stage() { # IMAGE ROOT
    local p
    case $1 in
    cni)
        for p in outboard cni-node cni-controller; do program "$bin/$p" "$2/usr/bin/$p"; done
        with_libraries /usr/sbin/nft "$2"
        # Makes the taps of machines on nodes without DPDK.
        with_libraries /usr/bin/ip "$2"
        mkdir -p "$2/tmp" "$2/run" "$2/etc"
        ;;
    csi)
        for p in csi-controller csi-node-dpu csi-node-host opi-bridge volume-attacher; do program "$bin/$p" "$2/usr/bin/$p"; done
        with_qemu qemu-img "$2"
        # What csi-node-host runs (csi/node/src/host/child.rs), opi-bridge (loop devices) and csi-controller (setpriv ends qemu-img with it).
        for p in blkid mkfs.ext4 e2fsck resize2fs mkfs.xfs xfs_growfs losetup; do with_libraries "/usr/sbin/$p" "$2"; done
        for p in mount umount unshare setpriv dash; do with_libraries "/usr/bin/$p" "$2"; done
        mkdir -p "$2/bin" "$2/etc" "$2/tmp" "$2/run"
        cp /etc/mke2fs.conf "$2/etc/"
        # Not busybox: its shell prefers its own losetup to a real one.
        ln -s ../usr/bin/dash "$2/bin/sh"
        ;;
    engine)
        program "$bin/outboard-engine" "$2/usr/bin/outboard-engine"
        with_qemu qemu-storage-daemon "$2"
        mkdir -p "$2/etc" "$2/tmp" "$2/run"
        ;;
    vhostuser-shim) program "$bin/vhostuser-shim" "$2/usr/bin/vhostuser-shim" ;;
    csi-sidecars)
        # Big, and without debug information as they are.
        for p in csi-provisioner csi-attacher csi-resizer csi-snapshotter snapshot-controller; do
            [[ -e $tools/$p ]] || { echo "images: $tools/$p is not there: run 'make setup'" >&2; exit 1; }
            cp -L "$tools/$p" "$2/$p"
        done
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

# The lab's archives are made and unpacked at every change, by programs that know zstd.
push=()
[[ $tag != lab ]] || push=(--compression-format zstd)

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
        buildah --storage-driver vfs --root "$work/storage" --runroot "$work/run" push --quiet "${push[@]}" \
            "$reference" "oci-archive:$archive.new:$reference" >&2
        mv "$archive.new" "$archive"
        # Archives of older contents are of no use; keep the last few for other checkouts.
        ls -t "$out/$image-$tag"-*.tar | tail -n +5 | xargs -r rm -f
    fi
    touch "$archive"
    printf 'docker.io/outboard/%s:%s\t%s\n' "$image" "$tag" "$archive"
    rm -rf "${work:?}/$image"
done
