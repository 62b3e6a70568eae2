#!/usr/bin/python3
"""Merges and deletions where a file has more names, or more users, than the VM's own settings say: nobody reads anything else than before."""

import hashlib
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import BUSY, STATE, flattened_by_7zip, main, xml_disks  # noqa: E402
from cli_test import contents  # noqa: E402
from test_merge import grown, layers, seen, write  # noqa: E402


def content(image):
    return hashlib.sha256(flattened_by_7zip(image)).hexdigest()


def kept(vm):
    return {entry["reason"] for entry in vm.do("show")["merging"] if entry.get("reason")}


def claim_a_disk_of_another_vm_over_a_layer_keeps_that_layer_as_it_is(home):
    vm = grown(home)
    two = vm.snapshot_xml([s["guid"] for s in vm.do("tree")["snapshots"] if s["name"] == "two"][0])
    layer = xml_disks(two, vm.folder)[0]
    clone = home.dir / "clone.avhd"
    home.bough("disk", "create", clone, "--parent", layer)
    other = home.create("w", "--disk", f"{clone},bus=virtio", "--nic", "none")
    before, bytes_before = content(other.disk()), Path(layer).read_bytes()
    answer = vm.do("delete", "two")
    assert answer["merged"] == [], answer
    assert Path(layer).read_bytes() == bytes_before and content(other.disk()) == before
    assert any("is used by the VM 'w'" in reason for reason in kept(vm)), vm.do("show")["merging"]
    home.bough("remove", "w", "--yes")
    assert len(vm.do("merge")["merged"]) == 1


def claim_a_snapshot_whose_layer_another_vm_needs_is_not_deleted(home):
    vm = grown(home, snapshots=("one", "two"))
    two = vm.snapshot_xml([s["guid"] for s in vm.do("tree")["snapshots"] if s["name"] == "two"][0])
    layer = xml_disks(two, vm.folder)[0]
    vm.do("apply", "one")  # nothing of this VM lies over it any more
    clone = home.dir / "clone.avhd"
    home.bough("disk", "create", clone, "--parent", layer)
    other = home.create("w", "--disk", f"{clone},bus=virtio", "--nic", "none")
    before = content(other.disk())
    vm.refused(BUSY, "delete", "two", says="'w' needs it")
    assert content(other.disk()) == before and vm.do("check")["faults"] == []
    home.bough("remove", "w", "--yes")
    vm.do("delete", "two")
    assert not Path(layer).exists()


def claim_going_back_does_not_remove_what_another_vm_lies_over(home):
    vm = grown(home, snapshots=("one",))
    clone = home.dir / "clone.avhd"
    home.bough("disk", "create", clone, "--parent", vm.disk())
    other = home.create("w", "--disk", f"{clone},bus=virtio", "--nic", "none")
    before = content(other.disk())
    vm.refused(BUSY, "revert", says="'w' needs it")
    assert content(other.disk()) == before and vm.do("check")["faults"] == []
    vm.do("revert", "--snapshot-first")
    assert content(other.disk()) == before


def claim_a_repair_takes_nothing_away_that_another_vm_needs(home):
    vm = grown(home, snapshots=("one", "two"))
    two = vm.snapshot_xml([s["guid"] for s in vm.do("tree")["snapshots"] if s["name"] == "two"][0])
    layer = xml_disks(two, vm.folder)[0]
    vm.do("apply", "one")
    clone = home.dir / "clone.avhd"
    home.bough("disk", "create", clone, "--parent", layer)
    other = home.create("w", "--disk", f"{clone},bus=virtio", "--nic", "none")
    before = content(other.disk())
    two.write_text("damaged", encoding="utf-8")
    files = contents(vm.folder)
    vm.refused(BUSY, "check", "--repair", says="'w' needs it")
    assert contents(vm.folder) == files and content(other.disk()) == before
    home.bough("remove", "w", "--yes")
    vm.do("check", "--repair")
    assert not Path(layer).exists()


def claim_a_base_behind_a_link_in_the_folder_lies_outside(home):
    vm = grown(home, snapshots=("zero",))
    golden = home.dir / "golden"
    golden.mkdir()
    (vm.folder / "images").symlink_to(golden)
    home.bough("disk", "create", golden / "base.vhd", "--size", "16M")
    vm.do("set", f"disk={vm.folder}/images/base.vhd,bus=virtio")
    vm.snapshot("one")
    write(home, vm, "over the base", 1)
    before = (golden / "base.vhd").read_bytes()
    vm.do("delete", "one")
    assert (golden / "base.vhd").read_bytes() == before
    assert any("outside the VM's folder" in reason for reason in kept(vm)), vm.do("show")["merging"]


def claim_an_image_with_two_names_in_settings_is_left_alone(home):
    vm = grown(home, snapshots=("one", "two"))
    link = home.dir / "by-another-way"
    link.symlink_to(vm.folder)
    guid = {s["name"]: s["guid"] for s in vm.do("tree")["snapshots"]}
    one = xml_disks(vm.snapshot_xml(guid["one"]), vm.folder)[0]
    two_xml = Path(vm.snapshot_xml(guid["two"]))
    two = xml_disks(two_xml, vm.folder)[0]
    third = vm.snapshot("three")["guid"]
    # By hand, as an administrator does who has moved things: three names the image of two, by another way.
    text = Path(vm.snapshot_xml(third)).read_text(encoding="utf-8")
    now = os.path.relpath(xml_disks(vm.snapshot_xml(third), vm.folder)[0], vm.folder)
    relative = os.path.relpath(two, vm.folder)
    assert now in text
    id_of_two = re.search(r"<images>.*?</images>", two_xml.read_text(encoding="utf-8"), re.S)[0]
    text = re.sub(r"<images>.*?</images>", id_of_two, text.replace(now, str(link / relative)), flags=re.S)
    Path(vm.snapshot_xml(third)).write_text(text, encoding="utf-8")
    before = content(two)
    vm.refused(STATE, "delete", "two", says="is the same file as")
    assert content(two) == before and Path(one).exists() and vm.do("apply", "three")["state"] == "off"
    assert content(two) == before


def claim_snapshots_without_image_ids_are_merged_and_can_be_gone_back_to(home):
    vm = grown(home)
    for snapshot in vm.do("tree")["snapshots"]:
        xml = Path(vm.snapshot_xml(snapshot["guid"]))
        xml.write_text(re.sub(r"\s*<images>.*?</images>", "", xml.read_text(encoding="utf-8"), flags=re.S), encoding="utf-8")
    before, count = seen(vm), len(layers(vm))
    vm.do("delete", "two")
    del before["two"]
    assert seen(vm) == before and len(layers(vm)) == count - 1
    for name in ("one", "three"):
        assert vm.do("apply", name)["state"] == "off"
        assert content(vm.disk()) == before[name][0]
    assert vm.do("check")["faults"] == []


main(globals())
