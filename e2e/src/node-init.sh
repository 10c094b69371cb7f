# Makes the mount and UTS namespaces of a lab node and then only holds them.
# $1 the node's name, $2 its directory in the lab's state
set -e
name=$1 dir=$2
hostname "$name"
mount --make-rprivate /
mkdir -p "$dir/kubelet" "$dir/containerd" "$dir/outboard"
# What the node writes below these stays the node's; what the machine has there is below it.
for tree in etc opt var/lib var/log; do
    mkdir -p "$dir/tree/$tree/upper" "$dir/tree/$tree/work"
    mount -t overlay overlay -o "lowerdir=/$tree,upperdir=$dir/tree/$tree/upper,workdir=$dir/tree/$tree/work" "/$tree"
done
# The machine's own mounts would stay below the node's /run, under the same paths: containerd judges a path by them.
awk '$5 ~ "^/run/" {print $5}' /proc/self/mountinfo | sort -r | while read -r below; do
    # Another lab's may be going away by itself at this moment.
    umount "$below" || if grep -qF " $below " /proc/self/mountinfo; then exit 1; fi
done
mount -t tmpfs -o mode=755 tmpfs /run
# Pods get the node's mounts under these, and mount into them (HostToContainer, Bidirectional).
mount --make-rshared /run
rm -rf /etc/openvswitch /etc/ovn /etc/cni /etc/kubernetes /opt/cni
rm -rf /var/lib/openvswitch /var/lib/ovn /var/lib/cni /var/lib/outboard /var/lib/kubelet /var/lib/containerd
mkdir -p /run/netns /run/lock /run/outboard
mkdir -p /etc/cni/net.d /etc/kubernetes/manifests /opt/cni/bin /var/lib/kubelet /var/lib/containerd
mount --bind "$dir/kubelet" /var/lib/kubelet
mount --make-rshared /var/lib/kubelet
# volumes' images are read and written past the page cache: not through an overlay
mkdir -p /var/lib/outboard
mount --bind "$dir/outboard" /var/lib/outboard
# overlayfs snapshots cannot lie on an overlay
mount --bind "$dir/containerd" /var/lib/containerd
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0
ip link set lo up
: >"$dir/ready"
exec sleep infinity
