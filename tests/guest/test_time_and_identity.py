#!/usr/bin/python3
"""What a guest that goes back is told of the time, and that it is another one now: its clocks and its generation id."""

import sys
import time
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import STATE, main, xpath  # noqa: E402

GONE_S = 6  # between the point and going back to it


class Clocks:
    """The guest's battery clock, the time since its system's start, and the host's time before and behind the look at them."""

    def __init__(self, console):
        self.host_before = time.time()
        _, (rtc, uptime) = console.run("cat /sys/class/rtc/rtc0/since_epoch; cut -d' ' -f1 /proc/uptime")
        self.host_behind = time.time()
        self.rtc, self.uptime = int(rtc), float(uptime)

    def rtc_is_the_hosts(self):
        return self.host_before - 2 <= self.rtc <= self.host_behind + 2

    def __repr__(self):
        return f"rtc {self.rtc}, uptime {self.uptime}, host {self.host_before:.2f}-{self.host_behind:.2f}"


def gone_back(home, clock):
    """The clocks at a point, behind going back to it, and how long the guest can have run between the two, at most."""
    vm, console = home.booted_guest(more=["--clock", clock])
    before = Clocks(console)
    assert before.rtc_is_the_hosts(), before
    vm.snapshot()
    time.sleep(GONE_S)
    vm.do("revert")
    after = Clocks(vm.console())
    print(f"# {clock}: {before}; then {after}", flush=True)
    return before, after, after.host_behind - before.host_before - GONE_S


def claim_with_clock_vm_the_guests_clocks_go_on_from_the_point(home):
    before, after, ran_s = gone_back(home, "vm")
    assert 0 <= after.uptime - before.uptime <= ran_s + 0.1
    assert 0 <= after.rtc - before.rtc <= ran_s + 1.1 and not after.rtc_is_the_hosts()


def claim_with_clock_host_the_battery_clock_is_the_hosts_and_the_systems_goes_on(home):
    before, after, ran_s = gone_back(home, "host")
    assert 0 <= after.uptime - before.uptime <= ran_s + 0.1
    assert after.rtc - before.rtc >= GONE_S - 1 and after.rtc_is_the_hosts()


def rtc_option(vm):
    words = Path(f"/proc/{vm.do('show')['qemu_pid']}/cmdline").read_bytes().split(b"\0")
    return words[words.index(b"-rtc") + 1].decode()


def claim_the_clock_is_pinned_in_each_snapshot(home):
    vm = home.create("c", "--disk", "8M", "--memory", "64M", "--clock", "host")
    vm.do("start", "--paused")
    assert rtc_option(vm).endswith("clock=host")
    point = vm.snapshot()["guid"]
    vm.refused(STATE, "set", "clock=vm")
    vm.do("stop", "--force")
    vm.do("set", "clock=vm")
    vm.do("start", "--paused")
    assert rtc_option(vm).endswith("clock=vm")
    vm.do("apply", point)
    assert rtc_option(vm).endswith("clock=host")
    vm.do("save")
    vm.refused(STATE, "set", "clock=vm")


def generation_id(file):
    return uuid.UUID(xpath(file, "string(//generation_id)"))


def place_of(memory_file, wanted):
    """Where a generation id stands in a memory image: once, as its ACPI device has it."""
    image, found, at = memory_file.read_bytes(), [], -1
    while (at := image.find(wanted.bytes_le, at + 1)) >= 0:
        found.append(at)
    assert len(found) == 1, f"{wanted} stands at {found}"
    return found[0]


def claim_each_going_back_gives_another_generation_id_and_a_save_does_not(home):
    vm, console = home.booted_guest()
    machine = console.run("cat /sys/class/dmi/id/product_uuid")[1]
    point = vm.snapshot()["guid"]
    place = place_of(vm.memory_file(point), generation_id(vm.snapshot_xml(point)))
    seen = [generation_id(vm.xml)]
    assert generation_id(vm.snapshot_xml(point)) == seen[0]
    for verb in ("revert", "revert", "apply"):
        vm.do(verb, *([point] if verb == "apply" else []))
        seen.append(generation_id(vm.xml))
        later = vm.snapshot()["guid"]
        assert place_of(vm.memory_file(later), seen[-1]) == place
        assert vm.console().run("cat /sys/class/dmi/id/product_uuid")[1] == machine
        vm.do("delete", later)
    assert len(set(seen)) == 4, seen
    vm.do("save")
    vm.do("start")
    assert generation_id(vm.xml) == seen[-1], "a VM that was only saved is no copy"
    assert place_of(vm.memory_file(vm.snapshot()["guid"]), seen[-1]) == place


main(globals())
