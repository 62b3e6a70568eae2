#!/usr/bin/python3
"""--dry-run of every command that changes a VM's files: it tells the plan and changes nothing.

The list of commands is that of `bough help`: a new one fails here until it stands in one of the two tables."""

import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import main  # noqa: E402
from cli_test import contents, unchanged  # noqa: E402

# Commands that change no file of a VM, with arguments for v where they can be tried on a VM that is off. `disk` works on plain
# files; `screenshot` writes the file that it is told; `pause` and `resume` are of the machine alone. `check --repair` is tried dry at
# each damage in test_repair.py.
READING = {"list": [], "show": ["v"], "tree": ["v"], "settings": ["v", "two"], "check": ["v"], "cancel": ["v"], "console": None,
           "display": None, "screenshot": None, "pause": None, "resume": None, "disk": None,
           "export": None, "import": None,  # their plans are about other folders: test_export.py looks at them
           "unlock": None}  # works on the lock file alone


def off(home, name):
    """Two snapshots under each other and one beside; the last two by a timer."""
    vm = home.create(name, "--disk", "16M,bus=virtio", "--nic", "none")
    vm.snapshot("one")
    vm.do("snapshot", "--scheduled", "--name", "two")
    vm.do("apply", "one")
    vm.do("snapshot", "--scheduled", "--name", "three")
    return vm


def running(home, name):
    """Its guest has not done one instruction: only commands change its files."""
    vm = home.create(name, "--disk", "16M,bus=virtio", "--nic", "none", "--memory", "16M")
    vm.do("start", "--paused")
    return vm


def saved(home, name):
    vm = running(home, name)
    vm.do("save")
    return vm


def unmerged(home, name):
    vm = off(home, name)
    for snapshot in ("one", "two"):
        vm.do("delete", snapshot, "--no-merge")


def nothing(home, name):
    del home, name


def changed_base(home, name):
    vm = off(home, name)
    os.utime(vm.folder / f"{name}.vhd")
    return vm


# The command, what it finds, and its arguments behind the VM's name.
CHANGING = [
    ("create", nothing, ["--disk", "16M", "--disk", "8M,bus=scsi"]),
    ("create", nothing, ["--generation", "2", "--disk", "16M,bus=virtio"]),
    ("set", off, ["cpus=3"]),
    ("set", off, ["disk=8M"]),
    ("set", saved, ["notes=n"]),
    ("start", saved, []),
    ("stop", saved, ["--force"]),
    ("save", running, []),
    ("snapshot", off, ["--name", "n"]),
    ("snapshot", running, []),
    ("snapshot", saved, ["--scheduled"]),
    ("apply", off, ["two"]),
    ("apply", off, ["two", "--snapshot-first"]),
    ("revert", off, []),
    ("rename-snapshot", off, ["two", "2"]),
    ("notes", off, ["two", "text"]),
    ("delete", off, ["two"]),
    ("delete", off, ["one", "--subtree"]),
    ("reconnect", changed_base, []),
    ("prune", off, ["--keep-last", "1"]),
    ("rename", off, ["renamed"]),
    ("remove", off, ["--yes"]),
    ("merge", unmerged, []),
]
# Those that may leave all files as they are: a machine that is off is started, one that runs is stopped.
POWER = [("start", off, []), ("stop", running, ["--force"]), ("stop", off, [])]


def told(home, verb, name, arguments):
    """The plan of a dry run, as JSON and for people."""
    lines = home.bough(verb, name, *arguments, "--dry-run").splitlines()
    answer = home.json(verb, name, *arguments, "--dry-run")
    if verb == "prune":
        assert answer["delete"] and lines[1].startswith("delete "), (answer, lines)
        return None
    plan = answer["plan"]
    if "needs_bytes" in answer:
        assert re.match(r"needs about \S+ \S+, free: \S+ \S+$", lines.pop()), lines
        assert answer["free_bytes"] > answer["needs_bytes"] > 0, answer
    timeless = [re.sub(r"\d\d:\d\d:\d\d", "", text) for text in (lines[0], plan["summary"])]  # in a snapshot's default name
    assert timeless[0] == timeless[1] and len(lines) == 1 + len(plan["steps"]), (lines, plan)
    assert all(re.match(r"^ *\d+\. [a-z-]+", line) for line in lines[1:]), lines
    return plan


def claim_every_command_is_known_to_change_files_or_not(home):
    verbs = set(re.findall(r"^  ([a-z-]+) ", home.bough("help"), re.M))
    changing = {verb for verb, _, _ in CHANGING}
    assert len(verbs) > 20, verbs
    assert verbs == changing | READING.keys(), f"in no table of this file, or gone: {sorted(verbs ^ (changing | READING.keys()))}"
    for verb in changing:
        assert "--dry-run" in home.bough("help", verb), f"{verb}: has no --dry-run"


def claim_a_dry_run_tells_a_plan_and_changes_nothing(home):
    for number, (verb, make, arguments) in enumerate(CHANGING):
        name = f"vm{number}"
        make(home, name)
        before = contents(home.machines)
        plan = told(home, verb, name, arguments)
        after = contents(home.machines)
        changed = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
        assert not changed, (verb, arguments, changed)
        assert plan is None or plan["steps"], (verb, arguments, "it changes files, and the plan is empty")
        home.json(verb, name, *arguments)
        assert contents(home.machines) != after, (verb, arguments, "really done it changes something")


def claim_a_dry_run_of_what_changes_no_file_says_so(home):
    for number, (verb, make, arguments) in enumerate(POWER):
        vm = make(home, f"vm{number}")
        before, state = contents(home.machines), vm.state()
        assert told(home, verb, vm.name, arguments)["steps"] == []
        assert contents(home.machines) == before and vm.state() == state, (verb, arguments)


def claim_commands_that_read_change_nothing(home):
    off(home, "v")
    with unchanged(home):
        for verb, arguments in READING.items():
            if arguments is not None:
                home.bough(verb, *arguments)


def claim_the_plan_of_create_is_what_is_made(home):
    for name, options in (("one", ["--disk", "16M", "--disk", "8M,bus=scsi"]), ("two", ["--generation", "2"])):
        plan = home.json("create", name, *options, "--dry-run")["plan"]
        home.bough("create", name, *options)
        made = {name, *(f"{name}/{path.relative_to(home.machines / name)}" for path in (home.machines / name).rglob("*"))}
        assert anonymous(made) == anonymous(step["path"].removeprefix(f"{home.machines}/") for step in plan["steps"]), plan


def anonymous(paths):
    """GUIDs are fresh ones each time."""
    return sorted(re.sub(r"[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}", "GUID", str(path)) for path in paths)


def claim_a_dry_run_is_refused_as_the_command_would_be(home):
    vm = off(home, "v")
    with unchanged(home):
        for verb, arguments in (("create", []), ("apply", ["nobody"]), ("delete", ["nobody"]), ("notes", ["nobody", "x"]),
                                ("rename-snapshot", ["two", " "]), ("set", ["cpus=0"]), ("save", [])):
            really, dry = home.run(verb, vm.name, *arguments), home.run(verb, vm.name, *arguments, "--dry-run")
            assert really.returncode == dry.returncode != 0 and really.stderr == dry.stderr, (verb, really, dry)


main(globals())
