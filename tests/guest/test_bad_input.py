#!/usr/bin/python3
"""Bad input gets a clear error, and changes nothing."""

import os
import shutil
import struct
import subprocess

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import (AMBIGUOUS, CORRUPT, EXISTS, INVALID, MISMATCH, NO_SPACE, NOT_FOUND, QEMU,  # noqa: E402
                        UNSUPPORTED, USAGE, Skip, file_system_check, flattened_by_7zip, main, sha256, wait_until)


def contents(folder):
    """Every file below a folder with its hash; lock files tell who looked last, so they do not count."""
    return {str(p.relative_to(folder)): sha256(p) if p.is_file() else "folder"
            for p in folder.rglob("*") if p.suffix != ".lock"}


def unchanged(home, action):
    before = contents(home.machines)
    action()
    after = contents(home.machines)
    assert after == before, f"changed: {sorted(set(after.items()) ^ set(before.items()))}"
    wait_until(lambda: home.processes() == [], 5, "the end of every process")


def patch(file, offset, data):
    with open(file, "r+b") as stream:
        stream.seek(offset, os.SEEK_SET if offset >= 0 else os.SEEK_END)
        stream.write(data)


def vm_with_chain(home, name="v"):
    vm = home.create(name, "--disk", "64M,bus=virtio", "--nic", "none")
    vm.snapshot("one")
    return vm


def refuses_to_use(home, vm, status, says):
    """Each command that would open the disks."""
    for arguments in (["start"], ["snapshot"]):
        unchanged(home, lambda a=arguments: vm.refused(status, *a, says=says))


def claim_footer_damaged_at_both_ends_is_corrupt(home):
    vm = vm_with_chain(home)
    patch(vm.disk(), 0, b"X" * 512)
    patch(vm.disk(), -512, b"X" * 512)
    refuses_to_use(home, vm, CORRUPT, vm.disk().name)


def claim_damaged_header_is_corrupt(home):
    vm = vm_with_chain(home)
    patch(vm.disk(), 512 + 100, b"\xff")
    refuses_to_use(home, vm, CORRUPT, f"{vm.disk().name}.*header|header.*{vm.disk().name}")


def claim_block_table_entry_past_the_end_is_corrupt(home):
    vm = vm_with_chain(home)
    table = int.from_bytes(vm.disk().read_bytes()[512 + 16:512 + 24], "big")
    patch(vm.disk(), table + 8, struct.pack(">I", 0x7fffff00))
    refuses_to_use(home, vm, CORRUPT, vm.disk().name)


def claim_two_blocks_at_one_place_are_corrupt(home):
    vm = vm_with_chain(home)
    table = int.from_bytes(vm.disk().read_bytes()[512 + 16:512 + 24], "big")
    patch(vm.disk(), table, struct.pack(">II", 1, 1))
    refuses_to_use(home, vm, CORRUPT, vm.disk().name)


def claim_missing_parent_is_named_with_its_child(home):
    vm = vm_with_chain(home)
    (vm.folder / "v.vhd").rename(home.dir / "away.vhd")
    refuses_to_use(home, vm, NOT_FOUND, "v.vhd")
    (home.dir / "away.vhd").rename(vm.folder / "v.vhd")
    vm.snapshot("fine again")


def claim_parent_with_another_id_is_a_mismatch(home):
    vm = vm_with_chain(home)
    other = home.create("other", "--disk", "64M,bus=virtio")
    shutil.copyfile(other.disk(), vm.folder / "v.vhd")
    refuses_to_use(home, vm, MISMATCH, f"{vm.disk().name}.*v.vhd|v.vhd.*{vm.disk().name}")


def claim_image_that_is_its_own_parent_is_refused(home):
    vm = vm_with_chain(home)
    header = vm.disk().read_bytes()[512:1536]
    own_id = vm.disk().read_bytes()[68:84]
    name = vm.disk().name.encode("utf-16-be")
    changed = bytearray(header)
    changed[36:40] = bytes(4)
    changed[40:56] = own_id
    changed[64:576] = name + bytes(512 - len(name))
    for at in range(576, 768, 24):  # no locators: the name beside the child is what is left
        changed[at:at + 24] = bytes(24)
    changed[36:40] = struct.pack(">I", ~sum(changed) & 0xffffffff)
    patch(vm.disk(), 512, bytes(changed))
    unchanged(home, lambda: refused_with_one_of(vm, (CORRUPT, NOT_FOUND, MISMATCH)))


def refused_with_one_of(vm, statuses):
    result = vm.home.run("start", vm.name, timeout=30)
    assert result.returncode in statuses and vm.disk().name in result.stderr, result


def claim_damaged_xml_is_corrupt_and_named(home):
    vm = vm_with_chain(home)
    good = vm.xml.read_bytes()
    for bad in (b"", good[:len(good) // 2], b"\x00" * 300, good.replace(b"<memory>", b"<memory><x>"),
                b"<?xml version='1.0'?><configuration/>"):
        vm.xml.write_bytes(bad)
        for arguments in (["show"], ["start"], ["snapshot"], ["tree"]):
            unchanged(home, lambda a=arguments: vm.refused(CORRUPT, *a, says=vm.guid))
    vm.xml.write_bytes(good)
    vm.snapshot("fine again")


def claim_damaged_snapshot_xml_refuses_an_apply(home):
    vm = home.create("v", "--disk", "64M,bus=virtio")
    file = vm.snapshot_xml(vm.snapshot("one")["guid"])
    file.write_bytes(file.read_bytes()[:200])
    unchanged(home, lambda: vm.refused(CORRUPT, "revert", says=file.stem))


def claim_vm_names_are_checked(home):
    home.create("taken")
    unchanged(home, lambda: home.refused(EXISTS, "create", "taken", says="taken"))
    for name in ("", " ", "a/b", "..", "-x", "n" * 101, "new\nline", "../outside", ".hidden"):
        unchanged(home, lambda n=name: home.refused(INVALID, "create", "--", n))
    home.create("n" * 100)
    home.create("Größe und 日本")


def claim_unknown_vm_and_snapshot_are_not_found(home):
    home.refused(NOT_FOUND, "start", "nobody", says="nobody")
    vm = vm_with_chain(home)
    for selector in ("two", "ffff", "FFFFFFFF-0000-4000-8000-000000000000"):
        unchanged(home, lambda s=selector: vm.refused(NOT_FOUND, "apply", s, says=selector))


def claim_snapshot_names_are_checked(home):
    vm = home.create("v", "--disk", "64M,bus=virtio")
    for name in ("", "  ", "n" * 101, "new\nline"):
        unchanged(home, lambda n=name: vm.refused(INVALID, "snapshot", "--name", n))
    one = vm.snapshot("n" * 100)["guid"]
    unchanged(home, lambda: vm.refused(INVALID, "rename-snapshot", one, ""))


def claim_ambiguous_snapshot_name_lists_the_candidates(home):
    vm = home.create("v", "--disk", "64M,bus=virtio")
    guids = [vm.snapshot("same")["guid"] for _ in range(2)]

    def refuse():
        told = vm.refused(AMBIGUOUS, "apply", "same")
        assert all(g in told for g in guids), told
    unchanged(home, refuse)
    vm.do("apply", guids[0])


def claim_missing_and_old_qemu_are_told(home):
    vm = vm_with_chain(home)
    missing = dict(home.env, BOUGH_QEMU=str(home.dir / "no-such-qemu"))
    unchanged(home, lambda: vm.refused(QEMU, "start", env=missing, says="no-such-qemu"))
    old = home.dir / "old-qemu"
    old.write_text("#!/bin/sh\necho 'QEMU emulator version 5.2.0 (Debian)'\n")
    old.chmod(0o755)
    unchanged(home, lambda: vm.refused(QEMU, "start", env=dict(home.env, BOUGH_QEMU=str(old)), says="5.2.*7.2"))
    broken = home.dir / "broken-qemu"
    broken.write_text("#!/bin/sh\necho 'no disk of mine' >&2\nexit 1\n")
    broken.chmod(0o755)
    unchanged(home, lambda: vm.refused(QEMU, "start", env=dict(home.env, BOUGH_QEMU=str(broken))))


def claim_settings_out_of_range_are_refused(home):
    vm = home.create("v")
    for setting in ("memory=1M", "memory=abc", "cpus=0", "cpus=100000", "nonsense=1", "cpus"):
        result = home.run("set", "v", setting)
        assert result.returncode in (USAGE, INVALID) and result.stderr.startswith("bough: "), (setting, result)
    assert vm.do("show")["cpus"] == 1
    for option in (["--memory", "0"], ["--disk", "0"], ["--disk", "3T"], ["--cpus", "0"], ["--generation", "3"],
                   ["--disk", "64M,bus=floppy"], ["--disk", "/no/such/file.vhd"]):
        def refuse(arguments=option):
            result = home.run("create", "w", *arguments)
            assert result.returncode in (USAGE, INVALID, NOT_FOUND, UNSUPPORTED), (arguments, result)
            assert result.stderr.startswith("bough: "), result
        unchanged(home, refuse)


def claim_lost_or_damaged_memory_refuses_a_revert_and_the_guest_goes_on(home):
    vm, console = home.booted_guest()
    point = vm.snapshot()["guid"]
    image, state = vm.memory_file(point), vm.state_file(point)

    def refuse(status):
        result = home.run("revert", "g")
        assert result.returncode in status and point in result.stderr.upper(), result
        assert vm.state() == "running" and console.step(), "the present goes on"

    image.rename(home.dir / "away")
    refuse((NOT_FOUND,))
    shutil.copyfile(home.dir / "away", image)
    os.truncate(image, 4096)
    refuse((CORRUPT, MISMATCH))
    image.unlink()
    (home.dir / "away").rename(image)
    good = state.read_bytes()
    for bad in (good[:len(good) // 2], good[:-100] + b"X" + good[-99:], b"X" + good[1:], b""):
        state.chmod(0o600)
        state.write_bytes(bad)
        refuse((CORRUPT, MISMATCH))
    state.write_bytes(good)
    assert vm.do("revert")["state"] == "running"


def claim_no_space_for_memory_fails_the_snapshot_and_the_guest_goes_on(home):
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120m", "tmpfs", home.machines], capture_output=True,
                           text=True, check=False)
    if mount.returncode != 0:
        raise Skip(f"needs a small file system: {mount.stderr.strip()}")
    try:
        vm, console = home.booted_guest()
        console.command("fill 96 1")
        nonce = console.step().nonce
        vm.refused(NO_SPACE, "snapshot")
        step = console.step()
        assert step.nonce == nonce and vm.state() == "running"
        assert vm.do("tree")["snapshots"] == []
        assert not list(vm.snapshots.rglob("*.bin")), "what did not fit is left behind"
        assert console.run("echo still > /disk/file; sync")[0] == 0, "the disk goes on taking writes"
        console.command("fill 1 1")
        vm.do("stop", "--force")
        assert file_system_check(flattened_by_7zip(vm.disk())) == ""
        vm.do("remove", "--yes")
    finally:
        subprocess.run(["umount", "-l", home.machines], check=True)


def own_mount_namespace():
    """So that what is mounted here is seen by nobody else and goes with this process."""
    if "BOUGH_TEST_NAMESPACE" in os.environ:
        subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, check=False)
        return
    probe = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*probe, "true"], capture_output=True, check=False).returncode == 0:
        os.environ["BOUGH_TEST_NAMESPACE"] = "1"
        os.execvp(probe[0], [*probe, sys.executable, *sys.argv])


own_mount_namespace()
main(globals())
