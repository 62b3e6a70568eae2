"""Guests that are one boot sector, from their assembly language."""

import os
import subprocess

from bough_test import TOP


def boot_sector_disk(home, source):
    """A disk of 1 MiB in home whose first sector is the guest of that file in tests/guest."""
    code, raw, image = (home.dir / name for name in ("guest.o", "guest.raw", "guest.vhd"))
    subprocess.run(["as", "--32", "-o", code, TOP / "tests/guest" / source], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-o", raw, code], check=True)
    os.truncate(raw, 1 << 20)
    home.bough("disk", "convert", raw, image)
    return image
