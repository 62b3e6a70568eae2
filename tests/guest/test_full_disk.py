#!/usr/bin/python3
"""The host's file system is full, or breaks, while a guest writes: the guest stands until there is room, and has lost
nothing; other errors it is told of."""

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import (NO_SPACE, STATE, disk_counter, file_system_check, flattened_by_7zip, identity, kill, main,  # noqa: E402
                        replayed, sbin, wait_until)
from guest_console import STEP  # noqa: E402
from small_disk import MIB, small_disk, small_memory_disk  # noqa: E402

GROWN_MIB = 20


# --- what the guest does ---

def waits(vm):
    """Is it seen to stand for want of space, by every command that tells a state?"""
    shown = vm.do("show")
    if shown["paused_for"] is None:
        return False
    assert (shown["state"], shown["paused_for"]["code"]) == ("paused", "no-space"), shown
    assert vm.disk().name in shown["paused_for"]["message"], shown
    row = [r for r in vm.home.json("list") if r["name"] == vm.name][0]
    assert (row["state"], row["paused_for"]) == ("paused", shown["paused_for"]), row
    tree = vm.do("tree")["vm"]
    assert (tree["state"], tree["paused_for"]) == ("paused", shown["paused_for"]), tree
    for words in (["list"], ["tree", vm.name]):
        assert "paused: no-space" in vm.home.bough(*words), words
    assert re.search(r"paused for: +no space left for .*vhd", vm.home.bough("show", vm.name))
    return True


def until_it_waits(vm):
    wait_until(lambda: waits(vm), 60, "the guest to stand for want of space")


def until_it_runs(vm, deadline_s):
    wait_until(lambda: vm.state() == "running", deadline_s, "the guest to go on")
    assert vm.do("show")["paused_for"] is None


def ends_growing(console, since, mib=GROWN_MIB):
    console.wait(rf"^R grew {mib}$", 120, since)
    assert console.command("grown", r"^R grown (\d+)$") == str(mib * 256)


def grows_until_it_waits(vm, console, disk, leave=4 * MIB):
    disk.leave(leave)
    since = console.position()
    console.send(f"grow {GROWN_MIB}")
    until_it_waits(vm)
    return since


def log_of(vm):
    return "".join(p.read_text() for p in vm.home.runtime.glob("*/worker.log"))


def shut_down(vm):
    """Its file system is clean, and the file that grew is whole, as others read it."""
    vm.do("stop")
    image = flattened_by_7zip(vm.disk())
    assert file_system_check(image) == ""
    return image


def grown_outside(image):
    """How many pages of the file that grew are what the guest wrote, from the first on."""
    with replayed(image) as disk, tempfile.TemporaryDirectory(dir="/tmp") as folder:
        file = Path(folder, "grown")
        subprocess.run([sbin("debugfs"), "-R", f"dump /grown {file}", str(disk)], capture_output=True, check=True)
        data = file.read_bytes()
    pages = 0
    while data[pages * 4096:(pages + 1) * 4096] == page_of(pages):
        pages += 1
    return pages


def page_of(page):
    return ((page + 1) * 0x9e3779b97f4a7c15 % 2**64).to_bytes(8, "little") * 512


# --- claims ---

def goes_on_by_itself(home, **guest):
    with small_disk(home, home.machines, 96) as disk:
        vm, console = home.booted_guest(**guest)
        since = grows_until_it_waits(vm, console, disk)
        time.sleep(3)
        assert waits(vm), "it stands as long as there is no room"
        assert "no space left: the guest stands" in log_of(vm)
        disk.make_room()
        until_it_runs(vm, 8)
        ends_growing(console, since)
        step = console.step()
        assert step.memory == step.disk
        assert vm.do("show")["disk_errors"] == [], "the guest was told of no error"
        assert grown_outside(shut_down(vm)) == GROWN_MIB * 256


def claim_guest_with_a_virtio_disk_stands_and_goes_on_by_itself(home):
    goes_on_by_itself(home)


def claim_guest_with_a_scsi_disk_stands_and_goes_on_by_itself(home):
    goes_on_by_itself(home, disks=("96M,bus=scsi",))


def claim_guest_with_an_ide_disk_stands_and_goes_on_by_itself(home):
    goes_on_by_itself(home, disks=("96M,bus=ide",))


def claim_guest_of_generation_2_stands_and_goes_on_by_itself(home):
    goes_on_by_itself(home, disks=("96M,bus=scsi",), more=["--generation", "2"])


def claim_guest_that_its_user_paused_meanwhile_is_not_continued(home):
    with small_disk(home, home.machines, 96) as disk:
        vm, console = home.booted_guest()
        since = grows_until_it_waits(vm, console, disk)
        assert vm.do("pause")["state"] == "paused"
        shown = vm.do("show")
        assert (shown["state"], shown["paused_for"]) == ("paused", None)
        disk.make_room()
        time.sleep(5)
        assert vm.state() == "paused"
        assert vm.do("resume")["state"] == "running"
        ends_growing(console, since)
        assert vm.state() == "running"


def claim_guest_that_waits_goes_on_by_itself_with_another_worker_too(home):
    with small_disk(home, home.machines, 96) as disk:
        vm, console = home.booted_guest()
        since = grows_until_it_waits(vm, console, disk)
        kill(vm.do("show")["worker_pid"])
        vm.do("console")  # whatever it is, a new worker does it
        until_it_waits(vm)
        disk.make_room()
        until_it_runs(vm, 40)
        ends_growing(console, since)
        assert console.step().memory > 0


def claim_resume_tries_at_once_and_tells_that_there_is_no_space(home):
    with small_disk(home, home.machines, 96) as disk:
        vm, console = home.booted_guest()
        since = grows_until_it_waits(vm, console, disk)
        vm.refused(NO_SPACE, "resume", says="no space for .*vhd; it goes on by itself")
        assert waits(vm)
        vm.do("pause")
        vm.refused(NO_SPACE, "resume")
        assert waits(vm), "who resumes it wants it to run"
        disk.make_room()
        until_it_runs(vm, 12)
        ends_growing(console, since)


def claim_what_was_answered_is_there_after_the_power_is_cut_on_a_full_disk(home):
    with small_disk(home, home.machines, 96) as disk:
        vm, console = home.booted_guest()
        grows_until_it_waits(vm, console, disk)
        vm.refused(STATE, "stop", says="want of space")
        assert waits(vm)
        assert vm.do("stop", "--force")["state"] == "off"
        said = [text for _, text in console.lines]
        step = [STEP.match(text) for text in said if STEP.match(text)][-1]
        grown = [int(text.split()[2]) for text in said if text.startswith("R grows ")][-1]
        image = flattened_by_7zip(vm.disk())
        assert file_system_check(image) == ""
        assert disk_counter(image, step.group(1)) >= int(step.group(2)) > 0
        assert grown_outside(image) >= grown >= 256
        disk.make_room()
        vm.do("start")
        console = vm.console()
        console.ready()
        assert shut_down(vm)


def listed(vm):
    """Every snapshot with its files, as they are."""
    snapshots = vm.do("tree")["snapshots"]
    files = [f for s in snapshots for f in (vm.snapshot_xml(s["guid"]), vm.memory_file(s["guid"]),
                                            vm.state_file(s["guid"]), *(d["path"] for d in s["disks"]))]
    return snapshots, [identity(f) for f in files]


def claim_snapshot_that_finds_no_space_leaves_the_guest_running_and_nothing_behind(home):
    with small_disk(home, home.machines, 320) as disk:
        vm, console = home.booted_guest(step_ms=50)
        first = vm.snapshot("first")
        console.command("fill 48 7")
        hash_before = console.command("hash", r"^R hash (.*)")
        console.step()
        before, nonce = listed(vm), console.step().nonce
        for leave in (0, 16 << 10, 128 << 10, MIB, 4 * MIB, 16 * MIB, 32 * MIB):
            disk.leave(leave)
            files = vm.files()
            for verb in ("snapshot", "save", "snapshot"):
                vm.refused(NO_SPACE, verb)
                assert vm.files() == files, f"{verb} with {leave} bytes left"
            assert listed(vm) == before
            disk.make_room()
            until_it_runs(vm, 12)
            assert console.step().nonce == nonce
        assert console.command("hash", r"^R hash (.*)") == hash_before
        vm.snapshot("second")
        vm.do("apply", first["guid"])
        assert vm.console().step().nonce == nonce


def claim_what_a_snapshot_needs_is_told_and_what_cannot_fit_is_refused_before_it_is_begun(home):
    with small_disk(home, home.machines, 320) as disk:
        vm, console = home.booted_guest()
        console.command("fill 48 7")
        told = {verb: home.json(verb, vm.name, "--dry-run") for verb in ("snapshot", "save")}
        assert abs(told["snapshot"]["free_bytes"] - disk.free_bytes()) < 4 * MIB, told
        first = vm.snapshot("first")
        took = vm.memory_file(first["guid"]).stat().st_blocks * 512
        for verb, answer in told.items():
            assert abs(answer["needs_bytes"] - took) < max(took / 8, 12 * MIB), (verb, answer, took)
        assert home.json("snapshot", vm.name, "--dry-run")["needs_bytes"] > 48 * MIB
        disk.leave(took // 2)
        files, before = vm.files(), console.step()
        for verb in ("snapshot", "save"):
            vm.refused(NO_SPACE, verb, says=r"needs about \S+ MiB, and \S+ MiB are free")
        assert vm.files() == files and console.step().nonce == before.nonce
        # Gone back to, most of it is in the file that it came from, and not in memory.
        disk.make_room()
        vm.do("apply", first["guid"])
        needs = home.json("snapshot", vm.name, "--dry-run")["needs_bytes"]
        assert abs(needs - took) < max(took / 8, 12 * MIB), (needs, took)
        disk.leave(took // 2)
        vm.refused(NO_SPACE, "snapshot", says="needs about")
        disk.make_room()
        vm.snapshot("second")


def claim_snapshot_of_a_guest_that_waits_on_a_full_disk_leaves_it_waiting(home):
    with small_disk(home, home.machines, 256) as disk:
        vm, console = home.booted_guest()
        vm.snapshot("first")
        before = listed(vm)
        since = grows_until_it_waits(vm, console, disk)
        files = vm.files()
        for verb in ("snapshot", "save", "snapshot"):
            vm.refused(NO_SPACE, verb)
            assert waits(vm) and vm.files() == files, verb
        assert listed(vm) == before
        disk.make_room()
        until_it_runs(vm, 12)
        ends_growing(console, since)


def claim_guest_that_finds_no_space_right_behind_its_snapshot_goes_on_from_where_it_stopped(home):
    """Its memory must not be that of the snapshot then, whose disk is of an earlier time."""
    with small_disk(home, home.machines, 512) as disk:
        vm, console = home.booted_guest()
        first = vm.snapshot("first")
        image_bytes = vm.memory_file(first["guid"]).stat().st_blocks * 512
        vm.do("apply", first["guid"])
        console = vm.console()
        for extra in range(0, 16 * MIB, MIB):
            disk.leave(image_bytes + extra)
            since = console.position()
            console.send(f"grow {GROWN_MIB}")
            if home.run("snapshot", vm.name).returncode == 0:
                break
            disk.make_room()
            until_it_runs(vm, 12)
            console.command("idle")
        wait_until(lambda: waits(vm), 10, "the guest to stand behind its snapshot")
        disk.make_room()
        until_it_runs(vm, 12)
        ends_growing(console, since)
        assert grown_outside(shut_down(vm)) == GROWN_MIB * 256


def claim_guest_that_waits_can_go_back(home):
    with small_disk(home, home.machines, 256) as disk:
        vm, console = home.booted_guest()
        first = vm.snapshot("first")
        step = console.step()
        grows_until_it_waits(vm, console, disk)
        disk.leave(0)
        files = vm.files()
        vm.refused(NO_SPACE, "apply", first["guid"])
        assert waits(vm) and vm.files() == files
        disk.give_back(256 << 10)
        answer = vm.do("apply", first["guid"])
        assert answer["running_us"] > 0 and (answer["state"] == "running" or waits(vm)), answer  # what it writes next may find no room
        disk.make_room()
        wait_until(lambda: vm.do("show")["paused_for"] is None, 30, "the guest to go on")
        console = vm.console()
        assert console.step().nonce == step.nonce and vm.state() == "running"
        assert shut_down(vm)


def claim_guest_that_waits_goes_on_when_a_snapshot_is_deleted(home):
    with small_disk(home, home.machines, 256) as disk:
        vm, console = home.booted_guest()
        first = vm.snapshot("first")
        since = grows_until_it_waits(vm, console, disk)
        disk.leave(256 << 10)
        vm.do("delete", first["guid"])
        until_it_runs(vm, 12)
        ends_growing(console, since)
        disk.make_room()
        assert grown_outside(shut_down(vm)) == GROWN_MIB * 256


def claim_snapshot_onto_another_file_system_takes_the_failed_write_along(home):
    """The request that failed is part of the guest. The new top, on a file system with room, takes it when the guest goes
    on; and again after the snapshot was applied."""
    with small_disk(home, home.dir / "small", 72) as disk:
        home.bough("disk", "create", disk.folder / "base.vhd", "--size", "96M")
        vm, console = home.booted_guest(disks=(f"{disk.folder / 'base.vhd'},bus=virtio",))
        since = grows_until_it_waits(vm, console, disk)
        taken = vm.snapshot("stands")
        assert taken["state_when_taken"] == "running"
        until_it_runs(vm, 5)
        console = vm.console()
        ends_growing(console, 0)
        sealed = identity(disk.folder / "base.vhd")
        assert vm.do("apply", taken["guid"])["state"] == "running"
        console = vm.console()
        ends_growing(console, 0)
        assert identity(disk.folder / "base.vhd") == sealed
        assert grown_outside(shut_down(vm)) == GROWN_MIB * 256
        assert since >= 0


def claim_limit_that_the_file_system_does_not_show_is_tried_again_and_again(home):
    """As with a quota. Here it is the worker's limit of a file's size, which QEMU's disks are to reach."""
    vm = home.create_guest()
    vm.do("start")
    console = vm.console()
    console.ready()
    worker = vm.do("show")["worker_pid"]
    limits = (vm.disk().stat().st_size + 8 * MIB, resource.RLIM_INFINITY)
    resource.prlimit(worker, resource.RLIMIT_FSIZE, limits)
    since = console.position()
    console.send(f"grow {GROWN_MIB}")
    until_it_waits(vm)
    time.sleep(4)
    wait_until(lambda: waits(vm), 10, "the guest to stand again behind a try")
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    until_it_runs(vm, 15)
    ends_growing(console, since)
    assert grown_outside(shut_down(vm)) == GROWN_MIB * 256


def claim_runtime_folder_without_space_is_named_in_place_of_the_image(home):
    """What was answered and is not flushed is kept there, for the case that the worker is killed."""
    with small_memory_disk(home, home.runtime, 16) as runtime:
        vm, console = home.booted_guest(disks=("4G,bus=virtio",))
        runtime.leave(0)
        since = console.position()
        console.send(f"grow {GROWN_MIB}")
        shown = wait_until(lambda: vm.do("show")["paused_for"], 60, "the guest to stand for want of space")
        assert f"no space left for {runtime.folder}/" in shown["message"], shown
        runtime.make_room()
        until_it_runs(vm, 12)
        ends_growing(console, since)


def claim_sync_that_fails_is_an_error_to_the_guest_and_stays_one(home):
    """A file system on storage that has promised more than it has: writes go to memory, and are lost on their way."""
    with small_memory_disk(home, home.dir / "thin", 64) as storage, \
            small_disk(home, home.dir / "promised", 256, kind="ext2", backing=storage.folder) as disk:
        base = disk.folder / "base.vhd"
        home.bough("disk", "create", base, "--size", "96M")
        vm, console = home.booted_guest(disks=(f"{base},bus=virtio",))
        storage.leave(0)
        console.command("step 0")
        status, _ = console.run("dd if=/dev/urandom of=/disk/lost bs=64k count=256 conv=fsync")
        assert status != 0, "the guest is told"
        shown = vm.do("show")
        assert (shown["state"], shown["paused_for"]) == ("running", None), shown
        errors = shown["disk_errors"]
        assert len(errors) == 1 and errors[0]["path"] == str(base) and errors[0]["count"] > 0, errors
        assert (errors[0]["disk"], errors[0]["operation"], errors[0]["reason"]) == (
            "virtio0", "write", "Input/output error"), errors
        assert "disk errors: virtio0" in vm.home.bough("show", vm.name)
        assert str(base) in log_of(vm) and "was told of an I/O error" in log_of(vm)
        storage.make_room()
        time.sleep(1)
        files = vm.files()
        result = home.run("snapshot", vm.name)
        assert result.returncode == 3 and str(base) in result.stderr, result
        assert vm.state() == "running" and vm.files() == files, "what is not durable becomes no snapshot's"
        assert console.command("ping still") == "pong still"


main(globals())
