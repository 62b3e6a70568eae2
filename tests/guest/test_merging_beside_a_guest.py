#!/usr/bin/python3
"""Snapshots of a running guest are deleted, and their layers merged away behind its back: it goes on, what it wrote is there, and every
other snapshot reads the same bytes.

$BOUGH_TEST_ROUNDS: how often the worker is killed in the middle of a merge (1)."""

import contextlib
import hashlib
import os
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import (chain, file_system_check, flattened_by_7zip, kill, main, wait_until, xml_disks)  # noqa: E402

ROUNDS = int(os.environ.get("BOUGH_TEST_ROUNDS", "1"))
DEADLINE_S = 60
PAGES_PER_MIB = 256


def content(vm, guid):
    """What the disk of a snapshot holds, by 7-Zip."""
    return hashlib.sha256(flattened_by_7zip(xml_disks(vm.snapshot_xml(guid), vm.folder)[0])).hexdigest()


@contextlib.contextmanager
def same_content(vm, *guids):
    before = {guid: content(vm, guid) for guid in guids}
    yield
    assert {guid: content(vm, guid) for guid in guids} == before


def busy_guest(home, snapshots, mib_each, mib=40):
    """A guest that makes a file grow, syncs it, and counts its steps on the disk, with snapshots taken meanwhile."""
    vm, console = home.booted_guest(disks=("256M,bus=virtio",))
    console.send(f"grow {mib}")
    taken = []
    for number in range(snapshots):
        console.wait(rf"^R grows ({(number + 1) * mib_each * PAGES_PER_MIB})$", deadline_s=DEADLINE_S)
        taken.append(vm.snapshot(f"s{number}")["guid"])
    return vm, console, taken


def unfinished(vm):
    """What is being merged now, and what is pending."""
    return [one for one in vm.do("tree")["merging"] if one["state"] != "kept"]


def merged(vm):
    wait_until(lambda: not unfinished(vm), DEADLINE_S, "the merges")


def goes_on(console):
    """The guest runs, and finds what it wrote."""
    assert int(console.command("grown", r"^R grown (\d+)", deadline_s=DEADLINE_S)) > 0
    step = console.step()
    assert step.memory == step.disk, step


def stops_whole(vm):
    if vm.state() != "off":
        vm.do("stop", "--force")
    assert file_system_check(flattened_by_7zip(vm.disk())) == ""
    assert "no fault" in vm.home.bough("check", vm.name)


def claim_first_middle_and_last_are_merged_away_while_the_guest_writes(home):
    vm, console, (first, second, middle, third, last) = busy_guest(home, 5, mib_each=2, mib=14)
    with same_content(vm, second, third):
        for guid in (first, middle, last):
            vm.do("delete", guid)
        goes_on(console)
        merged(vm)
        goes_on(console)
        vm.do("snapshot")  # seals the top: what was merged for the last one can be merged with it
        merged(vm)
        assert len(chain(vm.disk())) == 4, chain(vm.disk())
    goes_on(console)
    stops_whole(vm)


def claim_branches_and_operations_go_first_and_the_merge_goes_on(home):
    """A snapshot, a revert and an apply in the middle of a merge; one whose images are of another branch."""
    vm, console, (first, second, third) = busy_guest(home, 3, mib_each=4, mib=16)
    with same_content(vm, second):
        vm.do("delete", first)
        vm.do("snapshot", "--name", "during")
        goes_on(console)
        vm.do("revert")
        console = vm.console()
        goes_on(console)
        vm.do("apply", second)
        console = vm.console()
        goes_on(console)
        vm.do("delete", third)
        merged(vm)
        assert not [one for one in vm.do("tree")["merging"] if "2 others" not in (one["reason"] or "written")], vm.do("tree")
    goes_on(console)
    stops_whole(vm)


def claim_a_merge_is_cancelled_and_begun_again(home):
    """Beside a guest that never rests, so that the merge takes its time."""
    vm, console, (first, second) = busy_guest(home, 2, mib_each=16, mib=36)
    console.command("write 10")
    with same_content(vm, second):
        vm.do("delete", first)
        cancelled = wait_until(lambda: vm.do("cancel")["cancelled"] or not unfinished(vm), DEADLINE_S, "the merge is cancelled")
        assert cancelled == "merge", "the merge was over before it could be cancelled"
        wait_until(lambda: [one["state"] for one in unfinished(vm)] == ["pending"], 10, "it is told so")
        time.sleep(0.3)
        assert [one["state"] for one in unfinished(vm)] == ["pending"], unfinished(vm)
        goes_on(console)
        vm.do("merge")
        assert unfinished(vm) == []
    goes_on(console)
    stops_whole(vm)


def claim_a_worker_that_is_killed_in_the_middle_loses_nothing(home):
    chance = random.Random(0)
    for _ in range(ROUNDS):
        vm, console, (first, second) = busy_guest(home, 2, mib_each=8, mib=20)
        worker = vm.do("show")["worker_pid"]
        with same_content(vm, second):
            vm.do("delete", first)
            time.sleep(chance.random())
            kill(worker)
            vm.do("stop", "--force")
            vm.do("merge")
            assert unfinished(vm) == [] and len(chain(vm.disk())) == 2, chain(vm.disk())
        stops_whole(vm)
        console.close()
        vm.do("remove", "--yes")


main(globals())
