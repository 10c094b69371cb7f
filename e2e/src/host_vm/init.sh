#!/bin/busybox sh
# /init of the host VM: mounts, modules, then serves commands of the test over a virtio port until the test goes away.
#
# The test sends "<id> run <script in base64>" and "<id> kill"; "ready" is sent once, and for each script in any order
# with others: "<id> out <line>", at its end "<id> err <line>" for its standard error, "<id> exit <code>".
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /mnt /root /etc /usr/bin /usr/sbin /sbin
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /run
ip link set lo up
while read -r module; do
    insmod "/modules/$module" || echo "init: $module does not load"
done </modules/order

serve() {
    echo "$2" | base64 -d >"/run/$1.sh"
    {
        # A session of its own: a kill reaches all that the script has started.
        setsid sh -c 'echo $$ >"/run/$1.pid"; exec sh "/run/$1.sh"' sh "$1" </dev/null 2>"/run/$1.err" 3>&-
        echo $? >"/run/$1.code"
    } | while IFS= read -r line || [ -n "$line" ]; do
        printf '%s out %s\n' "$1" "$line" >&3
    done
    while IFS= read -r line || [ -n "$line" ]; do
        printf '%s err %s\n' "$1" "$line" >&3
    done <"/run/$1.err"
    printf '%s exit %s\n' "$1" "$(cat "/run/$1.code")" >&3
    rm -f "/run/$1.sh" "/run/$1.err" "/run/$1.code"
}

end() {
    until [ -s "/run/$1.pid" ]; do usleep 1000; done
    kill -9 -- "-$(cat "/run/$1.pid")" 2>/dev/null
}

# The port is made by a work item of the driver; without a daemon no event of it reaches a shell.
until set -- /dev/vport*p1 && [ -c "$1" ]; do usleep 10000; done
exec 3<>"$1"
echo ready >&3
while read -r id verb text <&3; do
    case $verb in
    run) serve "$id" "$text" & ;;
    kill) end "$id" & ;;
    esac
done
# The test has ended, in whatever way.
poweroff -f
