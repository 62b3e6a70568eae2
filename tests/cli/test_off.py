#!/usr/bin/python3
"""The verbs on a VM that is off: what they answer, what they change, and what they leave as it was."""

import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import (AMBIGUOUS, EXISTS, GUID, INVALID, NOT_FOUND, STATE, flattened_by_7zip, identity,  # noqa: E402
                        main, xml_disks, xpath)
from cli_test import contents, unchanged  # noqa: E402


def create(home, name="v"):
    return home.create(name, "--disk", "16M,bus=virtio", "--nic", "none")


def claim_create_prints_the_guid_and_makes_a_vm_that_is_off(home):
    printed = home.bough("create", "v", "--disk", "16M").strip()
    assert GUID.match(printed), printed
    assert home.json("show", "v")["guid"] == printed
    assert (home.machines / "v" / "Virtual Machines" / f"{printed}.xml").exists()
    answer = home.json("create", "w")
    assert answer == {"guid": home.json("show", "w")["guid"], "path": str(home.machines / "w")}


def claim_create_has_its_defaults(home):
    home.create("v")
    shown = home.json("show", "v")
    assert shown["memory_bytes"] == 1 << 30 and shown["cpus"] == 1 and shown["generation"] == 1, shown
    assert [n["kind"] for n in shown["nics"]] == ["user"] and shown["display"] == "none", shown
    assert re.search(r"-\d+\.\d+$", shown["machine"]), f"a machine with its version: {shown['machine']}"


def claim_brought_disk_is_used_in_place(home):
    image = home.dir / "brought.vhd"
    subprocess.run(["qemu-img", "create", "-q", "-f", "vpc", "-o", "force_size=on", image, "16M"], check=True)
    before = identity(image)
    vm = home.create("v", "--disk", f"{image},bus=ide")
    assert vm.disk() == image and identity(image) == before
    vm.snapshot()
    vm.do("revert")
    vm.do("remove", "--yes")
    assert identity(image) == before, "what was brought is not written, and stays"


def claim_snapshot_prints_its_guid_and_keeps_name_and_notes(home):
    vm = create(home)
    guid = home.bough("snapshot", "v", "--name", "before <it> & \"that\"", "--notes", "two\nlines").strip()
    assert GUID.match(guid), guid
    assert xpath(vm.snapshot_xml(guid), "string(//properties/name)") == "before <it> & \"that\""
    assert home.bough("notes", "v", guid) == "two\nlines\n"
    answer = vm.snapshot()
    assert answer["state"] == "off" and answer["pause_us"] in (0, None) and answer["mode"] is None, answer
    assert re.match(r"^v - \(.*\d.* - .*\d.*\)$", answer["name"]), answer


def claim_a_snapshot_answers_to_guid_prefix_and_name(home):
    vm = create(home)
    one, two = vm.snapshot("one")["guid"], vm.snapshot("two")["guid"]
    for selector in (one, one.lower(), one[:8], "one"):
        assert vm.do("settings", selector)["snapshot"] == one
    vm.refused(NOT_FOUND, "settings", one[:3], says=one[:3])
    vm.do("rename-snapshot", two, "one")
    told = vm.refused(AMBIGUOUS, "settings", "one")
    assert one in told and two in told, told
    vm.do("rename-snapshot", one, two)  # a name that is another's GUID
    assert vm.do("settings", two)["snapshot"] == two


def claim_rename_and_notes_change_one_file_each(home):
    vm = create(home)
    guid = vm.snapshot("one")["guid"]
    vm.snapshot("two")
    for arguments, field, text in ((["rename-snapshot", guid, "Größe"], "name", "Größe"),
                                   (["notes", guid, "new notes"], "notes", "new notes"), (["notes", guid, ""], "notes", "")):
        before = contents(vm.folder)
        vm.do(arguments[0], *arguments[1:])
        after = contents(vm.folder)
        assert {n for n in before.keys() | after.keys() if before.get(n) != after.get(n)} == {f"Snapshots/{guid}.xml"}
        assert vm.do("settings", guid)[field] == text


def claim_set_changes_the_vm_and_no_snapshot(home):
    vm = create(home)
    guid = vm.snapshot()["guid"]
    before = identity(vm.snapshot_xml(guid))
    assert sorted(vm.do("set", "memory=512M", "cpus=2", "notes=n")["changed"]) == ["cpus", "memory", "notes"]
    shown = vm.do("show")
    assert (shown["memory_bytes"] >> 20, shown["cpus"], shown["notes"]) == (512, 2, "n"), shown
    assert identity(vm.snapshot_xml(guid)) == before
    vm.do("revert")
    shown = vm.do("show")
    assert (shown["memory_bytes"] >> 20, shown["cpus"]) == (1024, 1), shown


def claim_set_is_all_or_nothing(home):
    vm = create(home)
    with unchanged(home):
        vm.refused(INVALID, "set", "memory=512M", "cpus=0")


def claim_revert_and_apply_say_where_the_vm_stands(home):
    vm = create(home)
    one, two = vm.snapshot("one")["guid"], vm.snapshot("two")["guid"]
    assert home.bough("revert", "v") == "v: off\n"
    assert vm.do("tree")["now"]["parent"] == two
    answer = vm.do("apply", "one")
    assert (answer["state"], answer["guid"], answer["running_us"], answer["first"]) == ("off", one, None, None), answer
    assert vm.do("tree")["now"]["parent"] == one


def claim_apply_can_keep_the_present_first(home):
    vm = create(home)
    one = vm.snapshot("one")["guid"]
    vm.do("set", "cpus=3")
    first = vm.do("apply", one, "--snapshot-first")["first"]
    assert vm.do("settings", first["guid"])["cpus"] == 3
    assert vm.do("show")["cpus"] == 1 and vm.do("tree")["now"]["parent"] == one
    vm.do("apply", first["guid"])
    assert vm.do("show")["cpus"] == 3


def claim_revert_without_a_snapshot_is_refused(home):
    create(home)
    with unchanged(home):
        told = home.run("revert", "v")
        assert told.returncode in (STATE, NOT_FOUND) and "bough: revert: v: " in told.stderr, told


def claim_delete_of_a_snapshot_that_nobody_needs_leaves_nothing_of_it(home):
    vm = create(home)
    one = vm.snapshot("one")["guid"]
    vm.snapshot("two")
    vm.do("apply", one)
    kept = {name: seen for name, seen in contents(vm.folder).items()}
    three = vm.snapshot("three")["guid"]
    vm.do("apply", one)
    assert vm.do("delete", three)["deleted"] == [three]
    left = contents(vm.folder)
    assert not [n for n in left if three in n], left.keys()
    assert three not in vm.xml.read_text().upper()
    assert {n for n in left if n.endswith(".avhd")} - kept.keys() == {str(vm.disk().relative_to(vm.folder))}
    assert [s["guid"] for s in vm.do("tree")["snapshots"]][0] == one


def claim_dry_run_shows_the_plan_and_changes_nothing(home):
    vm = create(home)
    one = vm.snapshot("one")["guid"]
    vm.snapshot("two")
    vm.do("apply", one)
    with unchanged(home):
        for command in (["snapshot", "v", "--name", "n"], ["apply", "v", "one"], ["revert", "v"], ["delete", "v", "two"],
                        ["delete", "v", "one", "--subtree"], ["set", "v", "cpus=2"]):
            lines = home.bough(*command, "--dry-run").splitlines()
            assert len(lines) >= 2 and re.match(r"^  1\. [a-z-]+ ", lines[1]), (command, lines)
            assert any(re.match(r"^ *\d+\. commit ", line) for line in lines), (command, lines)
            plan = home.json(*command, "--dry-run")["plan"]
            lines = [line for line in lines if not line.startswith("needs about ")]
        assert plan["summary"] == lines[0] and len(plan["steps"]) == len(lines) - 1, (command, plan)


def claim_what_a_dry_run_has_told_is_what_is_done(home):
    vm = create(home)
    steps = [s["step"] for s in vm.do("snapshot", "--dry-run")["plan"]["steps"]]
    before = set(vm.files())
    vm.snapshot()
    made = sorted(Path(f).suffix for f in set(vm.files()) - before if not f.endswith("/"))
    # One new working disk and the snapshot's XML; GUIDs are fresh each time, so the names differ.
    assert made == [".avhd", ".xml"] and steps.count("create-layer") == steps.count("write-config") == 1, (made, steps)
    assert steps.count("commit") == 1 and steps[-1] == "commit", steps


def claim_verbs_that_need_a_machine_are_refused_while_it_is_off(home):
    create(home)
    with unchanged(home):
        for verb in ("pause", "resume", "save", "console", "display"):
            home.refused(STATE, verb, "v", says=r"^bough: \S+: v: .*off")
        home.refused(STATE, "screenshot", "v", home.dir / "x.png", says="off")
    assert not (home.dir / "x.png").exists()


def claim_cancel_of_nothing_says_so(home):
    create(home)
    assert home.json("cancel", "v") == {"cancelled": None}
    assert home.bough("cancel", "v") == "v: nothing is in progress\n"


def claim_stop_of_a_vm_that_is_off_leaves_it_off(home):
    create(home)
    with unchanged(home):
        result = home.run("stop", "v")
        assert result.returncode in (0, STATE), result
    assert home.json("show", "v")["state"] == "off"


def claim_remove_takes_the_vm_and_nothing_else(home):
    vm, other = create(home), create(home, "other")
    vm.snapshot()
    before = contents(other.folder)
    home.bough("remove", "v")
    assert not vm.folder.exists() and [r["name"] for r in home.json("list")] == ["other"]
    assert contents(other.folder) == before and [p.name for p in home.machines.iterdir()] == ["other"]
    create(home)  # the name is free again


def claim_failed_create_leaves_nothing(home):
    create(home)
    with unchanged(home):
        home.refused(EXISTS, "create", "v", says="bough: create: v: .*taken")
        home.refused(NOT_FOUND, "create", "w", "--disk", "16M", "--disk", "/nowhere/x.vhd", says="/nowhere/x.vhd")
        home.refused(INVALID, "create", "w", "--disk", "16M", "--memory", "1M", says="memory")
        home.refused(NOT_FOUND, "create", "w", "--disk", "16M", "--kernel", "/nowhere/k", says="/nowhere/k")


def claim_each_disk_has_a_chain_that_others_read_too(home):
    vm = home.create("v", "--disk", "16M,bus=virtio", "--disk", "8M,bus=scsi")
    guid = vm.snapshot()["guid"]
    vm.snapshot()
    tops = sorted(xml_disks(vm.xml, vm.folder), key=lambda disk: disk.name.startswith("v_2_"))
    sizes = [len(flattened_by_7zip(top)) for top in tops]
    assert sizes == [16 << 20, 8 << 20], sizes
    assert [d.suffix for d in xml_disks(vm.snapshot_xml(guid), vm.folder)] == [".vhd", ".vhd"]


main(globals())
