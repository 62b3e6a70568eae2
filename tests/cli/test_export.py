#!/usr/bin/python3
"""A VM's folder as a thing that moves: export, import, another name, copies by hand, and its end."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import (BUSY, CANCELLED, CORRUPT, EXISTS, INVALID, MISMATCH, NO_SPACE, NOT_FOUND, STATE, USAGE, VM,  # noqa: E402
                        Skip, VhdHeader, chain, flattened_by_7zip, main, wait_until, xml_disks, xpath)
from cli_test import contents, unchanged  # noqa: E402
from small_disk import small_disk  # noqa: E402

MIB = 1 << 20


def write(home, image, offset, data):
    """Bytes into an image, by way of its chain, as a guest would."""
    socket = home.dir / "socket"
    server = home.start("disk", "serve", image, "--writable", "--socket", socket)
    try:
        server.stdout.readline()  # it listens
        import nbd  # pylint: disable=import-outside-toplevel
        handle = nbd.NBD()
        handle.connect_unix(str(socket))
        for at in range(0, len(data), 16 * MIB):
            handle.pwrite(data[at:at + 16 * MIB], offset + at)
        handle.flush()
        handle.shutdown()
    finally:
        server.terminate()
        server.communicate(timeout=20)


def machine(home, name="v", outside=True):
    """A VM with a tree: one over a base in its folder and one elsewhere, three snapshots, two branches. Each state of each disk is
    another one. Returns it, and what each snapshot's disks and the present's hold."""
    disks = ["--disk", "8M,bus=virtio"]
    if outside:
        base = home.dir / "bases" / "brought.vhd"
        base.parent.mkdir(exist_ok=True)
        if not base.exists():
            (home.dir / "raw").write_bytes(os.urandom(2 * MIB))
            home.bough("disk", "convert", home.dir / "raw", base, "--source-format", "raw")
        disks += ["--disk", f"{base},bus=virtio"]
    vm = home.create(name, *disks, "--nic", "user", "--nic", "user")
    seen = {}
    for number, snapshot in enumerate(("one", "two", "three")):
        if snapshot == "three":
            vm.do("apply", "one")
        for disk in xml_disks(vm.xml, vm.folder):
            if snapshot != "one" or disk.parent == vm.folder:  # a brought base is not written
                write(home, disk, (number * 3 + 1) * 65536 - 1024, os.urandom(4096))
        vm.snapshot(snapshot)
        seen[snapshot] = shown(xml_disks(vm.xml, vm.folder))
    for disk in xml_disks(vm.xml, vm.folder):
        write(home, disk, MIB, os.urandom(512))
    seen[None] = shown(xml_disks(vm.xml, vm.folder))
    return vm, seen


def shown(disks):
    return [flattened_by_7zip(disk) for disk in disks]


def same_tree(vm, seen):
    """All snapshots and the present hold what they held; nothing of it lies outside of the folder, and check is content."""
    guids = {s["name"]: s["guid"] for s in vm.do("tree")["snapshots"]}
    assert set(guids) == set(seen) - {None}
    for name, content in seen.items():
        disks = xml_disks(vm.xml if name is None else vm.snapshot_xml(guids[name]), vm.folder)
        for disk in disks:
            for image in chain(disk):
                assert image.is_relative_to(vm.folder), f"{image} is not in {vm.folder}"
        assert shown(disks) == content, f"{name}: other content"
    assert vm.do("check")["faults"] == []


def hidden(folder):
    return [p.name for p in Path(folder).iterdir() if p.name.startswith(".")]


# --- export and import ---

def claim_export_takes_the_whole_tree_and_what_lies_outside(home):
    vm, seen = machine(home)
    before = contents(vm.folder)
    answer = vm.do("export", home.dir / "out")
    assert answer == {"path": str(home.dir / "out"), "outside": []}, answer
    assert contents(vm.folder) == before and hidden(home.dir) == []
    home.bough("remove", "v", "--yes")
    shutil.rmtree(home.dir / "bases")
    answer = home.json("import", home.dir / "out")
    assert answer == {"name": "v", "guid": vm.guid, "path": str(home.machines / "v")}, answer
    same_tree(VM(home, "v"), seen)
    assert sorted(p.name for p in (home.machines / "v").glob("*.vhd")) == ["brought.vhd", "v.vhd"]
    vm.do("apply", "two")  # and it goes on
    vm.snapshot("four")
    assert vm.do("check")["faults"] == []


def claim_import_leaves_the_folder_as_it_is(home):
    machine(home)
    home.bough("export", "v", home.dir / "out")
    home.bough("remove", "v", "--yes")
    before = contents(home.dir / "out")
    home.bough("import", home.dir / "out")
    home.bough("import", home.dir / "out", "--copy", "--name", "w")
    assert contents(home.dir / "out") == before


def claim_export_goes_into_a_folder_that_is_there_under_its_name(home):
    home.create("v", "--disk", "8M")
    (home.dir / "backups").mkdir()
    assert home.bough("export", "v", home.dir / "backups") == f"{home.dir}/backups/v\n"
    home.refused(EXISTS, "export", "v", home.dir / "backups")
    home.refused(EXISTS, "export", "v", home.dir / "backups" / "v", says="holds a VM")
    home.refused(NOT_FOUND, "export", "v", home.dir / "missing" / "x")
    home.refused(INVALID, "export", "v", home.machines / "v" / "x", says="own folder")
    (home.dir / "file").write_text("")
    home.refused(EXISTS, "export", "v", home.dir / "file")
    assert hidden(home.dir / "backups") == []


def claim_copy_is_another_vm(home):
    vm, seen = machine(home)
    macs = [n["mac"] for n in vm.do("show")["nics"]]
    home.bough("export", "v", home.dir / "out")
    home.refused(EXISTS, "import", home.dir / "out", says="--copy")
    home.refused(EXISTS, "import", home.dir / "out", "--copy", says="--name")
    answer = home.json("import", home.dir / "out", "--copy", "--name", "w")
    copy = VM(home, "w")
    assert answer["guid"] == copy.guid != vm.guid
    same_tree(copy, seen)
    for xml in [copy.xml, *copy.snapshots.glob("*.xml")]:
        assert xpath(xml, "string(//global_id)") == copy.guid
        assert vm.guid not in xml.read_text()
    fresh = [n["mac"] for n in copy.do("show")["nics"]]
    assert len(set(fresh) | set(macs)) == 4, (fresh, macs)
    assert [n["mac"] for n in copy.do("settings", "two")["nics"]] == fresh, "a card has one address in all of the tree"
    assert xpath(copy.xml, "string(//generation_id)") != xpath(vm.xml, "string(//generation_id)")
    assert copy.disks_folder.is_dir() and not (copy.snapshots / vm.guid).exists()
    vm.do("remove", "--yes")  # the other's end is nothing to it
    same_tree(copy, seen)


def claim_one_snapshot_becomes_a_vm_of_its_own(home):
    vm, seen = machine(home)
    vm.do("set", "cpus=3")
    before = contents(vm.folder)
    vm.do("export", "two", home.dir / "out", "--name", "w")
    assert contents(vm.folder) == before and hidden(home.dir) == []
    assert home.bough("import", home.dir / "out") == "w\n"
    alone = VM(home, "w")
    disks = xml_disks(alone.xml, alone.folder)
    assert all(VhdHeader.kind_of(d) == 3 and d.parent == alone.folder for d in disks), disks
    assert shown(disks) == seen["two"]
    tree, settings = alone.do("tree"), alone.do("settings")
    assert tree["snapshots"] == [] and tree["now"]["parent"] is None
    assert settings["cpus"] == 1 and alone.guid != vm.guid and alone.state() == "off"
    assert [n["mac"] for n in alone.do("show")["nics"]] == [n["mac"] for n in vm.do("show")["nics"]]
    assert alone.do("check")["faults"] == []
    vm.refused(NOT_FOUND, "export", "none", home.dir / "other")
    home.refused(USAGE, "export", "v", home.dir / "other", "--disks-only")


def claim_dry_run_tells_the_steps_and_the_space(home):
    vm, _ = machine(home, outside=False)
    for arguments in (["export", "v", home.dir / "out"], ["export", "v", "two", home.dir / "out"], ["rename", "v", "w"],
                      ["remove", "v"], ["import", vm.folder, "--copy", "--name", "w"]):
        with unchanged(home):
            told = home.json(*arguments, "--dry-run")
            steps = [s["step"] for s in told["plan"]["steps"]]
            assert steps.count("rename") == 1, steps
            assert arguments[0] in ("rename", "remove") or told["needs_bytes"] >= 0 < told["free_bytes"], told
        assert not (home.dir / "out").exists()


# --- when it cannot be ---

def claim_present_of_a_running_vm_is_not_exported_but_its_snapshots_are(home):
    vm = home.create("v", "--memory", "32M", "--disk", "8M,bus=virtio", "--nic", "none")
    off = vm.snapshot("off")["guid"]
    vm.do("start", "--paused")
    vm.refused(STATE, "export", home.dir / "out", says="one of its snapshots")
    vm.refused(STATE, "rename", "w", says="runs")
    vm.do("export", off, home.dir / "out", "--name", "w")
    home.bough("import", home.dir / "out")
    assert VM(home, "w").state() == "off" and VM(home, "w").do("check")["faults"] == []


def claim_what_does_not_fit_is_refused_before_anything_is_written(home):
    vm = home.create("v", "--disk", "64M")
    write(home, vm.disk(), 0, os.urandom(24 * MIB))
    vm.snapshot("one")
    with small_disk(home, home.dir / "small", 16) as small:
        for arguments in (["v"], ["v", "one"]):
            home.refused(NO_SPACE, "export", *arguments, small.folder, says=r"needs 2\d MiB, and \d+ MiB are free")
        assert sorted(p.name for p in small.folder.iterdir()) == ["lost+found"]


def claim_extents_are_shared_where_the_file_system_can(home):
    kind = "btrfs"
    if not shutil.which(f"mkfs.{kind}", path="/sbin:/usr/sbin:/bin:/usr/bin"):
        raise Skip(f"no mkfs.{kind}")
    with small_disk(home, home.machines, 160, kind) as disk:
        vm = home.create("v", "--disk", "128M")
        write(home, vm.disk(), 0, os.urandom(30 * MIB))
        os.sync()
        before = disk.free_bytes()
        for number in range(8):  # 240 MiB, were they copied
            home.bough("export", "v", disk.folder / f"e{number}")
        os.sync()
        assert before - disk.free_bytes() < 8 * MIB, before - disk.free_bytes()
        home.bough("import", disk.folder / "e3", "--name", "w", "--copy")
        assert home.json("check", "w")["faults"] == []


def claim_holes_stay_holes(home):
    vm = home.create("v", "--disk", "64M")
    base = vm.disk()
    os.truncate(base, os.path.getsize(base))
    home.bough("disk", "convert", base, home.dir / "fixed.vhd", "--format", "fixed")
    subprocess.run(["cp", "--sparse=always", home.dir / "fixed.vhd", home.dir / "sparse.vhd"], check=True)
    home.create("w", "--disk", f"{home.dir}/sparse.vhd")
    home.bough("export", "w", home.dir / "out")
    assert os.stat(home.dir / "out" / "sparse.vhd").st_blocks * 512 < MIB
    assert flattened_by_7zip(home.dir / "out" / "sparse.vhd") == flattened_by_7zip(home.dir / "sparse.vhd")


def claim_an_interrupt_at_any_moment_leaves_all_or_nothing(home):
    vm = home.create("v", "--disk", "128M")
    write(home, vm.disk(), 0, os.urandom(32 * MIB))
    vm.snapshot("one")
    (home.dir / "to").mkdir()
    chance, outcomes = random.Random(), set()
    begun = time.monotonic()
    home.bough("export", "v", "one", home.dir / "first")
    takes = time.monotonic() - begun
    for number in range(500):
        if number >= int(os.environ.get("BOUGH_TEST_INSTANTS", "20")) and CANCELLED in outcomes:
            break
        how = chance.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        snapshot = ["one"] if number % 4 else []
        process = home.start("export", "v", *snapshot, home.dir / "to" / "x")
        time.sleep(chance.random() * takes)
        process.send_signal(how)
        process.communicate(timeout=60)
        outcomes.add(process.returncode)
        assert process.returncode in (0, CANCELLED, -how), process.returncode
        # A signal before the program hears them ends it at once: nothing is there then either.
        assert (home.dir / "to" / "x").exists() == (process.returncode == 0)
        assert hidden(home.dir / "to") == []
        shutil.rmtree(home.dir / "to" / "x", ignore_errors=True)
    assert CANCELLED in outcomes, outcomes
    assert vm.do("check")["faults"] == []


def claim_cancel_ends_an_export(home):
    vm = home.create("v", "--disk", "128M")
    write(home, vm.disk(), 0, os.urandom(64 * MIB))
    vm.snapshot("one")
    assert vm.do("cancel")["cancelled"] is None
    (home.dir / "to").mkdir()
    for snapshot in (["one"], []):
        for _ in range(50):
            process = home.start("export", "v", *snapshot, home.dir / "to" / "x")
            told = wait_until(lambda: vm.do("cancel")["cancelled"] or process.poll() is not None, 20, "the export")
            process.communicate(timeout=60)
            assert hidden(home.dir / "to") == []
            if process.returncode in (CANCELLED, -signal.SIGINT):  # the latter before it listens
                break
            shutil.rmtree(home.dir / "to" / "x")
        assert told == "export" and not (home.dir / "to" / "x").exists()
    assert vm.do("check")["faults"] == []


def claim_what_a_killed_export_left_goes_with_the_next(home):
    vm = home.create("v", "--disk", "128M")
    write(home, vm.disk(), 0, os.urandom(64 * MIB))
    vm.snapshot("one")
    (home.dir / "to").mkdir()
    for _ in range(50):
        with home.start("export", "v", "one", home.dir / "to" / "x") as process:
            wait_until(lambda: hidden(home.dir / "to") or process.poll() is not None, 20, "the folder")
            process.kill()
        if hidden(home.dir / "to"):
            break
        shutil.rmtree(home.dir / "to" / "x")
    assert hidden(home.dir / "to") != []
    home.bough("export", "v", home.dir / "to" / "y")
    assert sorted(p.name for p in (home.dir / "to").iterdir()) == ["y"]


# --- folders that others made ---

def refused_import(home, folder, status, says, *options):
    before = contents(folder)
    with unchanged(home):
        home.refused(status, "import", folder, *options, says=says)
    assert contents(folder) == before


def claim_hostile_and_damaged_folders_are_refused(home):
    vm, _ = machine(home, outside=False)
    secret = home.dir / "secret.vhd"
    home.bough("disk", "create", secret, "--size", "8M")
    home.bough("export", "v", home.dir / "out")
    xml = next((home.dir / "out" / "Virtual Machines").glob("*.xml"))

    def broken(name, change, status, says):
        folder = home.dir / name
        shutil.copytree(home.dir / "out", folder, symlinks=True)
        change(folder, folder / "Virtual Machines" / xml.name)
        refused_import(home, folder, status, says, "--name", "w")
        refused_import(home, folder, status, says, "--name", "w", "--copy")

    def links(folder, _):
        (folder / "v.vhd").unlink()
        (folder / "v.vhd").symlink_to(secret)

    def links_folder(folder, _):
        (folder / "Snapshots" / "more").symlink_to("/etc")

    def pipes(folder, _):
        os.mkfifo(folder / "Virtual Machines" / "x")

    def replaces(old, new):
        return lambda folder, file: file.write_text(file.read_text().replace(old, new, 1))

    top = os.path.relpath(vm.disk(), vm.folder)
    huge = "<notes type=\"string\">" + "x" * (65 * MIB)
    broken("link", links, INVALID, "symbolic link")
    broken("linked-folder", links_folder, INVALID, "symbolic link")
    broken("pipe", pipes, INVALID, "neither")
    broken("absolute", replaces(top, str(secret)), INVALID, "outside of the folder")
    broken("upwards", replaces(top, "../secret.vhd"), INVALID, "outside of the folder")
    broken("huge", replaces("<notes type=\"string\">", huge), CORRUPT, "xml")
    broken("doctype", replaces("<configuration>", "<!DOCTYPE x [<!ENTITY a 'b'>]><configuration>"), CORRUPT, "")
    broken("no-layer", lambda folder, _: (folder / "v.vhd").unlink(), NOT_FOUND, "v.vhd")
    broken("other-base", lambda folder, _: shutil.copy(secret, folder / "v.vhd"), MISMATCH, "unique id")
    broken("no-snapshot", lambda folder, _: next((folder / "Snapshots").glob("*.xml")).unlink(), CORRUPT, "missing")
    broken("cut", lambda folder, file: os.truncate(file, 300), CORRUPT, "xml")
    broken("name", replaces(">v</name>", ">../../x</name>"), CORRUPT, "name")
    (home.dir / "empty").mkdir()
    refused_import(home, home.dir / "empty", NOT_FOUND, "holds no VM")
    home.refused(NOT_FOUND, "import", home.dir / "nothing")


def claim_parent_that_leads_outside_is_refused(home):
    base, child, away = home.dir / "base.vhd", home.dir / "child.vhd", home.dir / "away.vhd"
    home.bough("disk", "create", base, "--size", "8M")
    write(home, base, 0, os.urandom(4096))
    home.bough("disk", "create", child, "--parent", base)
    vm = home.create("v", "--disk", child)
    content = shown([vm.disk()])
    home.bough("export", "v", home.dir / "out")
    assert sorted(p.name for p in (home.dir / "out").glob("*.vhd")) == ["base.vhd", "child.vhd"], "both are taken along"
    (home.dir / "out" / "base.vhd").rename(away)
    home.bough("disk", "reconnect", home.dir / "out" / "child.vhd", away)
    refused_import(home, home.dir / "out", INVALID, "parent disk", "--name", "w", "--copy")
    home.bough("import", home.dir / "out", "--name", "w", "--copy", "--trust")
    copy = VM(home, "w")
    for image in (away, base, child):
        image.unlink()
    assert copy.do("check")["faults"] == [] and shown([copy.disk()]) == content, "nothing leads back"


def claim_files_that_a_guest_could_read_need_trust(home):
    (home.dir / "kernel").write_text("kernel")
    (home.dir / "cd.iso").write_bytes(bytes(4096))
    home.create("v", "--disk", "8M", "--kernel", home.dir / "kernel")
    home.bough("set", "v", f"cdrom={home.dir}/cd.iso")
    result = home.run("export", "v", home.dir / "out")
    assert result.returncode == 0 and "kernel" in result.stderr and "cd.iso" in result.stderr, result
    refused_import(home, home.dir / "out", INVALID, "--trust", "--copy", "--name", "w")
    home.bough("import", home.dir / "out", "--copy", "--name", "w", "--trust")
    assert home.json("settings", "w")["kernel"] == str(home.dir / "kernel")


# --- by hand ---

def claim_folders_moved_and_copied_by_hand_are_vms(home):
    vm, seen = machine(home)
    subprocess.run(["cp", "-a", vm.folder, home.machines / "copy"], check=True)
    copy = VM(home, "copy")
    assert copy.do("check")["faults"] == [] and copy.do("show")["name"] == "copy"
    (home.machines / "copy").rename(home.dir / "away")
    (home.dir / "away").rename(home.machines / "moved")
    moved = VM(home, "moved")
    moved.snapshot("more")
    for name, content in seen.items():
        if name:
            guid = next(s["guid"] for s in moved.do("tree")["snapshots"] if s["name"] == name)
            assert shown(xml_disks(moved.snapshot_xml(guid), moved.folder)[:1]) == content[:1]
    assert xpath(moved.xml, "string(//properties/name)") == "moved"
    assert vm.do("check")["faults"] == []


def claim_folder_with_its_base_inside_needs_nothing_of_the_place_it_came_from(home):
    vm, seen = machine(home, outside=False)
    subprocess.run(["cp", "-a", vm.folder, home.dir / "elsewhere"], check=True)
    vm.do("remove", "--yes")
    home.bough("import", home.dir / "elsewhere")
    same_tree(VM(home, "v"), seen)


def claim_folder_in_the_home_is_imported_in_place(home):
    vm, seen = machine(home, outside=False)
    inodes = {p.name: os.stat(p).st_ino for p in vm.disks_folder.iterdir()}
    vm.folder.rename(home.machines / "moved")
    assert home.json("import", home.machines / "moved", "--dry-run")["plan"]["steps"] == []
    assert home.bough("import", home.machines / "moved") == "moved\n"
    assert home.bough("import", home.machines / "moved", "--name", "again") == "again\n"
    again = VM(home, "again")
    assert {p.name: os.stat(p).st_ino for p in again.disks_folder.iterdir()} == inodes
    same_tree(again, seen)


# --- name and end ---

def claim_links_in_a_folder_that_came_by_hand_are_not_swept_behind(home):
    vm, other = home.create("v", "--disk", "8M"), home.create("w", "--disk", "8M")
    for name in ("one", "two"):
        vm.snapshot(name)
    with contextlib.suppress(FileNotFoundError):
        other.disks_folder.rmdir()
    other.disks_folder.symlink_to(vm.disks_folder)
    before = contents(vm.folder)
    other.do("set", "cpus=2")
    assert contents(vm.folder) == before


def claim_nobody_changes_what_is_being_imported(home):
    vm = home.create("v", "--disk", "64M")
    write(home, vm.disk(), 0, os.urandom(48 * MIB))
    expected = shown([vm.disk()])
    for _ in range(10):
        process = home.start("import", vm.folder, "--copy", "--name", "w")
        wait_until(lambda: hidden(home.machines) or process.poll() is not None, 20, "the import")
        process.send_signal(signal.SIGSTOP)
        if hidden(home.machines):
            try:
                home.refused(BUSY, "snapshot", "v", says="in use by import")
            finally:
                process.send_signal(signal.SIGCONT)
            assert process.wait(60) == 0
            break
        process.send_signal(signal.SIGCONT)
        process.wait(60)
        home.bough("remove", "w", "--yes")
    else:
        raise Skip("each import was faster than the look at it")
    assert shown([VM(home, "w").disk()]) == expected
    vm.snapshot("one")


def claim_what_a_killed_server_had_answered_is_imported_too(home):
    import nbd  # pylint: disable=import-outside-toplevel
    vm = home.create("v", "--disk", "8M")
    data = os.urandom(4096)
    server = home.start("disk", "serve", vm.disk(), "--writable", "--socket", home.dir / "s")
    wait_until((home.dir / "s").is_socket, 20, "the server")
    handle = nbd.NBD()
    handle.connect_unix(str(home.dir / "s"))
    handle.pwrite(data, MIB)
    server.kill()
    server.wait(20)
    home.bough("import", vm.folder, "--copy", "--name", "w")
    home.bough("disk", "convert", VM(home, "w").disk(), home.dir / "raw", "--format", "raw")
    assert (home.dir / "raw").read_bytes()[MIB:MIB + 4096] == data


def claim_rename_moves_the_folder_and_no_file_in_it(home):
    vm, seen = machine(home, outside=False)
    files = [f for f in vm.files() if not f.endswith(".lock")]
    home.bough("rename", "v", "Größe & more")
    renamed = VM(home, "Größe & more")
    assert [f for f in renamed.files() if not f.endswith(".lock")] == files and not vm.folder.exists()
    assert xpath(renamed.xml, "string(//properties/name)") == "Größe & more"
    same_tree(renamed, seen)
    home.create("w")
    renamed.refused(EXISTS, "rename", "w")
    for bad in ("", ".x", "a/b", "..", "-x", "x" * 101):
        assert home.run("rename", "w", "--", bad).returncode in (USAGE, INVALID)
    home.refused(NOT_FOUND, "rename", "v", "x")
    assert renamed.snapshot("more")["guid"]


def claim_remove_takes_all_that_is_the_vms_and_nothing_else(home):
    vm, _ = machine(home)
    brought = home.dir / "bases" / "brought.vhd"
    (vm.folder / "mine.txt").write_text("")
    with unchanged(home):
        vm.refused(STATE, "remove", "--yes", says="mine.txt")
    (vm.folder / "mine.txt").unlink()
    vm.do("remove", "--yes")
    assert brought.exists() and list(home.machines.iterdir()) == []


def claim_remove_is_refused_while_another_vm_needs_an_image(home):
    vm = home.create("v", "--disk", "8M")
    child = home.dir / "child.vhd"
    home.bough("disk", "create", child, "--parent", vm.disk())
    home.create("w", "--disk", child)
    with unchanged(home):
        vm.refused(BUSY, "remove", "--yes", says="'w' needs it")
    home.bough("remove", "w", "--yes")
    vm.do("remove", "--yes")
    assert child.exists()


def claim_what_a_damaged_vm_needs_is_not_removed(home):
    vm = home.create("v", "--disk", "8M")
    child = home.dir / "child.vhd"
    home.bough("disk", "create", child, "--parent", vm.disk())
    other = home.create("w", "--disk", child)
    point = other.snapshot()["guid"]
    sound = other.snapshot_xml(point).read_bytes()
    other.snapshot_xml(point).write_bytes(b"garbage")
    with unchanged(home):
        vm.refused(BUSY, "remove", "--yes", says="'w' needs it")
    other.snapshot_xml(point).write_bytes(sound)
    sound = other.xml.read_bytes()
    other.xml.write_bytes(b"garbage")
    with unchanged(home):
        vm.refused(BUSY, "remove", "--yes", says="'w' needs it")
    other.xml.unlink()
    with unchanged(home):
        vm.refused(BUSY, "remove", "--yes", says="'w' needs it")
        vm.refused(BUSY, "rename", "x", says="'w' needs it")
    other.xml.write_bytes(sound)
    home.bough("remove", "w", "--yes")
    vm.do("remove", "--yes")


def claim_rename_is_refused_while_another_vm_needs_an_image(home):
    vm = home.create("v", "--disk", "8M")
    home.bough("disk", "create", home.dir / "child.vhd", "--parent", vm.disk())
    home.create("w", "--disk", home.dir / "child.vhd")
    with unchanged(home):
        vm.refused(BUSY, "rename", "x", says="'w' needs it")
        home.refused(BUSY, "import", vm.folder, "--name", "x", says="'w' needs it")
    home.bough("import", vm.folder)
    home.bough("remove", "w", "--yes")
    vm.do("rename", "x")


main(globals())
