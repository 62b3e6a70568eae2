#!/usr/bin/python3
"""The verbs on a VM that runs: states and their words, the console program, Ctrl-C, two commands at once."""

import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import BUSY, CANCELLED, CORRUPT, GUID, INVALID, STATE, is_alive, kill, main  # noqa: E402


class ConsoleProgram:
    """`bough console` on pipes."""

    def __init__(self, home, name):
        self.process = subprocess.Popen([home.program, "console", name], env=home.env, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.text = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
        self.process.communicate()

    def wait_for(self, pattern, deadline_s=20):
        """What a regular expression finds in the output behind all that was found before."""
        end = time.monotonic() + deadline_s
        while not (found := re.search(pattern, self.text)):
            left = end - time.monotonic()
            assert left > 0, f"{pattern!r} did not come: {self.text!r}"
            if select.select([self.process.stdout], [], [], left)[0]:
                more = os.read(self.process.stdout.fileno(), 65536)
                assert more, f"the console ended: {self.process.communicate()[1]!r}"
                self.text += more
        self.text = self.text[found.end():]
        return found

    def steps(self):
        """(nonce, counter) of the guest's next whole step."""
        self.wait_for(rb"\n")
        found = self.wait_for(rb"T ([0-9a-f]{16}) (\d+) \d+\r?\n")
        return found.group(1), int(found.group(2))

    def steps_now(self):
        """The same for the moment of the call: what lies in the pipe from before is left out."""
        while select.select([self.process.stdout], [], [], 0)[0]:
            more = os.read(self.process.stdout.fileno(), 65536)
            assert more, f"the console ended: {self.process.communicate()[1]!r}"
        self.text = b""
        return self.steps()


def claim_states_and_their_words(home):
    vm = home.create_guest("g")
    for line, told, state in ((["start", "g", "--paused"], "g: paused\n", "paused"), (["resume", "g"], "g: running\n", "running"),
                              (["pause", "g"], "g: paused\n", "paused"), (["resume", "g"], "g: running\n", "running"),
                              (["save", "g"], "g: saved\n", "saved"), (["start", "g"], "g: running\n", "running"),
                              (["stop", "g", "--force"], "g: off\n", "off")):
        printed = home.bough(*line)
        assert printed == told, (line, printed)
        assert vm.state() == state and home.json("list")[0]["state"] == state, (line, vm.state())
    assert home.no_process_is_left()


def claim_console_passes_lines_both_ways_and_outlives_a_revert(home):
    vm = home.create_guest("g")
    vm.do("start")
    with ConsoleProgram(home, "g") as console:
        nonce, _ = console.steps()
        vm.snapshot("here")
        _, counter_then = console.steps_now()
        for _ in range(40):
            _, counter_before = console.steps()
        vm.do("revert")
        again, counter_now = console.steps()
        end = time.monotonic() + 20
        while counter_now > counter_before:  # what was on its way
            assert time.monotonic() < end, f"the console never went back: {counter_then}, {counter_before}, {counter_now}"
            counter_before, (again, counter_now) = counter_now, console.steps()
        # Some steps fall between the old socket and the new one.
        assert again == nonce and counter_now <= counter_then + 20, (again, counter_then, counter_now)
        assert console.process.poll() is None
        vm.do("stop", "--force")
        assert console.process.wait(timeout=20) == 0, "it ends with the VM"


def claim_snapshot_of_a_running_vm_prints_the_guid_alone(home):
    vm, console = home.booted_guest()
    result = home.run("snapshot", "g", "--name", "one")
    assert result.returncode == 0 and GUID.match(result.stdout.strip()) and result.stderr == "", result
    row = vm.do("tree")["snapshots"][0]
    assert (row["guid"], row["state_when_taken"]) == (result.stdout.strip(), "running"), row
    assert row["memory_bytes"] == vm.memory_file(row["guid"]).stat().st_blocks * 512 > 0, row
    console.step()
    said = home.bough("revert", "g")
    assert re.match(r"^g: running after \d+\.\d{3} s\n$", said), said


def claim_a_machine_whose_memory_is_nearly_all_zeros_goes_on_behind_each_snapshot(home):
    """QEMU is at the end of it before anybody else is."""
    vm = home.create("v", "--memory", "256M", "--disk", "16M,bus=virtio", "--nic", "none")
    vm.do("start")
    for _ in range(8):
        vm.snapshot()
        shown = vm.do("show")
        assert (shown["state"], shown["run_state"]) == ("running", "running"), shown
    vm.do("stop", "--force")


def claim_interrupt_cancels_a_snapshot_or_comes_too_late(home):
    vm, console = home.booted_guest()
    outcomes = set()
    for delay_ms in (0, 5, 10, 20, 40, 80, 160, 320):
        before = len(vm.do("tree")["snapshots"])
        process = home.start("snapshot", "g")
        time.sleep(delay_ms / 1000)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        after = len(vm.do("tree")["snapshots"])
        outcomes.add(process.returncode)
        # Before it has begun to listen, the command just dies of it; then the worker ends what it may have begun.
        assert process.returncode in (0, CANCELLED, -signal.SIGINT), (delay_ms, process.returncode, out, err)
        if process.returncode == CANCELLED:
            assert after == before and "cancelling" in err, (delay_ms, err)
        if process.returncode == 0:
            assert after == before + 1, delay_ms
        assert vm.state() == "running" and console.step(), delay_ms
    assert CANCELLED in outcomes or 0 in outcomes, outcomes


def claim_second_operation_is_refused_with_the_name_of_the_first(home):
    vm, _ = home.booted_guest(memory="512M")
    refused = 0
    for _ in range(5):
        first = home.start("snapshot", "g")
        second = home.start("snapshot", "g")
        results = [(p.communicate(timeout=60), p.returncode) for p in (first, second)]
        for (_, err), status in results:
            assert status in (0, BUSY), (status, err)
            if status == BUSY:
                assert "snapshot" in err.replace("bough: snapshot: ", "", 1), err
                refused += 1
    assert refused > 0, "two at once never met"
    assert len(vm.do("tree")["snapshots"]) == 10 - refused


def claim_what_cannot_be_done_to_a_running_vm_is_refused(home):
    vm, console = home.booted_guest()
    home.refused(STATE, "remove", "g", says="^bough: remove: g: .*runs")
    home.refused(STATE, "set", "g", "cpus=2", says="cpus")
    home.refused(STATE, "start", "g", says="run")
    home.refused(INVALID, "snapshot", "g", "--name", "  ")
    vm.do("set", "notes=while it runs")
    assert vm.do("settings")["notes"] == "while it runs" and vm.do("settings")["cpus"] == 1
    assert console.step() and vm.state() == "running"


def claim_screenshot_is_a_png_in_the_users_own_folder(home):
    home.create_guest("g", more=("--display", "vnc"))
    home.bough("start", "g")
    result = subprocess.run([home.program, "screenshot", "g", "shot.png"], env=home.env, cwd=home.dir, check=False)
    assert result.returncode == 0
    assert (home.dir / "shot.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    socket = Path(home.bough("display", "g").strip())
    assert socket.is_socket() and home.json("display", "g") == {"socket": str(socket)}


def claim_show_tells_of_the_processes(home):
    vm, _ = home.booted_guest()
    shown = vm.do("show")
    assert shown["accelerator"] in ("kvm", "tcg") and shown["run_state"] == "running", shown
    assert "qemu-system" in os.readlink(f"/proc/{shown['qemu_pid']}/exe")
    assert "bough-worker" in os.readlink(f"/proc/{shown['worker_pid']}/exe")
    text = home.bough("show", "g")
    assert re.search(rf"^qemu pid: +{shown['qemu_pid']}$", text, re.M), text


def claim_a_worker_that_comes_second_says_so_and_the_start_is_tried_again(home):
    """Between the command's look at the lock and its worker's, somebody else takes it for a moment."""
    vm = home.create("v", "--disk", "16M,bus=virtio", "--nic", "none")
    worker, lock, seen = home.dir / "worker", vm.xml.with_suffix(".lock"), home.dir / "seen"
    worker.write_text(f"""#!/usr/bin/python3
import fcntl, os, struct, sys, time
first = not os.path.exists({str(seen)!r})
open({str(seen)!r}, "w").close()
if first:
    ready, told = os.pipe()
    if os.fork() == 0:
        os.close(3)  # the client's connection
        fd = os.open({str(lock)!r}, os.O_RDWR)
        fcntl.fcntl(fd, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 1, 0))  # F_OFD_SETLK
        os.write(told, b"x")
        time.sleep(0.7)
        os._exit(0)
    os.read(ready, 1)
    os.close(ready)
    os.close(told)
os.execv({os.environ["BOUGH_WORKER"]!r}, ["bough-worker", *sys.argv[1:]])
""", encoding="utf-8")
    worker.chmod(0o755)
    home.env["BOUGH_WORKER"] = str(worker)
    assert vm.do("start", "--paused")["state"] == "paused" and seen.exists()
    log = next(home.runtime.rglob("worker.log")).read_text(encoding="utf-8")
    assert "works on the VM" in log, log


def claim_a_guest_whose_record_cannot_be_read_is_not_ended(home):
    vm = home.create("v", "--memory", "32M", "--disk", "8M,bus=virtio", "--nic", "none")
    vm.do("start", "--paused")
    shown = vm.do("show")
    kill(shown["worker_pid"])
    record, = home.runtime.rglob("guest.json")
    text = record.read_bytes()
    record.write_bytes(text[:len(text) // 2])
    vm.refused(CORRUPT, "snapshot", says="stop --force")
    assert is_alive(shown["qemu_pid"])
    record.write_bytes(text)
    vm.do("resume")
    assert vm.do("show")["qemu_pid"] == shown["qemu_pid"] and vm.state() == "running"


main(globals())
