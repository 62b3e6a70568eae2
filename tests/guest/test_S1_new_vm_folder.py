#!/usr/bin/python3
"""S1: a new VM's folder has `Virtual Machines/` with its XML, named by its GUID, and a folder of that GUID, and an empty
`Snapshots/`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import GUID, main, xpath  # noqa: E402


def claim_new_vm_has_its_xml_its_state_folder_and_an_empty_snapshots_folder(home):
    vm = home.create("first", "--disk", "64M,bus=virtio")
    assert GUID.match(vm.guid), vm.guid
    expected = [f"Virtual Machines/", f"Virtual Machines/{vm.guid}.lock", f"Virtual Machines/{vm.guid}.xml",
                f"Virtual Machines/{vm.guid}/", "Snapshots/", "first.vhd"]
    assert vm.files() == sorted(expected), vm.files()


def claim_xml_carries_the_guid_that_names_it_and_the_name_of_the_vm(home):
    vm = home.create("first")
    assert xpath(vm.xml, "string(/configuration/properties/global_id)").upper().strip("{}") == vm.guid
    assert xpath(vm.xml, "string(/configuration/properties/name)") == "first"
    assert vm.do("show")["guid"].upper() == vm.guid


def claim_vm_without_disks_is_a_vm_too(home):
    vm = home.create("bare")
    assert vm.state() == "off"
    assert list(vm.snapshots.iterdir()) == []


main(globals())
