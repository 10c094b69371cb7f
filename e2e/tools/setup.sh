#!/bin/bash
# Brings a Debian 12 machine to where `make build test demo` work: system packages, and the Go programs of the lab
# (Kubernetes, cnitool, reference CNI plugins, CoreDNS, CSI sidecars) built once into a cache outside the checkout.
# Idempotent; seconds when all is there. Prints the tools' directory with --print-bin and does nothing else then.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${OUTBOARD_CACHE:-${HOME:-/root}/.cache/outboard}
modules=(cni coredns csi-provisioner csi-sanity csi-sidecars kubernetes)

packages=(
    openvswitch-switch openvswitch-common ovn-central ovn-host ovn-common
    etcd-server etcd-client containerd runc
    nftables iproute2 iputils-ping ethtool conntrack curl openssl procps util-linux
    busybox-static buildah gcc libc6-dev make ca-certificates
    fio fuse3 xfsprogs e2fsprogs nbd-client kmod patchelf xz-utils
    # VMs on a node with vhost-user: Open vSwitch with DPDK (its mempools need the ring driver), and libvirt without its services.
    openvswitch-switch-dpdk librte-mempool-ring23
    libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients iperf3
    # A boot loader for the disks of VMs: files alone, nothing of this machine's own boot is touched.
    grub-pc-bin
)

# QEMU 10 from bookworm-backports (qemu-img, qemu-storage-daemon, a machine): bookworm's 7.2 crashes under vhost-user.
# With what they need about 18 MB to download, 114 MB on disk.
backports=(qemu-utils qemu-system-common qemu-system-x86)

# One directory per content of the module files: an older checkout keeps its own tools. In it are links into the modules'
# own directories: a change of one module builds no other anew.
hash=$(cd "$here" && cat "${modules[@]/%//go.mod}" "${modules[@]/%//go.sum}" coredns/main.go | sha256sum | cut -c1-16)
tools=$cache/tools/$hash
bin=$tools/bin

if [[ ${1:-} == --print-bin ]]; then
    echo "$bin"
    exit 0
fi

say() { printf '[setup %4ds] %s\n' "$SECONDS" "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

mkdir -p "$cache"
exec 9>"$cache/setup.lock"
flock -n 9 || { say "another set-up is running: waiting for it"; flock 9; }

missing_packages() {
    local p
    for p in "${packages[@]}"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null) == installed ]] || echo "$p"
    done
}

missing_backports() {
    local p
    for p in "${backports[@]}"; do
        dpkg --compare-versions "$(dpkg-query -W -f '${Version}' "$p" 2>/dev/null)" ge 1:10 || echo "$p"
    done
}

debian_mirror() {
    local mirror
    mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' | sed -n 's/^bookworm //p' | head -n 1)
    echo "${mirror:?no source of Debian 12 (bookworm) in the sources of apt: add one}"
}

debian_source() { # mirror suite
    printf '%s\n' 'Types: deb' "URIs: $1" "Suites: $2" 'Components: main' \
        'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg'
}

# A source file of its own if no source has QEMU 10: from the mirror that bookworm itself comes from. Backports packages are
# taken only where they are asked for.
add_backports() {
    [[ $(apt-cache policy qemu-utils) == *bookworm-backports* ]] && return
    local mirror
    mirror=$(debian_mirror)
    say "packages: adding bookworm-backports to apt's sources"
    debian_source "$mirror" bookworm-backports >/etc/apt/sources.list.d/outboard-backports.sources
    apt-get update -qq >"$cache/apt.log" 2>&1 ||
        { tail -n 20 "$cache/apt.log" >&2; die "apt-get update failed: see $cache/apt.log"; }
}

apt_install() {
    apt-get install -y -qq --no-install-recommends "$@" >"$cache/apt.log" 2>&1 ||
        { apt-get update -qq >>"$cache/apt.log" 2>&1 &&
          apt-get install -y -qq --no-install-recommends "$@" >>"$cache/apt.log" 2>&1; } ||
        { tail -n 20 "$cache/apt.log" >&2; die "apt-get install failed: see $cache/apt.log"; }
}

install_packages() {
    local missing newer
    mapfile -t missing < <(missing_packages)
    mapfile -t newer < <(missing_backports)
    if ((${#missing[@]} + ${#newer[@]} == 0)); then
        say "packages: all $((${#packages[@]} + ${#backports[@]})) there"
        return
    fi
    ((EUID == 0)) || die "packages are missing (${missing[*]} ${newer[*]}) and only root can install them: run 'sudo make setup'"
    if ((${#newer[@]} > 0)); then
        add_backports
    fi
    say "packages: installing ${missing[*]} ${newer[*]}"
    # The lab starts OVS, OVN, etcd and containerd itself, one set per node: the packages' services would be in the way.
    local policy=/usr/sbin/policy-rc.d ours=
    if [[ ! -e $policy ]]; then
        ours=$policy
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    # shellcheck disable=SC2064 # the path is wanted as it is now
    [[ -z $ours ]] || trap "rm -f '$ours'" EXIT
    export DEBIAN_FRONTEND=noninteractive
    apt_install "${missing[@]}"
    ((${#newer[@]} == 0)) || apt_install -t bookworm-backports "${newer[@]}"
    [[ -z $ours ]] || rm -f "$ours"
    trap - EXIT
}

# There are two programs called ovs-vswitchd now. Nodes without DPDK take the one that needs no huge pages.
keep_plain_switch() {
    local plain=/usr/lib/openvswitch-switch/ovs-vswitchd
    [[ $(readlink -f /usr/sbin/ovs-vswitchd) == "$plain" ]] && return
    ((EUID == 0)) || die "ovs-vswitchd is $(readlink -f /usr/sbin/ovs-vswitchd): run 'update-alternatives --set ovs-vswitchd $plain' as root"
    update-alternatives --set ovs-vswitchd "$plain" >/dev/null
    say "packages: ovs-vswitchd is the one without DPDK again"
}

# qemu-storage-daemon and qemu-img of Debian 13, with libraries of their own, unpacked into the cache and never installed:
# two writes at once through a FUSE export of 10.0.2 corrupt data ("fuse: Copy write buffer content before polling", 10.0.3).
fetch_storage_daemon() {
    local dir=$cache/storage-daemon mirror work libraries program
    if [[ ! -e $dir/usr/bin/qemu-storage-daemon ]]; then
        mirror=$(debian_mirror)
        say "storage daemon: fetching Debian 13's qemu-utils"
        rm -rf "${dir:?}" "$dir".new.*
        work=$(mktemp -d "$dir.new.XXXXXX")
        mkdir -p "$work"/apt/{state/lists/partial,cache/archives/partial,sources} "$work/root"
        : >"$work/apt/state/status"
        debian_source "$mirror" trixie >"$work/apt/sources/trixie.sources"
        local apt=(apt-get -qq -o "Dir::State=$work/apt/state" -o "Dir::State::status=$work/apt/state/status" -o Dir::Etc::sourcelist=/dev/null
            -o "Dir::Cache=$work/apt/cache" -o "Dir::Etc::sourceparts=$work/apt/sources" -o APT::Sandbox::User=root)
        { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends --download-only qemu-utils; } >"$cache/apt.log" 2>&1 ||
            { tail -n 20 "$cache/apt.log" >&2; rm -rf "$work"; die "fetching qemu-utils of Debian 13 failed: see $cache/apt.log"; }
        local package
        for package in "$work"/apt/cache/archives/*.deb; do
            dpkg -x "$package" "$work/root"
        done
        libraries=$dir/usr/lib/x86_64-linux-gnu
        for program in qemu-storage-daemon qemu-img qemu-io; do
            patchelf --set-interpreter "$libraries/ld-linux-x86-64.so.2" --force-rpath --set-rpath "$libraries" "$work/root/usr/bin/$program"
        done
        mv "$work/root" "$dir"
        rm -rf "$work"
    fi
    for program in qemu-storage-daemon qemu-img qemu-io; do
        ln -sf "$dir/usr/bin/$program" "$bin/"
    done
    say "storage daemon: $("$bin/qemu-storage-daemon" --version | head -n 1)"
}

# The kernel of the host VM (e2e/src/host_vm): Debian's, unpacked into the cache and never installed. What is there stays,
# also when there is a newer one. Without what no such guest needs (400 MB otherwise).
fetch_kernel() {
    local dir=$cache/host-kernel
    [[ -e $dir/current/boot ]] && { say "host VM: $(readlink "$dir/current") there"; return; }
    local package new
    package=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
    [[ -n $package ]] || die "apt knows no linux-image-amd64: run 'apt-get update'"
    say "host VM: fetching $package"
    mkdir -p "$dir"
    rm -rf "${dir:?}"/new.*
    new=$(mktemp -d "$dir/new.XXXXXX")
    (cd "$new" && { apt-get download "$package" || { apt-get update -qq && apt-get download "$package"; }; }) >"$cache/apt.log" 2>&1 ||
        { tail -n 20 "$cache/apt.log" >&2; rm -rf "$new"; die "apt-get download $package failed: see $cache/apt.log"; }
    dpkg --fsys-tarfile "$new"/*.deb | tar x -C "$new" --exclude='./usr' --exclude='*/System.map*' --exclude='*/kernel/sound' \
        --exclude='*/drivers/gpu' --exclude='*/drivers/media' --exclude='*/drivers/staging' --exclude='*/net/wireless'
    rm -f "$new"/*.deb
    depmod -b "$new" "$(ls "$new/lib/modules")"
    rm -rf "${dir:?}/$package"
    mv "$new" "$dir/$package"
    ln -sfn "$package" "$dir/current"
    say "host VM: $package there"
}

# netdevsim, cards with a switch but no wires, for that kernel: Debian's kernels are built without it. Built from Debian's own
# source of that kernel; source and headers are unpacked and never installed.
build_netdevsim() {
    local root=$cache/host-kernel/current abi headers version series work
    abi=$(ls "$root/lib/modules")
    has_netdevsim "$root" "$abi" && { say "host VM: netdevsim there"; return; }
    version=$(version_of "linux-headers-$abi")
    if [[ -z $version ]]; then
        # Debian keeps one revision of a kernel: a newer one has taken the place of what is here.
        say "host VM: apt has no headers of $abi any more: taking the kernel that it has"
        apt-get update -qq >"$cache/apt.log" 2>&1 || die "apt-get update failed: see $cache/apt.log"
        rm -f "$root"
        fetch_kernel
        abi=$(ls "$root/lib/modules")
        version=$(version_of "linux-headers-$abi")
        [[ -n $version ]] || die "apt knows no linux-headers-$abi: run 'apt-get update'"
    fi
    headers=linux-headers-$abi
    series=${abi%.*}
    say "host VM: building netdevsim (log: $cache/netdevsim.log)"
    rm -rf "$cache"/netdevsim.*.d
    work=$(mktemp -d "$cache/netdevsim.XXXXXX.d")
    (
        cd "$work" &&
            apt-get download "$headers=$version" "linux-headers-${abi%-*}-common=$version" "linux-kbuild-$series=$version" \
                "linux-source-$series=$version" &&
            { dpkg --fsys-tarfile linux-source-*.deb | tar xO "./usr/src/linux-source-$series.tar.xz" | xz -dc |
                tar x --strip-components=3 "linux-source-$series/drivers/net/netdevsim"; } &&
            for package in linux-headers-*.deb linux-kbuild-*.deb; do dpkg -x "$package" root || exit; done &&
            # The one absolute path in the headers.
            sed -i "s|/usr/src/|$work/root/usr/src/|" "root/usr/src/$headers/Makefile" &&
            make -C "root/usr/src/$headers" M="$work/netdevsim" CONFIG_NETDEVSIM=m CONFIG_DEBUG_INFO_BTF_MODULES= modules &&
            strip --strip-debug netdevsim/netdevsim.ko
    ) >"$cache/netdevsim.log" 2>&1 ||
        { tail -n 20 "$cache/netdevsim.log" >&2; rm -rf "$work"; die "building netdevsim failed: see $cache/netdevsim.log"; }
    mkdir -p "$root/lib/modules/$abi/updates"
    mv "$work/netdevsim/netdevsim.ko" "$root/lib/modules/$abi/updates/"
    rm -rf "$work"
    depmod -b "$root" "$abi"
    say "host VM: netdevsim built"
}

has_netdevsim() { # ROOT ABI
    grep -q '/netdevsim.ko:' "$1/lib/modules/$2/modules.dep"
}

version_of() { # PACKAGE
    apt-cache show "$1" 2>/dev/null | sed -n 's/^Version: //p' | head -n 1
}

need_toolchains() {
    PATH=$PATH:/usr/local/go/bin:${HOME:-/root}/.cargo/bin
    command -v go >/dev/null || die "Go is not there: install Go 1.26 or newer into /usr/local/go (go.dev/dl)"
    command -v cargo >/dev/null || die "Rust is not there: install rustup; rust-toolchain.toml names the version"
}

# The CRDs of snapshots: nothing of upstream's is kept in the checkout. The module is there once csi-snapshotter is built.
copy_snapshot_crds() { # TO
    local from
    from=$(cd "$here/csi-sidecars" && go list -mod=readonly -m -f '{{.Dir}}' github.com/kubernetes-csi/external-snapshotter/client/v8)
    mkdir -p "$1"
    install -m 644 "$from"/config/crd/{snapshot,groupsnapshot}.storage.k8s.io_*.yaml "$1/"
}

build_module() {
    local module=$1 dir
    dir=$cache/modules/$module-$(cat "$here/$module"/* | sha256sum | cut -c1-16)
    if [[ -e $dir/bin ]]; then
        say "tools: $module there"
    else
        say "tools: building $module (log: $tools/$module.log)"
        local what=tool flags=() version
        case $module in
        kubernetes)
            version=$(sed -n 's/.*k8s.io\/kubernetes \(v[0-9.]*\).*/\1/p' "$here/kubernetes/go.mod" | head -n 1)
            local minor=${version#v1.}
            local x
            for x in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
                flags+=("-X $x.gitVersion=$version -X $x.gitMajor=1 -X $x.gitMinor=${minor%%.*} -X $x.gitTreeState=clean")
            done
            ;;
        coredns) what=. ;;
        esac
        rm -rf "$dir.new"
        mkdir -p "$dir.new/bin"
        (cd "$here/$module" && CGO_ENABLED=0 nice -n 5 \
            go build -mod=readonly -trimpath -buildvcs=false -ldflags "-s -w ${flags[*]:-}" -o "$dir.new/bin/" "$what") \
            >"$tools/$module.log" 2>&1 || { tail -n 20 "$tools/$module.log" >&2; die "building $module failed: see $tools/$module.log"; }
        [[ $module != csi-sidecars ]] || copy_snapshot_crds "$dir.new/snapshot-crds"
        mv "$dir.new" "$dir"
        say "tools: $module built"
    fi
    ln -sf "$dir"/bin/* "$bin/"
    # A directory of links: kubectl follows no link to a directory.
    [[ $module != csi-sidecars ]] || { mkdir -p "$tools/snapshot-crds" && ln -sf "$dir"/snapshot-crds/* "$tools/snapshot-crds/"; }
}

install_packages
keep_plain_switch
fetch_kernel
build_netdevsim
need_toolchains
mkdir -p "$bin"
fetch_storage_daemon
for module in "${modules[@]}"; do
    build_module "$module"
done
say "done: $bin"
