#!/usr/bin/python3
"""Snapshots under KVM. The guest is boot_sector.S, because there are hosts whose KVM gets through nothing larger."""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from boot_sector import boot_sector_disk  # noqa: E402
from bough_test import Skip, different_pages, flattened_by_7zip, main, memory_counters, xml_disks  # noqa: E402

BOOT_S = 120  # the BIOS takes its time where the processor is no real one


def needs_kvm():
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError as error:
        raise Skip(f"/dev/kvm cannot be opened: {error.strerror}") from error


def booted(home, accel="kvm"):
    needs_kvm()
    vm = home.create("k", "--memory", "16M", "--accel", accel, "--cpu", "qemu64", "--nic", "none", "--disk",
                     f"{boot_sector_disk(home, 'boot_sector.S')},bus=ide")
    vm.do("start")
    shown = vm.do("show")
    assert shown["accelerator"] == accel, shown
    console = vm.console()
    return vm, console, console.step(deadline_s=BOOT_S)


def check_point(vm, guid, before, after):
    """Memory and disk of the snapshot hold one counter, of a moment between two steps; a step is written behind it."""
    ((nonce, counter),) = memory_counters(vm.memory_file(guid))
    assert nonce == before.nonce and before.memory <= counter <= after.memory, (nonce, counter, before, after)
    sector = flattened_by_7zip(xml_disks(vm.snapshot_xml(guid), vm.folder)[0])[512:1024]
    assert f"{int.from_bytes(sector[16:24], 'little'):016x}" == nonce
    assert 0 <= counter - int.from_bytes(sector[24:32], "little") <= 1, sector[:32]
    return counter


def take(vm, console, point_now):
    before = console.step()
    answer = vm.snapshot(point_now=point_now)
    after = console.step(since=console.position())
    print(f"# {answer['mode']}, pause {answer['pause_us']} us", flush=True)
    assert answer["mode"] == ("background" if point_now else "pre-copy"), answer
    return answer["guid"], check_point(vm, answer["guid"], before, after), after


def goes_on_from(vm, verb, counter, nonce, *arguments):
    vm.do(verb, *arguments)
    console = vm.console()
    step = console.step()
    assert step.nonce == nonce and counter <= step.memory <= counter + 40, (step, counter)
    console.step(since=console.position())  # that memory and disk agree is the guest's to say
    return console


def take_and_go_back(home, point_now):
    vm, console, first = booted(home)
    point, counter, after = take(vm, console, point_now)
    while console.step(since=console.position()).memory <= after.memory + 20:
        time.sleep(0.05)
    for _ in range(3):
        console = goes_on_from(vm, "revert", counter, first.nonce)
    if point_now:
        return
    later, later_counter, _ = take(vm, console, point_now=False)
    goes_on_from(vm, "apply", counter, first.nonce, point)
    goes_on_from(vm, "apply", later_counter, first.nonce, later)


def claim_snapshot_under_kvm_is_gone_back_to(home):
    take_and_go_back(home, point_now=False)


def claim_snapshot_of_now_under_kvm_is_gone_back_to(home):
    take_and_go_back(home, point_now=True)


def span(one, other):
    """Bytes from the first to the last that differ."""
    differ = [at for at, (a, b) in enumerate(zip(one, other)) if a != b]
    return differ[-1] + 1 - differ[0]


def claim_memory_restored_under_kvm_and_saved_again_is_identical_but_for_the_clock_that_kvm_writes(home):
    vm, _, _ = booted(home)
    first = vm.snapshot()["guid"]
    vm.do("apply", first, "--no-start")
    vm.do("start", "--paused")
    images = [vm.memory_file(guid) for guid in (first, vm.snapshot()["guid"])]
    pages = different_pages(*images)
    a, b = (image.read_bytes() for image in images)
    spans = [span(a[at:at + 4096], b[at:at + 4096]) for at in pages]
    # The generation id has 16 bytes; the host's time for the one processor, at the place that its BIOS gave, 32.
    assert len(pages) <= 2 and all(each <= 32 for each in spans), f"{spans} bytes differ at {pages}"


def claim_saved_vm_goes_on_under_kvm(home):
    vm, console, first = booted(home)
    console.step(since=console.position())
    vm.do("save")
    before = console.lines[-1][1]
    vm.do("start")
    step = vm.console().step()
    assert step.nonce == first.nonce and step.memory > first.memory, (before, step)


main(globals())
