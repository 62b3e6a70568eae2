#!/usr/bin/python3
"""`apply --snapshot-first`: the present is taken exactly as it is, and what cannot be gone back to costs nothing, not even a snapshot."""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import QEMU, Skip, main, mark, marks  # noqa: E402


def replaceable_qemu(home):
    """QEMU by a script whose text can change while the worker lives."""
    qemu = home.dir / "qemu"
    qemu.write_text('#!/bin/sh\nexec qemu-system-x86_64 "$@"\n', encoding="utf-8")
    qemu.chmod(0o755)
    home.env["BOUGH_QEMU"] = str(qemu)
    return qemu


def claim_one_plan_takes_the_present_and_goes_back(home):
    vm, console = home.booted_guest()
    mark(console, "one")
    vm.snapshot("one")
    mark(console, "present")
    step = console.step()
    plan = vm.do("apply", "one", "--snapshot-first", "--dry-run")["plan"]
    steps = [s["step"] for s in plan["steps"]]
    assert steps.count("commit") == 1 and steps.index("start-target") < steps.index("save-memory") < steps.index("commit"), steps
    vm.do("pause")
    answer = vm.do("apply", "one", "--snapshot-first")
    first = answer["first"]
    assert (first["state_when_taken"], first["state"], first["warning"]) == ("paused", "paused", None), first
    assert answer["state"] == "running" and marks(vm.console()) == ["one", "one"]
    assert vm.do("apply", first["guid"])["state"] == "paused"
    vm.do("resume")
    console = vm.console()
    assert marks(console) == ["present", "present"] and console.step().nonce == step.nonce
    assert [s["name"] for s in vm.do("tree")["snapshots"]][0] == "one" and len(vm.do("tree")["snapshots"]) == 2
    assert vm.do("check")["faults"] == []


def claim_a_target_that_does_not_start_costs_nothing(home):
    qemu = replaceable_qemu(home)
    vm, console = home.booted_guest()
    mark(console, "one")
    vm.snapshot("one")
    files, pid, nonce = vm.files(), vm.do("show")["qemu_pid"], console.step().nonce
    real = qemu.read_text(encoding="utf-8")
    qemu.write_text('#!/bin/sh\ncase "$*" in *-incoming*) exit 1;; esac\nexec qemu-system-x86_64 "$@"\n', encoding="utf-8")
    vm.refused(QEMU, "apply", "one", "--snapshot-first", says="nothing was applied, and no snapshot taken")
    assert vm.do("show")["qemu_pid"] == pid and vm.state() == "running" and vm.files() == files
    assert console.step(since=console.position()).nonce == nonce
    qemu.write_text(real, encoding="utf-8")
    vm.do("apply", "one", "--snapshot-first")
    assert marks(vm.console()) == ["one", "one"]


def tap_interface():
    made = subprocess.run(["ip", "tuntap", "add", "dev", "boughtap0", "mode", "tap"], capture_output=True, text=True, check=False)
    if made.returncode:
        raise Skip(f"no TAP interface can be made: {made.stderr.strip()}")
    return "boughtap0"


def claim_with_a_tap_interface_the_snapshot_comes_first(home):
    tap = tap_interface()
    try:
        qemu = replaceable_qemu(home)
        vm, console = home.booted_guest(nic=f"tap={tap}")
        mark(console, "one")
        vm.snapshot("one")
        mark(console, "present")
        real = qemu.read_text(encoding="utf-8")
        qemu.write_text('#!/bin/sh\ncase "$*" in *-incoming*) exit 1;; esac\nexec qemu-system-x86_64 "$@"\n', encoding="utf-8")
        vm.refused(QEMU, "apply", "one", "--snapshot-first", says="the snapshot '.*' was taken, nothing was applied")
        # Both cannot live at once: the present had to go first. What it was is the snapshot.
        assert vm.state() == "off" and vm.do("check")["faults"] == []
        qemu.write_text(real, encoding="utf-8")
        first = [s for s in vm.do("tree")["snapshots"] if s["name"] != "one"]
        assert len(first) == 1 and vm.do("apply", first[0]["guid"])["state"] == "running"
        assert marks(vm.console()) == ["present", "present"]
        answer = vm.do("apply", "one", "--snapshot-first")
        assert answer["state"] == "running" and marks(vm.console()) == ["one", "one"]
    finally:
        subprocess.run(["ip", "link", "delete", tap], capture_output=True, check=False)


main(globals())
