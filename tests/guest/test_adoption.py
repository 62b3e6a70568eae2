#!/usr/bin/python3
"""A guest whose worker is killed gets another one from the next command, and goes on as its user wanted it; a guest that ends while
nobody wanted it to is told with its reason until it is started again."""

import os
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import UNSUPPORTED, Skip, file_system_check, flattened_by_7zip, is_alive, kill, main, wait_until  # noqa: E402

RECONNECT_S = 40  # QEMU tries a disk again after 1, 2, 4, 8, 16 s


def orphan(vm):
    """Its worker is killed: (what `show` said before)."""
    shown = vm.do("show")
    kill(shown["worker_pid"])
    return shown


def works(console, nonce):
    """The guest itself has looked at all that it wrote, in memory and past its cache on the disk."""
    assert console.command("churned", r"^R churned (\d+)", RECONNECT_S) != "0"
    assert console.step(deadline_s=RECONNECT_S).nonce == nonce, "another guest"


def claim_guest_under_load_goes_on_with_the_next_worker_and_all_operations_work(home):
    vm, console = home.booted_guest(memory="128M", disks=("64M,bus=virtio", "32M,bus=virtio"))
    for job in ("rewrite 512", "churn 1024", "files 5"):
        console.command(job)
    nonce = console.step().nonce
    first = vm.snapshot("first")["guid"]
    before = vm.xml.read_bytes()
    shown = orphan(vm)
    for verb in ("show", "list"):  # they only tell
        told = home.json(verb, *(["g"] if verb == "show" else []))
        assert (told if verb == "show" else told[0])["state"] == "unmanaged"
    assert vm.xml.read_bytes() == before and is_alive(shown["qemu_pid"])
    vm.do("notes", first, "by a new worker")
    again = vm.do("show")
    assert again["state"] == "running" and again["qemu_pid"] == shown["qemu_pid"]
    assert again["worker_pid"] not in (None, shown["worker_pid"])
    works(console, nonce)
    orphan(vm)
    second = vm.snapshot("second")["guid"]  # an operation of its own starts the worker as well
    orphan(vm)
    assert vm.do("apply", first)["state"] == "running"  # a second QEMU beside one that was adopted
    works(vm.console(), nonce)
    orphan(vm)
    assert vm.do("save")["state"] == "saved"
    vm.do("delete", second)
    assert vm.do("start")["state"] == "running"
    works(vm.console(), nonce)
    home.bough("check", "g")
    assert vm.do("stop", timeout=90)["state"] == "off", "the power button"
    assert vm.do("show")["ended"] is None, "that is what was asked for"
    assert file_system_check(flattened_by_7zip(vm.disk())) == ""
    assert not list(home.runtime.glob("dirty/*")) and home.no_process_is_left()


def claim_paused_guest_stays_paused_and_one_that_a_save_stopped_does_not(home):
    vm, console = home.booted_guest(memory="128M", disks=("48M,bus=virtio",))
    nonce = console.step().nonce
    vm.do("pause")
    orphan(vm)
    vm.do("console")
    assert vm.state() == "paused"
    point = vm.snapshot("of one that stands")["guid"]
    assert vm.state() == "paused"
    vm.do("resume")
    console = vm.console()  # it went on in another process
    assert console.step(deadline_s=RECONNECT_S).nonce == nonce
    console.command("fill 40 1")
    chance = random.SystemRandom()
    for verb in (("save",), ("snapshot",)):
        shown = vm.do("show")
        command = home.start(verb[0], "g", *verb[1:])
        time.sleep(chance.random() * 0.5)
        kill(shown["worker_pid"])
        command.communicate(timeout=60)
        vm.do("cancel")  # any command will do: a worker adopts what is alive
        if vm.state() == "saved":
            vm.do("start")
        assert vm.state() == "running"
        console.close()  # a process's console has one reader
        console = vm.console()
        assert console.step(deadline_s=RECONNECT_S).nonce == nonce
    assert vm.do("apply", point)["state"] == "paused"
    vm.do("resume")
    assert vm.console().step(deadline_s=RECONNECT_S).nonce == nonce
    home.bough("check", "g")


def claim_memory_of_now_is_read_to_its_end_though_the_worker_is_killed(home):
    vm, console = home.booted_guest(memory="256M", disks=("48M,bus=virtio",))
    console.command("fill 150 1")
    console.command("churn 4096")
    nonce = console.step().nonce
    for _ in range(2):
        shown = vm.do("show")
        command = home.start("snapshot", "g", "--point-now")
        time.sleep(0.1 + random.SystemRandom().random() * 0.3)
        kill(shown["worker_pid"])
        _, told = command.communicate(timeout=60)
        if command.returncode == UNSUPPORTED:
            raise Skip(told.strip())
        vm.do("console")
        works(console, nonce)
    home.bough("check", "g")


def claim_end_of_qemu_is_told_until_the_next_start(home):
    vm, _ = home.booted_guest(memory="128M", disks=("48M,bus=virtio",))
    kill(vm.do("show")["qemu_pid"])
    wait_until(lambda: vm.state() == "off", 20, "the VM to be Off")
    for _ in range(2):
        ended = vm.do("show")["ended"]
        assert ended["code"] == "qemu-failed" and "signal 9" in ended["message"], ended
        assert home.json("list")[0]["ended"] == ended
        assert "off: qemu-failed" in home.bough("list")
    assert "signal 9" in home.bough("show", "g")
    started = home.run("start", "g")
    assert started.returncode == 0 and "last time" in started.stderr and "signal 9" in started.stderr, started
    assert vm.do("show")["ended"] is None
    # while nobody manages it
    shown = orphan(vm)
    kill(shown["qemu_pid"])
    ended = vm.do("show")["ended"]
    assert ended["code"] == "qemu-failed" and "killed or crashed" in ended["message"], ended
    vm.snapshot("of one that is off")
    assert vm.do("show")["ended"] == ended, "who has swept up keeps it"
    assert vm.do("start")["ended"] == ended
    console = vm.console()
    console.ready()
    console.send("poweroff")
    wait_until(lambda: vm.state() == "off", 60, "the guest to switch itself off")
    assert vm.do("show")["ended"]["code"] == "guest-shutdown"
    assert "off " in home.bough("list"), "it is nothing to be told unasked"
    assert not list(home.runtime.glob("dirty/*")) and home.no_process_is_left()


def claim_guest_that_switches_itself_off_while_nobody_manages_it_is_off(home):
    vm, console = home.booted_guest(memory="128M", disks=(), more=["--append", "console=ttyS0 quiet bough_disk=none"])
    orphan(vm)
    console.send("run echo o >/proc/sysrq-trigger")  # one with a disk would wait for it
    wait_until(lambda: vm.state() == "off", 30, "the guest to switch itself off")
    assert vm.do("show")["ended"]["code"] == "qemu-ended", vm.do("show")["ended"]
    assert vm.do("start")["ended"]["code"] == "qemu-ended"


def claim_panic_and_reset_of_the_guest_are_told(home):
    wrapper = home.dir / "qemu"
    wrapper.write_text("#!/bin/sh\ncase \"$*\" in *qmp.sock*) exec qemu-system-x86_64 \"$@\" -device pvpanic-pci,addr=0x1e;; esac\n"
                       "exec qemu-system-x86_64 \"$@\"\n")
    wrapper.chmod(0o755)
    home.env["BOUGH_QEMU"] = str(wrapper)
    vm, console = home.booted_guest(memory="128M", disks=("48M,bus=virtio",))
    assert vm.do("show")["resets"] == 0
    console.send("run echo b >/proc/sysrq-trigger")
    wait_until(lambda: vm.do("show")["resets"] == 1, 30, "the reset to be told")
    console.wait(r"^R ready", 60, console.position())
    console.send("run cd /sys/bus/pci/devices/0000:00:1e.0; echo 1 >enable; read at rest <resource; devmem $at 8 1")
    wait_until(lambda: vm.state() == "off", 30, "the end of the guest")
    assert vm.do("show")["ended"]["code"] == "guest-panicked", vm.do("show")["ended"]
    assert "off: guest-panicked" in home.bough("list")


def claim_worker_that_cannot_adopt_leaves_the_guest_and_says_how_to_end_it(home):
    vm, _ = home.booted_guest(memory="128M", disks=("48M,bus=virtio",))
    shown = orphan(vm)
    away = vm.disk().with_suffix(".away")
    os.rename(vm.disk(), away)
    result = home.run("snapshot", "g")
    assert result.returncode != 0 and "stop --force" in result.stderr and away.stem in result.stderr, result
    assert is_alive(shown["qemu_pid"]) and vm.state() == "unmanaged"
    os.rename(away, vm.disk())
    vm.snapshot("when it is back")
    orphan(vm)
    disk = vm.disk()
    os.rename(disk, disk.with_suffix(".away"))
    home.run("stop", "g", "--force")
    wait_until(lambda: not is_alive(shown["qemu_pid"]), 20, "the end of QEMU")
    os.rename(disk.with_suffix(".away"), disk)
    assert vm.state() == "off"


main(globals())
