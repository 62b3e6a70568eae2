#!/usr/bin/python3
"""Every operation on a VM that is off, on a real file system with less and less space: what fails has changed nothing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import NO_SPACE, Skip, main, sha256, wait_until  # noqa: E402
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


def reading(home, vm, name):
    """What a snapshot (None: the VM) reads as."""
    raw = home.dir / "raw"  # on another file system
    settings = vm.do("settings", name) if name else vm.do("settings")
    disk = [d for d in settings["disks"] if d["bus"] == "virtio"][0]
    home.bough("disk", "convert", disk["path"], raw, "--format", "raw")
    found = sha256(raw)
    raw.unlink()
    return found


def readings(home, vm):
    """The same of all, by name."""
    return {name: reading(home, vm, name) for name in [s["name"] for s in vm.do("tree")["snapshots"]] + [None]}


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


def with_a_deleted_snapshot(home, disk, left):
    """A merge of 2 MiB is pending, with so many bytes free. The VM, and what is to be read whatever comes."""
    vm = home.create("v", "--disk", "8M,bus=virtio", "--nic", "none")
    write_disk(home, vm.disk(), (0, b"base" * 1024))
    vm.snapshot("one")
    write_disk(home, vm.disk(), *((at, os.urandom(256 * KIB)) for at in range(0, 8 * MIB, MIB)))
    vm.snapshot("two")
    before = readings(home, vm)
    del before["one"]
    disk.leave(left)
    return vm, before


def claim_merge_that_finds_no_space_is_pending_and_goes_on_when_there_is(home):
    with small_disk(home, home.machines, 32) as disk:
        vm, before = with_a_deleted_snapshot(home, disk, 64 * KIB)
        answer = vm.do("delete", "one")
        assert answer["merge_stopped"]["code"] == "no-space" and "needs about" in answer["merge_stopped"]["message"], answer
        merging = vm.do("tree")["merging"]
        assert [m["state"] for m in merging] == ["pending"] and "needs about" in merging[0]["reason"], merging
        assert "pending: needs about" in home.bough("tree", "v")
        assert readings(home, vm) == before
        needs = vm.do("merge", "--dry-run")
        assert 2000 * KIB <= needs["needs_bytes"] < 2100 * KIB and needs["free_bytes"] < 128 * KIB, needs
        files = contents(home.machines)
        result = home.run("merge", "v")
        assert result.returncode == NO_SPACE and "needs about" in result.stderr and "free" in result.stderr, result
        assert contents(home.machines) == files and sound(home), "nothing was begun"
        disk.make_room()
        assert vm.do("tree")["merging"][0]["reason"] is None
        home.bough("merge", "v")
        assert vm.do("tree")["merging"] == []
        assert readings(home, vm) == before and sound(home)


def claim_dry_run_of_a_delete_tells_what_its_merge_needs(home):
    with small_disk(home, home.machines, 32) as disk:
        vm, _before = with_a_deleted_snapshot(home, disk, 64 * KIB)
        needs = vm.do("delete", "one", "--dry-run")
        assert 2000 * KIB <= needs["needs_bytes"] < 2100 * KIB and needs["free_bytes"] < 128 * KIB, needs
        assert "needs about" in home.bough("delete", "v", "one", "--dry-run")


def claim_merge_that_takes_no_new_space_is_done_on_a_full_disk(home):
    """Both have written the same sectors."""
    with small_disk(home, home.machines, 32) as disk:
        vm = home.create("v", "--disk", "8M,bus=virtio", "--nic", "none")
        for name in ("one", "two", "three"):
            write_disk(home, vm.disk(), *((at, os.urandom(256 * KIB)) for at in range(0, 8 * MIB, MIB)))
            vm.snapshot(name)
        before = readings(home, vm)
        disk.leave(64 * KIB)
        free = disk.free_bytes()
        home.bough("delete", "v", "two")
        assert vm.do("tree")["merging"] == [] and disk.free_bytes() >= free + 1800 * KIB
        del before["two"]
        assert readings(home, vm) == before and sound(home)


def claim_of_two_merges_the_one_that_fits_is_done(home):
    with small_disk(home, home.machines, 32) as disk:
        vm = home.create("v", "--disk", "8M,bus=virtio", "--disk", "8M,bus=virtio", "--nic", "none")
        vm.snapshot("one")
        large, small = [d["path"] for d in vm.do("settings")["disks"] if d["bus"] == "virtio"]
        write_disk(home, large, *((at, os.urandom(256 * KIB)) for at in range(0, 8 * MIB, MIB)))
        write_disk(home, small, (0, os.urandom(8 * KIB)))
        vm.snapshot("two")
        disk.leave(200 * KIB)
        stopped = vm.do("delete", "one")["merge_stopped"]
        assert stopped["code"] == "no-space" and Path(large).name in stopped["message"], stopped
        assert [m["path"] for m in vm.do("tree")["merging"]] == [large] and not Path(small).exists()
        disk.make_room()
        home.bough("merge", "v")
        assert vm.do("tree")["merging"] == [] and sound(home)


def pending_reason(vm):
    return "".join(m["reason"] or "" for m in vm.do("tree")["merging"] if m["state"] == "pending")


def claim_merge_beside_a_guest_leaves_it_room(home):
    """Each second block has more than a sample of the blocks tells: the merge is begun, and finds on its way that it must not go on."""
    with small_disk(home, home.machines, 32, kind="ext2") as disk:
        vm = home.create("v", "--disk", "520M,bus=virtio", "--memory", "32M", "--nic", "none")
        vm.snapshot("one")
        write_disk(home, vm.disk(), *((block * 2 * MIB, os.urandom((64 if block % 2 else 4) * KIB)) for block in range(260)))
        vm.snapshot("two")
        before = reading(home, vm, "two")
        disk.leave(1500 * KIB)
        vm.do("start", "--paused")
        vm.do("delete", "one")
        wait_until(lambda: "left to the guest" in pending_reason(vm), 10, "the reason")
        assert home.run("merge", "v").returncode == NO_SPACE and disk.free_bytes() > 1 * MIB
        disk.give_back(3 * MIB)
        vm.do("notes", "two", "an operation")
        log = [p for p in home.runtime.glob("*/worker.log")][0]
        wait_until(lambda: "gives way to the guest" in log.read_text(), 20, "the merge to give way")
        wait_until(lambda: "left to the guest" in pending_reason(vm), 10, "the reason")
        assert 0 < disk.free_bytes() < 2 * MIB, disk.free_bytes()
        disk.make_room()
        vm.do("merge")
        assert not [m for m in vm.do("tree")["merging"] if m["state"] != "kept"]
        vm.do("stop", "--force")
        assert reading(home, vm, "two") == before and sound(home)


def claim_disk_merge_that_cannot_fit_is_not_begun(home):
    with small_disk(home, home.machines, 32) as disk:
        base, child = disk.folder / "base.vhd", disk.folder / "child.avhd"
        home.bough("disk", "create", base, "--size", "8M")
        home.bough("disk", "create", child, "--parent", base)
        write_disk(home, child, *((at, os.urandom(256 * KIB)) for at in range(0, 8 * MIB, MIB)))
        disk.leave(64 * KIB)
        files = contents(disk.folder)
        result = home.run("disk", "merge", child, "--into-base")
        assert result.returncode == NO_SPACE and "needs about" in result.stderr and contents(disk.folder) == files, result
        disk.make_room()
        home.bough("disk", "merge", child, "--into-base")


main(globals())
