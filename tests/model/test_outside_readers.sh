#!/bin/sh
# Programs that are not ours read what we write, and we read what they write.
set -eu

lab=$DISK_LAB
dir=$(mktemp -d "${TMPDIR:-/tmp}/bough-readers.XXXXXX")
mounted=
cleanup() {
    [ -z "$mounted" ] || fusermount -u "$mounted" 2>/dev/null || umount "$mounted" || true
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

have() { command -v "$1" >/dev/null; }
sum() { sha256sum | cut -d' ' -f1; }
same() { # WHAT WANT HAVE
    [ "$2" = "$3" ] || { echo "not ok: $1: $3 instead of $2"; exit 1; }
    echo "ok: $1"
}

have 7zz && have qemu-img || { echo "skipped: 7zz or qemu-img is not installed"; exit 77; }

for seed in 1 2 3; do
    for align in 512 4096; do
        d=$dir/$seed-$align
        mkdir "$d"
        top=$("$lab" history "$d" "$seed" "$align")
        want=$(sum <"$d/flat.raw")
        same "bough reads the top, seed $seed, requests of $align" "$want" "$("$lab" read "$top" | sum)"
        same "7-Zip reads the top, seed $seed, requests of $align" "$want" "$(7zz e -so "$top" | sum)"
        # QEMU may see images without a parent only.
        qemu-img convert -f vpc -O raw "$d/base.vhd" "$d/qemu.raw"
        same "qemu-img reads the base, seed $seed, requests of $align" "$(sum <"$d/base.raw")" "$(sum <"$d/qemu.raw")"
        # libvhdi misreads bitmap bytes that are neither 00 nor ff: only where all is aligned to 4 KiB.
        if [ "$align" = 4096 ] && have vhdimount && [ -w /dev/fuse ]; then
            mkdir "$d/mnt"
            if vhdimount "$top" "$d/mnt" >/dev/null 2>&1; then
                mounted=$d/mnt
                last=$(ls "$mounted" | sort -V | tail -n 1)
                same "libvhdi reads the top, seed $seed" "$want" "$(sum <"$mounted/$last")"
                fusermount -u "$mounted" 2>/dev/null || umount "$mounted"
                mounted=
            else
                echo "skipped: vhdimount cannot mount here"
            fi
        fi
        rm -rf "$d"
    done
done

qemu-img create -q -f raw "$dir/raw" 40M
for kind in fixed dynamic; do
    qemu-img convert -f raw -O vpc -o subformat=$kind "$dir/raw" "$dir/empty-$kind.vhd"
    "$lab" history "$dir" 9 512 >/dev/null
    qemu-img convert -f raw -O vpc -o subformat=$kind,force_size=on "$dir/flat.raw" "$dir/$kind.vhd"
    same "bough reads qemu-img's $kind image" "$(sum <"$dir/flat.raw")" "$("$lab" read "$dir/$kind.vhd" | sum)"
    qemu-img convert -f vpc -O raw "$dir/empty-$kind.vhd" "$dir/back.raw"
    same "the size of qemu-img's $kind image is that of its geometry" "$(sum <"$dir/back.raw")" \
        "$("$lab" read "$dir/empty-$kind.vhd" | sum)"
    rm -f "$dir"/*.avhd "$dir/base.vhd"
done
