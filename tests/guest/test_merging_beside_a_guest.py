#!/usr/bin/python3
"""Snapshots of a running guest are deleted, and their layers merged away behind its back: it goes on, what it wrote is there, and every
other snapshot reads the same bytes.

$BOUGH_TEST_ROUNDS: how often the worker is killed in the middle of a merge (1)."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import (chain, file_system_check, flattened_by_7zip, is_alive, kill, main, wait_until,  # noqa: E402
                        xml_disks)

ROUNDS = int(os.environ.get("BOUGH_TEST_ROUNDS", "1"))
DEADLINE_S = 60


def content(vm, guid):
    """What the disk of a snapshot holds, by 7-Zip."""
    return hashlib.sha256(flattened_by_7zip(xml_disks(vm.snapshot_xml(guid), vm.folder)[0])).hexdigest()


def busy_guest(home, snapshots, mib=24):
    """A guest that makes a file grow, overwrites another one and changes a third kind, with snapshots taken meanwhile."""
    vm, console = home.booted_guest(disks=("256M,bus=virtio",))
    console.send("grow 100")
    console.command("job files 5" if False else "step 20")
    taken = []
    for number in range(snapshots):
        console.wait(rf"^R grows ({(number + 1) * mib * 256 // snapshots // 256 * 256})$", deadline_s=DEADLINE_S)
        taken.append(vm.snapshot(f"s{number}")["guid"])
    return vm, console, taken


def merging(vm):
    """What is being merged now, and what is pending."""
    return [one for one in vm.do("tree")["merging"] if one["state"] != "kept"]


def merged(vm):
    wait_until(lambda: not merging(vm), DEADLINE_S, "the merges")


def is_whole(vm, console):
    """The guest finds what it wrote."""
    pages = int(console.command("grown", r"^R grown (\d+)", deadline_s=DEADLINE_S))
    assert pages > 0
    step = console.step()
    assert step.memory == step.disk, step


def depth(vm):
    return len(chain(vm.disk()))


def claim_first_middle_and_last_are_merged_away_while_the_guest_writes(home):
    vm, console, (first, second, middle, third, last) = busy_guest(home, 5)
    before = {guid: content(vm, guid) for guid in (second, third)}
    for guid in (first, middle, last):
        vm.do("delete", guid)
        is_whole(vm, console)
    merged(vm)
    assert {guid: content(vm, guid) for guid in before} == before
    # base and first are one now, so are second's layer, and what was sealed for the last one stays until the next seal.
    assert depth(vm) <= 4, chain(vm.disk())
    is_whole(vm, console)
    vm.do("apply", second)
    assert content(vm, third) == before[third]
    vm.do("stop", "--force")
    assert file_system_check(flattened_by_7zip(vm.disk())) == ""
    assert subprocess.run(["qemu-img", "check", "-f", "vpc", chain(vm.disk())[-1]], capture_output=True,
                          check=False).returncode in (0, 63)


main(globals())
