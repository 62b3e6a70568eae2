#!/usr/bin/python3
"""`bough check`: a whole VM has no fault, and each sort of damage is named with the file that has it. Nothing is changed by it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import BUSY, CANCELLED, CORRUPT, NOT_FOUND, main  # noqa: E402

CHUNK = 2 << 20


class Sample:
    """A VM that is Saved, with snapshots taken paused, running, off and saved, one under the other; put back after each damage."""

    def __init__(self, home):
        self.vm = home.create("v", "--memory", "34M", "--disk", "16M,bus=virtio", "--nic", "none", "--display", "vnc")
        vm = self.vm
        vm.do("start", "--paused")
        self.paused = vm.snapshot("paused")["guid"]
        vm.do("resume")
        time.sleep(0.5)  # the firmware writes its memory
        self.running = vm.snapshot("running")["guid"]
        vm.do("stop", "--force")
        self.off = vm.snapshot("off")["guid"]
        vm.do("apply", self.running)
        vm.do("save")
        self.saved = vm.snapshot("saved")["guid"]
        self.good = home.dir / "good"
        subprocess.run(["cp", "-a", vm.folder, self.good], check=True)

    def restore(self):
        shutil.rmtree(self.vm.folder)
        subprocess.run(["cp", "-a", self.good, self.vm.folder], check=True)


def touched(folder):
    """When each file was written last; lock files tell who looked."""
    return {str(path): (status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode) for path in folder.rglob("*")
            if path.suffix != ".lock" and (status := path.lstat())}


def check(vm):
    """(exit status, answer)"""
    runs, before = vm.home.processes(), touched(vm.folder)
    result = vm.home.run("check", vm.name, "--json")
    people = vm.home.run("check", vm.name)
    assert runs or touched(vm.folder) == before, "something was changed"
    assert runs or not vm.home.processes(), "a process is left"
    assert result.returncode in (0, CORRUPT) and people.returncode == result.returncode, (result, people)
    answer = json.loads(result.stdout)
    assert (result.returncode == CORRUPT) == any(not f["harmless"] for f in answer["faults"]), answer
    for fault in answer["faults"]:
        assert f"{fault['file']}: {fault['text']}" in people.stdout, (fault, people.stdout)
    if not answer["faults"]:
        assert "no fault was found" in people.stdout, people.stdout
    return result.returncode, answer


def flip(file, offset, mask=0x10):
    with open(file, "r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)[0]
        stream.seek(offset)
        stream.write(bytes([byte ^ mask]))


def data_at(file):
    """The first byte of the file that is no hole."""
    fd = os.open(file, os.O_RDONLY)
    try:
        return os.lseek(fd, 0, os.SEEK_DATA)
    finally:
        os.close(fd)


def replace(file, old, new, count=1):
    text = file.read_text(encoding="utf-8")
    assert old in text, (old, text)
    file.write_text(text.replace(old, new, count), encoding="utf-8")


def swap(one, other):
    aside = one.with_suffix(".aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def claim_a_whole_vm_has_no_fault_in_any_state(home):
    sample = Sample(home)
    vm = sample.vm
    status, answer = check(vm)
    assert status == 0 and answer["faults"] == [] and answer["in_use"] == [], answer
    assert answer["snapshots"] == 4 and answer["images"] == 5 and answer["bytes"] > 500000, answer
    assert answer["memories"] == 3, "what a snapshot of a Saved VM shares with it is read once"
    vm.do("start")
    top = vm.disk()
    for verb in ("show", "pause"):
        vm.do(verb)
        status, answer = check(vm)
        assert status == 0 and answer["faults"] == [] and answer["in_use"] == [str(top)], answer
    vm.do("stop", "--force")
    status, answer = check(vm)
    assert status == 0 and answer["faults"] == [] and answer["in_use"] == [], answer


def claim_each_damage_is_named(home):
    sample = Sample(home)
    vm = sample.vm
    memory, state = vm.memory_file(sample.running), vm.state_file(sample.running)
    other_memory, other_state = vm.memory_file(sample.paused), vm.state_file(sample.paused)
    base, layer = vm.folder / "v.vhd", xml_layer(vm, sample.running)
    at = data_at(memory)
    saved = next((vm.folder / "Virtual Machines" / vm.guid).glob("*.vsv"))

    def swap_memory():
        swap(memory, other_memory)

    def swap_pairs():
        swap_memory()
        swap(state, other_state)

    def listed_parent():
        replace(vm.xml, f"<parent type=\"string\">{sample.paused}</parent>", "<parent type=\"string\"/>")

    def another_parent():
        alone = home.dir / "alone.vhd"
        alone.unlink(missing_ok=True)
        home.bough("disk", "create", alone, "--size", "16M")
        shutil.copy(alone, base)

    truncated = memory.stat().st_size - 4096
    damages = [
        (lambda: flip(memory, at + 7), memory, rf"checksum of the {CHUNK} bytes at {at - at % CHUNK} is wrong"),
        (lambda: os.truncate(memory, truncated), memory, rf"{truncated} bytes"),
        (memory.unlink, memory, "No such file"),
        (swap_memory, memory, "checksum of the .* bytes at"),
        (swap_memory, other_memory, "checksum of the .* bytes at"),
        (swap_pairs, state, "has the id .* the settings name"),
        (lambda: flip(state, 20), state, "."),
        (lambda: flip(state, 4100), state, "checksum of the chunk table"),
        (lambda: flip(state, state.stat().st_size - 900), state, "checksum of the state"),
        (lambda: os.truncate(state, 9000), state, "."),
        (state.unlink, state, "No such file"),
        (lambda: flip(saved, saved.stat().st_size - 900), saved, "checksum of the state"),
        (lambda: replace(vm.snapshot_xml(sample.running), ">34</size>", ">35</size>"), state, "the settings say"),
        (lambda: replace(vm.snapshot_xml(sample.running), "</configuration>", ""), vm.snapshot_xml(sample.running), "."),
        (vm.snapshot_xml(sample.off).unlink, vm.snapshot_xml(sample.off), "missing"),
        (lambda: replace(vm.xml, "<configuration>", "<configuration><"), vm.xml, "."),
        (vm.xml.unlink, vm.xml.parent, "file is missing"),
        (listed_parent, vm.snapshot_xml(sample.running), f"parent_snapshot is {sample.paused}, the VM's list says none"),
        (base.unlink, xml_layer(vm, sample.running), "v.vhd"),
        (another_parent, xml_layer(vm, sample.running), "wants a parent with the unique id"),
        (another_parent, base, "has the unique id .*, the snapshot was taken of one with"),
        (layer.unlink, layer, "No such file|not exist"),
        (lambda: flip(layer, 512 + 3), layer, "."),
        (lambda: os.truncate(layer, 700), layer, "."),
    ]
    for i, (damage, file, says) in enumerate(damages):
        damage()
        status, answer = check(vm)
        named = [f for f in answer["faults"] if f["file"] == str(file) and re.search(says, f["text"]) and not f["harmless"]]
        assert status == CORRUPT and named, (i, str(file), says, answer["faults"])
        sample.restore()
    assert check(vm)[0] == 0


def xml_layer(vm, guid):
    """The image that the snapshot names."""
    settings = vm.do("settings", guid)
    return Path(settings["disks"][0]["path"])


def claim_what_is_wrong_with_one_does_not_hide_the_rest(home):
    sample = Sample(home)
    vm = sample.vm
    flip(vm.memory_file(sample.running), data_at(vm.memory_file(sample.running)))
    vm.state_file(sample.paused).unlink()
    vm.xml.write_text("nothing", encoding="utf-8")
    _, answer = check(vm)
    files = {f["file"] for f in answer["faults"] if not f["harmless"]}
    assert files == {str(vm.memory_file(sample.running)), str(vm.state_file(sample.paused)), str(vm.xml)}, answer


def claim_damage_below_the_disk_that_is_in_use_is_found(home):
    sample = Sample(home)
    vm = sample.vm
    vm.do("start")
    flip(vm.memory_file(sample.running), data_at(vm.memory_file(sample.running)))
    status, answer = check(vm)
    assert status == CORRUPT and [f["file"] for f in answer["faults"]] == [str(vm.memory_file(sample.running))], answer
    assert vm.state() == "running"


def claim_files_that_nothing_names_are_told_and_harmless(home):
    vm = home.create("v", "--disk", "16M,bus=virtio", "--nic", "none")
    guid = vm.snapshot()["guid"]
    stray = "0AF97B3D-15E9-4C6C-A3D7-6B2BD9D30A50"
    extra = [vm.disks_folder / f"v_{stray}.avhd", vm.snapshots / guid / f"{stray}.bin", vm.snapshots / f"{stray}.xml",
             vm.snapshots / "notes.txt", vm.xml.parent / f"{stray}.xml.tmp~"]
    for file in extra:
        file.parent.mkdir(exist_ok=True)
        file.write_text("x", encoding="utf-8")
    status, answer = check(vm)
    told = {f["file"] for f in answer["faults"]}
    assert status == 0 and told == {str(f) for f in extra} and all(f["kind"] == "extra" for f in answer["faults"]), answer
    assert all(f.exists() for f in extra), "looking removes nothing"


def claim_a_medium_that_is_gone_is_named(home):
    iso = home.dir / "a.iso"
    iso.write_bytes(b"\0" * 4096)
    vm = home.create("v", "--cdrom", iso, "--nic", "none")
    assert check(vm)[0] == 0
    iso.unlink()
    status, answer = check(vm)
    assert status == CORRUPT and [f["file"] for f in answer["faults"]] == [str(iso)], answer


def claim_no_vm_is_no_fault(home):
    home.refused(NOT_FOUND, "check", "v", says="no VM")


def claim_an_interrupt_ends_it(home):
    vm = home.create("v", "--memory", "1G", "--disk", "16M,bus=virtio", "--nic", "none")
    vm.do("start", "--paused")
    guid = vm.snapshot()["guid"]
    vm.do("stop", "--force")
    with open(vm.memory_file(guid), "r+b") as stream:  # without holes, so that there is something to read
        for offset in range(1 << 20, 1 << 30, 1 << 20):
            stream.seek(offset)
            stream.write(bytes(1 << 20))
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        for delay in (0.2, 0.1, 0.05, 0.025, 0.4):  # hosts differ
            process = subprocess.Popen([home.program, "check", "v"], env=home.env, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, text=True)
            time.sleep(delay)
            process.send_signal(signal_number)
            out, told = process.communicate(timeout=60)
            if process.returncode == CANCELLED:
                break
        assert process.returncode == CANCELLED and out == "" and "was cancelled" in told, (process.returncode, out, told)
    assert vm.snapshot()["guid"], "its lock is free again"


def claim_a_vm_that_changes_meanwhile_is_never_called_damaged(home):
    """Checks and changes at the same time, as fast as both go."""
    vm = home.create("v", "--memory", "32M", "--disk", "16M,bus=virtio", "--nic", "none")
    vm.do("start")
    guids, results = [vm.snapshot()["guid"]], []
    ended = threading.Event()

    def check_always():
        while not ended.is_set():
            results.append(home.run("check", "v", "--json"))

    checker = threading.Thread(target=check_always)
    checker.start()
    try:
        end = time.monotonic() + 8
        while time.monotonic() < end:
            guids.append(vm.snapshot()["guid"])
            vm.do("apply", guids[0])
            if len(guids) > 3:
                vm.do("delete", guids.pop(1))
            vm.do("stop", "--force")
            vm.do("start")
    finally:
        ended.set()
        checker.join()
    for result in results:
        assert result.returncode in (0, BUSY), result
        assert result.returncode != 0 or all(f["kind"] == "extra" for f in json.loads(result.stdout)["faults"]), result
    assert sum(r.returncode == 0 for r in results) > 2, results
    status, answer = check(vm)
    assert status == 0 and not answer["faults"], answer


main(globals())
