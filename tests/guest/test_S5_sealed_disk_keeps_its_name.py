#!/usr/bin/python3
"""S5: the file that took the writes becomes the point in time, under its name; the new working disk is its child."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import GUID, VhdHeader, identity, main, xml_disks  # noqa: E402


def claim_three_snapshots_in_succession_make_a_chain_of_read_only_points(home):
    vm, console = home.booted_guest()
    tops, sealed, snapshots = [vm.disk()], {}, []
    for number in range(3):
        assert console.run(f"echo {number} > /disk/file{number}; sync")[0] == 0
        snapshots.append(vm.snapshot(f"s{number}")["guid"])
        sealed[tops[-1]] = None
        tops.append(vm.disk())
        for image in sealed:  # what became a point in time earlier is as it was then
            now = identity(image)
            assert sealed[image] in (None, now), f"{image} was written after it had become a point in time"
            sealed[image] = now

    assert len(set(tops)) == 4
    for child, parent in zip(tops[1:], tops):
        assert VhdHeader(child).parent_id == VhdHeader(parent).id, child
        assert VhdHeader(child).kind == 4
        assert Path(VhdHeader(child).parent_name.replace("\\", "/")).name == parent.name, VhdHeader(child).parent_name
        assert GUID.match(child.stem.rpartition("_")[2]), child
    for guid, top in zip(snapshots, tops):
        assert xml_disks(vm.snapshot_xml(guid), vm.folder) == [top], "a snapshot names the disk that it sealed"

    parents = {s["guid"]: s["parent"] for s in vm.do("tree")["snapshots"]}
    assert parents == {snapshots[0]: None, snapshots[1]: snapshots[0], snapshots[2]: snapshots[1]}, parents
    assert console.run("cat /disk/file?") == (0, ["0", "1", "2"])


def claim_sealed_disk_has_its_guests_writes_and_none_of_later(home):
    vm, console = home.booted_guest()
    vm.snapshot("one")
    middle = vm.disk()
    assert console.run("echo early > /disk/early; sync")[0] == 0
    vm.snapshot("two")
    point = identity(middle)
    assert console.run("rm /disk/early; dd if=/dev/zero of=/disk/late bs=64k count=64 2>&1; sync")[0] == 0
    vm.do("stop", "--force")
    assert identity(middle) == point


main(globals())
