#!/bin/sh
# Images by other writers read as their manifests say. They lie in $BOUGH_SAMPLES, or beside the source tree.
set -eu

samples=${BOUGH_SAMPLES:-$SOURCE_ROOT/../shared/samples}
[ -d "$samples" ] || { echo "skipped: no samples in $samples"; exit 77; }

dir=$(mktemp -d "${TMPDIR:-/tmp}/bough-samples.XXXXXX")
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM

for set in libvhd-gen libvhd-gen-4k; do
    mkdir "$dir/$set"
    for file in "$samples/$set"/*.xz; do
        xz -dc "$file" >"$dir/$set/$(basename "$file" .xz)"
    done
    while read -r want name; do
        have=$("$DISK_LAB" read "$dir/$set/$name" | sha256sum | cut -d' ' -f1)
        [ "$want" = "$have" ] || { echo "not ok: $set/$name: $have instead of $want"; exit 1; }
        echo "ok: $set/$name"
    done <"$samples/$set/MANIFEST.sha256-flattened"
    rm -r "${dir:?}/$set"
done

command -v qemu-img >/dev/null || { echo "skipped: qemu-img is not installed"; exit 0; }
for file in "$samples"/qemu-iotests/*.vhd.bz2; do
    image=$dir/$(basename "$file" .bz2)
    bzip2 -dc "$file" >"$image"
    # The first 300 MB: two of them are 127 GiB of nothing.
    qemu-img convert -O raw "$image" "$dir/raw"
    want=$(head -c 300000256 "$dir/raw" | sha256sum)
    have=$("$DISK_LAB" read "$image" 300000256 | sha256sum)
    size=$(stat -c %s "$dir/raw")
    [ "$want" = "$have" ] || { echo "not ok: $(basename "$image") differs from what QEMU reads"; exit 1; }
    [ "$("$DISK_LAB" size "$image")" = "$size" ] || { echo "not ok: $(basename "$image") is $size bytes for QEMU"; exit 1; }
    echo "ok: $(basename "$image"), $size bytes"
    rm -f "$image" "$dir/raw"
done
