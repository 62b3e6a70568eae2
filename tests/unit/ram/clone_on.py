#!/usr/bin/python3
"""The tests of cloned images on a file system that shares extents: clone_on.py CLONE-TEST xfs|btrfs. Needs root and loop
devices; skipped elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lib"))
from bough_test import Home, Skip  # noqa: E402
from small_disk import small_disk  # noqa: E402

SKIPPED = 77


def main():
    program, kind = sys.argv[1:]
    try:
        with Home() as home, small_disk(home, home.dir / "fs", 320, kind=kind) as disk:
            done = subprocess.run([program], env=dict(os.environ, BOUGH_CLONE_FOLDER=str(disk.folder)), check=False)
            sys.exit(done.returncode)
    except Skip as reason:
        print(f"skipped: {reason}")
        sys.exit(SKIPPED)


main()
