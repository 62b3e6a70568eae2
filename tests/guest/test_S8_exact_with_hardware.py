#!/usr/bin/python3
"""S8: memory, processes, disks and the virtual hardware go back exactly."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import main, memory_counters, sha256, xpath  # noqa: E402


def hardware(console):
    """What the guest sees of its machine."""
    return [console.run(command)[1] for command in (
        "for d in /sys/bus/pci/devices/*; do echo $d $(cat $d/vendor $d/device); done", "nproc",
        "cat /sys/block/*/size", "dmesg | grep -E 'Memory:|DMI:'")]


def processes(console):
    return console.run("pidof sleep; pidof init; cut -d' ' -f1,22 /proc/$(pidof sleep)/stat")[1]


def claim_changed_hardware_and_another_system_on_the_disk_all_go_back(home):
    vm, console = home.booted_guest()
    console.command("files 50")
    console.run("sleep 100000 </dev/null >/dev/null 2>&1 &")
    machine, running = hardware(console), processes(console)
    settings = xpath(vm.xml, "/configuration/settings")
    point = vm.snapshot("before")["guid"]
    ((nonce, counter),) = memory_counters(vm.memory_file(point))

    vm.do("stop", "--force")
    vm.do("set", "memory=320M", "cpus=2")
    vm.do("start")
    console = vm.console()
    assert console.ready().nonce != nonce
    changed = hardware(console)
    assert changed[1] == ["2"] and changed != machine, changed
    assert xpath(vm.xml, "/configuration/settings") != settings
    console.command("step 0")  # what it would say of the disk that is overwritten under it is no news
    assert console.run("sync; mke2fs -q -F -L other /dev/vda 2>&1; dd if=/dev/urandom of=/dev/vda bs=1M count=48 2>&1")[0] == 0
    vm.do("stop", "--force")

    assert vm.do("revert")["state"] == "running"
    console = vm.console()
    step = console.step()
    assert step.nonce == nonce and counter <= step.memory <= counter + 2000, (step, counter)
    assert hardware(console) == machine
    assert processes(console) == running, (processes(console), running)
    assert xpath(vm.xml, "/configuration/settings/memory") == xpath(vm.snapshot_xml(point), "/configuration/settings/memory")
    assert vm.do("show")["cpus"] == 1
    console.command("idle")
    assert console.run("ls /disk/lost+found /disk/counter")[0] == 0


def claim_settings_of_a_snapshot_do_not_follow_those_of_the_vm(home):
    vm = home.create("v", "--disk", "64M,bus=virtio", "--memory", "256M")
    point = vm.snapshot_xml(vm.snapshot()["guid"])
    then = sha256(point)
    vm.do("set", "memory=512M", "cpus=4", "notes=changed")
    assert sha256(point) == then
    assert vm.do("show")["memory_bytes"] == 512 << 20
    vm.do("revert")
    assert vm.do("show")["memory_bytes"] == 256 << 20 and vm.do("show")["cpus"] == 1


def claim_all_kinds_of_disks_go_back_while_they_are_written(home):
    vm, console = home.booted_guest(disks=("96M,bus=virtio", "32M,bus=ide", "32M,bus=scsi"))
    fill = "for d in sda sdb; do dd if=/dev/urandom of=/dev/$d bs=1M count=24 2>/dev/null; done; sync; " \
           "echo 3 > /proc/sys/vm/drop_caches; md5sum /dev/sda /dev/sdb"
    then = console.run(fill)[1]
    vm.snapshot()
    assert console.run(fill)[1] != then
    vm.do("revert")
    assert vm.console().run("echo 3 > /proc/sys/vm/drop_caches; md5sum /dev/sda /dev/sdb")[1] == then


main(globals())
