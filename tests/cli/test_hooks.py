#!/usr/bin/python3
"""The user's programs before and after an operation."""

import contextlib
import os
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import HOOK, INVALID, IO, NOT_FOUND, is_alive, main  # noqa: E402
from cli_test import unchanged  # noqa: E402

LOG_ALL = """#!/bin/sh
{ echo "$(basename "$0") $*"; env | grep '^BOUGH_' | grep -v -e HOME -e RUNTIME -e WORKER -e GUEST | sort; } >>"$LOG"
"""


def create(home):
    home.env["LOG"] = str(home.dir / "log")
    return home.create("v", "--disk", "16M,bus=virtio", "--nic", "none")


def folder(home):
    path = home.dir / "c" / "bough" / "hooks.d"
    path.mkdir(parents=True, exist_ok=True)
    return path


def hook(home, name, text=LOG_ALL, mode=0o755):
    path = folder(home) / name
    path.write_text(text)
    path.chmod(mode)
    return path


def logged(home):
    """One dict a run, with `words` for its name and arguments."""
    path = home.dir / "log"
    runs = []
    for line in path.read_text().splitlines() if path.exists() else []:
        name, equals, value = line.partition("=")
        if equals:
            runs[-1][name] = value
        else:
            runs.append({"words": line})
    path.unlink(missing_ok=True)
    return runs


def claim_hooks_run_before_and_after_with_what_they_need_to_know(home):
    vm = create(home)
    hook(home, "50-all")
    guid = vm.snapshot("one")["guid"]
    common = {"BOUGH_VM": "v", "BOUGH_VM_GUID": vm.guid, "BOUGH_VM_FOLDER": str(vm.folder), "BOUGH_SNAPSHOT_FIRST": ""}
    before = {"words": "50-all before snapshot v", "BOUGH_HOOK": "before", "BOUGH_OPERATION": "snapshot", "BOUGH_SNAPSHOT": ""}
    after = {"words": "50-all after snapshot v", "BOUGH_HOOK": "after", "BOUGH_OPERATION": "snapshot", "BOUGH_SNAPSHOT": guid,
             "BOUGH_OUTCOME": "done", "BOUGH_ERROR": "", "BOUGH_EXIT_STATUS": "0"}
    assert logged(home) == [{**common, **before}, {**common, **after}]
    for verb, arguments in (("revert", []), ("apply", ["one"]), ("delete", ["one"])):
        vm.do(verb, *arguments)
        runs = logged(home)
        assert [r["words"] for r in runs] == [f"50-all before {verb} v", f"50-all after {verb} v"], runs
        assert [r["BOUGH_SNAPSHOT"] for r in runs] == [guid, guid], runs


def claim_a_snapshot_of_the_present_first_is_part_of_the_apply(home):
    vm = create(home)
    one = vm.snapshot("one")["guid"]
    hook(home, "10-log")
    first = vm.do("apply", one, "--snapshot-first")["first"]["guid"]
    runs = logged(home)
    assert [(r["BOUGH_OPERATION"], r["BOUGH_SNAPSHOT"], r["BOUGH_SNAPSHOT_FIRST"]) for r in runs] == [
        ("apply", one, "yes"), ("apply", one, first)], runs


def claim_hooks_run_in_the_order_of_their_names(home):
    vm = create(home)
    for name in ("90-last", "10-first", "50-next", ".hidden", "20-old~"):
        hook(home, name)
    hook(home, "30-no-program", mode=0o644)
    (folder(home) / "40-folder").mkdir()
    vm.snapshot()
    names = ["10-first", "50-next", "90-last"]
    assert [r["words"].split()[0] for r in logged(home)] == names + names


def claim_a_before_that_fails_stops_the_operation_with_its_words_and_status(home):
    vm = create(home)
    hook(home, "10-log")
    hook(home, "20-no", "#!/bin/sh\n[ $1 = after ] && exit 0\necho first words\necho the database is busy >&2\nexit 3\n")
    hook(home, "30-never")
    with unchanged(home):
        told = vm.refused(HOOK, "snapshot", says=r"snapshot: v: nothing was done: hook 20-no: exit status 3: the database is busy")
    assert "bough: hook 20-no: first words\n" in told, told
    runs = logged(home)
    assert [r["words"] for r in runs] == ["10-log before snapshot v", "10-log after snapshot v"], runs
    assert (runs[1]["BOUGH_OUTCOME"], runs[1]["BOUGH_EXIT_STATUS"]) == ("failed", "19"), runs
    assert "the database is busy" in runs[1]["BOUGH_ERROR"], runs


def claim_after_hears_of_a_failure_and_cannot_undo(home):
    vm = create(home)
    one = vm.snapshot("one")["guid"]
    hook(home, "10-log")
    os.truncate(vm.folder / "v.vhd", 100)  # no chain can be read: apply is refused
    result = home.run("apply", "v", one)
    runs = logged(home)
    assert result.returncode != 0 and runs[1]["BOUGH_EXIT_STATUS"] == str(result.returncode), (result, runs)
    assert runs[1]["BOUGH_OUTCOME"] == "failed" and runs[1]["BOUGH_ERROR"] in result.stderr, (result, runs)
    vm = home.create("w", "--disk", "16M", "--nic", "none")
    hook(home, "10-log", "#!/bin/sh\n[ $1 = before ] || { echo too late; exit 1; }\n")
    result = home.run("snapshot", "w")
    assert result.returncode == 0 and "warning: hook 10-log: exit status 1: too late" in result.stderr, result
    assert len(vm.do("tree")["snapshots"]) == 1


def claim_what_hooks_print_is_not_part_of_the_answer(home):
    vm = create(home)
    hook(home, "10-words", "#!/bin/sh\nprintf 'words \\033[31mred'\n")
    result = home.run("snapshot", "v", "--json")
    assert result.stdout.startswith("{") and "words" not in result.stdout, result
    assert result.stderr == "bough: hook 10-words: words \\x1b[31mred\n" * 2, result
    assert vm.do("tree")["snapshots"]


def claim_a_hook_that_does_not_end_is_ended_with_all_that_it_started(home):
    create(home)
    hook(home, "10-slow", "#!/bin/sh\n[ $1 = before ] || exit 0\nsleep 1000 &\necho $! >>\"$LOG\"\nwait\n")
    home.env["BOUGH_HOOK_TIMEOUT"] = "1"
    started = time.monotonic()
    with unchanged(home):
        home.refused(HOOK, "snapshot", "v", says="hook: .*10-slow: it does not end")
    assert time.monotonic() - started < 20
    pid = int((home.dir / "log").read_text())
    deadline = time.monotonic() + 5
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(pid), "what the hook had started lives on"


def claim_hooks_that_others_could_have_written_are_not_run(home):
    vm = create(home)
    path = hook(home, "10-log")
    for unsafe in (path, folder(home), folder(home).parent):
        mode = unsafe.stat().st_mode
        unsafe.chmod(mode | 0o020)
        with unchanged(home):
            vm.refused(INVALID, "snapshot", says=f"{unsafe}: can be written by others")
        unsafe.chmod(mode)
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
        vm.refused(INVALID, "snapshot", says="belongs to another user")
        os.chown(path, 0, -1)
    assert logged(home) == []
    vm.snapshot()
    assert len(logged(home)) == 2


def claim_hooks_in_a_vms_folder_are_none(home):
    vm = create(home)
    hook(home, "10-log")
    shutil.move(folder(home), vm.folder / "hooks.d")
    vm.snapshot()
    assert logged(home) == []


def claim_dry_runs_and_other_operations_run_none(home):
    vm = create(home)
    one = vm.snapshot("one")["guid"]
    hook(home, "10-log")
    for arguments in (["snapshot", "--dry-run"], ["apply", one, "--dry-run"], ["delete", one, "--dry-run"], ["set", "cpus=2"],
                      ["tree"], ["notes", one, "text"]):
        vm.do(*arguments)
    assert logged(home) == []
    vm.refused(NOT_FOUND, "delete", "nobody", says="delete: v: has no snapshot 'nobody'")
    assert logged(home) == []


def claim_a_bough_command_of_a_hook_runs_no_hooks(home):
    vm = create(home)
    home.env["BOUGH"] = home.program
    hook(home, "10-again", '#!/bin/sh\n[ $1 = after ] || exec "$BOUGH" snapshot "$3" --name "of the hook"\n')
    vm.snapshot("mine")
    assert [s["name"] for s in vm.do("tree")["snapshots"]] == ["of the hook", "mine"]


def claim_hooks_mean_the_snapshot_that_is_deleted(home):
    vm = create(home)
    one, two = vm.snapshot("x")["guid"], vm.snapshot("two")["guid"]
    home.env["BOUGH"] = home.program
    hook(home, "10-swap", '#!/bin/sh\n[ $1 = after ] || { "$BOUGH" rename-snapshot v ' + one + ' y; '
         '"$BOUGH" rename-snapshot v ' + two + " x; }\n")
    assert vm.do("delete", "x")["deleted"] == [one]


def claim_hooks_mean_the_snapshot_that_is_reverted_to(home):
    """Also where one of them takes another, which the VM then descends from."""
    vm = create(home)
    guid = vm.snapshot("one")["guid"]
    hook(home, "50-all")
    hook(home, "60-keep", f'#!/bin/sh\n[ $1 = after ] || "{home.program}" snapshot v --name kept\n')
    assert vm.do("revert")["guid"] == guid
    assert {run["BOUGH_SNAPSHOT"] for run in logged(home)} == {guid}
    assert {s["name"]: s["parent"] for s in vm.do("tree")["snapshots"]}["kept"] == guid


def claim_a_worker_that_a_command_starts_inherits_nothing_of_a_hook(home):
    vm = create(home)
    vm.snapshot("one")
    hook(home, "10-log")
    vm.do("start", "--paused")
    vm.do("snapshot", "--name", "running")
    vm.do("stop", "--force")
    vm.do("revert")
    worker = vm.do("show")["worker_pid"]
    with contextlib.closing(open(f"/proc/{worker}/environ", "rb")) as environment:
        assert b"BOUGH_HOOK" not in environment.read()
    assert [r["words"].split()[1:3] for r in logged(home)] == [["before", "snapshot"], ["after", "snapshot"],
                                                               ["before", "revert"], ["after", "revert"]]


def claim_hooks_that_cannot_be_looked_for_stop_the_operation(home):
    vm = create(home)
    hooks = folder(home)
    hooks.rmdir()
    hooks.symlink_to("hooks.d")
    vm.refused(IO, "snapshot", says="hooks.d")
    hooks.unlink()
    vm.snapshot("one")


def claim_the_time_of_one_that_closes_its_output_is_limited_too(home):
    vm = create(home)
    home.env["BOUGH_HOOK_TIMEOUT"] = "1"
    hook(home, "10-silent", "#!/bin/sh\nexec sleep 100 >/dev/null 2>&1\n")
    begun = time.monotonic()
    vm.refused(HOOK, "snapshot", says="does not end")
    assert time.monotonic() - begun < 50


main(globals())
