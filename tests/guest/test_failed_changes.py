#!/usr/bin/python3
"""A change of a running VM that fails before its commit leaves the guest running, and writing where its XML says.

What fails is the VM's XML itself: a folder stands in the place of the file that replaces it."""

import contextlib
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import flattened_by_7zip, file_system_check, main  # noqa: E402


@contextlib.contextmanager
def no_commit(vm):
    obstacle = Path(f"{vm.xml}.tmp~")
    obstacle.mkdir()
    yield
    obstacle.rmdir()


def files_open_in_the_worker(vm):
    folder = Path("/proc", str(vm.do("show")["worker_pid"]), "fd")
    return [os.readlink(fd) for fd in folder.iterdir() if os.path.islink(fd)]


def writes_go_where_the_xml_says(vm, console):
    images = [f for f in files_open_in_the_worker(vm) if ".vhd" in f or ".avhd" in f]
    assert not [f for f in images if f.endswith("(deleted)")], images
    assert str(vm.disk()) in images, images
    assert console.run("echo proof > /disk/proof; sync")[0] == 0


def refused_while_the_guest_goes_on(vm, console, *command):
    before, nonce, disk = vm.files(), console.step().nonce, vm.disk()
    with no_commit(vm):
        result = vm.home.run(command[0], vm.name, *command[1:])
    assert result.returncode not in (0, 2), result
    step = console.step()
    assert step.nonce == nonce and vm.state() == "running", "the guest goes on"
    assert (vm.files(), vm.disk()) == (before, disk), "nothing is left of it"
    writes_go_where_the_xml_says(vm, console)


def the_next_one_works(vm, console):
    vm.snapshot("afterwards")
    assert console.run("cat /disk/proof") == (0, ["proof"])
    writes_go_where_the_xml_says(vm, console)
    sealed = vm.do("tree")["snapshots"][-1]["disks"][0]["path"]
    assert file_system_check(flattened_by_7zip(sealed)) == ""


def claim_snapshot_that_cannot_be_committed_leaves_the_guest_on_its_disk(home):
    vm, console = home.booted_guest()
    vm.snapshot("first")
    refused_while_the_guest_goes_on(vm, console, "snapshot")
    the_next_one_works(vm, console)


def claim_revert_that_cannot_be_committed_leaves_the_present_running(home):
    vm, console = home.booted_guest()
    vm.snapshot("first")
    refused_while_the_guest_goes_on(vm, console, "revert")
    the_next_one_works(vm, console)


def claim_save_that_cannot_be_committed_leaves_the_guest_running(home):
    vm, console = home.booted_guest()
    vm.snapshot("first")
    refused_while_the_guest_goes_on(vm, console, "save")
    the_next_one_works(vm, console)


main(globals())
