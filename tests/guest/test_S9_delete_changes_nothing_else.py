#!/usr/bin/python3
"""S9: a snapshot that is deleted takes nothing from any other, nor from the VM, whatever becomes of its disk."""

import hashlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import file_system_check, flattened_by_7zip, main, mark, marks, xml_disks  # noqa: E402


def disks(vm):
    """What 7-Zip reads of each snapshot's disk."""
    found = {}
    for snapshot in vm.do("tree")["snapshots"]:
        content = flattened_by_7zip(xml_disks(vm.snapshot_xml(snapshot["guid"]), vm.folder)[0])
        assert file_system_check(content) == "", snapshot
        found[snapshot["name"]] = hashlib.sha256(content).hexdigest()
    return found


def claim_what_is_left_goes_on_with_its_memory_on_merged_disks(home):
    vm, console = home.booted_guest()
    for name in ("one", "two", "three", "four"):
        mark(console, name)
        vm.snapshot(name)
    vm.do("apply", "two")
    console = vm.console()
    mark(console, "branch")
    vm.snapshot("branch")
    mark(console, "now")
    vm.do("stop", "--force")
    before = disks(vm)
    # In the middle of a branch; below two branches, which then lie on the base; and the root.
    merged = [m for name in ("three", "two", "one") for m in vm.do("delete", name)["merged"]]
    assert len(merged) == 2 and not any(Path(m["path"]).exists() for m in merged), merged
    assert vm.do("tree")["merging"][0]["state"] == "kept" and vm.do("check")["faults"] == []
    assert disks(vm) == {name: before[name] for name in ("four", "branch")}
    for name in ("four", "branch"):
        vm.do("apply", name)
        console = vm.console()
        assert marks(console) == [name, name]
        mark(console, "again")
    vm.do("stop", "--force")
    vm.do("delete", "four")
    vm.do("delete", "branch")
    assert vm.disk() == vm.folder / "g.vhd" and vm.do("tree")["merging"] == []
    assert file_system_check(flattened_by_7zip(vm.disk())) == ""


main(globals())
