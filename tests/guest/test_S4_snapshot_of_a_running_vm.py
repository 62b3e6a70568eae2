#!/usr/bin/python3
"""S4: a snapshot of a running VM (the seed's case 2): all of S3, memory and device state, and the guest goes on."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import GUID, main, memory_counters, xml_disks  # noqa: E402


def claim_memory_and_device_state_are_saved_and_the_guest_goes_on_unaffected(home):
    vm, console = home.booted_guest()
    base, before = vm.disk(), set(vm.files())
    first = console.step()
    answer = vm.snapshot("running")
    after = console.step()
    guid, working = answer["guid"], vm.disk()

    assert GUID.match(guid) and answer["state_when_taken"] == "running" and answer["state"] == "running", answer
    assert set(vm.files()) - before == {
        f"Snapshots/{vm.guid}/", f"Snapshots/{guid}/", f"Snapshots/{guid}.xml", str(working.relative_to(vm.folder)),
        f"Snapshots/{guid}/{guid}.bin", f"Snapshots/{guid}/{guid}.vsv"}, vm.files()
    assert xml_disks(vm.snapshot_xml(guid), vm.folder) == [base]
    assert vm.memory_file(guid).stat().st_size == 192 << 20, "the memory image is as large as the memory"
    assert after.nonce == first.nonce and after.memory > first.memory, (first, after)

    ((nonce, counter),) = memory_counters(vm.memory_file(guid))
    assert nonce == first.nonce and first.memory <= counter <= after.memory, (first, counter, after)
    assert 0 < answer["pause_us"] < 2_000_000, answer
    assert vm.state() == "running"


def claim_every_step_is_taken_once_across_a_snapshot(home):
    vm, console = home.booted_guest()
    since = console.position()
    begun = console.step()
    vm.snapshot()
    ended = console.step()
    steps = [int(text.split()[2]) for _, text in console.lines[since:] if text.startswith("T ")]
    seen = [s for s in steps if begun.memory <= s <= ended.memory]
    assert seen == list(range(begun.memory, ended.memory + 1)), seen


def claim_paused_vm_stays_paused_and_its_snapshot_comes_back_paused(home):
    vm, console = home.booted_guest()
    vm.do("pause")
    answer = vm.snapshot("paused")
    assert answer["state_when_taken"] == "paused" and vm.state() == "paused", answer
    console = vm.console()
    vm.do("resume")
    nonce = console.step().nonce
    vm.do("revert")
    assert vm.state() == "paused"
    again = vm.console()
    vm.do("resume")
    step = again.step(since=0)
    ((_, counter),) = memory_counters(vm.memory_file(answer["guid"]))
    assert step.nonce == nonce and counter <= step.memory <= counter + 1, (step, counter)


def claim_snapshot_of_a_saved_vm_shares_its_memory(home):
    vm, console = home.booted_guest()
    nonce = console.step().nonce
    vm.do("save")
    assert vm.state() == "saved" and home.no_process_is_left()
    guid = vm.snapshot("saved")["guid"]
    assert vm.state() == "saved"
    ((saved_nonce, counter),) = memory_counters(vm.memory_file(guid))
    assert saved_nonce == nonce
    vm.do("start")
    step = vm.console().step()
    assert step.nonce == nonce and counter <= step.memory, (step, counter)


main(globals())
