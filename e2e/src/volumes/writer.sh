# Writes numbered, checksummed blocks of 4096 bytes, each one on the disk before the next begins, until /tmp/stop is there.
# $1 file or disk; $2 after so many blocks it begins anew at the front (0: never)
# A file that is there already is left as it is: its writer ran before, or elsewhere.
# Tells: /tmp/acked the last block on the disk; /tmp/errors what failed; /tmp/longest the longest time of one block, 1/100 s
trap 'exit 0' TERM
now() { read -r now _ </proc/uptime; now=${now%.*}${now#*.}; }
[ "$2" != 0 ] || [ ! -s "$1" ] || touch /tmp/stop
: >/tmp/errors
i=0 longest=0
while [ ! -e /tmp/stop ]; do
    body=$(head -c 2970 /dev/urandom | base64 | tr -d '\n')
    sum=$(printf '%s %s' "$i" "$body" | md5sum)
    place=$i
    [ "$2" = 0 ] || place=$((i % $2))
    now
    begun=$now
    if printf '%-4095s\n' "$i $body ${sum%% *}" | dd of="$1" bs=4096 iflag=fullblock seek=$place conv=notrunc,fsync 2>/tmp/said; then
        echo $i >/tmp/acked.new
        mv /tmp/acked.new /tmp/acked
        i=$((i + 1))
    else
        echo "block $i: $(cat /tmp/said)" >>/tmp/errors
        sleep 1
    fi
    now
    [ $((now - begun)) -le $longest ] || { longest=$((now - begun)) && echo $longest >/tmp/longest; }
done
: >/tmp/done
sleep infinity &
wait
