#!/usr/bin/python3
"""S7: any snapshot can be applied; the next one then starts another branch, and the others stay."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import VhdHeader, identity, main, mark, marks, xml_disks  # noqa: E402


def claim_snapshot_after_an_apply_is_a_branch_and_every_point_stays_reachable(home):
    vm, console = home.booted_guest()
    guid = {}
    for name in ("one", "two", "three"):
        mark(console, name)
        guid[name] = vm.snapshot(name)["guid"]
    points = {f: identity(f) for f in vm.snapshots.rglob("*") if f.is_file() and f != vm.disk()}

    vm.do("apply", "one")
    console = vm.console()
    assert marks(console) == ["one", "one"]
    mark(console, "branch")
    guid["branch"] = vm.snapshot("branch")["guid"]

    tree = vm.do("tree")
    parents = {s["name"]: s["parent"] for s in tree["snapshots"]}
    assert parents == {"one": None, "two": guid["one"], "three": guid["two"], "branch": guid["one"]}, parents
    assert [s["name"] for s in tree["snapshots"]] == ["one", "two", "three", "branch"], "in the order of their making"
    assert tree["now"]["parent"] == guid["branch"]
    branch_disk = xml_disks(vm.snapshot_xml(guid["branch"]), vm.folder)[0]
    assert VhdHeader(branch_disk).parent_id == VhdHeader(vm.folder / "g.vhd").id
    drawn = home.bough("tree", "g")
    assert "Now" in drawn and all(name in drawn for name in guid), drawn

    for name in ("three", "branch", "two", "one"):
        vm.do("apply", guid[name][:8])
        assert marks(vm.console()) == [name, name]
        assert vm.do("tree")["now"]["parent"] == guid[name]
    for file, seen in points.items():
        assert identity(file) == seen, f"{file} changed"


def claim_apply_can_snapshot_the_present_first(home):
    vm, console = home.booted_guest()
    mark(console, "one")
    vm.snapshot("one")
    mark(console, "present")
    answer = vm.do("apply", "one", "--snapshot-first")
    assert marks(vm.console()) == ["one", "one"]
    vm.do("apply", answer["first"]["guid"])
    assert marks(vm.console()) == ["present", "present"]


def claim_apply_disks_only_boots_the_disk_of_then(home):
    vm, console = home.booted_guest()
    mark(console, "one")
    nonce = console.step().nonce
    vm.snapshot("one")
    mark(console, "later")
    answer = vm.do("apply", "one", "--disks-only")
    assert answer["state"] == "off" and vm.state() == "off", answer
    vm.do("start")
    console = vm.console()
    assert console.ready().nonce != nonce
    assert console.run("cat /disk/mark") == (0, ["one"])


main(globals())
