#!/usr/bin/python3
"""Retention: what `prune` deletes, what it never touches, and what it says of it."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import HOOK, NOT_FOUND, TOP, USAGE, Skip, main, xpath  # noqa: E402
from cli_test import contents, unchanged  # noqa: E402


def create(home):
    home.env["TZ"] = "UTC0"
    return home.create("v", "--disk", "16M,bus=virtio", "--nic", "none")


def taken(vm, created, *options):
    """A snapshot that says that it is of that time: '2026-01-31T10:00:00'."""
    guid = vm.do("snapshot", "--name", f"of {created}", *options)["guid"]
    file = vm.snapshot_xml(guid)
    text = re.sub(r"(<creation_time[^>]*>)[^<]*", rf"\g<1>{created}.000Z", file.read_text())
    file.write_text(text)
    return guid


def scheduled(vm, created):
    return taken(vm, created, "--scheduled")


def listed(vm):
    return [s["guid"] for s in vm.do("tree")["snapshots"]]


def claim_the_mark_is_in_the_settings_and_seen(home):
    vm = create(home)
    plain, marked = vm.snapshot("mine")["guid"], vm.do("snapshot", "--scheduled", "--name", "timer's")["guid"]
    assert xpath(vm.snapshot_xml(marked), "string(//snapshot/scheduled[@type='integer'])") == "1"
    assert xpath(vm.snapshot_xml(plain), "count(//scheduled)") == xpath(vm.xml, "count(//scheduled)") == "0"
    assert [s["scheduled"] for s in vm.do("tree")["snapshots"]] == [False, True]
    assert vm.do("settings", marked)["scheduled"] and not vm.do("settings", plain)["scheduled"]
    assert re.search(r"timer's .*off, scheduled", home.bough("tree", "v")), home.bough("tree", "v")
    assert re.search(r"^scheduled: +yes$", home.bough("settings", "v", marked), re.M)


def claim_the_mark_is_not_inherited(home):
    vm = create(home)
    marked = vm.do("snapshot", "--scheduled")["guid"]
    vm.do("apply", marked)
    assert xpath(vm.xml, "count(//scheduled)") == "0"
    assert not vm.do("settings", vm.snapshot()["guid"])["scheduled"]


def claim_prune_deletes_what_no_rule_keeps_and_no_other_snapshot(home):
    vm = create(home)
    mine = taken(vm, "2020-01-01T00:00:00")
    days = [scheduled(vm, f"2026-01-0{day}T{hour}:00:00") for day in (1, 2, 3) for hour in (10, 20)]
    vm.snapshot("newest of all, mine")
    answer = vm.do("prune", "--keep-daily", "2")
    assert [row["guid"] for row in answer["deleted"]] == [days[i] for i in (0, 1, 2, 4)], answer
    assert [(row["guid"], row["reasons"]) for row in answer["kept"]] == [(days[3], ["daily"]), (days[5], ["daily"])], answer
    assert answer["unscheduled"] == 2, answer
    left = listed(vm)
    assert mine in left and len(left) == 4 and days[3] in left and days[5] in left
    assert vm.do("check")["faults"] == [] and vm.do("tree")["merging"] == [], "what became pending is merged at the end"
    with unchanged(home):
        assert vm.do("prune", "--keep-daily", "2")["deleted"] == []


def claim_a_dry_run_tells_why_each_stays_and_changes_nothing(home):
    vm = create(home)
    guids = [scheduled(vm, f"2026-02-0{day}T10:00:00") for day in (1, 2, 3)]
    vm.snapshot("mine")
    with unchanged(home):
        choice = vm.do("prune", "--keep-last", "1", "--keep-monthly", "3", "--dry-run")
        text = home.bough("prune", "v", "--keep-last", "1", "--keep-monthly", "3", "--dry-run")
    assert [row["guid"] for row in choice["delete"]] == guids[:2], choice
    assert [row["reasons"] for row in choice["keep"]] == [["last", "monthly"]], choice
    lines = text.splitlines()
    assert re.match(rf"^delete 2026-02-01 10:00:00 {guids[0][:8]} +of 2026-02-01T10:00:00$", lines[1]), lines
    assert re.search(r"^keep +2026-02-03 10:00:00 .* last, monthly of 2026-02-03", text, re.M), lines
    assert re.search(r"^1 snapshot\(s\) not taken with --scheduled", text, re.M), lines
    vm.do("prune", "--keep-last", "1", "--keep-monthly", "3")
    assert [g for g in guids if g in listed(vm)] == guids[2:], "what the dry run has told is what is done"


def claim_days_are_those_of_local_time(home):
    vm = create(home)
    guids = [scheduled(vm, "2026-05-01T21:30:00"), scheduled(vm, "2026-05-01T22:30:00"), vm.snapshot()["guid"]]
    vm.do("apply", guids[2])
    with unchanged(home):
        assert len(vm.do("prune", "--keep-daily", "9", "--dry-run")["delete"]) == 1
        home.env["TZ"] = "CEST-2"  # midnight lies between the two
        assert len(vm.do("prune", "--keep-daily", "9", "--dry-run")["delete"]) == 0


def claim_the_snapshot_that_now_descends_from_and_those_of_the_future_stay(home):
    vm = create(home)
    old, new, ahead = (scheduled(vm, t) for t in ("2026-01-01T00:00:00", "2026-01-02T00:00:00", "2199-01-01T00:00:00"))
    vm.do("apply", old)
    answer = vm.do("prune", "--keep-last", "1")
    assert [(row["guid"], row["reasons"]) for row in answer["kept"]] == [
        (old, ["now"]), (new, ["last"]), (ahead, ["future"])], answer


def claim_rules_that_keep_nothing_are_refused(home):
    vm = create(home)
    scheduled(vm, "2026-01-01T00:00:00")
    vm.snapshot()
    with unchanged(home):
        for options in ([], ["--keep-last", "0"], ["--keep-daily", "0", "--keep-weekly", "0", "--dry-run"]):
            vm.refused(USAGE, "prune", *options, says="nothing would be kept")
        vm.refused(USAGE, "prune", "--keep-last", "-1", says="no number")
        home.refused(NOT_FOUND, "prune", "nobody", "--keep-last", "1", says="nobody")


def claim_a_delete_that_is_refused_ends_it_and_says_so(home):
    vm = create(home)
    guids = [scheduled(vm, f"2026-02-0{day}T10:00:00") for day in (1, 2, 3)]
    vm.snapshot()
    hooks = home.dir / "c" / "bough" / "hooks.d"
    hooks.mkdir(parents=True)
    hook = hooks / "10-no"
    hook.write_text(f"#!/bin/sh\ntest $BOUGH_SNAPSHOT != {guids[1]} || {{ echo not this one; exit 7; }}\n")
    hook.chmod(0o755)
    result = home.run("prune", "v", "--keep-last", "1")
    assert result.returncode == HOOK and "not this one" in result.stderr, result
    assert result.stdout.startswith(f"deleted {guids[0]} ") and listed(vm)[:2] == guids[1:], result


def claim_a_vm_with_a_machine_is_pruned_by_its_worker(home):
    vm = home.create("v", "--disk", "16M,bus=virtio", "--nic", "none", "--memory", "16M")
    vm.do("start", "--paused")
    guids = [vm.do("snapshot", "--scheduled")["guid"] for _ in range(4)]
    answer = vm.do("prune", "--keep-last", "2")
    assert [row["guid"] for row in answer["deleted"]] == guids[:2], answer
    assert listed(vm) == guids[2:] and vm.state() == "paused"
    assert [s["state_when_taken"] for s in vm.do("tree")["snapshots"]] == ["paused"] * 2
    vm.do("stop", "--force")
    assert vm.do("check")["faults"] == []


def claim_forty_are_pruned_in_a_reasonable_time(home):
    vm = create(home)
    for minute in range(40):
        vm.do("snapshot", "--scheduled")
    started = time.monotonic()
    assert len(vm.do("prune", "--keep-last", "3")["deleted"]) == 37
    assert time.monotonic() - started < 60 and vm.do("check")["faults"] == []
    assert len([n for n in contents(vm.folder) if n.endswith(".xml")]) == 4


def verified(folder, home, *options):
    """What systemd-analyze says of the units in a folder: "" if nothing is wrong."""
    result = subprocess.run(["systemd-analyze", "verify", "--man=no", *options, *sorted(map(str, folder.iterdir()))],
                            capture_output=True, text=True, timeout=60, check=False,
                            env=dict(home.env, XDG_RUNTIME_DIR=str(home.dir)))
    return result.stderr if result.returncode != 0 or result.stderr else ""


def claim_the_example_units_are_valid(home):
    if not shutil.which("systemd-analyze"):
        raise Skip("systemd-analyze is not here")
    for kind, options in (("bough-snapshot@", ["--user"]), ("bough-snapshot-system@", [])):
        folder = home.dir / kind.strip("@")
        folder.mkdir()
        for unit in (TOP / "examples" / "systemd").glob(f"{kind}.*"):
            shutil.copy(unit, folder)
        assert len(list(folder.iterdir())) == 2
        told = verified(folder, home, *options)
        assert told == "", told
        timer = folder / f"{kind}.timer"
        timer.write_text(timer.read_text().replace("OnCalendar=hourly", "OnCalendar=hourlily"))
        assert "hourlily" in verified(folder, home, *options), "and one that is not is found"


def claim_what_the_example_service_calls_is_what_there_is(home):
    vm = create(home)
    vm.snapshot("mine")
    for kind in ("bough-snapshot@", "bough-snapshot-system@"):
        commands = re.findall(r"^ExecStart=/usr/bin/env bough (.*)$", (TOP / "examples/systemd" / f"{kind}.service").read_text(),
                              re.M)
        assert len(commands) == 2, commands
        for command in commands:
            home.bough(*[word.replace("%I", "v") for word in command.split()])
    assert [s["scheduled"] for s in vm.do("tree")["snapshots"]] == [False, True]


main(globals())
