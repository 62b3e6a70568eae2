#!/usr/bin/python3
"""On a file system that shares extents a snapshot's memory image takes the space of what changed since its parent's, and is as
whole and as independent as any."""

import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import main, sbin, sha256, wait_until  # noqa: E402
from small_disk import MIB, small_disk  # noqa: E402

ROOM_MIB = 4096
COUNT = 10
FILLED_MIB = 48


def used_mib(disk):
    os.sync()
    seen = os.statvfs(disk.folder)
    return (seen.f_blocks - seen.f_bfree) * seen.f_frsize / MIB


def extents(file):
    """(blocks, is it shared?) of each extent, as the kernel tells filefrag; a block is 4096 bytes."""
    told = subprocess.run([sbin("filefrag"), "-v", "-b4096", str(file)], capture_output=True, text=True, check=True).stdout
    rows = [line.split(":") for line in told.splitlines() if line.strip()[:1].isdigit()]
    return [(int(row[3]), "shared" in row[-1]) for row in rows]


def shared_part(file):
    found = extents(file)
    return sum(blocks for blocks, is_shared in found if is_shared) / sum(blocks for blocks, _ in found)


def ten_snapshots(vm, console, disk):
    """[(GUID, the memory's hash in the guest, MiB used since the first was begun)]"""
    taken, before = [], used_mib(disk)
    for number in range(COUNT):
        console.command(f"fill {FILLED_MIB} 1") if number == 0 else time.sleep(0.3)
        guid = vm.snapshot(f"s{number}")["guid"]
        taken.append((guid, sha256(vm.memory_file(guid)), used_mib(disk) - before))
    return taken


def goes_back(vm, nonce, guid):
    vm.do("apply", guid, "--verify")
    step = vm.console().step()
    assert (step.nonce, step.memory) == (nonce, step.disk), (step, nonce)


def ten_take_little_more_than_one(home, kind):
    with small_disk(home, home.machines, ROOM_MIB, kind=kind) as disk:
        vm, console = home.booted_guest()
        nonce = console.step().nonce
        taken = ten_snapshots(vm, console, disk)
        first, last = taken[0][2], taken[-1][2]
        assert first > FILLED_MIB, first
        assert last < 2 * first, f"one snapshot takes {first:.0f} MiB, ten take {last:.0f} MiB"
        for guid, _, _ in taken:
            part = shared_part(vm.memory_file(guid))
            assert part > 0.5, f"{part:.2f} of {guid}.bin is shared"
        for guid, _, _ in reversed(taken):
            goes_back(vm, nonce, guid)
        gone = {taken[n][0] for n in (0, 4, 9)}
        for guid in gone:
            vm.do("delete", guid)
        wait_until(lambda: not any(vm.memory_file(guid).exists() for guid in gone), 60, "what was deleted to go")
        for guid, content, _ in taken:
            if guid not in gone:
                assert sha256(vm.memory_file(guid)) == content
                goes_back(vm, nonce, guid)


def claim_on_xfs_ten_snapshots_take_little_more_space_than_one(home):
    ten_take_little_more_than_one(home, "xfs")


def claim_on_btrfs_ten_snapshots_take_little_more_space_than_one(home):
    ten_take_little_more_than_one(home, "btrfs")


def claim_memory_saved_from_a_restored_guest_is_shared_with_what_it_was_restored_from(home):
    with small_disk(home, home.machines, ROOM_MIB, kind="xfs"):
        vm, console = home.booted_guest()
        console.command(f"fill {FILLED_MIB} 1")
        nonce = console.step().nonce
        point = vm.snapshot("point")["guid"]
        content = sha256(vm.memory_file(point))
        for number in range(3):
            goes_back(vm, nonce, point)
            branch = vm.snapshot(f"branch {number}")["guid"]
            assert shared_part(vm.memory_file(branch)) > 0.5
            assert sha256(vm.memory_file(point)) == content
        vm.do("pause")
        paused = vm.snapshot("of a paused guest")["guid"]
        assert shared_part(vm.memory_file(paused)) > 0.5
        vm.do("resume")
        vm.do("apply", paused, "--verify")
        vm.do("resume")
        assert vm.console().step().nonce == nonce


main(globals())
