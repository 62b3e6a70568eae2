#!/usr/bin/python3
"""list, show, settings, tree: what a VM is, for people and for programs, read without changing anything."""

import json
import os
import re
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import CORRUPT, GUID, NOT_FOUND, main, xml_disks  # noqa: E402
from cli_test import unchanged  # noqa: E402

RFC3339 = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")


def claim_list_of_no_vms_is_empty(home):
    assert home.bough("list") == ""
    assert home.json("list") == []


def claim_list_has_a_row_for_each_vm_by_name(home):
    for name, memory, cpus in (("web", "256M", "1"), ("data base", "1G", "4"), ("Äpfel", "64M", "2")):
        home.create(name, "--memory", memory, "--cpus", cpus, "--nic", "none")
    home.bough("snapshot", "web")
    rows = home.json("list")
    assert [r["name"] for r in rows] == ["data base", "web", "Äpfel"], rows
    assert [(r["state"], r["memory_bytes"] >> 20, r["cpus"], r["snapshots"]) for r in rows] == [
        ("off", 1024, 4, 0), ("off", 256, 1, 1), ("off", 64, 2, 0)], rows
    assert all(GUID.match(r["guid"]) for r in rows)
    lines = home.bough("list").splitlines()
    assert lines[0].split() == ["NAME", "STATE", "MEMORY", "CPUS", "SNAPSHOTS", "OLDEST"], lines
    assert len(lines) == 4 and "\033" not in "".join(lines), lines


def claim_damaged_vm_is_listed_as_such_and_hides_no_other(home):
    home.create("good")
    bad = home.create("bad")
    bad.xml.write_bytes(bad.xml.read_bytes()[:100])
    result = home.run("list", "--json")
    assert result.returncode == CORRUPT and bad.guid in result.stderr, result
    rows = json.loads(result.stdout)
    assert [(r["name"], r["state"]) for r in rows] == [("bad", "damaged"), ("good", "off")], rows
    assert rows[0]["error"]["code"] == "corrupt", rows
    assert re.search(r"^bad +damaged", home.run("list").stdout, re.M)


def claim_a_vm_whose_own_file_is_missing_does_not_vanish(home):
    home.create("good")
    lost = home.create("lost", "--disk", "64M,bus=virtio")
    lost.snapshot("one")
    lost.xml.unlink()
    (home.machines / "no VM").mkdir()
    result = home.run("list")
    assert result.returncode == NOT_FOUND and "check" in result.stderr, result
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:]] == [["good", "off"], ["lost", "damaged"]], result
    lost.refused(NOT_FOUND, "show", says="its own file is missing")
    lost.do("check", "--repair")
    assert [row["name"] for row in home.json("list")] == ["good", "lost"]


def claim_show_tells_hardware_and_the_chain_of_each_disk(home):
    vm = home.create("v", "--memory", "512M", "--cpus", "2", "--disk", "64M,bus=virtio", "--disk", "10M,bus=scsi",
                     "--nic", "user,forward=tcp:2222:22", "--notes", "mine")
    bases = {"virtio": vm.folder / "v.vhd", "scsi": vm.folder / "v_2.vhd"}
    assert set(bases.values()) == set(xml_disks(vm.xml, vm.folder))
    home.bough("snapshot", "v")
    shown = vm.do("show")
    assert (shown["name"], shown["guid"], shown["state"]) == ("v", vm.guid, "off"), shown
    assert (shown["memory_bytes"], shown["cpus"], shown["notes"]) == (512 << 20, 2, "mine"), shown
    assert shown["qemu_pid"] is None and shown["worker_pid"] is None, shown
    assert shown["folder"] == str(vm.folder) and shown["snapshots"] == 1, shown
    by_bus = {d["bus"]: d for d in shown["disks"]}
    for bus, megabytes in (("virtio", 64), ("scsi", 10)):
        assert by_bus[bus]["chain"] == [by_bus[bus]["path"], str(bases[bus])], by_bus
        assert by_bus[bus]["bytes"] == megabytes << 20, by_bus
    assert [(n["kind"], n["forwards"]) for n in shown["nics"]] == [("user", ["tcp:2222:22"])], shown
    text = home.bough("show", "v")
    assert re.search(r"^state: +off$", text, re.M) and re.search(r"^memory: +512 MiB$", text, re.M), text
    assert str(bases["virtio"]) in text, text


def claim_show_of_a_vm_whose_disk_is_damaged_names_it_and_shows_the_rest(home):
    vm = home.create("v", "--disk", "64M,bus=virtio")
    os.truncate(vm.disk(), 100)
    shown = vm.do("show")
    assert vm.disk().name in shown["disks"][0]["error"], shown
    assert "damaged:" in home.bough("show", "v")


def claim_settings_of_a_snapshot_are_those_of_its_time(home):
    vm = home.create("v", "--memory", "256M", "--cpus", "1")
    vm.snapshot("then")
    vm.do("set", "memory=1G", "cpus=3")
    then, now = vm.do("settings", "then"), vm.do("settings")
    assert (then["memory_bytes"] >> 20, then["cpus"], then["name"]) == (256, 1, "then"), then
    assert (now["memory_bytes"] >> 20, now["cpus"], now["name"]) == (1024, 3, "v"), now
    assert then["state_when_taken"] == "off" and "state_when_taken" not in now
    assert re.search(r"^cpus: +3$", home.bough("settings", "v"), re.M)


def claim_tree_json_is_as_documented(home):
    vm = home.create("v", "--disk", "64M,bus=virtio")
    begun = time.time()
    one = vm.snapshot("one")["guid"]
    two = vm.do("snapshot", "--name", "two", "--notes", "second\nline")["guid"]
    vm.do("apply", one)
    three = vm.snapshot("three")["guid"]
    tree = vm.do("tree")
    assert set(tree) == {"vm", "space", "now", "snapshots", "merging"}, tree
    assert tree["vm"] == {"name": "v", "guid": vm.guid, "state": "off", "paused_for": None}
    assert tree["now"] == {"parent": three, "disks": [str(vm.disk())]}
    assert tree["merging"] == []
    assert [(s["guid"], s["parent"]) for s in tree["snapshots"]] == [(one, None), (two, one), (three, one)], tree
    for snapshot in tree["snapshots"]:
        assert set(snapshot) == {"guid", "name", "created", "parent", "notes", "scheduled", "state_when_taken", "disks",
                                 "memory_bytes", "thumbnail"}, snapshot
        assert RFC3339.match(snapshot["created"]), snapshot
        created = datetime.fromisoformat(snapshot["created"].replace("Z", "+00:00"))
        assert begun - 1 <= created.timestamp() <= time.time() + 1 and created.tzinfo == timezone.utc
        assert snapshot["state_when_taken"] == "off" and snapshot["memory_bytes"] == 0
        for disk in snapshot["disks"]:
            assert disk["bytes"] == os.stat(disk["path"]).st_blocks * 512, disk
    assert tree["snapshots"][1]["notes"] == "second\nline"
    assert tree["snapshots"][0]["disks"][0]["path"] == str(vm.folder / "v.vhd")


def claim_tree_for_people_has_now_in_its_place(home):
    vm = home.create("v", "--disk", "64M,bus=virtio")
    one = vm.snapshot("one")["guid"]
    vm.snapshot("two")
    vm.do("apply", one)
    lines = home.bough("tree", "v").splitlines()
    shape = [re.match(r"^[^A-Za-z]*", line).group() + line.split()[-1 if "Now" in line else 0] for line in lines]
    places = [(len(re.match(r"^[^A-Za-z]*", line).group()), re.search(r"[A-Za-z]+", line).group()) for line in lines[1:]]
    names = [name for _, name in places]
    assert names == ["v", "one", "two", "Now"], (lines, shape)
    depth = dict((name, place) for place, name in places)
    assert depth["v"] < depth["one"] < depth["two"] == depth["Now"], lines
    assert one[:8] in lines[2] and "off" in lines[2], lines


def claim_forgotten_snapshots_are_seen_in_list_and_tree(home):
    home.env["TZ"] = "UTC0"
    home.create("none", "--disk", "64M,bus=virtio", "--nic", "none")
    vm = home.create("v", "--disk", "64M,bus=virtio", "--nic", "none")
    old = vm.snapshot("old")["guid"]
    vm.snapshot("new")
    file = vm.snapshot_xml(old)
    file.write_text(re.sub(r"(<creation_time[^>]*>)[^<]*", r"\g<1>2019-02-03T04:05:06.000Z", file.read_text()))
    rows = {row["name"]: row["oldest_snapshot"] for row in home.json("list")}
    assert rows == {"none": None, "v": "2019-02-03T04:05:06.000Z"}, rows
    assert re.search(r"^v +off .* 2 2019-02-03$", home.bough("list"), re.M), home.bough("list")
    space = vm.do("tree")["space"]
    images = sum(file.stat().st_blocks * 512 for file in vm.folder.rglob("*.*vhd"))
    assert space == {"disks_bytes": images, "memory_bytes": 0}, (space, images)
    assert re.search(r"^v +2 snapshots +\d", home.bough("tree", "v"), re.M), home.bough("tree", "v")


def claim_tree_is_drawn_with_ascii_where_the_terminal_has_no_more(home):
    home.create("v", "--disk", "64M,bus=virtio").snapshot("Größe")
    plain = home.run("tree", "v", env=dict(home.env, LC_ALL="C")).stdout
    drawn = home.run("tree", "v", env=dict(home.env, LC_ALL="C.UTF-8")).stdout
    assert "└─" in drawn and "└" not in plain and "`-" in plain, (plain, drawn)
    assert "Größe" in plain and "Größe" in drawn


def claim_a_chain_of_a_hundred_snapshots_is_shown(home):
    vm = home.create("v", "--nic", "none")
    guids = [vm.snapshot(f"s{i}")["guid"] for i in range(100)]
    tree = vm.do("tree")
    assert [s["guid"] for s in tree["snapshots"]] == guids
    assert [s["parent"] for s in tree["snapshots"]] == [None, *guids[:-1]]
    assert home.bough("tree", "v").count("\n") == 103  # the head, the VM, the snapshots, Now


def claim_names_from_files_cannot_drive_a_terminal(home):
    vm = home.create("v", "--notes", "marker")
    text = vm.xml.read_text()
    vm.xml.write_text(text.replace("marker", "a\u202ec", 1))
    for verb in ("settings", "show"):
        shown = home.bough(verb, "v")
        assert "a\\u202ec" in shown and "\u202e" not in shown, shown


def claim_looking_changes_nothing_and_needs_no_lock(home):
    vm = home.create("v", "--disk", "64M,bus=virtio")
    vm.snapshot("one")
    lock = next((vm.folder / "Virtual Machines").glob("*.lock")).read_bytes()
    with unchanged(home):
        for command in (["list"], ["show", "v"], ["settings", "v"], ["settings", "v", "one"], ["tree", "v"],
                        ["notes", "v", "one"]):
            home.bough(*command)
            home.json(*command)
    assert next((vm.folder / "Virtual Machines").glob("*.lock")).read_bytes() == lock


def claim_what_is_not_there_is_not_found(home):
    home.create("v")
    for command in (["show", "w"], ["tree", "w"], ["settings", "w"], ["settings", "v", "none"], ["notes", "v", "none"]):
        home.refused(NOT_FOUND, *command, says=command[-1])
    for verb, *more in (["apply"], ["delete"], ["notes"], ["settings"], ["rename-snapshot", "x"], ["export", str(home.dir / "x")]):
        told = home.refused(NOT_FOUND, verb, "v", "none", *more)
        assert told == f"bough: {verb}: v: has no snapshot 'none'\n", told
    assert home.refused(NOT_FOUND, "export", "v", "/nowhere/v").endswith(": /nowhere: No such file or directory\n")


main(globals())
