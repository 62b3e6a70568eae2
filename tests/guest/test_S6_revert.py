#!/usr/bin/python3
"""S6: revert gives a new working disk and, if the snapshot has memory, the running guest of that moment."""

import os
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import VhdHeader, identity, main, memory_counters, xml_disks  # noqa: E402


def claim_revert_to_a_running_snapshot_brings_back_memory_processes_and_files(home):
    vm, console = home.booted_guest()
    assert console.run("mkdir /disk/d; echo kept > /disk/d/file; sync")[0] == 0
    console.command("fill 24 7")
    hash_then = console.command("hash")
    point = vm.snapshot("point")["guid"]
    ((nonce, counter),) = memory_counters(vm.memory_file(point))
    old_working, sealed, bin_file = vm.disk(), identity(xml_disks(vm.snapshot_xml(point), vm.folder)[0]), \
        identity(vm.memory_file(point))

    assert console.run("rm -rf /disk/d; dd if=/dev/urandom of=/disk/junk bs=64k count=64 2>&1; sync")[0] == 0
    console.command("fill 24 8")
    assert console.command("hash") != hash_then

    answer = vm.do("revert")
    again = vm.console()
    step = again.step()
    assert answer["state"] == "running" and answer["running_us"] > 0, answer
    assert step.nonce == nonce, "the guest was started anew, or is another one"
    assert counter <= step.memory <= counter + 2000, (step, counter)
    assert again.command("hash") == hash_then, "memory is not as it was"
    assert again.run("cat /disk/d/file; ls /disk")[1] == ["kept", "counter", "d", "lost+found"]

    working = vm.disk()
    assert working != old_working and not old_working.exists(), "the working disk is deleted and a new one made"
    assert VhdHeader(working).parent_id == VhdHeader(vm.folder / "g.vhd").id
    assert list(vm.disks_folder.iterdir()) == [working], "nothing is left over"
    assert identity(vm.folder / "g.vhd") == sealed
    assert identity(vm.memory_file(point)) == bin_file


def claim_revert_to_a_snapshot_taken_off_leaves_the_vm_off(home):
    vm, console = home.booted_guest()
    assert console.run("echo kept > /disk/file; sync")[0] == 0
    vm.do("stop", "--force")
    vm.snapshot("off")
    old_working = vm.disk()

    vm.do("start")
    console = vm.console()
    nonce = console.ready().nonce
    assert console.run("cat /disk/file; rm /disk/file; sync") == (0, ["kept"])
    answer = vm.do("revert")
    assert answer["state"] == "off" and answer["running_us"] is None, answer
    assert vm.state() == "off" and home.no_process_is_left()
    assert vm.disk() != old_working and not old_working.exists()

    vm.do("start")
    console = vm.console()
    assert console.ready().nonce != nonce, "a VM taken off boots"
    assert console.run("cat /disk/file") == (0, ["kept"])


def claim_revert_of_a_vm_that_is_off_works_without_any_process(home):
    vm = home.create("v", "--disk", "64M,bus=virtio")
    vm.snapshot()
    first = vm.disk()
    vm.do("revert")
    second = vm.disk()
    vm.do("revert")
    assert len({first, second, vm.disk()}) == 3 and list(vm.disks_folder.iterdir()) == [vm.disk()]
    assert home.no_process_is_left()


def claim_revert_from_off_to_a_running_snapshot_starts_the_guest_of_then(home):
    vm, console = home.booted_guest()
    nonce = console.step().nonce
    vm.snapshot()
    vm.do("stop", "--force")
    assert vm.do("revert")["state"] == "running"
    assert vm.console().step().nonce == nonce


def claim_no_start_leaves_the_vm_saved_and_start_goes_on_from_there(home):
    vm, console = home.booted_guest()
    nonce = console.step().nonce
    point = vm.snapshot()["guid"]
    ((_, counter),) = memory_counters(vm.memory_file(point))
    assert vm.do("revert", "--no-start")["state"] == "saved"
    assert vm.state() == "saved" and home.no_process_is_left()
    vm.do("start", "--paused")
    assert vm.state() == "paused"
    again = vm.console()
    vm.do("resume")
    step = again.step(since=0)
    assert step.nonce == nonce and counter <= step.memory <= counter + 1, (step, counter)


def claim_revert_can_be_done_again_and_again(home):
    vm, console = home.booted_guest()
    nonce = console.step().nonce
    point = vm.snapshot()["guid"]
    ((_, counter),) = memory_counters(vm.memory_file(point))
    for _ in range(5):
        assert vm.do("revert")["state"] == "running"
        step = vm.console().step()
        assert step.nonce == nonce and counter <= step.memory <= counter + 2000, (step, counter)


def claim_guest_that_was_writing_to_its_console_goes_on_after_a_revert(home):
    vm, console = home.booted_guest(step_ms=2)
    nonce = console.step().nonce
    console.close()
    with socket.socket(socket.AF_UNIX) as deaf:  # nobody reads: the guest's serial port is full at the instant
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        deaf.connect(vm.do("console")["socket"])
        time.sleep(6)
        vm.snapshot()
    vm.do("revert")
    console = vm.console()
    assert console.step().nonce == nonce
    assert console.command("ping x") == "pong x"


def claim_forwarded_port_goes_to_the_machine_that_goes_on(home):
    with socket.socket() as chooser:
        chooser.bind(("127.0.0.1", 0))
        port = chooser.getsockname()[1]
    vm, console = home.booted_guest(nic=f"user,forward=tcp:{port}:22")

    def listener():
        """The process that listens on the port, as /proc tells."""
        wanted = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
                  if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"}
        return {pid for pid in home.processes() for fd in Path(f"/proc/{pid}/fd").iterdir()
                if any(os.readlink(fd) == f"socket:[{inode}]" for inode in wanted)}

    nonce = console.step().nonce
    assert listener() == {vm.do("show")["qemu_pid"]}
    vm.snapshot()
    for _ in range(3):
        vm.do("revert")
        assert listener() == {vm.do("show")["qemu_pid"]}
    assert vm.console().step().nonce == nonce


def claim_machine_with_uefi_goes_back_with_its_variables(home):
    vm, console = home.booted_guest(more=("--generation", "2"))
    nonce = console.step().nonce
    point = vm.snapshot()["guid"]
    assert len(list((vm.snapshots / point).glob("*.nvram"))) == 1, "the UEFI variables are part of the snapshot"
    assert console.run("rm /disk/counter; sync")[0] == 0
    vm.do("revert")
    console = vm.console()
    assert console.step().nonce == nonce
    assert console.run("ls /disk/counter /sys/firmware/efi")[0] == 0
    vm.do("stop", "--force")
    vm.do("revert")
    assert vm.console().step().nonce == nonce


def claim_revert_without_a_snapshot_is_refused(home):
    vm = home.create("v", "--disk", "64M,bus=virtio")
    before = vm.xml.read_bytes()
    result = home.run("revert", "v")
    assert result.returncode in (6, 13) and "snapshot" in result.stderr, result
    assert vm.xml.read_bytes() == before


main(globals())
