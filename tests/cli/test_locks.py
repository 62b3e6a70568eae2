#!/usr/bin/python3
"""Who has a VM: several hosts on one file system, several mount points of it, and copies of a folder on one host.

Another host is a process with a host name, a machine id and a boot id of its own, by way of namespaces, and with a runtime directory of
its own. A file system that does not share its locks between hosts is one whose holder was killed: the locks are gone, the text is not."""

import contextlib
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import BUSY, MISMATCH, STATE, USAGE, VM, Skip, kill, main, wait_until  # noqa: E402
from cli_test import contents  # noqa: E402


class Host:
    """Another host that has the same home mounted."""

    def __init__(self, home, name, machine=None):
        if os.geteuid() != 0:
            raise Skip("another host is made by namespaces, which needs root")
        self.home, self.name, self.dir = home, name, home.dir / f"{name}-{uuid.uuid4().hex[:4]}"
        (self.dir / "r").mkdir(parents=True, mode=0o700)
        self.machine = machine or uuid.uuid4().hex
        (self.dir / "machine").write_text(self.machine + "\n")
        (self.dir / "boot").write_text(f"{uuid.uuid4()}\n")
        # What ends a test's processes looks for the home's runtime directory in their environment.
        self.env = dict(home.env, BOUGH_RUNTIME=str(self.dir / "r"), HOME_OF_TEST=str(home.runtime))
        made = self._inside("true")
        if made.returncode != 0:
            raise Skip(f"no other host can be made here: {made.stderr.strip()}")

    def rebooted(self):
        return Host(self.home, self.name, self.machine)

    def _inside(self, *command):
        script = (f"hostname {self.name} && mount --bind {self.dir}/boot /proc/sys/kernel/random/boot_id && "
                  f"mount --bind {self.dir}/machine /etc/machine-id && exec \"$@\"")
        return subprocess.run(["unshare", "-mu", "sh", "-c", script, "sh", *map(str, command)], env=self.env, timeout=60,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)

    def run(self, *arguments):
        return self._inside(self.home.program, *arguments)

    def bough(self, *arguments):
        result = self.run(*arguments)
        assert result.returncode == 0, result
        return result.stdout

    def processes(self):
        mark, found = f"BOUGH_RUNTIME={self.dir}/r".encode(), []
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdigit() and mark in Path("/proc", entry, "environ").read_bytes().split(b"\0"):
                    found.append(int(entry))
        return found

    def dies(self):
        for pid in self.processes():
            kill(pid)
        wait_until(lambda: not self.processes(), 20, "the end of a host")


@contextlib.contextmanager
def hosts(home, *names):
    made = [Host(home, name) for name in names]
    try:
        yield made
    finally:
        for host in made:
            host.dies()


def machine(home, name="v"):
    vm = home.create(name, "--memory", "16M", "--disk", "8M,bus=virtio", "--nic", "none")
    vm.snapshot("one")
    return vm


def state(home, name="v"):
    return next(v["state"] for v in home.json("list") if v["name"] == name)


# --- hosts ---

def claim_vm_that_runs_on_another_host_is_told_and_left_alone(home):
    vm = machine(home)
    with hosts(home, "host-b") as (other,):
        other.bough("start", "v", "--paused")
        before = contents(vm.folder)
        for verb in (["start"], ["snapshot"], ["revert"], ["stop", "--force"], ["remove", "--yes"], ["rename", "w"]):
            home.refused(BUSY, verb[0], "v", *verb[1:], says="host-b")
        assert state(home) == "elsewhere" and home.json("show", "v")["state"] == "elsewhere"
        assert "host-b" in home.bough("show", "v")
        assert home.json("tree", "v")["snapshots"] != [] and home.json("check", "v")["faults"] == []
        assert contents(vm.folder) == before
        home.bough("export", "v", "one", home.dir / "out")  # what is sealed can be read
        other.bough("stop", "v", "--force")
        assert state(home) == "off"
        vm.snapshot("two")  # let go in order: nothing is to be broken


def claim_vm_of_a_host_that_has_died_is_taken_only_explicitly(home):
    vm = machine(home)
    with hosts(home, "host-b") as (other,):
        other.bough("start", "v", "--paused")
        other.dies()
        before = contents(vm.folder)
        for verb in (["start"], ["snapshot"], ["delete", "one"], ["remove", "--yes"], ["rename", "w"], ["export", home.dir / "x"]):
            told = home.refused(STATE, verb[0], "v", *verb[1:], says="guest may run on the host 'host-b'")
            assert "bough unlock v --host host-b" in told
        assert state(home) == "elsewhere" and home.json("check", "v")["faults"] == []
        assert contents(vm.folder) == before
        home.refused(USAGE, "unlock", "v")
        home.refused(USAGE, "unlock", "v", "--host", "host-b", says="--yes")
        home.refused(MISMATCH, "unlock", "v", "--host", "host-c", "--yes", says="host-b")
        assert state(home) == "elsewhere"
        home.bough("unlock", "v", "--host", "host-b", "--yes")
        assert state(home) == "off"
        home.bough("start", "v", "--paused")
        home.refused(STATE, "unlock", "v", "--host", "host-b", "--yes", says="this host")


def claim_host_that_was_started_anew_knows_its_own_lock(home):
    machine(home)
    with hosts(home, "host-b") as (other,):
        other.bough("start", "v", "--paused")
        other.dies()
        again = other.rebooted()
        try:
            again.bough("start", "v", "--paused")
        finally:
            again.dies()


def claim_command_that_was_killed_on_another_host_may_still_be_at_work(home):
    """A file system whose locks do not reach that far: only the text tells."""
    vm = machine(home)
    lock = next(vm.xml.parent.glob("*.lock"))
    assert lock.read_text().startswith("free")
    lock.write_text(f"host host-b\nmachine {uuid.uuid4().hex}\nboot {uuid.uuid4()}\npid 17\nwhat delete\nguest no\n")
    vm.refused(STATE, "snapshot", says="may be worked on by the host 'host-b' .'delete', process 17")
    home.bough("unlock", "v", "--host", "host-b", "--yes")
    vm.snapshot("two")


def claim_lock_of_old_kind_counts_only_while_it_is_held(home):
    vm = machine(home)
    next(vm.xml.parent.glob("*.lock")).write_text(f"host host-b\nboot {uuid.uuid4()}\npid 17\nwhat delete\n")
    assert state(home) == "off"
    vm.snapshot("two")


def claim_host_that_was_taken_for_dead_changes_nothing_any_more(home):
    vm = machine(home)
    with hosts(home, "host-b") as (other,):
        other.bough("start", "v", "--paused")
        home.bough("unlock", "v", "--host", "host-b", "--yes")
        vm.snapshot("mine")
        before = contents(vm.folder)
        for verb in (["snapshot", "v"], ["set", "v", "notes=n"], ["delete", "v", "one"]):
            result = other.run(*verb)
            assert result.returncode == STATE and "has been broken" in result.stderr, result
        # Nothing that is named has changed; what was begun is garbage for the next recovery.
        after = contents(vm.folder)
        assert all(after.get(name) == kept for name, kept in before.items()), "something of the VM has changed"


# --- one host ---

def claim_second_mount_point_is_the_same_vm(home):
    vm = machine(home)
    with hosts(home, "unused"):
        pass
    second = home.dir / "second"
    second.mkdir()
    script = "mount --bind {} {} && exec \"$@\"".format(home.machines, second)

    def there(*arguments):
        return subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", home.program, *arguments], timeout=60,
                              env=dict(home.env, BOUGH_HOME=str(second)), capture_output=True, text=True, check=False)

    vm.do("start", "--paused")
    assert "paused" in there("show", "v").stdout
    assert there("start", "v").returncode == STATE
    assert there("remove", "v", "--yes").returncode == STATE
    assert there("snapshot", "v", "--name", "two").returncode == 0
    vm.do("stop", "--force")
    assert [s["name"] for s in vm.do("tree")["snapshots"]] == ["one", "two"]


def claim_copy_of_a_folder_does_not_run_beside_it(home):
    vm = machine(home)
    shutil.copytree(vm.folder, home.machines / "w", symlinks=True)
    copy = VM(home, "w")
    copy.snapshot("of the copy")
    vm.do("start", "--paused")
    for _ in range(2):
        told = copy.refused(STATE, "start", says="import --copy")
        assert str(vm.folder) in told
    copy.snapshot("while the other runs")
    vm.do("stop", "--force")
    copy.do("start", "--paused")
    vm.refused(STATE, "start", says=str(copy.folder))
    copy.do("stop", "--force")
    home.bough("import", copy.folder, "--copy", "--name", "x")
    vm.do("start", "--paused")
    home.bough("start", "x", "--paused")
    assert home.json("show", "x")["state"] == "paused"


def claim_copy_does_not_run_beside_a_guest_whose_worker_has_died(home):
    vm = machine(home)
    shutil.copytree(vm.folder, home.machines / "w", symlinks=True)
    vm.do("start", "--paused")
    kill(vm.do("show")["worker_pid"])
    wait_until(lambda: vm.state() != "paused" or True, 5, "the worker's end")
    VM(home, "w").refused(STATE, "start", says="import --copy")


main(globals())
