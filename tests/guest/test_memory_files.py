#!/usr/bin/python3
"""Re-snapshot identity, and a memory image that nothing writes."""

import os
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import Skip, different_pages, identity, is_alive, main, sha256, wait_until  # noqa: E402

TOUCHED = "user.bough.touched"


def claim_restored_paused_and_snapshotted_again_the_memory_image_is_byte_identical(home):
    vm, console = home.booted_guest()
    console.command("fill 16 1")
    console.command("dirty 16")
    first = vm.snapshot("first")["guid"]
    vm.do("apply", first, "--no-start")
    vm.do("start", "--paused")
    again = vm.snapshot("again")["guid"]
    assert vm.state() == "paused"
    pages = different_pages(vm.memory_file(first), vm.memory_file(again))
    assert len(pages) <= 1, f"{len(pages)} pages differ, not just that of a generation id: {pages[:8]}"
    vm.do("resume")
    assert vm.console().step()


def claim_memory_image_is_not_written_by_the_vm_restored_from_it(home):
    vm, console = home.booted_guest()
    console.command("fill 32 1")
    point = vm.snapshot()["guid"]
    files = [vm.memory_file(point), vm.state_file(point), vm.snapshot_xml(point)]
    then = [identity(f) for f in files]
    vm.do("revert")
    console = vm.console()
    hash_then = console.command("hash")
    console.command("fill 32 2")
    assert console.command("hash") != hash_then
    assert int(console.command("scribble 3").split()[1]) >= 32
    assert [identity(f) for f in files] == then
    vm.do("stop", "--force")
    assert [identity(f) for f in files] == then
    vm.do("revert")
    assert vm.console().command("hash") == hash_then


def claim_second_snapshot_of_a_restored_vm_does_not_touch_the_first(home):
    vm, _ = home.booted_guest()
    first = vm.snapshot("first")["guid"]
    then = sha256(vm.memory_file(first))
    vm.do("revert")
    console = vm.console()
    console.command("fill 16 3")
    hash_second = console.command("hash")
    second = vm.snapshot("second")["guid"]
    assert sha256(vm.memory_file(first)) == then
    vm.do("apply", first)
    assert vm.console().command("hash") != hash_second
    vm.do("apply", second)
    assert vm.console().command("hash") == hash_second


def claim_what_a_restored_vm_touched_first_is_noted_and_is_no_change_of_its_image(home):
    vm, console = home.booted_guest()
    console.command("fill 32 1")
    point = vm.snapshot()["guid"]
    image = vm.memory_file(point)
    then = identity(image)
    try:
        os.setxattr(image, "user.bough.try", b"x")
    except OSError as error:
        raise Skip(f"{image.parent} has no extended attributes") from error
    assert TOUCHED not in os.listxattr(image)
    vm.do("revert")
    console = vm.console()
    wait_until(lambda: TOUCHED in os.listxattr(image), 20, "what was touched to be noted")
    noted = os.getxattr(image, TOUCHED)
    hash_then = console.command("hash")
    vm.do("revert")
    assert vm.console().command("hash") == hash_then
    assert (identity(image), os.getxattr(image, TOUCHED)) == (then, noted)
    for nonsense in (b"x", b"\x01\x00\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80", b"\x01\x00\x00\xff\xff\xff\xff\x7f", bytes(2000)):
        os.setxattr(image, TOUCHED, nonsense)
        vm.do("revert")
        assert vm.console().command("hash") == hash_then
    vm.do("apply", point, "--verify")


def claim_nothing_in_a_restored_qemu_can_give_memory_back(home):
    vm, _ = home.booted_guest()
    image = vm.memory_file(vm.snapshot()["guid"])
    vm.do("revert")
    pid = vm.do("show")["qemu_pid"]
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
    assert str(image) in words
    assert not re.search("balloon|virtio-mem|reporting|hinting|postcopy|pmem", words), words
    mappings = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if line.endswith(image.name)]
    assert mappings and all(mapping[1][3] == "p" for mapping in mappings), mappings


def claim_revert_ends_the_old_qemu_and_leaves_just_one(home):
    vm, _ = home.booted_guest()
    vm.snapshot()
    old = vm.do("show")["qemu_pid"]
    vm.do("revert")
    new = vm.do("show")["qemu_pid"]
    assert old != new and is_alive(new)
    end = time.monotonic() + 5
    while is_alive(old) and time.monotonic() < end:
        time.sleep(0.02)
    assert not is_alive(old), "the QEMU of before the revert still runs"


main(globals())
