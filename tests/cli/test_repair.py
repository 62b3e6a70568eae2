#!/usr/bin/python3
"""`bough check --repair`: what provably can be put right is, all else is left and told; no listed snapshot is lost by it, and what is taken
out of use is kept. `$BOUGH_TEST_TAMPERS` (12) says how many bytes are damaged by chance."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import AMBIGUOUS, BUSY, CORRUPT, NOT_FOUND, main, sha256  # noqa: E402
from cli_test import contents, write_disk  # noqa: E402

MIB = 1 << 20
STRAY = "0AF97B3D-15E9-4C6C-A3D7-6B2BD9D30A50"
TAMPERS = int(os.environ.get("BOUGH_TEST_TAMPERS", "12"))


class Sample:
    """one - two;  one - three - four - Now, of two disks and UEFI variables, each step with other contents; put back after each damage."""

    def __init__(self, home):
        self.home = home
        self.vm = home.create("v", "--generation", "2", "--disk", "4M,bus=scsi", "--disk", "2M,bus=scsi", "--nic", "none")
        self.guids = {}
        for name in ("one", "two"):
            self.write(name)
            self.guids[name] = self.vm.snapshot(name)["guid"]
        self.vm.do("apply", self.guids["one"])
        for name in ("three", "four"):
            self.write(name)
            self.guids[name] = self.vm.snapshot(name)["guid"]
        self.write("now")
        self.good = home.dir / "good"
        self.keep()

    def keep(self):
        self.listed = self.list()
        self.content = {guid: self.read(guid) for guid in (None, *self.listed)}
        shutil.rmtree(self.good, ignore_errors=True)
        subprocess.run(["cp", "-a", self.vm.folder, self.good], check=True)

    def restore(self):
        subprocess.run(["chmod", "-R", "u+rwX", self.vm.folder], check=True)
        shutil.rmtree(self.vm.folder)
        subprocess.run(["cp", "-a", self.good, self.vm.folder], check=True)

    def write(self, text):
        for index, size in enumerate((4 * MIB, 2 * MIB)):
            data = f"{text}{index}".encode().ljust(4096, b".")
            write_disk(self.home, self.vm.disk(index), *((at, data) for at in (len(text) * 65536, size - len(text) * 4096)))

    def disks(self, guid):
        """Of a snapshot, or of now."""
        settings = self.vm.do("settings", guid) if guid else self.vm.do("settings")
        return [Path(d["path"]) for d in settings["disks"]]

    def read(self, guid):
        """Hashes of what the disks hold."""
        raw, found = self.home.dir / "raw", []
        for disk in self.disks(guid):
            raw.unlink(missing_ok=True)
            self.home.bough("disk", "convert", disk, raw, "--format", "raw")
            found.append(sha256(raw))
        return found

    def list(self):
        """GUID -> parent."""
        return {s["guid"]: s["parent"] for s in self.vm.do("tree")["snapshots"]}

    def assert_nothing_is_lost(self, but=(), now=True):
        """Every snapshot that was listed is, and reads as before; the same for the VM."""
        listed = self.list()
        assert set(listed) == set(self.listed) - set(but), (listed, self.listed)
        if not but:
            assert listed == self.listed, (listed, self.listed)
        for guid in (*([None] if now else []), *listed):
            assert self.read(guid) == self.content[guid], guid


def run(vm, *options):
    """(exit status, answer)"""
    result = vm.home.run("check", vm.name, *options, "--json")
    assert result.returncode in (0, CORRUPT), result
    answer = json.loads(result.stdout)
    assert (result.returncode == CORRUPT) == any(not f["harmless"] for f in answer["faults"]), answer
    return result.returncode, answer


def repair(vm, *options):
    """The same done in a dry run first, which tells of the same files and changes nothing."""
    before = contents(vm.folder)
    _, told = run(vm, "--repair", "--dry-run", *options)
    assert contents(vm.folder) == before, "a dry run changed something"
    status, answer = run(vm, "--repair", *options)
    assert told["dry_run"] and not answer["dry_run"]
    made = f"{vm.guid}/[^/]*[.](avhd|nvram)"
    old, new = ({r["file"] for r in a["repaired"] if not re.search(made, r["file"])} for a in (told, answer))
    assert old <= new and (new == old or len(old) > 0), (told["repaired"], answer["repaired"])
    _, again = run(vm, "--repair", *options)
    assert not again["repaired"], again
    assert [f for f in again["faults"] if not f["harmless"]] == [f for f in answer["faults"] if not f["harmless"]]
    return status, answer


def flip(file, offset, mask=0x10):
    """As a bit that flips on the disk: the file's time stays."""
    times = os.stat(file)
    with open(file, "r+b") as stream:
        stream.seek(offset, os.SEEK_SET if offset >= 0 else os.SEEK_END)
        at = stream.tell()
        byte = stream.read(1)[0]
        stream.seek(at)
        stream.write(bytes([byte ^ mask]))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def replace(file, old, new, count=1):
    text = file.read_text(encoding="utf-8")
    assert old in text, (old, text)
    file.write_text(text.replace(old, new, count), encoding="utf-8")


def claim_a_whole_vm_is_left_as_it_is(home):
    sample = Sample(home)
    before = contents(sample.vm.folder)
    status, answer = run(sample.vm, "--repair")
    assert status == 0 and answer["repaired"] == answer["faults"] == answer["choices"] == [], answer
    assert contents(sample.vm.folder) == before


def claim_each_damage_that_can_be_put_right_is(home):
    sample = Sample(home)
    vm, guids = sample.vm, sample.guids
    base, layer, top = vm.folder / "v.vhd", sample.disks(guids["three"])[0], sample.disks(None)[0]
    state = vm.xml.parent / vm.guid
    extra = [vm.disks_folder / f"v_{STRAY}.avhd", vm.snapshots / guids["one"] / f"{STRAY}.bin", vm.snapshots / f"{STRAY}.xml",
             vm.snapshots / f"{STRAY}", vm.xml.parent / f"{STRAY}.xml.tmp~", state / f"{STRAY}.vsv", state / f"{STRAY}.nvram.tmp~",
             vm.snapshots / guids["two"] / f"{guids['two']}.png.tmp~"]
    picture = vm.snapshots / guids["two"] / f"{guids['two']}.png"
    elsewhere = vm.folder / "aside" / "other.vhd"

    def strays():
        for file in extra:
            if file.suffix:
                file.write_text("x", encoding="utf-8")
            else:
                file.mkdir()

    def moved(file, to):
        to.parent.mkdir(exist_ok=True)
        file.rename(to)

    def parent_of(guid, parent):
        replace(vm.xml, f"<guid type=\"string\">{guid}</guid>\n          <parent type=\"string\">{sample.listed[guid]}</parent>",
                f"<guid type=\"string\">{guid}</guid>\n          <parent type=\"string\">{parent}</parent>")

    damages = [
        (lambda: flip(layer, -200), layer, "footer at the end was written again"),
        (lambda: os.truncate(layer, layer.stat().st_size - 512), layer, "footer at the end was written again"),
        (lambda: flip(base, -300), base, "footer at the end was written again"),
        (lambda: flip(top, -300), top, "footer at the end was written again"),
        (lambda: flip(layer, 100), layer, "copy of the footer at the start was written again"),
        (strays, extra[0], "nothing named it"),
        (lambda: picture.write_bytes(b"\x89PNG\r\n\x1a\nthat is all"), picture, "no whole picture"),
        (lambda: moved(base, elsewhere), base, "was moved back"),
        (lambda: moved(layer, vm.folder / "x.avhd"), layer, "was moved back"),
        (lambda: os.chmod(top, 0o666), top, "0644 now, it was 0666"),
        (lambda: os.chmod(vm.xml, 0), vm.xml, "0400 now, it was 0000"),
        (lambda: os.chmod(vm.snapshots, 0o500), vm.snapshots, "0700 now, it was 0500"),
        (lambda: parent_of(guids["four"], guids["two"]), vm.folder, "the parent of the snapshot"),
        (lambda: parent_of(guids["four"], guids["four"]), vm.folder, "the parent of the snapshot"),
        (lambda: replace(vm.xml, f"<parent_snapshot type=\"string\">{guids['four']}", f"<parent_snapshot type=\"string\">{STRAY}"),
         vm.folder, "the VM descends from the snapshot"),
        (vm.xml.unlink, vm.xml, "was made again"),
        (lambda: vm.xml.write_text("nothing", encoding="utf-8"), vm.xml, "was made again"),
        (lambda: replace(vm.xml, "</configuration>", ""), vm.xml, "was made again"),
        (lambda: (vm.xml.unlink(), vm.xml.with_suffix(".lock").unlink()), vm.xml, "was made again"),
        (lambda: shutil.rmtree(vm.xml.parent) or vm.xml.parent.mkdir(), vm.xml, "was made again"),
        (lambda: replace(vm.xml, top.name, sample.disks(guids["two"])[0].name), vm.xml, "was made again"),
    ]
    for i, (damage, file, says) in enumerate(damages):
        damage()
        status, answer = run(vm)
        assert answer["faults"], f"{i}: the check saw nothing"
        status, answer = repair(vm)
        told = [r for r in answer["repaired"] if r["file"] == str(file) and re.search(says, r["text"])]
        assert told, (i, str(file), says, answer)
        assert status == 0 and not [f for f in answer["faults"] if f["kind"] not in ("extra",)], (i, answer)
        sample.assert_nothing_is_lost()
        assert not [f for f in extra if f.exists()]
        sample.restore()


def claim_parents_that_were_moved_are_found_by_their_id(home):
    """What no snapshot names by its path, since it was deleted."""
    sample = Sample(home)
    vm = sample.vm
    vm.do("delete", sample.guids["three"], "--no-merge")
    sample.keep()
    kept = [f for f in vm.disks_folder.iterdir() if not any(f in sample.disks(g) for g in (None, *sample.listed))]
    assert len(kept) == 2, kept
    for file in kept:
        file.rename(vm.folder / file.name)
    status, answer = run(vm)
    assert status == CORRUPT, answer
    status, answer = repair(vm)
    assert status == 0 and any("where its parent is now" in r["text"] for r in answer["repaired"]), answer
    sample.assert_nothing_is_lost()


def claim_a_snapshot_whose_settings_are_lost_leaves_the_list_and_its_files_stay(home):
    sample = Sample(home)
    vm = sample.vm
    damages = (lambda f: f.unlink(), lambda f: f.write_text("<", encoding="utf-8"))
    for name, damage in [(n, d) for n in ("two", "three", "four", "one") for d in damages]:
        guid = sample.guids[name]
        xml, disks = vm.snapshot_xml(guid), sample.disks(guid)
        hashes = [sha256(d) for d in disks]
        damage(xml)
        assert vm.home.run("tree", vm.name).returncode == CORRUPT
        status, answer = repair(vm)
        assert status == 0, answer
        assert (vm.snapshots / f"{guid}.lost").is_dir() and not xml.exists()
        sample.assert_nothing_is_lost(but=[guid])
        found = {sha256(f) for f in vm.folder.rglob("*.*vhd")}
        assert set(hashes) <= found, f"{name}: a disk of it is gone"
        children = [g for g, p in sample.listed.items() if p == guid]
        assert all(sample.list()[c] == sample.listed[guid] for c in children)
        sample.restore()


def claim_a_lost_vm_file_is_made_again_where_it_is_clear_what_it_was(home):
    sample = Sample(home)
    vm = sample.vm
    before = vm.do("settings")
    tops = sample.disks(None)
    vm.xml.write_text("<configuration/>", encoding="utf-8")
    status, answer = repair(vm)
    assert status == 0 and not answer["choices"], answer
    after = vm.do("settings")
    for settings in (before, after):  # the oldest snapshot's is the nearest that is known
        assert settings.pop("created")
    assert before == after, (before, after)
    assert vm.do("settings")["parent"] == sample.guids["four"] and sample.disks(None) == tops
    assert (vm.xml.parent / f"{vm.xml.name}.lost").read_text() == "<configuration/>"


def claim_where_it_is_not_clear_the_choices_are_told_and_one_can_be_taken(home):
    sample = Sample(home)
    vm = sample.vm
    four, two, one = (sample.guids[n] for n in ("four", "two", "one"))
    for disk in sample.disks(None):  # no working disk is left
        disk.unlink()
    vm.xml.unlink()
    files = contents(vm.folder)
    status, answer = run(vm, "--repair")
    assert status == CORRUPT and not answer["repaired"] and contents(vm.folder) == files, answer
    assert {c["guid"] for c in answer["choices"]} == {None, *sample.listed}, answer
    assert "--from" in home.run("check", "v", "--repair").stdout
    home.refused(NOT_FOUND, "check", "v", "--repair", "--from", "nothing")
    status, answer = repair(vm, "--from", "two")
    assert status == 0 and vm.do("settings")["parent"] == two, answer
    assert sample.read(None) == sample.content[two]
    sample.assert_nothing_is_lost(now=False)
    sample.restore()
    # Two working disks over one snapshot's: which was the VM's cannot be known.
    disk = sample.disks(four)[0]
    home.bough("disk", "create", vm.disks_folder / f"v_{STRAY}.avhd", "--parent", disk)
    vm.xml.unlink()
    _, answer = run(vm, "--repair")
    assert {c["guid"] for c in answer["choices"]} == {None, *sample.listed} and not answer["repaired"], answer
    home.refused(AMBIGUOUS, "check", "v", "--repair", "--from", four)
    # An empty one over the working disk is as good as that: a snapshot was begun.
    (vm.disks_folder / f"v_{STRAY}.avhd").unlink()
    sample.restore()
    top = sample.disks(None)[0]
    home.bough("disk", "create", vm.disks_folder / f"v_{STRAY}.avhd", "--parent", top)
    vm.xml.unlink()
    status, answer = repair(vm)
    assert status == 0 and vm.do("settings")["parent"] == four, answer
    sample.assert_nothing_is_lost()
    assert one in sample.list()


def claim_without_a_snapshot_there_is_nothing_to_make_it_of(home):
    vm = home.create("v", "--disk", "16M,bus=virtio", "--nic", "none")
    vm.xml.unlink()
    before = contents(vm.folder)
    status, answer = run(vm, "--repair")
    assert status == CORRUPT and "no snapshot" in answer["choices"][0]["text"] and contents(vm.folder) == before, answer


def claim_a_vm_that_somebody_has_is_not_repaired(home):
    vm = home.create("v", "--memory", "32M", "--nic", "none")
    vm.do("start", "--paused")
    home.refused(BUSY, "check", "v", "--repair", says="stop it first")
    assert vm.state() == "paused"
    vm.do("stop", "--force")
    home.bough("check", "v", "--repair")


def claim_damaged_memory_is_left_and_told(home):
    vm = home.create("v", "--memory", "32M", "--disk", "4M,bus=virtio", "--nic", "none")
    vm.do("start", "--paused")
    guid = vm.snapshot()["guid"]
    vm.do("stop", "--force")
    memory, state = vm.memory_file(guid), vm.state_file(guid)
    good = home.dir / "good"
    subprocess.run(["cp", "-a", vm.folder, good], check=True)
    places = [(memory, offset) for offset in range(4096 * 200, 4096 * 8000, 4096 * 1300)]
    places += [(state, offset) for offset in (*range(0, 4096, 512), state.stat().st_size - 600, -1)]
    told = 0
    for file, offset in places:
        flip(file, offset)
        damaged = sha256(file)
        status, answer = repair(vm)
        assert sha256(file) == damaged and answer["repaired"] == [], (str(file), offset, answer)
        assert status == 0 or file in {Path(f["file"]) for f in answer["faults"]} | ({state} if file == memory else set()), answer
        told += status == CORRUPT
        shutil.rmtree(vm.folder)
        subprocess.run(["cp", "-a", good, vm.folder], check=True)
    assert told >= len(places) - 7, f"{told} of {len(places)}: only bytes that nobody reads may be damaged unseen"


def claim_saved_vm_whose_file_is_lost_is_off_and_its_memory_is_kept(home):
    """Whether the memory belongs to the disks as they are cannot be known."""
    vm = home.create("v", "--memory", "32M", "--disk", "4M,bus=virtio", "--nic", "none")
    guid = vm.snapshot()["guid"]
    vm.do("start", "--paused")
    vm.do("save")
    for number in range(99):  # of saves before, which nobody has swept
        (vm.xml.parent / vm.guid / f"{str(uuid.uuid4()).upper()}.bin").write_bytes(bytes([number]))
    saved = {f.name: sha256(f) for f in (vm.xml.parent / vm.guid).iterdir()}
    assert {Path(name).suffix for name in saved} == {".bin", ".vsv"} and len(saved) == 101
    vm.xml.unlink()
    status, answer = repair(vm)
    assert status == 0 and vm.state() == "off" and vm.do("settings")["parent"] == guid, answer
    assert {f.name.removesuffix(".lost"): sha256(f) for f in (vm.xml.parent / vm.guid).iterdir()} == saved
    vm.do("start", "--paused")
    vm.do("stop", "--force")


def claim_without_the_one_vm_file_that_tells_its_lock_nothing_is_touched(home):
    vm = home.create("v", "--disk", "4M,bus=virtio", "--memory", "32M", "--nic", "none")
    vm.snapshot("one")
    vm.do("start", "--paused")
    second = vm.xml.parent / f"{STRAY}.xml"
    shutil.copy(vm.xml, second)
    vm.disk().chmod(0o666)
    before = contents(vm.folder)
    status, answer = run(vm, "--repair")
    assert status == CORRUPT and "which VM this is" in answer["choices"][0]["text"] and answer["repaired"] == [], answer
    assert contents(vm.folder) == before
    second.unlink()
    assert vm.state() == "paused"


def claim_settings_that_a_newer_bough_has_written_are_not_lost(home):
    sample = Sample(home)
    for file in (sample.vm.xml, sample.vm.snapshot_xml(sample.guids["three"])):
        text = file.read_text()
        newer = re.sub(r"(<version[^>]*>)1\.0<", r"\g<1>2.0<", text)
        assert newer != text
        file.write_text(newer)
        before = contents(sample.vm.folder)
        status, answer = run(sample.vm, "--repair")
        assert status == CORRUPT and "may be sound" in answer["choices"][0]["text"] and answer["repaired"] == [], answer
        assert contents(sample.vm.folder) == before
        file.write_text(text)
        sample.assert_nothing_is_lost()


def claim_settings_that_only_their_mode_hides_are_not_lost(home):
    sample = Sample(home)
    hidden = sample.vm.snapshot_xml(sample.guids["three"])
    become = []
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "65534:65534", home.dir], check=True)
        become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    hidden.chmod(0)
    told = subprocess.run([*become, home.program, "check", "v", "--repair", "--json"], env=home.env, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=60, check=False)
    subprocess.run(["chown", "-R", f"{os.geteuid()}:{os.getegid()}", home.dir], check=True)
    assert told.returncode == 0, told
    assert [r["file"] for r in json.loads(told.stdout)["repaired"]] == [str(hidden)], told.stdout
    sample.assert_nothing_is_lost()


def metadata(file):
    """Offsets whose bytes the file's own structure holds: of a disk not the data of its blocks, which nothing could tell to be wrong."""
    size = file.stat().st_size
    if file.suffix not in (".vhd", ".avhd"):
        return range(size)
    return [*range(min(size, 4096)), *range(max(0, size - 512), size)]


def claim_damage_by_chance_is_told_and_nothing_that_is_listed_is_lost(home):
    sample = Sample(home)
    vm = sample.vm
    chance = random.Random(os.environ.get("BOUGH_TEST_SEED", "5"))
    for _ in range(TAMPERS):
        files = sorted(f for f in vm.folder.rglob("*") if f.is_file() and f.stat().st_size > 0)
        file = chance.choice(files)
        what = chance.choice(["flip", "flip", "flip", "cut", "zero"])
        at = chance.choice(metadata(file))
        if what == "flip":
            flip(file, at, 1 << chance.randrange(8))
        elif what == "cut":
            os.truncate(file, at)
        else:
            with open(file, "r+b") as stream:
                stream.seek(at)
                stream.write(bytes(min(64, file.stat().st_size - at)))
        where = (str(file.relative_to(vm.folder)), what, at)
        own = file.stem if file.parent == vm.snapshots and file.suffix == ".xml" else None
        looked = vm.home.run("check", "v", "--json")
        assert looked.returncode in (0, CORRUPT), (where, looked)
        result = vm.home.run("check", "v", "--repair", "--json")
        assert result.returncode in (0, CORRUPT), (where, result)
        answer = json.loads(result.stdout)
        faults = [f for f in answer["faults"] if not f["harmless"]]
        if result.returncode == 0:
            listed = sample.list()
            assert set(sample.listed) - {own} <= set(listed), (where, listed)
            for guid in (None, *listed):
                # Two bytes of settings may be other settings, and nothing tells; of disks nothing is guessed.
                if file.suffix != ".xml":
                    assert sample.read(guid) == sample.content[guid], (where, guid)
        else:
            assert faults and looked.returncode == CORRUPT, (where, answer)
            # What is left is told of the file itself, or of one that leans on it.
            kept = {f.name for f in vm.folder.rglob("*.xml*")}
            assert all(any(guid in name for name in kept) for guid in sample.listed), (where, kept)
        sample.restore()


main(globals())
