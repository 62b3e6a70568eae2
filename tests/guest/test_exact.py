#!/usr/bin/python3
"""What comes back is what was saved, to the byte, whatever the machine: generation, processors, NIC, display, the way to save,
the version of QEMU.

Some cells of that matrix are always looked at; all with $BOUGH_TEST_EXACT=all, or `test_exact.py CLAIM...`.
"""

import itertools
import os
import subprocess
import sys
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
import vmstate  # noqa: E402
from bough_test import (TOP, UNSUPPORTED, Skip, different_pages, disk_counter, flattened_by_7zip, main, memory_counters,  # noqa: E402
                        sha256, xml_disks, xpath)

ALWAYS = [(1, 1, "none", "none", "pre_copy", "installed"), (2, 4, "user", "vnc", "point_now", "installed"),
          (1, 4, "user", "vnc", "pre_copy", "backports"), (2, 1, "none", "none", "pre_copy", "backports")]
MATRIX = itertools.product((1, 2), (1, 4), ("none", "user"), ("none", "vnc"), ("pre_copy", "point_now"),
                           ("installed", "backports"))
SWITCHOVER = bytes((8, 0, 11, 0, 0))
RUN_STATE = {"globalstate#0/size", "globalstate#0/runstate"}


def backports():
    """The QEMU of Debian's backports."""
    made = subprocess.run([str(TOP / "scripts" / "qemu-backports")], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise Skip(f"scripts/qemu-backports: {made.stderr.strip().splitlines()[-1:]}")
    return made.stdout.split("\n")[-2]


def use(home, qemu):
    home.env.pop("BOUGH_QEMU", None)
    if qemu == "backports":
        home.env["BOUGH_QEMU"] = backports()


# --- memory ---

def generation_id(vm, guid):
    """As it stands in the guest's memory."""
    return uuid.UUID(xpath(vm.snapshot_xml(guid), "string(//generation_id)")).bytes_le


def check_memory(vm, one, other):
    """The memory of two snapshots is the same, but for the generation id where that is another."""
    ids = [generation_id(vm, guid) for guid in (one, other)]
    if ids[0] == ids[1]:
        assert sha256(vm.memory_file(one)) == sha256(vm.memory_file(other)), "the memory differs"
        return
    images = [vm.memory_file(guid) for guid in (one, other)]
    pages = different_pages(*images)
    assert len(pages) == 1, f"{len(pages)} pages differ, not just that of the generation id: {pages[:8]}"
    a, b = (image.read_bytes()[pages[0]:pages[0] + 4096] for image in images)
    at = a.find(ids[0])
    assert at >= 0 and a[:at] + ids[1] + a[at + 16:] == b, f"more differs at {pages[0]} than the generation id"


# --- devices ---

def stream(vm, guid):
    return vmstate.stream_of(vm.state_file(guid))


def before_devices(content):
    """Head and pages of the small blocks: ROMs, video memory, firmware. Not the announcement of the switch-over, which a
    background snapshot does not have."""
    blocks = content[:vmstate.decode(content)[0].offset]
    end = blocks[-18:]
    return blocks[:-18].removesuffix(SWITCHOVER) + end


def notification(devices):
    """What the event that tells a guest of its new generation id changes, as {field's end: XOR of its value}: a bit of
    the ACPI chip, its interrupt (9), and that interrupt's vector on its way to a processor."""
    ioapic = next(device for device in devices if device.name == "ioapic")
    vector = ioapic.fields["ioredtbl[9]"][-1]
    word = f"[{vector // 32}]"
    return {"gpe/sts": {0x0020, 0x2000}, "gpe.sts[0]": {0x20}, "sci_level": {1}, "ioapic#0/irr": {1 << 9},
            "ioredtbl[9]": {1 << 14}, "i8259#1/irr": {2}, "i8259#1/last_irr": {2}, "interrupt_request": {0x10, 0x02, 0x12},
            "tmr" + word: {1 << vector % 32}, "irr" + word: {1 << vector % 32}}


def check_devices(vm, one, other, told):
    """The state of every device is the same, field by field. told: the second one's guest was told of a generation id, and
    stands instead of running."""
    a, b = stream(vm, one), stream(vm, other)
    assert before_devices(a) == before_devices(b), "the small blocks of memory differ"
    allowed = notification(vmstate.decode(a))
    differ = vmstate.differences(vmstate.decode(a), vmstate.decode(b))
    if not told:
        assert not differ and a == b, differ
        return
    assert any("gpe" in name for name, _, _ in differ), "the guest was told of no new generation id"
    for name, ours, theirs in differ:
        if name in RUN_STATE:
            continue
        assert ours is not None and theirs is not None, f"{name} is in one state only"
        changed = int.from_bytes(ours, "big") ^ int.from_bytes(theirs, "big")
        masks = [mask for end, mask in allowed.items() if name.endswith(end)]
        assert masks and changed in masks[0], f"{name}: {ours.hex()} before, {theirs.hex()} after"


# --- the matrix ---

def check_point(vm, guid, nonce, before, after):
    """Memory and disk of a snapshot are of one instant between two of the guest's steps: its counter."""
    ((found, counter),) = memory_counters(vm.memory_file(guid))
    assert found == nonce and before <= counter <= after, (found, nonce, before, counter, after)
    disk = disk_counter(flattened_by_7zip(xml_disks(vm.snapshot_xml(guid), vm.folder)[0]), nonce)
    assert 0 <= counter - disk <= 1, f"memory {counter}, disk {disk}"
    return counter


def stand_at(vm, guid):
    vm.do("apply", guid, "--no-start")
    vm.do("start", "--paused")


def cell(home, generation, cpus, nic, display, way, qemu):
    use(home, qemu)
    vm, console = home.booted_guest(nic=nic, more=["--generation", generation, "--cpus", cpus, "--display", display])
    console.command("fill 16 1")
    console.command("dirty 8")
    before = console.step()
    first = vm.snapshot(point_now=way == "point_now")
    after = console.step(since=console.position())
    print(f"# QEMU {vm.do('show')['qemu_version']}, {first['mode']}, pause {first['pause_us']} us", flush=True)
    assert first["mode"] == ("background" if way == "point_now" else "pre-copy"), first
    first = first["guid"]
    counter = check_point(vm, first, before.nonce, before.memory, after.memory)

    stand_at(vm, first)
    second = vm.snapshot()["guid"]
    check_memory(vm, first, second)
    check_devices(vm, first, second, told=True)
    third = vm.snapshot()["guid"]  # nothing has run and no id has changed
    check_memory(vm, second, third)
    check_devices(vm, second, third, told=False)
    stand_at(vm, second)
    fourth = vm.snapshot()["guid"]
    check_memory(vm, second, fourth)
    check_devices(vm, second, fourth, told=False)

    console = vm.console()
    vm.do("resume")
    step = console.step()
    assert step.nonce == before.nonce and counter <= step.memory <= counter + 5, (step, counter)
    for _ in range(5):  # each is an error line if the disk does not agree
        console.step(since=console.position())
    later = vm.snapshot()["guid"]
    check_point(vm, later, before.nonce, counter, counter + 10000)


def make_claim(*wanted):
    def claim(home):
        cell(home, *wanted)
    generation, cpus, nic, display, way, qemu = wanted
    name = f"claim_exact_generation_{generation}_cpus_{cpus}_nic_{nic}_display_{display}_{way}_qemu_{qemu}"
    globals()[name] = claim


for each in MATRIX if os.environ.get("BOUGH_TEST_EXACT") == "all" or sys.argv[1:] else ALWAYS:
    make_claim(*each)


def described(home, generation, qemu):
    """bough itself holds each stream against QEMU's description; here another reader does, and looks whether all is there."""
    use(home, qemu)
    (home.dir / "iso").write_bytes(bytes(2048))
    buses = ("scsi", "virtio") if generation == 2 else ("ide", "scsi", "virtio")
    vm = home.create("d", "--generation", generation, "--cpus", 4, "--memory", "128M", "--display", "vnc", "--nic", "user",
                     "--nic", "user", "--cdrom", home.dir / "iso", *(w for bus in buses for w in ("--disk", f"8M,bus={bus}")))
    vm.do("start", "--paused")
    devices = vmstate.decode(stream(vm, vm.snapshot()["guid"]))
    names = " ".join(device.key for device in devices)
    for wanted in ("cpu#3", "vga#0", "virtio-net#0", "0000:00:05.0/virtio-net#0", "virtio-scsi#0", "virtio-blk#0", "vmgenid#0",
                   "serial#0", "globalstate#0", "ich9_ahci" if generation == 2 else "/ide#0"):
        assert wanted in names, f"no {wanted} among {names}"
    assert len({device.section for device in devices}) == len(devices)


def claim_state_of_all_kinds_of_devices_is_as_qemu_describes_it(home):
    described(home, 1, "installed")


def claim_state_of_all_kinds_of_devices_is_as_qemu_describes_it_generation_2(home):
    described(home, 2, "installed")


def claim_state_of_all_kinds_of_devices_is_as_a_newer_qemu_describes_it(home):
    described(home, 1, "backports")


def claim_state_of_all_kinds_of_devices_is_as_a_newer_qemu_describes_it_generation_2(home):
    described(home, 2, "backports")


# --- one version of QEMU and another ---

def is_newer(home):
    """Skips where the backports' QEMU is not newer than the installed one."""
    versions = [tuple(map(int, subprocess.run([program, "-version"], capture_output=True, text=True, check=True)
                          .stdout.split()[3].split(".")[:2])) for program in ("qemu-system-x86_64", backports())]
    if versions[0] >= versions[1]:
        raise Skip(f"QEMU {versions[0]} is installed, {versions[1]} in the backports")
    return home


def goes_on(vm, guid, nonce, counter):
    vm.do("apply", guid)
    console = vm.console()
    step = console.step()
    assert step.nonce == nonce and counter <= step.memory <= counter + 1000, (step, counter)
    console.step(since=console.position())
    return console


def across_versions(home, generation):
    is_newer(home)
    vm, console = home.booted_guest(nic="user", more=["--generation", generation, "--cpus", 2])
    console.command("fill 16 1")
    filled, nonce = console.command("hash"), console.step().nonce
    old = vm.snapshot()["guid"]
    ((_, counter),) = memory_counters(vm.memory_file(old))
    vm.do("stop", "--force")

    use(home, "backports")
    stand_at(vm, old)
    assert vm.do("show")["qemu_version"] > "10", vm.do("show")
    check_memory(vm, old, vm.snapshot()["guid"])
    console = goes_on(vm, old, nonce, counter)
    assert console.command("hash") == filled
    new = vm.snapshot()["guid"]
    ((_, later),) = memory_counters(vm.memory_file(new))
    vm.do("stop", "--force")

    use(home, "installed")
    assert goes_on(vm, new, nonce, later).command("hash") == filled


def claim_snapshot_of_an_older_qemu_goes_on_under_a_newer_one_and_back_generation_1(home):
    across_versions(home, 1)


def claim_snapshot_of_an_older_qemu_goes_on_under_a_newer_one_and_back_generation_2(home):
    across_versions(home, 2)


def claim_a_machine_that_this_qemu_does_not_offer_is_refused_and_the_present_goes_on(home):
    is_newer(home)
    use(home, "backports")
    vm, console = home.booted_guest()
    assert console.run("echo then > /disk/marker; sync")[0] == 0
    point = vm.snapshot("newer")["guid"]
    machine = vm.do("settings", "newer")["machine"]
    vm.do("stop", "--force")

    use(home, "installed")
    vm.refused(UNSUPPORTED, "start", says=machine)
    vm.refused(UNSUPPORTED, "set", f"machine={machine}", says=machine)
    vm.do("set", "machine=pc-i440fx-7.2")
    vm.do("start")
    console = vm.console()
    nonce = console.ready().nonce
    assert console.run("echo now > /disk/marker; sync")[0] == 0
    files, process = vm.files(), vm.do("show")["qemu_pid"]
    for more in ((), ("--no-start",), ("--snapshot-first",), ("--verify",)):
        vm.refused(UNSUPPORTED, "apply", "newer", *more, says=f"{machine}.*QEMU 7.*--disks-only")
    assert vm.files() == files and vm.do("show")["qemu_pid"] == process
    assert console.step(since=console.position()).nonce == nonce

    assert vm.do("apply", point, "--disks-only")["state"] == "off"
    vm.refused(UNSUPPORTED, "start", says=machine)
    vm.do("set", "machine=pc-i440fx-7.2")
    vm.do("start")
    console = vm.console()
    assert console.ready().nonce != nonce
    assert console.run("cat /disk/marker")[1] == ["then"]


main(globals())
