#!/usr/bin/python3
"""Deleting and merging of a VM that is off: what goes, what stays, and that all that is left reads as before."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import (BUSY, CANCELLED, CORRUPT, STATE, VhdHeader, chain, flattened_by_7zip, main, wait_until,  # noqa: E402
                        xml_disks, xpath)
from cli_test import contents, unchanged  # noqa: E402

MIB = 1 << 20


def connected(socket):
    """The socket is there before anybody listens."""
    handle = nbd.NBD()
    try:
        handle.connect_unix(str(socket))
    except nbd.Error:
        return None
    return handle


@contextlib.contextmanager
def served(home, image):
    """The image, chain and all, as a disk that can be written to."""
    socket = home.dir / "disk.sock"
    server = home.start("disk", "serve", image, "--writable", "--socket", socket)
    handles = []
    wait_until(lambda: handles.append(connected(socket)) or handles[-1], 10, "the disk is served")
    handle = handles[-1]
    yield handle
    handle.flush()
    handle.shutdown()
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=60)
    socket.unlink(missing_ok=True)


def write(home, vm, seed, mib, at_mib=0):
    """As many MiB that differ from all others, where the VM writes now."""
    data = random.Random(seed).randbytes(mib * MIB)
    with served(home, vm.disk()) as disk:
        for offset in range(0, len(data), 4 * MIB):
            disk.pwrite(data[offset:offset + 4 * MIB], at_mib * MIB + offset)


def grown(home, snapshots=("one", "two", "three"), size="16M", mib=1, name="v", disk=None):
    """A VM off, with other data in each layer: some of it over what lies below, some beside."""
    vm = home.create(name, "--disk", disk or f"{size},bus=virtio", "--nic", "none")
    for number, snapshot in enumerate(snapshots):
        write(home, vm, f"{name}{number}", mib, at_mib=number)
        write(home, vm, f"{name}{number} over", 1, at_mib=12)
        vm.snapshot(snapshot)
    write(home, vm, f"{name} now", mib, at_mib=len(snapshots))
    return vm


def seen(vm):
    """What each snapshot and the VM itself hold, read by 7-Zip by way of the XMLs."""
    now = {"now": vm.xml, **{s["name"]: vm.snapshot_xml(s["guid"]) for s in vm.do("tree")["snapshots"]}}
    return {name: [hashlib.sha256(flattened_by_7zip(image)).hexdigest() for image in xml_disks(xml, vm.folder)]
            for name, xml in now.items()}


def layers(vm):
    """The differencing images in the VM's folder."""
    return sorted(vm.disks_folder.glob("*.avhd"))


@contextlib.contextmanager
def all_others_read_the_same(vm, gone=()):
    before = seen(vm)
    assert len({h for hashes in before.values() for h in hashes}) == len(before), "the test is to have different contents"
    yield
    after = seen(vm)
    assert after == {name: before[name] for name in before if name not in gone}, (before, after)
    assert vm.do("check")["faults"] == []


def merging(vm):
    return vm.do("tree")["merging"]


def claim_each_snapshot_of_a_chain_can_go_and_its_disk_is_merged(home):
    for number, name in enumerate(("one", "two", "three")):
        vm = grown(home, name=f"v{number}")
        with all_others_read_the_same(vm, [name]):
            answer = vm.do("delete", name)
            assert len(answer["merged"]) == 1 and answer["merging"] == [] and answer["merge_stopped"] is None, answer
            assert not Path(answer["merged"][0]["path"]).exists() and Path(answer["merged"][0]["into"]).exists()
            assert len(layers(vm)) == 2 and merging(vm) == [] and vm.do("show")["merging"] == []


def claim_the_last_snapshot_leaves_one_disk_that_others_read_too(home):
    vm = grown(home)
    with all_others_read_the_same(vm, ["one", "two", "three"]):
        for name in ("two", "one", "three"):
            vm.do("delete", name)
    assert [str(f) for f in vm.files() if "vhd" in f] == ["v.vhd"] and vm.disk() == vm.folder / "v.vhd"
    assert not [f for f in vm.files() if f.startswith("Snapshots/") and not f.endswith("/")], vm.files()
    subprocess.run(["qemu-img", "convert", "-f", "vpc", "-O", "raw", vm.disk(), home.dir / "raw"], check=True)
    assert (home.dir / "raw").read_bytes()[:16 * MIB] == flattened_by_7zip(vm.disk())[:16 * MIB]


def claim_a_subtree_goes_as_a_whole(home):
    vm = grown(home)
    with all_others_read_the_same(vm, ["two", "three"]):
        answer = vm.do("delete", "two", "--subtree")
        assert len(answer["deleted"]) == 2 and len(answer["merged"]) == 2, answer
        assert len(layers(vm)) == 1


def claim_tree_counts_what_deleted_snapshots_have_left(home):
    """Kept under two branches, left to be merged, and with no snapshot any more."""
    vm = grown(home, ("one", "two"))
    vm.do("apply", "one")
    write(home, vm, "branch", 1)
    for name in ("one", "two"):
        vm.do("delete", name, "--no-merge")
        images = sum(file.stat().st_blocks * 512 for file in vm.folder.rglob("*.*vhd"))
        space = vm.do("tree")["space"]["disks_bytes"]
        assert space == images and merging(vm), (name, space, images)
        assert f"{images / MIB:.1f} MiB" in home.bough("tree", "v").splitlines()[1], home.bough("tree", "v")


def claim_no_merge_leaves_it_to_merge(home):
    vm = grown(home)
    with all_others_read_the_same(vm, ["two"]):
        before = set(layers(vm))
        answer = vm.do("delete", "two", "--no-merge")
        assert answer["merged"] == [] and set(layers(vm)) == before, answer
        (pending,) = merging(vm)
        assert answer["merging"] == [pending] == vm.do("show")["merging"]
        assert pending["state"] == "pending" and pending["bytes"] > MIB and pending["reason"] is None, pending
        assert "merging:" in home.bough("tree", "v") and "pending" in home.bough("show", "v")
        with unchanged(home):
            assert [s["step"] for s in vm.do("merge", "--dry-run")["plan"]["steps"]][0] == "merge-data"
        told = home.bough("merge", "v")
        assert told.startswith("merged:") and Path(pending["path"]).name in told, told
        assert not Path(pending["path"]).exists() and merging(vm) == []
        with unchanged(home):
            assert home.bough("merge", "v") == "nothing to merge\n"


def claim_a_dry_run_of_delete_tells_the_merges_too(home):
    vm = grown(home)
    before = {str(path) for path in layers(vm)}
    steps = vm.do("delete", "two", "--subtree", "--dry-run")["plan"]["steps"]
    assert [s["step"] for s in steps].count("merge-data") == 2 and {str(path) for path in layers(vm)} == before, steps
    vm.do("delete", "two", "--subtree")
    removed = {s["path"] for s in steps if s["step"] == "remove-file" and s["path"].endswith("vhd")}
    assert removed == before - {str(path) for path in layers(vm)}, (removed, steps)
    steps = vm.do("delete", "one", "--no-merge", "--dry-run")["plan"]["steps"]
    assert "merge-data" not in [s["step"] for s in steps], steps


def claim_a_damaged_disk_does_not_keep_others_from_being_merged(home):
    vm = home.create("v", "--disk", "16M,bus=virtio", "--disk", "8M,bus=virtio", "--nic", "none")
    write(home, vm, "below", 1)
    vm.snapshot("one")
    write(home, vm, "damaged", 1)
    vm.snapshot("two")
    vm.do("delete", "one", "--no-merge")
    assert len(merging(vm)) == 2
    child = next(Path(m["path"]) for m in merging(vm) if m["bytes"] > MIB)
    whole = child.read_bytes()
    table = int.from_bytes(whole[512 + 16:512 + 24], "big")
    child.write_bytes(whole[:table] + (1 << 30).to_bytes(4, "big") + whole[table + 4:])
    vm.refused(CORRUPT, "merge", says="BAT entry 0")
    (pending,) = merging(vm)
    assert pending["path"] == str(child), pending
    child.write_bytes(whole)
    assert len(vm.do("merge")["merged"]) == 1 and merging(vm) == []


def claim_a_disk_that_two_need_stays_until_one_goes(home):
    vm = grown(home, ("one", "two"))
    vm.do("apply", "one")
    write(home, vm, "branch", 1, at_mib=5)
    vm.snapshot("branch")
    write(home, vm, "branch now", 1, at_mib=6)
    with all_others_read_the_same(vm, ["one"]):
        answer = vm.do("delete", "one")
        (kept,) = answer["merging"]
        assert answer["merged"] == [] and kept["state"] == "kept" and "2 others" in kept["reason"], answer
        assert kept["path"] == str(vm.folder / "v.vhd") and kept["into"] is None
        assert "kept:" in home.bough("tree", "v")
    with all_others_read_the_same(vm, ["two"]):
        answer = vm.do("delete", "two")
        assert len(answer["merged"]) == 1 and answer["merging"] == [], answer


def claim_a_disk_that_nothing_needs_is_removed(home):
    vm = grown(home, ("one", "two"))
    vm.do("apply", "one")
    write(home, vm, "now", 1, at_mib=6)
    with all_others_read_the_same(vm, ["two"]):
        answer = vm.do("delete", "two")
        assert answer["merged"] == [] and answer["merging"] == [], answer
        assert len(layers(vm)) == 1


def claim_the_less_is_copied(home):
    """A small child goes into its large parent, and a small parent into its large child."""
    for name, sizes in (("down", (8, 1)), ("up", (1, 8))):
        vm = home.create(name, "--disk", "32M,bus=virtio", "--nic", "none")
        vm.snapshot("base")
        for number, mib in enumerate(sizes):
            write(home, vm, f"{name}{number}", mib, at_mib=number * 4)
            vm.snapshot(f"s{number}")
        write(home, vm, f"{name} now", 1, at_mib=20)
        guid = next(s["guid"] for s in vm.do("tree")["snapshots"] if s["name"] == "s1")
        before = vm.snapshot_xml(guid).read_bytes()
        parent, child = (xml_disks(vm.snapshot_xml(s["guid"]), vm.folder)[0] for s in vm.do("tree")["snapshots"][1:])
        with all_others_read_the_same(vm, ["s0"]):
            (merged,) = vm.do("delete", "s0")["merged"]
        stays = parent if name == "down" else child
        assert Path(merged["into"]) == stays and merged["bytes"] < 4 * MIB, (name, merged)
        assert xml_disks(vm.snapshot_xml(guid), vm.folder) == [stays]
        assert (vm.snapshot_xml(guid).read_bytes() == before) == (name == "up")
        assert xpath(vm.snapshot_xml(guid), "string(//snapshot/images/virtio0)").lower() == VhdHeader(stays).id.hex()
        vm.do("apply", "s1")  # which looks at the image's id


def claim_a_saved_vm_is_merged_too(home):
    vm = home.create("v", "--disk", "16M,bus=virtio", "--nic", "none", "--memory", "16M")
    write(home, vm, "one", 1)
    vm.snapshot("one")
    write(home, vm, "two", 1, at_mib=3)
    vm.do("start", "--paused")
    vm.do("save")
    with all_others_read_the_same(vm, ["one"]):
        assert len(vm.do("delete", "one")["merged"]) == 1 and vm.state() == "saved"
    assert vm.do("start")["state"] == "paused" and vm.disk() == vm.folder / "v.vhd"
    vm.do("stop", "--force")


# --- bases that others may use ---

def base_outside(home, name="base.vhd"):
    base = home.dir / name
    subprocess.run(["qemu-img", "create", "-q", "-f", "vpc", "-o", "force_size=on", base, "16M"], check=True)
    return base


def assert_base_is_kept(home, vm, base, says):
    before = base.read_bytes()
    with all_others_read_the_same(vm, ["one"]):
        answer = vm.do("delete", "one")
        (kept,) = answer["merging"]
        assert answer["merged"] == [] and kept["state"] == "kept" and says in kept["reason"], answer
        assert kept["into"] == str(base) and kept == merging(vm)[0]
        assert vm.do("merge") == {"merged": [], "merging": [kept]} and base.read_bytes() == before
        assert "kept:" in home.bough("merge", "v")


def claim_a_base_outside_the_folder_is_written_only_when_that_is_asked_for(home):
    base = base_outside(home)
    vm = grown(home, disk=f"{base},bus=virtio")
    vm.do("start", "--paused")  # size and time of the base are noted
    vm.do("stop", "--force")
    assert_base_is_kept(home, vm, base, "outside")
    before = base.read_bytes()
    with all_others_read_the_same(vm):
        with unchanged(home):
            assert vm.do("merge", "--into-base", "--dry-run")["plan"]["steps"]
        told = home.run("merge", "v", "--into-base", "--json")
        answer = json.loads(told.stdout)
        assert "warning" in told.stderr, told
        assert len(answer["merged"]) == 1 and answer["merging"] == [] and base.read_bytes() != before, answer
    assert chain(vm.disk())[-1] == base
    vm.do("start", "--paused")  # that it has changed was our doing
    vm.do("stop", "--force")


def claim_a_base_with_another_name_is_kept(home):
    vm = grown(home)
    os.link(vm.folder / "v.vhd", home.dir / "backup.vhd")
    assert_base_is_kept(home, vm, vm.folder / "v.vhd", "another name")
    assert vm.do("merge", "--into-base")["merged"] == []
    (home.dir / "backup.vhd").unlink()
    with all_others_read_the_same(vm):
        assert len(vm.do("merge")["merged"]) == 1


def claim_a_base_behind_a_symbolic_link_is_outside(home):
    vm = grown(home)
    base = vm.folder / "v.vhd"
    base.rename(home.dir / "elsewhere.vhd")
    base.symlink_to(home.dir / "elsewhere.vhd")
    assert_base_is_kept(home, vm, base, "outside")


def claim_a_base_that_another_vm_uses_is_kept(home):
    vm = grown(home)
    image = home.dir / "clone.avhd"
    home.bough("disk", "create", image, "--parent", vm.folder / "v.vhd")
    other = home.create("clone", "--disk", f"{image},bus=virtio", "--nic", "none")
    before = seen(other)
    assert_base_is_kept(home, vm, vm.folder / "v.vhd", "'clone'")
    assert vm.do("merge", "--into-base")["merged"] == [] and seen(other) == before
    aside = other.xml.rename(other.xml.with_suffix(".aside"))  # lost, until it is repaired
    assert vm.do("merge", "--into-base")["merged"] == [] and "'clone'" in merging(vm)[0]["reason"]
    aside.rename(other.xml)
    other.do("remove", "--yes")
    stray = home.machines / "plain" / "x.avhd"
    stray.parent.mkdir()
    home.bough("disk", "create", stray, "--parent", vm.folder / "v.vhd")
    assert vm.do("merge")["merged"] == [] and "'plain'" in merging(vm)[0]["reason"]
    stray.unlink()
    with all_others_read_the_same(vm):
        assert len(vm.do("merge")["merged"]) == 1


# --- merges that are broken off, and what else is asked for meanwhile ---

LARGE = 64  # MiB


def large(home, name):
    """When the snapshot `two` is deleted its disk of LARGE MiB and that of `three`, which is smaller, are to be merged: downwards."""
    vm = home.create(name, "--disk", "128M,bus=virtio", "--nic", "none")
    vm.snapshot("one")
    write(home, vm, "two", LARGE)
    vm.snapshot("two")
    write(home, vm, "three", LARGE * 3 // 4, at_mib=LARGE // 2)
    vm.snapshot("three")
    write(home, vm, "now", 1, at_mib=120)
    return vm


def contents_by_bough(home, vm):
    """What each disk holds, whether or not the last write to a file was followed by its footer."""
    found = {}
    for path in [vm.disk(), *(xml_disks(vm.snapshot_xml(s["guid"]), vm.folder)[0] for s in vm.do("tree")["snapshots"])]:
        raw = home.dir / "disk.raw"
        home.bough("disk", "convert", path, raw)
        found[len(found)] = hashlib.sha256(raw.read_bytes()).hexdigest()
        raw.unlink()
    return found


def stopped_in_the_middle(vm, *command):
    """A command that merges, and stands still while it copies, behind what it only writes over; None: it was too quick."""
    blocks = {path: path.stat().st_blocks for path in layers(vm)}
    process = vm.home.start(command[0], vm.name, *command[1:])
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            if any(path.stat().st_blocks > before + 1024 for path, before in blocks.items()):
                process.send_signal(signal.SIGSTOP)
                return process
    process.communicate()
    return None


def met_in_the_middle(home, *command, unmerged):
    """(a VM, the process that stands still in the middle of its merge, its contents before)"""
    for attempt in range(5):
        vm = large(home, f"v{attempt}")
        before = contents_by_bough(home, vm)
        del before[2]  # of `two`: the disk of now, one, two, three
        if unmerged:
            vm.do("delete", "two", "--no-merge")
        process = stopped_in_the_middle(vm, *command)
        if process and merging(vm):
            return vm, process, list(before.values())
        if process:
            process.kill()
            process.communicate()
        vm.do("remove", "--yes")
    raise AssertionError("no merge was met in the middle")


def assert_merged(home, vm, before):
    assert merging(vm) == [] and len(layers(vm)) == 2 and vm.do("check")["faults"] == []
    assert list(contents_by_bough(home, vm).values()) == before and len(seen(vm)) == 3


def claim_a_merge_that_is_killed_goes_on(home):
    vm, process, before = met_in_the_middle(home, "merge", unmerged=True)
    process.kill()
    process.communicate()
    faults = vm.do("check")["faults"]
    assert all(fault["harmless"] for fault in faults), faults
    assert list(contents_by_bough(home, vm).values()) == before
    (pending,) = merging(vm)
    assert pending["state"] == "pending", pending
    assert len(vm.do("merge")["merged"]) == 1
    assert_merged(home, vm, before)


def claim_ctrl_c_leaves_a_merge_pending(home):
    vm, process, before = met_in_the_middle(home, "merge", unmerged=True)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == CANCELLED and "cancelled" in err, (out, err)
    assert list(contents_by_bough(home, vm).values()) == before and merging(vm)[0]["state"] == "pending"
    vm.do("merge")
    assert_merged(home, vm, before)


def claim_ctrl_c_behind_the_commit_of_a_delete_ends_the_merge_alone(home):
    vm, process, before = met_in_the_middle(home, "delete", "two", unmerged=False)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "deleted " in out and "cancelled" in err, (out, err)
    assert len(vm.do("tree")["snapshots"]) == 2 and merging(vm)[0]["state"] == "pending"
    vm.do("merge")
    assert_merged(home, vm, before)


def claim_a_second_operation_is_refused_with_the_name_of_the_first(home):
    vm, process, before = met_in_the_middle(home, "merge", unmerged=True)
    files = contents(vm.folder)
    others = [home.start(verb, vm.name, *rest) for verb, *rest in (["snapshot"], ["delete", "one"], ["apply", "one"], ["merge"],
                                                                   ["start"])]
    for other in others:
        _, err = other.communicate(timeout=60)
        assert other.returncode == BUSY and "in use by merge" in err, err
    assert contents(vm.folder) == files
    assert merging(vm)[0]["state"] == "running" and vm.do("show")["operation"] == "merge"
    assert 0 < merging(vm)[0]["done_bytes"] < merging(vm)[0]["bytes"], merging(vm)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert_merged(home, vm, before)


def raw_hash(home, image):
    raw = home.dir / "disk.raw"
    home.bough("disk", "convert", image, raw)
    found = hashlib.sha256(raw.read_bytes()).hexdigest()
    raw.unlink()
    return found


def export_in_the_middle(home, vm, snapshot, folder):
    """An export of a snapshot that stands still while it copies."""
    for _ in range(5):
        process = home.start("export", vm.name, snapshot, folder)
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:
            if sum(f.stat().st_blocks for f in folder.parent.rglob("*.vhd")) > 4096:
                process.send_signal(signal.SIGSTOP)
                return process
        process.communicate()
        shutil.rmtree(folder)
    raise AssertionError("no export was met in the middle")


def exported_hash(home, folder):
    (disk,) = folder.rglob("*.vhd")
    return raw_hash(home, disk)


def merged_while_it_is_exported(home, name):
    """The disk of `three` is merged into the one below and gets its name, and that of `four` another parent, meanwhile."""
    vm = large(home, "v")
    vm.snapshot("four")
    guid = [s["guid"] for s in vm.do("tree")["snapshots"] if s["name"] == name][0]
    (disk,) = xml_disks(vm.snapshot_xml(guid), vm.folder)
    before = raw_hash(home, disk)
    (home.dir / "to").mkdir()
    process = export_in_the_middle(home, vm, name, home.dir / "to" / "x")
    stopped = vm.do("delete", "two")["merge_stopped"]
    assert stopped["code"] == "busy" and disk.name in stopped["message"], stopped
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0 and exported_hash(home, home.dir / "to" / "x") == before, err
    assert len(vm.do("merge")["merged"]) == 1 and disk.exists() == (name == "four")
    vm.do("export", name, home.dir / "to" / "y")
    assert exported_hash(home, home.dir / "to" / "y") == before


def claim_an_export_of_what_is_merged_meanwhile_is_whole(home):
    merged_while_it_is_exported(home, "three")


def claim_an_export_of_what_lies_over_a_merge_is_whole(home):
    merged_while_it_is_exported(home, "four")


def claim_an_export_beside_a_merge_is_whole_or_refused(home):
    vm, process, before = met_in_the_middle(home, "merge", unmerged=True)
    (home.dir / "to").mkdir()
    for number, name in enumerate(("one", "three")):  # `one` has no part in it
        result = home.run("export", vm.name, name, home.dir / "to" / name)
        if name == "three":
            assert result.returncode == BUSY and list((home.dir / "to").iterdir()) == [home.dir / "to" / "one"], result
        else:
            assert result.returncode == 0 and exported_hash(home, home.dir / "to" / name) == before[number + 1], result
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert_merged(home, vm, before)
    vm.do("export", "three", home.dir / "to" / "three")
    assert exported_hash(home, home.dir / "to" / "three") == before[2]


def claim_a_vm_that_runs_is_merged_too(home):
    """By its worker: behind its back, or at once by the command, whichever comes first."""
    vm = grown(home, ("one", "two", "three"))
    vm.do("start", "--paused")
    with all_others_read_the_same(vm, ["two"]):
        vm.do("delete", "two")
        vm.do("merge")
        assert merging(vm) == [] and len(layers(vm)) == 2, layers(vm)
        vm.refused(STATE, "merge", "--into-base", says="the VM runs")
        assert home.bough("merge", "v") == "nothing to merge\n"
    vm.do("stop", "--force")


if __name__ == "__main__":
    main(globals())
