#!/usr/bin/env python3
"""After each history of test_disk_model, programs that are not ours read what it left, byte by byte as the model says.

outside_after_histories.py [HISTORIES [FIRST_SEED [LAYERS]]]      $DISK_MODEL, and $BOUGH for `bough disk check`

7-Zip reads the top, the base and one layer between of each history. QEMU reads the base; it must never see an image that has
a parent. libvhdi reads those of every third seed, whose requests and sizes are whole 4 KiB: it misreads a bitmap byte that is
neither 00 nor FF. It and 7-Zip stop at the end of a parent that is smaller than its child, where zeros follow; up to there
they are compared. libvhdi takes an image's original size for its size, so one that was made larger ends early for it, and it
mixes up reads over several blocks of a parent, so it is asked for 4 KiB at a time. QEMU overlooks the bitmaps of blocks below
4 KiB; libvhdi refuses those.

A seed that fails is named; what it left is made again by `test_disk_model 1 SEED LAYERS FOLDER`.
"""

import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

try:
    import pyvhdi
except ImportError:
    pyvhdi = None

MODEL = os.environ["DISK_MODEL"]
BOUGH = os.environ.get("BOUGH")
CHUNK = 1 << 20
SEVEN_ZIP_CHUNK = 1 << 17


class Different(Exception):
    pass


class Reader:
    """Counts what it has read whole, and up to the end of a smaller parent."""

    def __init__(self, name):
        self.name, self.whole, self.parts = name, 0, 0

    def compare(self, read, image, raw, limit):
        """read(length) gives the next bytes. The model's bytes are compared up to limit."""
        name, size = os.path.basename(image), os.path.getsize(raw)
        with open(raw, "rb") as model:
            for offset in range(0, min(size, limit), CHUNK):
                want = model.read(min(CHUNK, size - offset, limit - offset))
                have = read(len(want))
                if want != have:
                    at = next((i for i in range(min(len(want), len(have))) if want[i] != have[i]), len(have))
                    raise Different(f"{self.name} on {name}: not the model's byte at {offset + at}")
        if limit < size:
            self.parts += 1
        elif read(1):
            raise Different(f"{self.name} on {name}: more than {size} bytes")
        else:
            self.whole += 1


def parent_of(file, image):
    name = file.parent_filename
    return os.path.join(os.path.dirname(image), re.split(r"[\\/]", name)[-1]) if name else None


def libvhdi_chain(image):
    """Put together by hand: each file's parent by the name that it gives."""
    chain, path = [], image
    while path:
        file = pyvhdi.file()
        file.open(path)
        if chain:
            chain[-1].set_parent(file)
        chain.append(file)
        path = parent_of(file, image)
    return chain


def current_size(image):
    with open(image, "rb") as file:
        file.seek(-512, os.SEEK_END)
        return int.from_bytes(file.read(512)[48:56], "big")


def block_size(image):
    with open(image, "rb") as file:
        head = file.read(1536)
    fixed = head[:8] != b"conectix" or head[512:520] != b"cxsparse"
    return 1 << 31 if fixed else int.from_bytes(head[544:548], "big")


def read_with_7zip(reader, image, raw, images):
    process = subprocess.Popen(["7zz", "e", "-so", "-tvhd", image], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        limit = min(current_size(each) for each in images)
        if limit < os.path.getsize(raw):
            limit = limit // SEVEN_ZIP_CHUNK * SEVEN_ZIP_CHUNK  # it drops what it has of a piece that it cannot read whole
        reader.compare(process.stdout.read, image, raw, limit)
        process.stdout.close()
        error = process.stderr.read().decode()
        if process.wait() != 0 and limit >= os.path.getsize(raw):
            raise Different(f"7-Zip on {os.path.basename(image)}: {error}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def read_with_libvhdi(reader, image, raw, images):
    chain = libvhdi_chain(image)

    def read(length):
        data = b""
        while len(data) < length and (part := chain[0].read_buffer(min(4096, length - len(data)))):
            data += part
        return data

    try:
        reader.compare(read, image, raw, min(file.media_size for file in chain))
    finally:
        for file in chain:
            file.close()


def read_with_qemu(reader, image, raw, images):
    if len(images) > 1 or block_size(image) < 4096:
        return
    flat = raw + ".qemu"
    subprocess.run(["qemu-img", "convert", "-f", "vpc", "-O", "raw", image, flat], check=True)
    with open(flat, "rb") as file:
        reader.compare(file.read, image, raw, os.path.getsize(raw))
    os.unlink(flat)


def check_with_bough(reader, image, raw, images):
    done = subprocess.run([BOUGH, "disk", "check", image], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise Different(f"bough disk check {os.path.basename(image)}: {done.stdout}")
    reader.whole += 1


def number_of(image):
    return int(re.findall(r"[0-9]+", os.path.basename(image))[0])


def history(seed, layers, folder, readers):
    subprocess.run([MODEL, "1", str(seed), str(layers), folder], check=True, stdout=subprocess.DEVNULL)
    images = sorted(glob.glob(os.path.join(folder, "*vhd")), key=number_of)
    for raw in glob.glob(os.path.join(folder, "*.raw")):
        below = [image for image in images if number_of(image) <= number_of(raw)]
        for reader, read in readers:
            if reader.name != "libvhdi" or seed % 3 == 0:
                read(reader, below[-1], raw, below)


def main():
    histories, first, layers = (int(word) for word in sys.argv[1:] + ["12", "1", "12"][len(sys.argv) - 1:])
    if not shutil.which("7zz"):
        print("skipped: 7zz is not installed")
        return 77
    readers = [(Reader("7-Zip"), read_with_7zip)]
    if shutil.which("qemu-img"):
        readers.append((Reader("qemu-img"), read_with_qemu))
    if pyvhdi:
        readers.append((Reader("libvhdi"), read_with_libvhdi))
    if BOUGH:
        readers.append((Reader("bough disk check"), check_with_bough))
    failed = 0
    for seed in range(first, first + histories):
        with tempfile.TemporaryDirectory(prefix="bough-outside-") as folder:
            try:
                history(seed, layers, folder, readers)
            except (Different, OSError, subprocess.CalledProcessError) as error:
                print(f"seed {seed}, {layers} layers: {error}", flush=True)
                failed += 1
    print(f"{histories} histories from seed {first}, up to {layers} layers; images read as the model says: " + ", ".join(
        f"{reader.whole} by {reader.name}" + (f" and {reader.parts} up to the end of a smaller parent" if reader.parts else "")
        for reader, _ in readers) + f"; {failed} histories failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
