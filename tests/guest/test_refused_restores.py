#!/usr/bin/python3
"""What is damaged or does not belong together is refused by its name before the present is dropped: the guest does not notice."""

import os
import random
import re
import shutil
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import CORRUPT, IO, MISMATCH, NOT_FOUND, UNSUPPORTED, main  # noqa: E402

# Offset, length and name of each field of a .vsv's header (docs/ram.md).
FIELDS = ((0, 8, "magic"), (8, 4, "version"), (12, 4, "header size"), (16, 8, "memory_bytes"), (24, 4, "page size"),
          (28, 4, "chunk size"), (32, 8, "table offset"), (40, 8, "table size"), (48, 8, "stream offset"), (56, 8, "stream size"),
          (64, 8, "stream sum"), (72, 8, "table sum"), (80, 40, "id"), (120, 32, "version of QEMU"), (152, 64, "machine"),
          (216, 3872, "reserved"), (4088, 8, "sum"))


class Present:
    """A guest that runs, and what must not change of it."""

    def __init__(self, vm, console):
        self.vm, self.console = vm, console
        self.pid, self.nonce = vm.do("show")["qemu_pid"], console.step().nonce
        self.disk, self.count = vm.disk(), len(vm.do("tree")["snapshots"])

    def goes_on(self):
        shown = self.vm.do("show")
        assert shown["state"] == "running" and shown["qemu_pid"] == self.pid, shown
        assert self.console.step().nonce == self.nonce and self.vm.disk() == self.disk
        assert len(self.vm.do("tree")["snapshots"]) == self.count

    def refuses(self, guid, file, statuses, says=None, options=()):
        result = self.vm.home.run("apply", "g", guid, "--json", *options)
        told = (str(file), result.returncode, result.stderr)
        assert result.returncode in statuses and str(file) in result.stderr, told
        assert says is None or re.search(says, result.stderr), told
        self.goes_on()


class Damage:
    """A file as it was behind whatever is done to it."""

    def __init__(self, *files):
        self.files = files

    def __enter__(self):
        self.kept = [(file, file.with_name(file.name + ".kept")) for file in self.files]
        for file, kept in self.kept:
            shutil.copy2(file, kept)

    def __exit__(self, *_):
        for file, kept in self.kept:
            os.replace(kept, file)


def patch(file, offset, data):
    with open(file, "r+b") as stream:
        stream.seek(offset)
        stream.write(data)


def claim_each_field_of_a_vsv_is_checked_first(home):
    vm, console = home.booted_guest()
    guid = vm.snapshot()["guid"]
    state, present = vm.state_file(guid), Present(vm, console)
    good = state.read_bytes()
    for offset, length, name in FIELDS:
        for at in {offset, offset + length - 1}:
            with Damage(state):
                patch(state, at, bytes([good[at] ^ 0x41]))
                present.refuses(guid, state, (CORRUPT, UNSUPPORTED), says="header")
    for at, says in ((4096 + 3, "chunk table"), (len(good) - 1, "checksum of the state"), (len(good) // 2, "checksum of the state")):
        with Damage(state):
            patch(state, at, bytes([good[at] ^ 1]))
            present.refuses(guid, state, (CORRUPT,), says=says)
    assert vm.do("apply", guid)["state"] == "running"


def claim_damage_at_any_byte_is_refused_first(home):
    vm, console = home.booted_guest()
    guid = vm.snapshot()["guid"]
    state, memory, present = vm.state_file(guid), vm.memory_file(guid), Present(vm, console)
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"# seed {seed}", flush=True)
    chance, good = random.Random(seed), state.read_bytes()
    for _ in range(int(os.environ.get("BOUGH_TEST_INSTANTS", "20"))):
        with Damage(state):
            at = chance.randrange(len(good))
            patch(state, at, bytes([good[at] ^ 1 << chance.randrange(8)]))
            present.refuses(guid, state, (CORRUPT, UNSUPPORTED))
        with Damage(state):
            os.truncate(state, chance.randrange(len(good)))
            present.refuses(guid, state, (CORRUPT, UNSUPPORTED, IO))
    for _ in range(3):
        with Damage(memory):
            at = chance.randrange(memory.stat().st_size)
            with open(memory, "rb") as stream:
                stream.seek(at)
                byte = stream.read(1)[0]
            patch(memory, at, bytes([byte ^ 1 << chance.randrange(8)]))
            present.refuses(guid, memory, (CORRUPT,), says="checksum", options=("--verify",))
    assert vm.do("apply", guid)["state"] == "running"


def claim_lengths_and_missing_files_are_checked_first(home):
    vm, console = home.booted_guest()
    guid = vm.snapshot()["guid"]
    present = Present(vm, console)
    for file, shorter in ((vm.memory_file(guid), MISMATCH), (vm.state_file(guid), CORRUPT)):
        for length in (0, 4096, file.stat().st_size - 1, file.stat().st_size + 4096):
            with Damage(file):
                os.truncate(file, length)
                present.refuses(guid, file, (shorter, CORRUPT))
        with Damage(file):
            file.unlink()
            present.refuses(guid, file, (NOT_FOUND,))
    assert vm.do("apply", guid)["state"] == "running"


def claim_what_is_of_another_snapshot_is_a_mismatch(home):
    vm, console = home.booted_guest()
    first, second = vm.snapshot()["guid"], vm.snapshot()["guid"]
    present = Present(vm, console)
    files = [vm.memory_file(first), vm.state_file(first)]
    others = [vm.memory_file(second), vm.state_file(second)]
    with Damage(*files):
        for file, other in zip(files, others):
            shutil.copyfile(other, file)
        present.refuses(first, files[1], (MISMATCH,), says="has the id .* the settings name")
    with Damage(files[0]):  # memory of the same size: only its contents tell
        shutil.copyfile(others[0], files[0])
        present.refuses(first, files[0], (CORRUPT,), says=r"checksum of the \d+ bytes at \d+ is wrong", options=["--verify"])
    assert vm.do("apply", first, "--verify")["state"] == "running"


def claim_disks_that_are_not_those_of_then_are_a_mismatch(home):
    vm, console = home.booted_guest()
    first, second = vm.snapshot()["guid"], vm.snapshot()["guid"]
    base, layer = (Path(vm.do("settings", guid)["disks"][0]["path"]) for guid in (first, second))
    present = Present(vm, console)
    with Damage(base):
        base.unlink()
        home.bough("disk", "create", base, "--size", "96M")
        present.refuses(first, base, (MISMATCH,), says="has the unique id .*, the snapshot was taken of one with")
        present.refuses(first, base, (MISMATCH,), options=["--disks-only"])
        present.refuses(second, base, (MISMATCH,), says="wants a parent with the unique id")
    with Damage(base):
        base.unlink()
        present.refuses(first, base, (NOT_FOUND,))
        present.refuses(second, layer, (NOT_FOUND,))
    with Damage(layer):
        header = struct.unpack(">Q", layer.read_bytes()[16:24])[0]
        patch(layer, header + 40, b"\xff\xee")  # the parent's id
        present.refuses(second, layer, (CORRUPT, MISMATCH))
    with Damage(layer):
        layer.unlink()
        present.refuses(second, layer, (NOT_FOUND,))
        # what is wrong with another snapshot is no reason not to go back to this one
        assert vm.do("apply", first)["state"] == "running"
    assert vm.do("apply", second)["state"] == "running" and vm.console().step()


def claim_settings_that_do_not_fit_their_memory_are_refused(home):
    """The VM is off, so that its settings are read again: nothing of it changes."""
    vm, _ = home.booted_guest()
    first, second = vm.snapshot()["guid"], vm.snapshot()["guid"]
    vm.do("stop", "--force")
    xml, state = vm.snapshot_xml(second), vm.state_file(second)
    disk, other_id = vm.disk(), "0AF97B3D-15E9-4C6C-A3D7-6B2BD9D30A50"
    text = xml.read_text(encoding="utf-8")
    memory_id = re.search(r"<memory_id type=\"string\">([^<]*)", text).group(1)
    machine = re.search(r"<machine type=\"string\">([^<]*)", text).group(1)
    for old, new, statuses, named in ((memory_id, other_id, (MISMATCH,), state), (">192<", ">193<", (MISMATCH,), state),
                                      (machine, "pc-i440fx-6.2", (MISMATCH,), state),
                                      (machine, "pc-i440fx-99.9", (UNSUPPORTED,), "pc-i440fx-99.9"),
                                      (f">{first}<", f">{other_id}<", (0,), None)):
        with Damage(xml):
            assert old in text, old
            xml.write_text(text.replace(old, new), encoding="utf-8")
            result = home.run("apply", "g", second, "--no-start", "--dry-run")
            assert result.returncode in statuses and (not named or str(named) in result.stderr), (old, new, result)
            assert not named or "--disks-only" in result.stderr, result
            if named:
                assert home.run("apply", "g", second).returncode in statuses
            assert vm.disk() == disk and vm.state() == "off"
    listed = vm.xml.read_text(encoding="utf-8")
    with Damage(vm.xml):  # the list says what descends from what
        vm.xml.write_text(listed.replace(f"<parent type=\"string\">{first}<", f"<parent type=\"string\">{other_id}<"), encoding="utf-8")
        assert vm.xml.read_text(encoding="utf-8") != listed
        vm.refused(CORRUPT, "apply", second, says=other_id)
    assert vm.do("apply", second)["state"] == "running" and vm.console().step()


main(globals())
