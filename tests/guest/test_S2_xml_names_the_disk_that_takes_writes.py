#!/usr/bin/python3
"""S2: the VM's XML names the disk file that takes all writes."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import identity, main  # noqa: E402


def write_in_guest(console, name):
    status, output = console.run(f"dd if=/dev/urandom of=/disk/{name} bs=64k count=32 2>&1; sync")
    assert status == 0, output


def claim_before_and_after_a_snapshot_only_the_file_that_the_xml_names_is_written(home):
    vm, console = home.booted_guest()
    base = vm.disk()
    assert base == vm.folder / "g.vhd", base
    before = base.stat().st_blocks
    write_in_guest(console, "a")
    assert base.stat().st_blocks >= before + 4096, "2 MiB were written and did not come to the file that the XML names"

    vm.snapshot()
    working = vm.disk()
    assert working.suffix == ".avhd" and working.parent == vm.disks_folder, working
    sealed, before = identity(base), working.stat().st_blocks
    write_in_guest(console, "b")
    assert working.stat().st_blocks >= before + 4096, "2 MiB were written and did not come to the file that the XML names"
    assert identity(base) == sealed, "the disk that is a point in time was written"


main(globals())
