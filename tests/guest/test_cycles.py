#!/usr/bin/python3
"""Taken and gone back to again and again, one VM is what it was: nothing drifts, leaks or becomes slower.

$BOUGH_TEST_CYCLES says how often, 5 if it is not set; 100 is the long run.
"""

import contextlib
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import main, memory_counters  # noqa: E402

CYCLES = int(os.environ.get("BOUGH_TEST_CYCLES", "5"))
SETTLED = 2  # cycles after which all that is made once is there


def descriptors(pid, home):
    """What a process has open: {kind: count}. Files of the home by their folder and ending."""
    found = {}
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            path = os.readlink(f"/proc/{pid}/fd/{entry}")
        except OSError:
            continue
        kind = path.split(":")[0]
        if path.startswith(str(home.dir)):
            kind = path[len(str(home.dir)) + 1] + "/" + Path(path).suffix
        found[kind] = found.get(kind, 0) + 1
    return found


def status(pid, key):
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise AssertionError(f"no {key} of process {pid}")


def threads(pid):
    """A process's own threads, without those that the kernel keeps for its rings for some seconds."""
    count = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{pid}/task/{task}/comm").read_text(encoding="utf-8")
            count += not name.startswith("iou-")
    return count


class Seen:
    """What one cycle left. before: the cycle before it, or None."""

    def __init__(self, vm, home, answers, before):
        shown = vm.do("show")
        worker, qemu = shown["worker_pid"], shown["qemu_pid"]
        self.worker = worker
        self.files = len(vm.files())
        self.runtime = len([path for path in home.runtime.rglob("*")])
        end = time.monotonic() + 3
        self._count(home, worker, qemu)
        while before and self.passing() != before.passing() and time.monotonic() < end:
            time.sleep(0.1)  # a connection that is being closed, a thread of the kernel's for a ring
            self._count(home, worker, qemu)
        self.worker_kib = status(worker, "RssAnon")
        self.qemu_kib = status(qemu, "VmSize")
        self.milliseconds = [answer / 1000 for answer in answers]

    def _count(self, home, worker, qemu):
        self.processes = len(home.processes())
        self.worker_open, self.qemu_open = descriptors(worker, home), descriptors(qemu, home)
        self.layers = self.worker_open.pop("h/.avhd", 0)  # of the chain; it grows with each snapshot
        self.threads = threads(worker)

    def passing(self):
        """What must settle where it was."""
        return self.processes, self.worker_open, self.qemu_open, self.threads

    def __repr__(self):
        return (f"{self.files} files, {self.runtime} in the runtime directory, {self.layers} layers, "
                f"{sum(self.worker_open.values())} and {sum(self.qemu_open.values())} descriptors, {self.threads} threads, worker {self.worker_kib} KiB, QEMU "
                f"{self.qemu_kib} KiB, " + " and ".join(f"{each:.0f} ms" for each in self.milliseconds))


def check(seen, files_a_cycle, layers_a_cycle):
    """All cycles behind the first ones are the same."""
    first, last, count = seen[0], seen[-1], len(seen) - 1
    assert len({each.worker for each in seen}) == 1, "the worker was replaced"
    assert last.files == first.files + files_a_cycle * count, f"{first.files} files, {count} cycles later {last.files}"
    assert last.layers == first.layers + layers_a_cycle * count, f"{first.layers} layers are open, then {last.layers}"
    for what in ("runtime", "processes", "worker_open", "qemu_open", "threads"):
        values = [getattr(each, what) for each in seen]
        others = [(number, value) for number, value in enumerate(values) if value != values[0]]
        assert not others, f"{what}: {values[0]}, but in cycle {others[0]}, and {len(others)} differ"
    # An arena of malloc that a new thread takes is no leak: 4 KiB a cycle would be.
    assert last.worker_kib - first.worker_kib <= 2048 + 4 * count, f"worker: {first.worker_kib} KiB, then {last.worker_kib}"
    # Each QEMU is a new one, with more or fewer threads at this moment, of 8 MiB each.
    half = (len(seen) + 1) // 2
    early, late = (min(each.qemu_kib for each in part) for part in (seen[:half], seen[-half:]))
    assert late - early <= 24576, f"QEMU: {early} KiB, then {late}"
    if len(seen) < 40:
        return
    for kind, name in enumerate(("snapshot", "revert")):
        early, late = (statistics.median(each.milliseconds[kind] for each in part)
                       for part in (seen[:len(seen) // 4], seen[-len(seen) // 4:]))
        print(f"# {name}: median {early:.1f} ms in the first quarter, {late:.1f} ms in the last", flush=True)
        assert late <= 1.5 * early + 20, f"{name}: {early} ms at first, {late} ms in the end"


def go_back(vm, console, filled):
    """Reverts: (the answer, the new console, the guest's first step behind it). Its filled memory is what it was."""
    answer = vm.do("revert")
    console.close()
    console = vm.console()
    step = console.step()
    assert console.command("hash") == filled
    return answer, console, step


def claim_one_point_gone_back_to_again_and_again_stays_what_it_is(home):
    vm, console = home.booted_guest()
    console.command("fill 16 1")
    filled = console.command("hash")
    nonce = console.step().nonce
    point = vm.snapshot()["guid"]
    ((_, counter),) = memory_counters(vm.memory_file(point))
    seen = []
    for _ in range(SETTLED + CYCLES):
        answer, console, step = go_back(vm, console, filled)
        assert step.nonce == nonce and counter <= step.memory <= counter + 1000, (step, counter)
        seen.append(Seen(vm, home, [0, answer["running_us"]], seen[-1] if seen else None))
    print(f"# at first {seen[0]}\n# in the end {seen[-1]}", flush=True)
    check(seen[SETTLED:], files_a_cycle=0, layers_a_cycle=0)


def claim_a_vm_taken_and_gone_back_to_in_turns_neither_drifts_nor_leaks_nor_becomes_slow(home):
    vm, console = home.booted_guest()
    console.command("fill 16 1")
    filled = console.command("hash")
    nonce, counter = console.step().nonce, 0
    seen = []
    for _ in range(SETTLED + CYCLES):
        taken = vm.snapshot()
        ((found, point),) = memory_counters(vm.memory_file(taken["guid"]))
        assert found == nonce and point >= counter, (found, nonce, point, counter)
        console.step(since=console.position())
        answer, console, step = go_back(vm, console, filled)
        assert step.nonce == nonce and point <= step.memory <= point + 1000, (step, point)
        counter = point
        seen.append(Seen(vm, home, [taken["total_us"], answer["running_us"]], seen[-1] if seen else None))
    print(f"# at first {seen[0]}\n# in the end {seen[-1]}", flush=True)
    # A folder, .bin, .vsv, the XML, and the layer that is sealed.
    check(seen[SETTLED:], files_a_cycle=5, layers_a_cycle=1)


main(globals())
