#!/usr/bin/python3
"""Other operations come between the merges of a guest that runs, with more than one disk: every snapshot keeps its bytes, and the guest its
own."""

import hashlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import flattened_by_7zip, main, marks, wait_until, xml_disks  # noqa: E402

DEADLINE_S = 90


def contents(vm, without=()):
    """What the disks of each snapshot hold, by 7-Zip."""
    return {s["guid"]: [hashlib.sha256(flattened_by_7zip(disk)).hexdigest()
                        for disk in xml_disks(vm.snapshot_xml(s["guid"]), vm.folder)]
            for s in vm.do("tree")["snapshots"] if s["guid"] not in without}


def change(console, number):
    """Something new on both disks."""
    script = (f"dd if=/dev/urandom of=/dev/vdb bs=1M count=3 seek={2 * number} && dd if=/dev/urandom of=/disk/data bs=1M count=4 && "
              f"echo {number} > /disk/mark && echo {number} > /tmp/mark && sync")
    assert console.run(script)[0] == 0


def merged(vm):
    wait_until(lambda: all(one["state"] == "kept" for one in vm.do("tree")["merging"]), DEADLINE_S, "the merges")


def claim_no_snapshot_changes_whatever_comes_between_two_merges(home):
    vm, console = home.booted_guest(disks=("64M,bus=virtio", "16M,bus=virtio"))
    guid = []
    for number in range(4):
        change(console, number)
        guid.append(vm.snapshot(f"s{number}")["guid"])
    change(console, 4)
    before = contents(vm)

    vm.do("delete", guid[1])
    beside = vm.snapshot("beside")["guid"]
    change(console, 5)
    vm.do("delete", beside)  # the newest: the tops are sealed for it, both disks'
    answer = vm.do("apply", guid[2], "--snapshot-first")
    console = vm.console()
    assert marks(console) == ["2", "2"]
    first = answer["first"]["guid"]
    change(console, 6)
    vm.do("delete", guid[3])
    merged(vm)
    after = contents(vm, without=(first,))
    assert after == {g: before[g] for g in (guid[0], guid[2])}, (before, after)
    vm.do("apply", first)
    assert marks(vm.console()) == ["5", "5"]
    vm.do("stop", "--force")
    assert vm.do("check")["faults"] == []


main(globals())
