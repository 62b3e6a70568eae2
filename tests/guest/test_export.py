#!/usr/bin/python3
"""A snapshot with memory as a machine of its own, taken from a VM that runs; and a Saved VM that goes to another home with its tree."""

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import VM, VhdHeader, chain, flattened_by_7zip, main, memory_counters, xml_disks  # noqa: E402


def claim_exported_snapshot_of_a_running_vm_goes_on_as_a_vm_of_its_own(home):
    vm, console = home.booted_guest()
    assert console.run("echo kept > /disk/file; sync")[0] == 0
    console.command("fill 24 7")
    hash_then = console.command("hash")
    vm.snapshot("first")
    assert console.run("echo later > /disk/file2; sync")[0] == 0
    point = vm.snapshot("point")["guid"]
    ((nonce, counter),) = memory_counters(vm.memory_file(point))
    content = flattened_by_7zip(xml_disks(vm.snapshot_xml(point), vm.folder)[0])
    assert console.run("rm /disk/file; sync")[0] == 0
    console.command("fill 24 8")

    vm.do("export", point, home.dir / "out", "--name", "other")
    assert vm.state() == "running" and console.step().nonce == nonce, "the VM has gone on meanwhile"
    home.bough("import", home.dir / "out", "--trust")  # its kernel lies elsewhere
    other = VM(home, "other")
    assert other.guid != vm.guid and other.state() == "saved"
    (disk,) = xml_disks(other.xml, other.folder)
    assert chain(disk) == [disk] and VhdHeader.kind_of(disk) == 3 and flattened_by_7zip(disk) == content
    assert other.do("check")["faults"] == []

    assert other.do("start")["state"] == "running"  # beside the first
    again = other.console()
    step = again.step()
    assert step.nonce == nonce and counter <= step.memory <= counter + 2000, (step, nonce, counter)
    assert again.command("hash") == hash_then, "memory is not as it was"
    assert again.run("cat /disk/file /disk/file2") == (0, ["kept", "later"])
    assert again.run("echo its own > /disk/file; sync")[0] == 0
    other.do("stop", "--force")
    assert vm.state() == "running" and console.run("cat /disk/file2") == (0, ["later"])


def claim_saved_vm_goes_to_another_home_with_its_snapshots(home):
    vm, console = home.booted_guest(nic="user")
    nonce = console.step().nonce
    point = vm.snapshot("point")["guid"]
    vm.do("save")
    vm.do("export", home.dir / "out")
    shutil.rmtree(vm.folder)
    home.bough("import", home.dir / "out", "--trust", "--copy", "--name", "moved")
    moved = VM(home, "moved")
    assert moved.guid != vm.guid and moved.state() == "saved" and moved.do("check")["faults"] == []
    shutil.rmtree(home.dir / "out")
    moved.do("start")
    assert moved.console().step().nonce == nonce
    ((_, counter),) = memory_counters(moved.memory_file(point))
    assert moved.do("apply", "point")["state"] == "running"
    step = moved.console().step()
    assert step.nonce == nonce and counter <= step.memory <= counter + 2000, (step, counter)


main(globals())
