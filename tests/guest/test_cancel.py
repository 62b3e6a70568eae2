#!/usr/bin/python3
"""Cancelling a save, by Ctrl-C or by `bough cancel`, at any moment of it and in both ways: the VM runs on, there is no snapshot and
no file of it, and the guest has lost nothing.

$BOUGH_TEST_CANCELS: how often each (8; the long run is 20)."""

import contextlib
import os
import random
import re
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import CANCELLED, chain, disk_counter, file_system_check, flattened_by_7zip, main, wait_until  # noqa: E402

CANCELS = int(os.environ.get("BOUGH_TEST_CANCELS", "8"))


def files_of_snapshots(vm):
    """What is below Snapshots and no disk."""
    return [f for f in vm.files() if f.startswith("Snapshots/") and not f.endswith(("/", ".avhd"))]


def busy_guest(home):
    vm, console = home.booted_guest(memory="320M", step_ms=10, more=("--cpus", "2"))
    console.command("fill 120 5")
    for kib in (16384, 256):
        console.command(f"churn {kib}")
    console.command("files 5")
    console.command("churned", deadline_s=120)
    return vm, console


def listens(process):
    """It has begun and catches the signal, or has ended: before that a signal ends a program that has done nothing."""
    caught = [line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if line.startswith("SigCgt:")]
    return process.poll() is not None or (caught and int(caught[0].split()[1], 16) >> (signal.SIGINT - 1) & 1)


def cancel_by_interrupt(home, vm, process):
    wait_until(lambda: listens(process), 20, "the command listens")
    process.send_signal(signal.SIGINT)


def cancel_by_command(home, vm, process):
    told = home.json("cancel", vm.name)
    assert told["cancelled"] in ("snapshot", "merge", None), told  # a merge of what was deleted, before or behind it


def look_after(home, vm, process, before, how):
    """True if it was cancelled, false if it was too late."""
    out, complaint = process.communicate(timeout=60)
    listed = [s["guid"] for s in vm.do("tree")["snapshots"]]
    if process.returncode == 0:
        assert listed == [out.strip()], f"{how}: it succeeded, and the tree has {listed}"
        vm.do("delete", out.strip())
        return False
    told = f"{how}: exit {process.returncode}: {complaint}"
    assert process.returncode == CANCELLED and "cancel" in complaint, told
    assert listed == [], f"{told}: a cancelled snapshot is listed"
    assert files_of_snapshots(vm) == [], f"{told}: {files_of_snapshots(vm)} are left"
    shown = vm.do("show")
    assert shown["state"] == "running" and shown["qemu_pid"] == before["qemu_pid"], f"{told}: {shown}"
    return True


def depth(vm):
    """Layers of the disk; a merge in the background may take one away while they are counted."""
    for _ in range(20):
        with contextlib.suppress(FileNotFoundError):
            return len(chain(vm.disk()))
    raise AssertionError("an image of the disk's chain is not there")


def cancel_again_and_again(home, *how_taken, full_share):
    chance = random.SystemRandom()
    vm, console = busy_guest(home)
    nonce = console.step().nonce
    begun = time.monotonic()
    first = vm.do("snapshot", *how_taken)["guid"]
    takes_s = time.monotonic() - begun
    vm.do("delete", first)
    before = vm.do("show")
    counts = {True: 0, False: 0}
    for number in range(3 * CANCELS):
        if number >= CANCELS and counts[True] >= CANCELS * full_share:
            break
        length = depth(vm)
        process = home.start("snapshot", vm.name, *how_taken)
        delay_s = chance.random() * takes_s
        time.sleep(delay_s)
        (cancel_by_interrupt, cancel_by_command)[number % 2](home, vm, process)
        cancelled = look_after(home, vm, process, before, f"cancelled after {delay_s:.3f} s")
        counts[cancelled] += 1
        takes_s *= 1 if cancelled else 0.85  # the host is not as busy as it was at the first
        # One of a disk that had switched, and one that is sealed for the merge of what was deleted before.
        assert depth(vm) <= length + 2, "more new layers than the two"
        step = console.step(since=console.position())
        assert step.nonce == nonce and step.memory == step.disk, (number, step)
    print(f"# {counts[True]} cancelled, {counts[False]} came too late, {takes_s:.2f} s without", flush=True)
    vm.do("merge")
    assert len(chain(vm.disk())) <= 3, "the base, what the cancelled ones have left, and what is written now"
    assert counts[True] >= CANCELS * full_share, f"too few were cancelled to tell: {counts}"
    console.command("churned", deadline_s=120)
    assert console.command("hash") == console.command("hash")
    look_at_the_whole(vm, console, nonce)


def look_at_the_whole(vm, console, nonce):
    """The guest after all that can be snapshotted and gone back to, and its disk is sound."""
    guid = vm.snapshot()["guid"]
    console.close()
    vm.do("revert")
    console = vm.console()
    assert console.step().nonce == nonce
    console.command("churned", deadline_s=120)
    console.close()
    vm.do("stop", "--force")
    disk = flattened_by_7zip(chain(vm.disk())[1])
    assert disk_counter(disk, nonce) > 0
    complaint = file_system_check(disk)
    assert complaint == "", f"e2fsck finds more than a journal to replay:\n{complaint}"
    assert vm.do("tree")["now"]["parent"] == guid


def claim_pre_copy_cancelled_at_any_moment_leaves_the_vm_running_and_nothing_else(home):
    cancel_again_and_again(home, full_share=0.5)


def claim_so_does_a_background_save(home):
    cancel_again_and_again(home, "--point-now", full_share=0.5)


def claim_before_the_instant_the_disks_have_no_layer_more(home):
    """The copying of this guest takes some tenths of a second: a cancellation in the first of them is before its instant."""
    vm, console = busy_guest(home)
    top = vm.disk()
    process = home.start("snapshot", vm.name)
    wait_until(lambda: list(vm.snapshots.rglob("*.bin")), 20, "the memory file")
    cancel_by_command(home, vm, process)
    assert look_after(home, vm, process, vm.do("show"), "cancelled as soon as memory is saved")
    assert vm.disk() == top, "another top though nothing was switched"
    assert [f for f in vm.files() if f.endswith(".avhd")] == [], vm.files()
    console.step(since=console.position())


def claim_a_save_of_the_vm_is_cancelled_too(home):
    vm, console = busy_guest(home)
    process = home.start("save", vm.name)
    wait_until(lambda: list((vm.folder / "Virtual Machines").rglob("*.bin")), 20, "the memory file")
    told = home.json("cancel", vm.name)
    _, complaint = process.communicate(timeout=60)
    assert told["cancelled"] == "save" and process.returncode == CANCELLED, (told, process.returncode, complaint)
    assert list((vm.folder / "Virtual Machines").rglob("*.bin")) == []
    assert vm.state() == "running"
    console.command("churned", deadline_s=120)


def claim_a_paused_vm_stays_paused_when_its_snapshot_is_cancelled(home):
    vm, console = busy_guest(home)
    vm.do("pause")
    process = home.start("snapshot", vm.name)
    wait_until(lambda: list(vm.snapshots.rglob("*.bin")), 20, "the memory file")
    cancel_by_interrupt(home, vm, process)
    process.communicate(timeout=60)
    assert vm.state() == "paused" and (process.returncode == 0 or files_of_snapshots(vm) == []), process.returncode
    vm.do("resume")
    console.close()
    console = vm.console()
    console.command("churned", deadline_s=120)


def claim_cancel_says_when_there_is_nothing_to_cancel(home):
    vm, console = home.booted_guest()
    assert home.json("cancel", vm.name) == {"cancelled": None}
    assert re.search("nothing is in progress", home.bough("cancel", vm.name))
    console.step(since=console.position())


main(globals())
