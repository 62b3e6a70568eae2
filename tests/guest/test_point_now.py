#!/usr/bin/python3
"""`snapshot --point-now`: the memory of the moment of the request, and a clear answer where that cannot be had."""

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import NO_SPACE, STATE, UNSUPPORTED, Skip, main, memory_counters, wait_until  # noqa: E402
from small_disk import small_disk  # noqa: E402


def counter_of(vm, guid, nonce):
    ((found, counter),) = memory_counters(vm.memory_file(guid))
    assert found == nonce, f"nonce {found} is not {nonce}"
    return counter


def claim_the_point_is_the_request_not_the_end_of_the_copying(home):
    vm, console = home.booted_guest(memory="320M", step_ms=10)
    console.command("fill 160 3")
    console.command("dirty 40")
    for point_now in (True, False):
        before = console.step()
        answer = vm.snapshot(point_now=point_now)
        after = console.step(since=console.position())
        counter = counter_of(vm, answer["guid"], before.nonce)
        assert before.memory <= counter <= after.memory, (before, counter, after)
        assert after.memory - before.memory > 10, f"too few steps to tell: {before}, {after}"
        share = (counter - before.memory) / (after.memory - before.memory)
        print(f"# {answer['mode']}: at {share:.2f} of {answer['total_us'] // 1000} ms, pause {answer['pause_us']} us",
              flush=True)
        assert answer["mode"] == ("background" if point_now else "pre-copy"), answer
        assert share < 0.5 if point_now else share > 0.5, f"the point lies at {share:.2f} of the time it took"
        assert answer["pause_us"] > 0 and answer["state"] == "running", answer


def claim_both_ways_can_follow_each_other_and_be_gone_back_to(home):
    vm, console = home.booted_guest()
    console.command("dirty 24")
    nonce = console.step().nonce
    ways = [True, False, True, True, False]
    points = [vm.snapshot(point_now=way) for way in ways]
    assert [p["mode"] == "background" for p in points] == ways, points
    counters = [counter_of(vm, p["guid"], nonce) for p in points]
    assert counters == sorted(counters), counters
    for point, counter in zip(points, counters):
        vm.do("apply", point["guid"], "--verify")
        step = vm.console().step()
        assert step.nonce == nonce and step.memory >= counter and step.memory == step.disk, (point, step)


def claim_with_a_display_and_more_processors_it_is_the_same(home):
    vm, console = home.booted_guest(more=("--display", "vnc", "--cpus", "2"))
    nonce = console.step().nonce
    answer = vm.snapshot(point_now=True)
    assert answer["mode"] == "background", answer
    assert (vm.snapshots / answer["guid"] / f"{answer['guid']}.png").exists(), "no picture of the screen"
    vm.do("apply", answer["guid"], "--verify")
    step = vm.console().step()
    assert step.nonce == nonce and step.memory == step.disk, step


def claim_verbose_tells_the_way_on_standard_error(home):
    vm, _ = home.booted_guest()
    for options, says in ((["--point-now"], "background snapshot"), ([], "pre-copy")):
        result = home.run("snapshot", vm.name, "-v", *options)
        assert result.returncode == 0 and says in result.stderr and "stood still for" in result.stderr, result
        assert len(result.stdout.split()) == 1, result.stdout
    assert home.run("snapshot", vm.name, "--point-now").stderr == "", "without -v nothing but the GUID"
    vm.do("stop", "--force")
    assert vm.snapshot(point_now=True)["mode"] is None, "a VM that is off has no memory to save"


def claim_a_paused_vm_is_saved_as_it_stands_and_does_not_run(home):
    vm, console = home.booted_guest()
    vm.do("pause")
    answers = [vm.snapshot(point_now=True) for _ in range(2)]
    for answer in answers:
        assert answer["mode"] == "pre-copy" and answer["state"] == "paused", answer
        assert answer["state_when_taken"] == "paused" and answer["pause_us"] == 0, answer
    images = [vm.memory_file(a["guid"]).read_bytes() for a in answers]
    assert images[0] == images[1], "the guest ran between two snapshots of a paused VM"
    console.close()
    vm.do("resume")
    vm.console().step()


def refused_untouched(vm, status, says, env=None):
    files, xml = vm.files(), vm.xml.read_bytes()
    for options in ([], ["--dry-run"]):
        vm.refused(status, "snapshot", "--point-now", *options, says=says, env=env)
    assert vm.files() == files and vm.xml.read_bytes() == xml, "a refusal changed something"
    assert vm.state() == "running"
    console = vm.console()
    console.step(since=console.position())
    console.close()


def claim_no_room_for_the_memory_leaves_the_guest_alive(home):
    """QEMU before 8.1 would leave it hanging if its stream broke off."""
    with small_disk(home, home.machines, 400) as disk:
        vm, console = home.booted_guest()
        console.command("fill 90 3")
        console.command("churn 16384")
        console.command("churned", deadline_s=120)
        for _ in range(2):
            disk.make_room()
            command = home.start("snapshot", "g", "--point-now")
            wait_until(lambda: any(f.stat().st_blocks > 16384 for f in vm.snapshots.glob("*/*.bin")), 60, "the first of the memory")
            disk.leave(0)  # somebody else fills it meanwhile
            _, told = command.communicate(timeout=120)
            assert command.returncode == NO_SPACE and "No space left" in told, (command.returncode, told)
            assert [f for f in vm.files() if f.endswith((".bin", ".vsv"))] == [], vm.files()
            assert vm.do("tree")["snapshots"] == []
            console.command("churned", deadline_s=120)
            console.step(since=console.position())
        assert vm.state() == "running"


def claim_a_vm_that_has_gone_back_is_refused_untouched(home):
    vm, console = home.booted_guest()
    vm.snapshot()
    console.close()
    vm.do("revert")
    refused_untouched(vm, STATE, "its memory is a file's")
    assert vm.snapshot()["mode"] == "pre-copy", "the other way is still there"


def claim_without_the_right_to_userfaultfd_it_is_refused_untouched(home):
    """The right is CAP_SYS_PTRACE, or a sysctl."""
    if Path("/proc/sys/vm/unprivileged_userfaultfd").read_text().strip() != "0":
        raise Skip("vm.unprivileged_userfaultfd is on: everybody may use it")
    if not shutil.which("setpriv"):
        raise Skip("no setpriv")
    program = home.dir / "bough-without-ptrace"
    program.write_text(f"#!/bin/sh\nexec setpriv --bounding-set -sys_ptrace --inh-caps -sys_ptrace {home.program} \"$@\"\n")
    program.chmod(0o755)
    home.program = str(program)
    vm, console = home.booted_guest()
    console.close()
    version = vm.do("show").get("qemu_version") or ""
    if int((version or "7").split(".")[0]) >= 8 and Path("/dev/userfaultfd").exists():
        raise Skip(f"QEMU {version} takes /dev/userfaultfd, which this user may open")
    refused_untouched(vm, UNSUPPORTED, "may not use userfaultfd")


main(globals())
