#!/usr/bin/python3
"""Random operations on a VM whose guest works and looks at its own data, and kill -9 of the command, the worker or QEMU at random
moments. After each round: the VM can be used, the guest's memory and disks hold what it wrote, each listed snapshot reads the same
bytes as when it was taken, `check` is clean, and nothing is left over.

$BOUGH_TEST_KILL_ROUNDS: how many rounds (5; the long run is 500). $BOUGH_TEST_KILL_SEED: the choices of another run again, as far as
the moments of a busy host let it be the same."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import chain, flattened_by_7zip, kill, main, wait_until, xml_disks  # noqa: E402

ROUNDS = int(os.environ.get("BOUGH_TEST_KILL_ROUNDS", "5"))
SEED = int(os.environ.get("BOUGH_TEST_KILL_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
SNAPSHOTS_MAX = 6
SETTLE_S = 60  # QEMU tries a disk again after up to 16 s, and a busy host needs its time

OPERATIONS = {"snapshot": 5, "point-now": 3, "apply": 4, "apply first": 2, "revert": 3, "delete": 4, "save": 3, "start": 1, "pause": 1,
              "notes": 1, "stop": 1, "merge": 2, "off": 2}
VICTIMS = {"worker": 6, "command": 3, "qemu": 2, "both": 1, "nobody": 1}


def processes(home, kind):
    found = []
    for pid in home.processes():
        try:
            name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if name.startswith(kind):
            found.append(pid)
    return found


class Rounds:
    def __init__(self, home):
        self.home, self.chance = home, random.Random(SEED)
        self.vm, self.console = home.booted_guest(memory="128M", disks=("48M,bus=virtio",), step_ms=20)
        self.nonce = self.load()
        self.taken = {}   # GUID: (hash of its disk, nonce of its guest or None)
        self.usual = 1.0  # seconds that an operation takes
        self.counts = {}

    # --- the guest ---

    def load(self):
        for job in ("rewrite 512", "churn 1024", "files 10"):
            before = self.churned()
            assert self.console.command(job).startswith("job")
            wait_until(lambda: job.startswith("files") or self.churned() > before, SETTLE_S, "the first round of a job")
        return self.console.step().nonce

    def attach(self):
        self.console.close()
        self.console = self.vm.console()

    def churned(self):
        """Rounds that its jobs have done and looked at, two more than at the time of the question."""
        return int(self.console.command("churned", r"^R churned (\d+)", SETTLE_S))

    def look(self):
        """The guest itself says whether its data are right; with what it says it is alive."""
        assert self.churned() > 2
        return self.console.step(deadline_s=SETTLE_S).nonce

    def wake(self, nonces, may_boot):
        """A guest that runs, whatever became of the VM: one of those nonces, or a new one where it may have been switched off."""
        state = self.vm.state()
        if state == "unmanaged":
            self.vm.do("cancel")  # any command will do: a worker adopts it
            state = self.vm.state()
        assert state in ("running", "paused", "saved", "off"), state
        if state in ("saved", "off"):
            self.vm.do("start", timeout=SETTLE_S)
        elif state == "paused":
            self.vm.do("resume", timeout=SETTLE_S)
        self.attach()
        if state == "off":
            assert may_boot, "the VM is off, and nobody has switched it off"
            self.console.ready()
            self.nonce = self.load()
            return state
        if self.vm.state() == "paused":  # one that was saved while it was paused
            self.vm.do("resume")
        if may_boot and self.console.wait(r"^(R ready|T )", SETTLE_S)[1].group(1) == "R ready":
            self.nonce = self.load()  # the command has found it killed, and started it
            return "off"
        self.nonce = self.look()
        assert self.nonce in nonces, f"the guest {self.nonce} goes on, not one of {nonces}"
        return state

    # --- what is done ---

    def listed(self):
        return [snapshot["guid"] for snapshot in self.vm.do("tree")["snapshots"]]

    def arguments(self, operation):
        listed = self.listed()
        if operation in ("apply", "apply first", "revert", "delete", "notes") and not listed:
            operation = "snapshot"
        if len(listed) >= SNAPSHOTS_MAX and operation in ("snapshot", "point-now", "apply first"):
            operation = "delete"
        target = self.chance.choice(listed) if listed else None
        made = {"snapshot": ["snapshot", "g"], "point-now": ["snapshot", "g", "--point-now"],
                "apply": ["apply", "g", target], "apply first": ["apply", "g", target, "--snapshot-first"], "revert": ["revert", "g"],
                "delete": ["delete", "g", target] + self.chance.choice(([], ["--subtree"])), "save": ["save", "g"],
                "start": ["start", "g"], "pause": ["pause", "g"], "notes": ["notes", "g", target, "some words"],
                "stop": ["stop", "g", "--force"], "merge": ["merge", "g"]}
        if operation == "off":  # one of those that a VM that is off can have
            operation = self.chance.choice(("snapshot", "delete", "apply") if listed else ("snapshot",))
        return operation, made[operation], target

    def victims(self, victim):
        return {"worker": ["bough-worker"], "qemu": ["qemu-system"], "both": ["bough-worker", "qemu-system"]}.get(victim, [])

    def strike(self, command, victim):
        """True if it was killed before the operation's end."""
        time.sleep(self.chance.random() * self.usual * self.chance.choice((0.1, 0.5, 1.1)))
        if command.poll() is not None or victim == "nobody":
            return False
        if victim == "command":
            command.send_signal(signal.SIGKILL)
        for kind in self.victims(victim):
            for pid in processes(self.home, kind)[:1]:
                kill(pid)
        return True

    def settle(self):
        """No operation is in progress any more: a worker may end what a command that was killed has asked for."""
        time.sleep(0.05)  # what the command had sent reaches the worker
        wait_until(lambda: self.vm.do("show").get("operation") in (None, "merge"), SETTLE_S, "the end of the operation")

    def operate(self, operation, victim):
        if operation == "off":
            self.vm.do("stop", "--force")
        was_off = operation == "off"
        operation, arguments, target = self.arguments(operation)
        if operation == "start" and self.chance.random() < 0.5:
            self.vm.do("save")
        begun = time.monotonic()
        command = self.home.start(*arguments)
        struck = self.strike(command, victim)
        try:
            _, told = command.communicate(timeout=SETTLE_S)
        except subprocess.TimeoutExpired:
            command.kill()
            raise
        took = time.monotonic() - begun
        if not struck and command.returncode == 0:
            self.usual = 0.7 * self.usual + 0.3 * min(took, 5)
        self.settle()
        return operation, target, was_off, struck, command.returncode, told

    # --- what must hold ---

    def hash(self, guid):
        images = xml_disks(self.vm.snapshot_xml(guid), self.vm.folder)
        return [hashlib.sha256(flattened_by_7zip(image)).hexdigest() for image in images]

    def check_snapshots(self, deleted, taken_by):
        listed = self.listed()
        for guid in set(self.taken) - set(listed):
            assert deleted, f"the snapshot {guid} is gone"
            del self.taken[guid]
        for guid in listed:
            if guid not in self.taken:
                assert taken_by is not None, f"nobody has taken {guid}"
                shown = self.vm.do("settings", guid)
                self.taken[guid] = (self.hash(guid), taken_by if shown["state_when_taken"] != "off" else None)
            else:
                assert self.hash(guid) == self.taken[guid][0], f"the disk of {guid} has changed"

    def check_clean(self):
        checked = self.home.run("check", "g", "--json", timeout=120)
        assert checked.returncode == 0, f"check: {checked.returncode}: {checked.stdout}{checked.stderr}"
        listed = set(self.listed())
        for entry in self.vm.snapshots.iterdir():
            assert entry.stem in listed or entry.name == self.vm.guid, f"{entry} belongs to nothing"
        named = xml_disks(self.vm.xml, self.vm.folder)
        for guid in listed:
            named += xml_disks(self.vm.snapshot_xml(guid), self.vm.folder)
        left = set(self.vm.disks_folder.glob("*")) - {file for image in named for file in chain(image)}
        assert not left, f"no chain goes through {left}"
        wait_until(lambda: (len(processes(self.home, "bough")), len(processes(self.home, "qemu"))) == (1, 1), 20,
                   "the end of every other process")
        wait_until(lambda: sum(path.name.isdigit() for path in self.home.runtime.glob("*/*")) == 2, 20,
                   "the end of every other process's folder")

    def finish(self):
        """Nothing waits, and nothing is left, when the VM is off."""
        self.vm.do("stop", "--force")
        self.vm.do("settings")
        wait_until(lambda: self.home.processes() == [], 20, "the end of every process")
        assert not list(self.home.runtime.glob("dirty/*")), "writes wait for their image"
        self.home.bough("check", "g")

    def round(self, number):
        operation = self.chance.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]
        victim = self.chance.choices(list(VICTIMS), list(VICTIMS.values()))[0]
        asked, before = operation, self.nonce
        operation, target, was_off, struck, status, told = self.operate(operation, victim)
        said = f"round {number}: {asked}/{operation} killed {victim if struck else 'nobody'}: exit {status} {told.strip()}"
        print("# " + said, flush=True)
        if not struck:
            assert status == 0 or "is a file's" in told or "runs already" in told, said
        goes_back = operation in ("apply", "apply first", "revert")
        nonces = {before} | ({nonce for _, nonce in self.taken.values()} if goes_back else set())
        switched_off = was_off or operation == "stop" or (struck and victim in ("qemu", "both")) or \
            (goes_back and None in nonces)
        taken = operation in ("snapshot", "point-now", "apply first")
        state = self.wake(nonces, switched_off)
        self.check_snapshots(operation == "delete", before if taken else None)
        self.check_clean()
        key = (operation, victim if struck else "nobody", state)
        self.counts[key] = self.counts.get(key, 0) + 1


def claim_nothing_is_lost_and_nothing_is_wrong_after_kills_at_random_moments(home):
    print(f"# BOUGH_TEST_KILL_SEED={SEED}", flush=True)
    rounds = Rounds(home)
    for number in range(ROUNDS):
        try:
            rounds.round(number)
        except Exception:
            for log in home.runtime.rglob("*.log"):
                print(f"--- {log}\n{log.read_text(errors='replace')[-6000:]}", file=sys.stderr)
            raise
    rounds.finish()
    for key, count in sorted(rounds.counts.items()):
        print(f"# {count:4} {key}", flush=True)


main(globals())
