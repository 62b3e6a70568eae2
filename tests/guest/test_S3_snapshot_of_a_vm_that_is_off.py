#!/usr/bin/python3
"""S3: a snapshot of a VM that is off (the seed's case 1)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import GUID, VhdHeader, main, xml_disks, xpath  # noqa: E402


def claim_first_snapshot_makes_the_folders_the_xml_and_a_working_disk_and_nothing_else(home):
    vm = home.create("v", "--disk", "64M,bus=virtio")
    before, base, old_xml = set(vm.files()), vm.disk(), vm.xml.read_bytes()
    answer = vm.snapshot("one")
    guid, working = answer["guid"], vm.disk()

    assert GUID.match(guid), guid
    assert answer["state_when_taken"] == "off"
    assert set(vm.files()) - before == {f"Snapshots/{vm.guid}/", f"Snapshots/{guid}/", f"Snapshots/{guid}.xml",
                                        str(working.relative_to(vm.folder))}, vm.files()
    assert before <= set(vm.files()), "something was removed"
    assert list((vm.snapshots / guid).iterdir()) == [], "there is no memory of a VM that is off"
    assert working.parent == vm.disks_folder and working.suffix == ".avhd", working
    assert vm.xml.read_bytes() != old_xml
    assert xml_disks(vm.snapshot_xml(guid), vm.folder) == [base]
    assert VhdHeader(working).parent_id == VhdHeader(base).id
    assert vm.state() == "off"


def claim_snapshot_xml_is_a_copy_of_the_settings(home):
    vm = home.create("v", "--disk", "64M,bus=virtio", "--memory", "768M", "--cpus", "3", "--notes", "all of it")
    hardware = "/configuration/settings | //controller | //drive"
    old_settings = xpath(vm.xml, "/configuration/settings")
    guid = vm.snapshot("one")["guid"]
    assert xpath(vm.snapshot_xml(guid), "/configuration/settings") == old_settings, hardware
    assert xpath(vm.snapshot_xml(guid), "string(/configuration/properties/name)") == "one"
    assert xpath(vm.snapshot_xml(guid), "string(/configuration/properties/parent_snapshot)") == ""
    listed = xpath(vm.xml, "string(/configuration/global_settings/snapshots/list)")
    assert guid in listed.upper(), f"the VM's XML lists the snapshot: {listed!r}"


def claim_second_snapshot_uses_the_folder_of_the_first(home):
    vm = home.create("v", "--disk", "64M,bus=virtio")
    vm.snapshot("one")
    before = set(vm.files())
    second = vm.snapshot("two")["guid"]
    assert set(vm.files()) - before == {f"Snapshots/{second}/", f"Snapshots/{second}.xml",
                                        str(vm.disk().relative_to(vm.folder))}


def claim_each_disk_gets_a_working_disk_of_its_own(home):
    vm = home.create("v", *(a for bus in ("ide", "scsi", "virtio") for a in ("--disk", f"64M,bus={bus}")))
    vm.snapshot()
    disks = xml_disks(vm.xml, vm.folder)
    assert len(set(disks)) == 3 and all(d.suffix == ".avhd" and d.exists() for d in disks), disks


main(globals())
