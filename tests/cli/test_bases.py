#!/usr/bin/python3
"""What lies under a machine's own layers must stay as it was: a change by somebody else is seen before it is used, and `reconnect` takes it."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import CORRUPT, MISMATCH, STATE, main, xml_disks, xpath  # noqa: E402
from cli_test import contents, unchanged, write_disk  # noqa: E402


def noted(vm):
    """Of each base: path, size, time."""
    count = int(xpath(vm.xml, "count(/configuration/global_settings/bases/*)"))
    base = "/configuration/global_settings/bases/base{}/{}"
    return {xpath(vm.xml, f"string({base.format(i, 'file')})"): (int(xpath(vm.xml, f"string({base.format(i, 'size')})")),
                                                                     xpath(vm.xml, f"string({base.format(i, 'modified')})"))
            for i in range(count)}


def is_now(file):
    status = os.stat(file)
    return status.st_size, f"{status.st_mtime_ns // 10**9}.{status.st_mtime_ns % 10**9:09}"


def touch(file):
    """Somebody else writes to it: the same size, another time."""
    time.sleep(0.02)
    with open(file, "r+b") as stream:
        first = stream.read(1)
        stream.seek(0)
        stream.write(first)


def used_in_place(home):
    base = home.dir / "base.vhd"
    home.bough("disk", "create", base, "--size", "16M")
    return base, home.create("v", "--memory", "32M", "--disk", f"{base},bus=virtio", "--nic", "none")


def refused_until_reconnected(home, vm, base, guid):
    was = is_now(base)
    touch(base)
    says = (rf"{base}: was changed by somebody else: noted are {was[0]} bytes, modified [-0-9 :]*[.]{was[1].split('.')[1]}, now it has "
            rf"{was[0]} bytes, modified [-0-9 :]*[.]{is_now(base)[1].split('.')[1]}; `bough reconnect`")
    with unchanged(home):
        vm.refused(MISMATCH, "start", says=says)
        vm.refused(MISMATCH, "apply", guid, says=says)
        vm.refused(MISMATCH, "revert", says=says)
        result = home.run("check", "v", "--json")
        assert result.returncode == CORRUPT and "was changed by somebody else" in result.stdout, result
        assert home.json("reconnect", "v", "--dry-run")["plan"]["steps"], "the commit is told"
    result = home.run("reconnect", "v")
    assert result.returncode == 0 and f"{base}: {was[0]} bytes" in result.stdout and "warning" in result.stderr, result
    assert noted(vm) and is_now(base) in noted(vm).values()
    assert home.json("reconnect", "v") == {"accepted": []}
    assert "no base has changed" in home.bough("reconnect", "v")
    home.bough("check", "v")
    vm.do("apply", guid)


def claim_base_used_in_place_that_was_changed_is_refused_until_it_is_taken(home):
    base, vm = used_in_place(home)
    assert noted(vm) == {}, "the guest writes it itself"
    touch(base)
    guid = vm.snapshot()["guid"]
    assert noted(vm) == {str(base): is_now(base)}
    refused_until_reconnected(home, vm, base, guid)
    assert vm.do("start", "--paused")["state"] == "paused"
    vm.refused(STATE, "reconnect", says="stop it first")
    assert noted(vm) == {str(base): is_now(base)}
    vm.do("stop", "--force")


def claim_base_in_the_folder_is_watched_too_and_the_folder_can_be_copied(home):
    vm = home.create("v", "--memory", "32M", "--disk", "16M,bus=virtio", "--nic", "none")
    base = vm.folder / "v.vhd"
    guid = vm.snapshot()["guid"]
    assert noted(vm) == {"v.vhd": is_now(base)}
    refused_until_reconnected(home, vm, base, guid)
    time.sleep(0.02)
    subprocess.run(["cp", "-r", vm.folder, home.dir / "copy"], check=True)
    subprocess.run(["rm", "-r", vm.folder], check=True)
    (home.dir / "copy").rename(vm.folder)
    assert noted(vm)["v.vhd"] != is_now(base), "cp gives it a new time"
    vm.do("start", "--paused")
    assert noted(vm) == {"v.vhd": is_now(base)}
    vm.do("stop", "--force")


def claim_a_copy_of_the_folder_by_hard_links_does_not_write_to_the_same_disk(home):
    vm = home.create("v", "--disk", "16M,bus=virtio", "--nic", "none")
    vm.snapshot()
    subprocess.run(["cp", "-al", vm.folder, home.dir / "backup"], check=True)
    with unchanged(home):
        vm.refused(STATE, "start", "--paused", says="another name in the file system")
    shutil.rmtree(home.dir / "backup")
    vm.do("start", "--paused")
    vm.do("stop", "--force")


def claim_what_has_no_note_is_accepted_and_noted(home):
    base, vm = used_in_place(home)
    vm.snapshot()
    text = vm.xml.read_text(encoding="utf-8")
    old = re.sub(r"\s*<bases>.*</bases>", "", text, flags=re.S)
    assert old != text
    vm.xml.write_text(old, encoding="utf-8")
    touch(base)
    vm.do("start", "--paused")
    assert noted(vm) == {str(base): is_now(base)}
    vm.do("stop", "--force")
    touch(base)
    vm.refused(MISMATCH, "start")


def claim_disk_that_is_brought_along_with_its_parents_is_noted_when_it_is_added(home):
    base, vm = used_in_place(home)
    top = home.dir / "top.avhd"
    other = home.dir / "other.vhd"
    home.bough("disk", "create", other, "--size", "8M")
    home.bough("disk", "create", top, "--parent", other)
    home.bough("set", "v", f"disk={top}")
    assert noted(vm) == {str(other): is_now(other)}, "the disk itself is the guest's"
    touch(other)
    vm.refused(MISMATCH, "start", says="other.vhd: was changed")
    home.bough("reconnect", "v")
    guid = vm.snapshot()["guid"]
    assert noted(vm) == {str(f): is_now(f) for f in (base, top, other)}
    touch(top)
    vm.refused(MISMATCH, "apply", guid, says="top.avhd: was changed")


def claim_base_that_we_merge_into_ourselves_is_forgotten_and_noted_again(home):
    vm = home.create("v", "--memory", "32M", "--disk", "16M,bus=virtio", "--nic", "none")
    base = vm.folder / "v.vhd"
    one = vm.snapshot("one")["guid"]
    write_disk(home, vm.disk(), (1 << 20, b"x" * 4096))
    two = vm.snapshot("two")["guid"]
    was = noted(vm)
    assert was == {"v.vhd": is_now(base)}
    time.sleep(0.02)
    vm.do("delete", one)
    assert xml_disks(vm.snapshot_xml(two), vm.folder) == [base], "it was merged"
    assert noted(vm) == {}
    home.bough("check", "v")
    vm.do("apply", two)
    assert noted(vm) == {"v.vhd": is_now(base)} and noted(vm) != was
    touch(base)
    vm.refused(MISMATCH, "apply", two, says="was changed")


def claim_base_that_was_sealed_while_the_guest_ran_is_noted_at_the_next_start(home):
    base, vm = used_in_place(home)
    vm.do("start", "--paused")
    guid = vm.snapshot()["guid"]
    vm.do("stop", "--force")
    vm.do("start", "--paused")
    assert noted(vm) == {str(base): is_now(base)}
    assert vm.do("apply", guid)["state"] == "paused"
    vm.do("stop", "--force")
    assert noted(vm) == {str(base): is_now(base)}
    before = contents(vm.folder)
    touch(base)
    vm.refused(MISMATCH, "start")
    assert contents(vm.folder) == before


main(globals())
