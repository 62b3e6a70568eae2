"""The machines that bench/time looks at, each with the same guest: ours, QEMU's own savevm, and libvirt's.

Each has boot(), snapshot(), back(), forget() and close(); the first three answer with what was measured, in ms."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from bough_test import Home, Skip, chain, guest_folder, kill, wait_until
from guest_console import Console
from plain_qemu import PlainQemu

MIB = 1 << 20
BEAT_MS = 10
BEAT = re.compile(r"^B (\d+)$")
DISK_MIB = 512
# A load is a job of the guest, and what `done` counts for it. 78 MiB are 19,968 pages.
LOADS = {"idle": None, "dirty": ("dirty 78", 4096), "disk": ("write 100", 1)}
LINE_LIMIT_S = 60


@contextlib.contextmanager
def limit(seconds, what):
    """Nothing hangs for longer: whatever the main thread waits for ends with a TimeoutError."""
    def ring(*_):
        raise TimeoutError(f"{what} takes more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(int(seconds))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def written_bytes(pid):
    """What a process has given to file systems to write."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    raise OSError(f"/proc/{pid}/io has no write_bytes")


# --- the guest's beats ---

def beats(console):
    """(arrival, count) of all."""
    found = []
    for arrival, text in list(console.lines):
        match = BEAT.match(text)
        if match:
            found.append((arrival, int(match.group(1))))
    return found


def next_beat(console, since=0):
    return console.wait(BEAT, LINE_LIMIT_S, since)


def gaps_ms(console, begin, end):
    """(begin, end, length) of all between one beat and the next that have a part between the two moments."""
    arrivals = [arrival for arrival, _ in beats(console)]
    return [(earlier, later, (later - earlier) * 1000) for earlier, later in zip(arrivals, arrivals[1:])
            if later >= begin and earlier <= end]


def longest(gaps):
    return max((length for *_, length in gaps), default=0)


def first_beat_back(console, since):
    """(arrival, count) of the first beat from `since` on that is not later than the one before: of a guest that went back."""
    end = time.monotonic() + LINE_LIMIT_S
    while time.monotonic() < end:
        found = [(arrival, int(BEAT.match(text).group(1))) for arrival, text in console.lines[max(since - 5, 0):] if BEAT.match(text)]
        for (_, earlier), (arrival, later) in zip(found, found[1:]):
            if later <= earlier:
                return arrival, later
        time.sleep(0.005)
    raise AssertionError(f"the guest that was gone back to says nothing for {LINE_LIMIT_S} s")


class Upcoming:
    """The console of the process that replaces the present one: connected as soon as its socket is there."""

    def __init__(self, sockets):
        self._sockets, self._known = sockets, self._seen(sockets)
        self._console, self._stop = None, False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @staticmethod
    def _seen(sockets):
        found = set()
        for path in sockets():
            with contextlib.suppress(OSError):
                found.add((path, path.stat().st_ino, path.stat().st_ctime_ns))
        return found

    def _watch(self):
        while not self._stop and self._console is None:
            try:
                for path, *_ in self._seen(self._sockets) - self._known:
                    self._console = Console(str(path), 5)
            except AssertionError:
                pass  # it came and went while we looked
            time.sleep(0.002)

    def get(self, deadline_s=LINE_LIMIT_S):
        """None if there is no new one."""
        self._thread.join(deadline_s)
        self._stop = True
        return self._console


class Machine:
    """What is common: the guest, its load, and its beats. A subclass has `console` when it runs."""

    way = "?"
    console = None

    def __init__(self):
        self.counts = {}  # snapshot -> the beats between which it was taken

    def settle(self, fill_mib):
        """Of a guest that has just booted."""
        self.console.wait(r"^R ready", 300)
        if fill_mib:
            self.console.command(f"fill {fill_mib} 1", deadline_s=900)

    def begin_load(self, load):
        """The rate that it reaches, in pages or bytes a second; None of an idle guest."""
        rate = None
        if LOADS[load]:
            command, unit = LOADS[load]
            job = int(self.console.command(command).split()[1])
            rate = self._rate(job) * unit
        self.console.command(f"beat {BEAT_MS}")
        return rate

    def _done(self, job):
        return int(self.console.command(f"done {job}").split()[1])

    def _rate(self, job, seconds=1.0):
        wait_until(lambda: self._done(job), 60, "the guest's load")
        time.sleep(seconds / 2)
        first, begun = self._done(job), time.monotonic()
        time.sleep(seconds)
        second, ended = self._done(job), time.monotonic()
        return (second - first) / (ended - begun)

    def snapshot(self, number, calm_s):
        """Taken after a moment of calm, whose longest gap is told beside the snapshot's."""
        calm_begun = time.monotonic()
        time.sleep(calm_s)
        _, before = next_beat(self.console, self.console.position())
        pid, begun_bytes = self.writer_pid(), written_bytes(self.writer_pid())
        begun = time.monotonic()
        told = self.take(number)
        ended = time.monotonic()
        written = written_bytes(pid) - begun_bytes
        time.sleep(0.05)
        _, after = next_beat(self.console, self.console.position())
        self.counts[number] = int(before.group(1)), int(after.group(1))
        return {"number": number, "whole_ms": (ended - begun) * 1000, "gap_ms": longest(gaps_ms(self.console, begun, ended)),
                "calm_gap_ms": longest(gap for gap in gaps_ms(self.console, calm_begun, begun) if calm_begun <= gap[0] and gap[1] <= begun),
                "written_bytes": written, **told}

    def check_beat(self, number, count):
        """The guest that has gone back is the one of that moment."""
        before, after = self.counts[number]
        if not before <= count <= after:
            raise AssertionError(f"{self.way}: back at snapshot {number} the guest is at beat {count}, "
                                 f"not between {before} and {after}")

    def warm(self, number):
        """What going back reads is in the page cache then: here by going back once."""
        self.back(number)
        time.sleep(0.1)


# --- ours ---

class OwnHome(Home):
    """Machines where the bench has its room; what is of the run in memory, as it is for users."""

    def __init__(self, room):
        super().__init__()
        self._runtime_room = tempfile.mkdtemp(prefix="bt-", dir="/dev/shm")
        self.runtime.rmdir()
        self.runtime = Path(self._runtime_room)
        self.env["BOUGH_RUNTIME"] = str(self.runtime)
        self.machines.rmdir()
        (room / "machines").mkdir()
        self.machines.symlink_to(room / "machines")

    def __exit__(self, *rest):
        super().__exit__(*rest)
        shutil.rmtree(self._runtime_room, ignore_errors=True)


class Own(Machine):
    def __init__(self, home, way, limit_s):
        super().__init__()
        self.home, self.way, self.limit_s = home, way, limit_s
        self.guids, self.vm = {}, None
        if way == "point-now" and "--point-now" not in home.bough("help", "snapshot"):
            raise Skip("this program has no --point-now")

    def boot(self, memory_mib, fill_mib):
        self.vm = self.home.create_guest("g", memory=f"{memory_mib}M", disks=(f"{DISK_MIB}M,bus=virtio",), step_ms=0)
        self.start(fill_mib)

    def start(self, fill_mib):
        self.vm.do("start")
        self.console = self.vm.console()
        self.settle(fill_mib)

    def writer_pid(self):
        return self.vm.do("show")["worker_pid"]

    def take(self, number):
        words = ["--point-now"] if self.way == "point-now" else []
        answer = self.vm.do("snapshot", *words, timeout=self.limit_s)
        self.guids[number] = answer["guid"]
        held = self.vm.memory_file(answer["guid"]).stat().st_blocks * 512
        return {"pause_ms": answer["pause_us"] / 1000, "copied_ms": answer["copied_us"] / 1000, "memory_bytes": held, "answer": answer}

    def back(self, number):
        upcoming = Upcoming(lambda: self.home.runtime.glob("*/*/console.sock"))
        begun = time.monotonic()
        answer = self.vm.do("apply", self.guids[number], timeout=self.limit_s)
        ended = time.monotonic()
        if self.console:
            self.console.close()
        self.console = upcoming.get()
        if self.console is None:
            raise AssertionError("the guest that was gone back to has no console")
        arrival, match = next_beat(self.console)
        self.check_beat(number, int(match.group(1)))
        return {"running_ms": answer["running_us"] / 1000, "line_ms": (arrival - begun) * 1000,
                "command_ms": (ended - begun) * 1000, "answer": answer}

    def warm(self, number):
        for path in (self.vm.memory_file(self.guids[number]), self.vm.state_file(self.guids[number])):
            with open(path, "rb", buffering=0) as file:
                while file.read(8 * MIB):
                    pass

    def forget(self, number):
        self.vm.do("delete", self.guids.pop(number), "--yes")

    def depth(self):
        """Layers of its disk above the base."""
        return len(chain(self.vm.disk())) - 1

    def stop(self):
        if self.console:
            self.console.close()
        self.console = None
        self.vm.do("stop", "--force")

    def close(self):
        if self.console:
            self.console.close()
        if self.vm is not None:
            with contextlib.suppress(AssertionError):  # it may be Off already
                self.vm.do("stop", "--force")
            self.vm.do("remove", "--yes")
            self.vm = None


# --- QEMU alone ---

def new_qcow2(folder):
    image = folder / "disk.qcow2"
    image.unlink(missing_ok=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, f"{DISK_MIB}M"], check=True, timeout=60)
    return image


def event_s(events, name):
    """When the last such event was, by QEMU's clock, which is the host's."""
    for event in reversed(events):
        if event["event"] == name:
            return event["timestamp"]["seconds"] + event["timestamp"]["microseconds"] / 1e6
    raise AssertionError(f"QEMU did not say {name}")


class Savevm(Machine):
    way = "savevm"

    def __init__(self, room):
        super().__init__()
        self.folder, self.guest = room / "savevm", None
        self.folder.mkdir()

    def boot(self, memory_mib, fill_mib):
        self.guest = PlainQemu(self.folder, new_qcow2(self.folder), "qcow2", memory=f"{memory_mib}M", step_ms=0)
        self.console = self.guest.console
        self.settle(fill_mib)

    def writer_pid(self):
        return self.guest.process.pid

    def _monitor(self, line):
        self.guest.qmp.events.clear()
        told = self.guest.monitor(line)
        if told.strip():
            raise AssertionError(f"{line}: {told.strip()}")

    def take(self, number):
        self._monitor(f"savevm s{number}")
        events = self.guest.qmp.events
        return {"pause_ms": (event_s(events, "RESUME") - event_s(events, "STOP")) * 1000}

    def back(self, number):
        since = self.console.position()
        begun, begun_s = time.monotonic(), time.time()
        self._monitor(f"loadvm s{number}")
        ended = time.monotonic()
        running_ms = (event_s(self.guest.qmp.events, "RESUME") - begun_s) * 1000
        arrival, count = first_beat_back(self.console, since)
        self.check_beat(number, count)
        return {"running_ms": running_ms, "line_ms": (arrival - begun) * 1000, "command_ms": (ended - begun) * 1000}

    def forget(self, number):
        self._monitor(f"delvm s{number}")

    def close(self):
        if self.guest:
            self.guest.close()
        shutil.rmtree(self.folder, ignore_errors=True)


# --- libvirt ---

DOMAIN = """<domain type='qemu'><name>bench</name><memory unit='MiB'>{memory_mib}</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type><kernel>{folder}/vmlinuz</kernel><initrd>{folder}/initrd</initrd>
<cmdline>console=ttyS0 quiet bough_step_ms=0</cmdline></os><features><acpi/></features>
<devices><emulator>{qemu}</emulator><disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
<source file='{folder}/disk.qcow2'/><target dev='vda' bus='virtio'/></disk>
<serial type='unix'><source mode='bind' path='{folder}/console'/></serial><memballoon model='none'/></devices></domain>
"""
NOBODY = 65534


class Virsh(Machine):
    """A libvirt daemon of our own, of `qemu:///session`, with all its folders in ours. Root has no session: it is nobody's."""

    way = "virsh"

    def __init__(self, room, limit_s):
        super().__init__()
        for program in ("virsh", "libvirtd", "setpriv"):
            if not shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin"):
                raise Skip(f"{program} is not installed")
        self.folder, self.limit_s = room / "virsh", limit_s
        self.folder.mkdir(mode=0o711)
        if len(str(self.folder)) > 60:
            raise Skip(f"{self.folder}: too long for libvirt's sockets")
        self.env = dict(os.environ, HOME=str(self.folder), PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")
        for variable, name in (("XDG_RUNTIME_DIR", "run"), ("XDG_CONFIG_HOME", "config"), ("XDG_CACHE_HOME", "cache"),
                               ("XDG_DATA_HOME", "data")):
            (self.folder / name).mkdir(mode=0o700)
            self.env[variable] = str(self.folder / name)
        self.as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []

    def _virsh(self, *words):
        done = subprocess.run([*self.as_nobody, "virsh", "-c", "qemu:///session", *words], env=self.env, cwd=self.folder,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=self.limit_s, check=False)
        if done.returncode != 0:
            raise AssertionError(f"virsh {' '.join(words)}: {done.stderr.strip()}")

    def boot(self, memory_mib, fill_mib):
        for name in ("vmlinuz", "initrd"):
            shutil.copyfile(guest_folder() / name, self.folder / name)
        new_qcow2(self.folder)
        (self.folder / "domain.xml").write_text(DOMAIN.format(
            memory_mib=memory_mib, folder=self.folder, qemu=shutil.which("qemu-system-x86_64")))
        if self.as_nobody:
            for path in (self.folder, *self.folder.iterdir()):
                os.chown(path, NOBODY, NOBODY)
        self._virsh("create", "domain.xml")
        self.console = Console(str(self.folder / "console"), 20)
        self.settle(fill_mib)

    def writer_pid(self):
        return int((self.folder / "run/libvirt/qemu/run/bench.pid").read_text())

    def take(self, number):
        self._virsh("snapshot-create-as", "bench", f"s{number}")
        return {}

    def back(self, number):
        """It goes back in the process that is there, or in a new one: that is libvirt's to choose."""
        upcoming = Upcoming(lambda: [self.folder / "console"])
        begun, since = time.monotonic(), self.console.position()
        self._virsh("snapshot-revert", "bench", f"s{number}")
        ended = time.monotonic()
        if self.console.closed:
            self.console.close()
            self.console = upcoming.get()
            if self.console is None:
                raise AssertionError("libvirt's guest that was gone back to has no console")
            arrival, match = next_beat(self.console)
            count = int(match.group(1))
        else:
            upcoming.get(0)
            arrival, count = first_beat_back(self.console, since)
        self.check_beat(number, count)
        return {"line_ms": (arrival - begun) * 1000, "command_ms": (ended - begun) * 1000}

    def forget(self, number):
        self._virsh("snapshot-delete", "bench", f"s{number}")

    def processes(self):
        """libvirt's daemons and QEMU: they alone name this folder in their environment or command line."""
        mark = bytes(self.folder)
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and int(entry.name) != os.getpid() and (
                        mark in (entry / "cmdline").read_bytes() or mark in (entry / "environ").read_bytes()):
                    yield int(entry.name)

    def close(self):
        if self.console:
            self.console.close()
        for _ in range(2):  # also what the daemons had started meanwhile
            for pid in self.processes():
                kill(pid)
        shutil.rmtree(self.folder, ignore_errors=True)
