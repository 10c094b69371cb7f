# Reads, past the page cache, all blocks that the writer had on the disk, and checks number and checksum of each.
# $1 file or disk; $2 as for the writer; $3 the last block that was acknowledged. Prints how many were read.
blocks=$(($3 + 1)) oldest=0
# Of a ring only the newest are left.
[ "$2" = 0 ] || [ $blocks -le "$2" ] || { oldest=$((blocks - $2)) && blocks=$2; }
dd if="$1" bs=4096 count=$blocks iflag=direct 2>/tmp/said | {
    place=0
    while read -r i body sum; do
        has=$(printf '%s %s' "$i" "$body" | md5sum)
        [ "${has%% *}" = "$sum" ] || { echo "the block at $place has a wrong checksum: it says that it is block $i"; exit 1; }
        expected=$i
        [ "$2" = 0 ] || expected=$((i % $2))
        [ "$expected" = $place ] && [ "$i" -ge $oldest ] || { echo "at $place is block $i; acknowledged were $oldest to $3"; exit 1; }
        place=$((place + 1))
    done
    [ $place = $blocks ] || { echo "only $place of $blocks blocks are there: $(cat /tmp/said)"; exit 1; }
    echo $place
}
