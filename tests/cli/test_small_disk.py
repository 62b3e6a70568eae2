#!/usr/bin/python3
"""Every operation on a VM that is off, on a real file system with less and less space: what fails has changed nothing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import NO_SPACE, Skip, main, sha256  # noqa: E402
from cli_test import contents, write_disk  # noqa: E402
from small_disk import MIB, small_disk  # noqa: E402

KIB = 1 << 10
LEFT = (0, 4 * KIB, 8 * KIB, 12 * KIB, 16 * KIB, 24 * KIB, 40 * KIB, 64 * KIB, 96 * KIB, 160 * KIB)
LONG = os.environ.get("BOUGH_TEST_SMALL_DISKS") == "all"


def make(home):
    """one - two;  one - three - Now, each with what it has written."""
    vm = home.create("v", "--disk", "4M,bus=virtio", "--nic", "none")
    for number, name in enumerate(("one", "two", "three")):
        write_disk(home, vm.disk(), (number * MIB, name.encode() * 1024), (8192, name.encode() * 512))
        vm.snapshot(name)
        if name == "two":
            vm.do("apply", "one")
    write_disk(home, vm.disk(), (3 * MIB, b"now!" * 1024))
    return vm


def readings(home, vm):
    """What each snapshot and the VM read as, by name."""
    raw = home.dir / "raw"  # on another file system
    found = {}
    for name in [s["name"] for s in vm.do("tree")["snapshots"]] + [None]:
        settings = vm.do("settings", name) if name else vm.do("settings")
        disk = [d for d in settings["disks"] if d["bus"] == "virtio"][0]
        home.bough("disk", "convert", disk["path"], raw, "--format", "raw")
        found[name] = sha256(raw)
        raw.unlink()
    return found


def sound(home):
    result = home.run("check", "v", "--json")
    return result.returncode == 0 and not [f for f in json.loads(result.stdout)["faults"] if f["kind"] != "extra"]


# What is done, and which readings it may change.
OPERATIONS = [
    (["snapshot", "v", "--name", "four"], {"four"}),
    (["apply", "v", "two"], {None}),
    (["revert", "v"], {None}),
    (["apply", "v", "one", "--snapshot-first"], {None, "four"}),
    (["delete", "v", "two"], {"two"}),
    (["delete", "v", "one"], {"one"}),
    (["delete", "v", "one", "--subtree", "--yes"], {"one", "two", "three"}),
    (["set", "v", "disk=2M"], set()),
    (["set", "v", "notes=" + "n" * 3000], set()),
    (["rename-snapshot", "v", "two", "2"], {"two", "2"}),
    (["notes", "v", "two", "t" * 3000], set()),
    (["create", "w", "--disk", "4M", "--nic", "none"], set()),
]


def tried(home, disk, vm, left, arguments, may_change):
    """True: it failed for want of space, and nothing has happened."""
    before = readings(home, vm)
    disk.leave(left)
    files = contents(home.machines)
    result = home.run(*arguments)
    after = contents(home.machines)
    if result.returncode != 0:
        assert result.returncode == NO_SPACE, (left, arguments, result)
        changed = sorted(n for n in files.keys() | after.keys() if files.get(n) != after.get(n))
        assert not changed, (left, arguments, changed)
    disk.make_room()
    assert sound(home), (left, arguments)
    now = readings(home, vm)
    if result.returncode != 0:
        assert now == before, (left, arguments)
        return True
    different = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
    assert different <= may_change | {name for name in now if name not in before}, (left, arguments, different)
    return False


def all_operations(home, kind, mib):
    failed = points = 0
    with small_disk(home, home.machines, mib, kind=kind) as disk:
        vm = make(home)
        good = home.dir / "good"
        subprocess.run(["cp", "-a", vm.folder, good], check=True)
        for arguments, may_change in OPERATIONS:
            for left in LEFT if LONG else LEFT[len(arguments) % 2::2]:
                points += 1
                if not tried(home, disk, vm, left, arguments, may_change):
                    break
                failed += 1
            else:
                assert home.run(*arguments).returncode == 0, arguments
            for folder in home.machines.glob("[vw]"):
                shutil.rmtree(folder)
            subprocess.run(["cp", "-a", good, vm.folder], check=True)
    print(f"# {points} points, {failed} without space")
    assert failed > len(OPERATIONS), failed


def claim_operations_without_space_on_ext4_change_nothing(home):
    all_operations(home, "ext4", 24)


def claim_operations_without_space_on_xfs_change_nothing(home):
    if not LONG:
        raise Skip("in the long run (BOUGH_TEST_SMALL_DISKS=all)")
    all_operations(home, "xfs", 320)


def claim_merge_that_finds_no_space_is_pending_and_goes_on_when_there_is(home):
    with small_disk(home, home.machines, 32) as disk:
        vm = home.create("v", "--disk", "8M,bus=virtio", "--nic", "none")
        write_disk(home, vm.disk(), (0, b"base" * 1024))
        vm.snapshot("one")
        write_disk(home, vm.disk(), *((at, os.urandom(64 * KIB)) for at in range(0, 8 * MIB, MIB)))
        vm.snapshot("two")
        before = readings(home, vm)
        disk.leave(64 * KIB)
        home.bough("delete", "v", "one")
        merging = vm.do("tree")["merging"]
        assert [m["state"] for m in merging] == ["pending"], merging
        assert {k: v for k, v in readings(home, vm).items() if k != "one"} == {k: v for k, v in before.items() if k != "one"}
        assert home.run("merge", "v").returncode == NO_SPACE
        assert sound(home)
        disk.make_room()
        home.bough("merge", "v")
        assert vm.do("tree")["merging"] == []
        assert readings(home, vm) == {k: v for k, v in before.items() if k != "one"} and sound(home)


main(globals())
