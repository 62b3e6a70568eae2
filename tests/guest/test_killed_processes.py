#!/usr/bin/python3
"""kill -9 of the command, of QEMU and of the worker: the folder stays, or becomes again, a valid VM.

$BOUGH_TEST_KILLS: how often the command is killed (6; the long run is 10)."""

import hashlib
import os
import random
import signal
import time

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import (STATE, file_system_check, flattened_by_7zip, identity, is_alive, kill, main,  # noqa: E402
                        memory_counters, wait_until, xml_disks)

KILLS = int(os.environ.get("BOUGH_TEST_KILLS", "6"))


def check_listed(vm):
    """What the tree lists is there and can be read from outside. How many it lists."""
    snapshots = vm.do("tree")["snapshots"]
    for snapshot in snapshots:
        guid = snapshot["guid"]
        for image in xml_disks(vm.snapshot_xml(guid), vm.folder):
            assert file_system_check(flattened_by_7zip(image)) == "", f"{guid}: the file system is not sound"
        if snapshot["state_when_taken"] != "off":
            assert len(memory_counters(vm.memory_file(guid))) == 1 and vm.state_file(guid).stat().st_size > 4096
    return len(snapshots)


def no_garbage(vm):
    """Every snapshot file belongs to a listed snapshot, every layer to a chain."""
    listed = {s["guid"] for s in vm.do("tree")["snapshots"]}
    for entry in vm.snapshots.iterdir():
        assert entry.stem in listed or entry.name == vm.guid, f"{entry} belongs to nothing"


def idle(vm):
    return vm.do("show").get("operation") is None


def claim_command_killed_at_a_random_moment_of_a_snapshot_harms_nothing(home):
    vm, console = home.booted_guest()
    console.command("files 5")
    nonce = console.step().nonce
    begun = time.monotonic()
    first = vm.snapshot("first")["guid"]
    usual = time.monotonic() - begun
    chance = random.SystemRandom()
    for number in range(KILLS):
        command = home.start("snapshot", "g", "--name", f"k{number}")
        # the command itself does little but ask the worker: half of the kills come before or while it asks
        time.sleep(chance.random() * chance.choice((usual * 1.2, 0.015)))
        command.send_signal(signal.SIGKILL)
        command.communicate()
        wait_until(lambda: idle(vm), 30, "the end of the snapshot in the worker")
        step = console.step()
        assert step.nonce == nonce and vm.state() == "running", "the guest goes on"
    assert console.command("ping x") == "pong x"
    count = check_listed(vm)
    no_garbage(vm)
    print(f"# {KILLS} killed, {count - 1} of them were snapshots already", flush=True)
    assert first in {s["guid"] for s in vm.do("tree")["snapshots"]}
    vm.do("apply", "first")
    assert vm.console().step().nonce == nonce


def claim_command_killed_while_it_snapshots_a_vm_that_is_off_harms_nothing(home):
    vm = home.create("v", "--disk", "64M,bus=virtio")
    begun = time.monotonic()
    vm.snapshot("first")
    usual = time.monotonic() - begun
    chance = random.SystemRandom()
    for number in range(KILLS):
        command = home.start("snapshot", "v", "--name", f"k{number}")
        time.sleep(chance.random() * usual * 1.2)
        command.send_signal(signal.SIGKILL)
        command.communicate()
        assert vm.state() == "off"
    vm.snapshot("last")  # recovers first
    no_garbage(vm)
    names = [s["name"] for s in vm.do("tree")["snapshots"]]
    assert names[0] == "first" and names[-1] == "last", names
    in_use = {image for s in vm.do("tree")["snapshots"] for image in xml_disks(vm.snapshot_xml(s["guid"]), vm.folder)}
    left = set(vm.disks_folder.iterdir()) - in_use - {vm.disk()}
    assert not left, f"layers that nothing needs are left: {left}"
    flattened_by_7zip(vm.disk())


def claim_qemu_killed_leaves_the_vm_off_and_its_points_whole(home):
    vm, console = home.booted_guest()
    console.command("files 5")
    point = vm.snapshot()["guid"]
    nonce, counter = memory_counters(vm.memory_file(point))[0]
    seen = [identity(f) for f in (vm.memory_file(point), vm.state_file(point), vm.snapshot_xml(point))]
    shown = vm.do("show")
    kill(shown["qemu_pid"])
    wait_until(lambda: vm.state() == "off", 20, "the VM to be Off")
    wait_until(lambda: not is_alive(shown["worker_pid"]), 20, "the worker to end with its VM")
    assert file_system_check(flattened_by_7zip(vm.disk())) == "", "what the guest had written is not sound"
    assert [identity(f) for f in (vm.memory_file(point), vm.state_file(point), vm.snapshot_xml(point))] == seen
    assert vm.do("revert")["state"] == "running"
    step = vm.console().step()
    assert step.nonce == nonce and step.memory >= counter


def claim_qemu_killed_in_the_middle_of_a_snapshot_leaves_the_vm_off_and_valid(home):
    vm, console = home.booted_guest()
    console.command("fill 64 1")
    nonce = console.step().nonce
    vm.snapshot("first")
    chance = random.SystemRandom()
    for number in range(3):
        qemu = vm.do("show")["qemu_pid"]
        command = home.start("snapshot", "g", "--name", f"k{number}")
        time.sleep(chance.random() * 0.3)
        kill(qemu)
        command.communicate(timeout=60)
        wait_until(lambda: vm.state() == "off", 20, "the VM to be Off")
        check_listed(vm)
        vm.do("apply", "first")
        assert vm.console().step().nonce == nonce
        no_garbage(vm)


def claim_vm_whose_worker_died_is_not_taken_for_off_and_can_be_ended(home):
    vm, console = home.booted_guest()
    point = vm.snapshot()["guid"]
    shown = vm.do("show")
    before = vm.xml.read_bytes()
    kill(shown["worker_pid"])
    assert is_alive(shown["qemu_pid"]), "QEMU outlives its worker"
    assert vm.state() == "unmanaged"
    for verb in (["start"], ["set", "memory=256M"], ["remove", "--yes"]):
        result = home.run(verb[0], "g", *verb[1:])  # a new worker knows that it runs
        assert result.returncode == STATE and "run" in result.stderr, f"{verb}: exit {result.returncode}: {result.stderr}"
        kill(vm.do("show")["worker_pid"])
    assert vm.xml.read_bytes() == before and is_alive(shown["qemu_pid"])
    vm.do("stop", "--force")
    assert vm.state() == "off" and not is_alive(shown["qemu_pid"])
    assert vm.do("show")["ended"] is None, "that is what was asked for"
    assert vm.do("apply", point)["state"] == "running"
    assert vm.console().step()


def claim_worker_killed_in_the_middle_of_a_snapshot_or_revert_leaves_a_guest_that_goes_on(home):
    vm, console = home.booted_guest()
    console.command("files 5")
    console.command("fill 48 1")
    nonce = console.step().nonce
    begun = time.monotonic()
    vm.snapshot("first")
    usual = time.monotonic() - begun
    chance = random.SystemRandom()
    for number in range(KILLS // 2):
        shown = vm.do("show")
        verb = ("snapshot", "revert")[number % 2]
        command = home.start(verb, "g")
        time.sleep(chance.random() * usual)
        kill(shown["worker_pid"])
        command.communicate(timeout=60)
        assert vm.state() == "unmanaged", "a guest that lives is taken for off"
        again = vm.do("console")
        if verb == "snapshot":
            assert vm.do("show")["qemu_pid"] == shown["qemu_pid"]
        assert vm.state() == "running" and again
        console.close()  # a process's console has one reader
        console = vm.console()
        assert console.step(deadline_s=40).nonce == nonce
        check_listed(vm)
        no_garbage(vm)
    vm.do("stop", "--force")
    wait_until(lambda: home.processes() == [], 20, "the end of every process")
    assert vm.do("apply", "first")["state"] == "running"
    assert vm.console().step().nonce == nonce


def claim_what_the_guest_synced_survives_the_death_of_worker_and_qemu(home):
    vm, console = home.booted_guest()
    vm.snapshot()
    assert console.run("echo precious > /disk/file; sync")[0] == 0
    shown = vm.do("show")
    kill(shown["worker_pid"])
    kill(shown["qemu_pid"])
    assert vm.state() == "off"
    assert b"precious" in flattened_by_7zip(vm.disk())
    vm.do("start")
    again = vm.console()
    again.ready()
    assert again.run("cat /disk/file") == (0, ["precious"])


def claim_what_was_answered_to_the_guest_survives_the_death_of_its_worker_without_a_flush(home):
    vm, console = home.booted_guest(disks=("96M,bus=virtio", "64M,bus=virtio"))
    vm.snapshot()
    # past the guest's cache, and nothing asks for a flush of the second disk
    write = "dd if=/dev/urandom of=/dev/vdb bs=4096 count=1 oflag=direct status=none seek=$(((i * 397 + i / 7) % 16384))"
    assert console.run(f"i=0; while [ $i -lt 60 ]; do {write}; i=$((i + 1)); done")[0] == 0
    status, lines = console.run("sha256sum /dev/vdb")
    assert status == 0
    layer = vm.disk(1)
    shown = vm.do("show")
    kill(shown["worker_pid"])
    kill(shown["qemu_pid"])
    waiting = home.runtime / "dirty" / f"{layer.stat().st_dev:x}-{layer.stat().st_ino:x}.dirty"
    assert waiting.exists(), "nothing was left to be put in place"
    vm.snapshot("after")  # whoever has the VM next puts it in order first
    assert hashlib.sha256(flattened_by_7zip(layer)).hexdigest() == lines[0].split()[0]
    assert not list(home.runtime.glob("dirty/*")), "nothing waits any more"


main(globals())
