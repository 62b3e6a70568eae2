"""What the tests of the whole program share: a home of their own, the commands, looks from outside, and a runner.

A test file is a script: functions named claim_* take a Home and fail by exceptions; main() runs them all, each in a fresh
home, and answers in TAP. $BOUGH and $BOUGH_WORKER name the programs under test. Only processes that a home's own
machines have started are ever ended, by pid.
"""

import contextlib
import hashlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from guest_console import Console, GuestError  # noqa: F401  (for the tests)

TOP = Path(__file__).resolve().parents[2]
GUID = re.compile(r"^[0-9A-F]{8}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{12}$")

# Exit statuses, from the table in src/base/err.h.
USAGE, IO, NO_SPACE, NO_MEMORY, NOT_FOUND, EXISTS, INVALID, AMBIGUOUS, CORRUPT, MISMATCH, BUSY, STATE = range(2, 14)
UNSUPPORTED, CANCELLED, QEMU, PROTOCOL, TIMEOUT, HOOK = range(14, 20)


class Skip(Exception):
    """The claim cannot be looked at here, and why."""


class CommandError(AssertionError):
    def __init__(self, arguments, status, stderr):
        super().__init__(f"bough {' '.join(map(str, arguments))}: exit {status}: {stderr.strip()}")
        self.status, self.stderr = status, stderr


class Home:
    """A directory of machines and a runtime directory, both gone at the end with all that ran in them."""

    def __init__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="bt-", dir="/tmp"))  # short: a socket's path has 107 bytes
        self.machines = self.dir / "h"
        self.runtime = self.dir / "r"
        self.machines.mkdir()
        self.runtime.mkdir(mode=0o700)
        self.program = os.environ.get("BOUGH", "bough")
        self.env = dict(os.environ, BOUGH_HOME=str(self.machines), BOUGH_RUNTIME=str(self.runtime), NO_COLOR="1",
                        XDG_CONFIG_HOME=str(self.dir / "c"))
        self._consoles = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end_machines()
        shutil.rmtree(self.dir, ignore_errors=True)

    def end_machines(self):
        """No process of it is left behind this."""
        for console in self._consoles:
            console.close()
        for name in sorted(os.listdir(self.machines)):
            self._end(name)

    def _end(self, name):
        """Ends a machine's processes; a worker first, so that it sees no dead QEMU to report."""
        seen = subprocess.run([self.program, "show", name, "--json"], env=self.env, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=60, check=False)
        with contextlib.suppress(ValueError):
            shown = json.loads(seen.stdout)
            for key in ("worker_pid", "qemu_pid"):
                kill(shown.get(key))
        for pid in self.processes():  # what `show` could not tell, after a test of a lost worker
            kill(pid)

    def processes(self):
        """Processes whose environment or command line names this home: its QEMUs and workers, found from outside."""
        found = []
        mark = str(self.runtime).encode()
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                command = Path("/proc", entry, "cmdline").read_bytes()
                environment = Path("/proc", entry, "environ").read_bytes()
                if mark in command or b"BOUGH_RUNTIME=" + mark in environment.split(b"\0"):
                    found.append(int(entry))
        return found

    def no_process_is_left(self):
        """A worker lets go of the VM, on the disk too, behind its last answer."""
        wait_until(lambda: self.processes() == [], 5, "the end of every process")
        return True

    def start(self, *arguments, **keywords):
        """The command as a process that is not waited for."""
        return subprocess.Popen([self.program, *map(str, arguments)], env=self.env, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **keywords)

    def run(self, *arguments, timeout=120, env=None):
        """The command's whole result, whatever its status."""
        return subprocess.run([self.program, *map(str, arguments)], env=env or self.env, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=timeout, check=False)

    def bough(self, *arguments, timeout=120):
        """The command must succeed; its standard output."""
        result = self.run(*arguments, timeout=timeout)
        if result.returncode != 0:
            raise CommandError(arguments, result.returncode, result.stderr)
        return result.stdout

    def json(self, *arguments, timeout=120):
        return json.loads(self.bough(*arguments, "--json", timeout=timeout))

    def refused(self, status, *arguments, says=None, env=None):
        """The command must fail with this exit status, and say why on standard error."""
        result = self.run(*arguments, env=env)
        told = f"bough {' '.join(map(str, arguments))}: exit {result.returncode}: {result.stderr.strip()}"
        assert result.returncode == status, f"{told}; expected exit {status}"
        assert result.stderr.startswith("bough: "), f"{told}; it has to say `bough: what: why`"
        assert says is None or re.search(says, result.stderr), f"{told}; expected it to say {says!r}"
        return result.stderr

    def create(self, name, *arguments):
        self.bough("create", name, *arguments)
        return VM(self, name)

    def create_guest(self, name="g", memory="192M", disks=("96M,bus=virtio",), step_ms=20, nic="none",
                     more=()):
        """A machine with the guest of the tests; not started."""
        guest = guest_folder()
        arguments = ["--memory", memory, "--nic", nic, "--kernel", guest / "vmlinuz", "--initrd", guest / "initrd",
                     "--append", f"console=ttyS0 quiet bough_step_ms={step_ms}", *more]
        for disk in disks:
            arguments += ["--disk", disk]
        return self.create(name, *arguments)

    def booted_guest(self, name="g", **keywords):
        """A machine whose guest has made its first step: (VM, its console)."""
        vm = self.create_guest(name, **keywords)
        vm.do("start")
        console = vm.console()
        console.ready()
        return vm, console


class VM:
    """One machine, by its name; its files are looked at from outside."""

    def __init__(self, home, name):
        self.home, self.name = home, name
        self.folder = home.machines / name
        xml = list((self.folder / "Virtual Machines").glob("*.xml"))
        assert len(xml) == 1, f"one XML in Virtual Machines, not {xml}"
        self.xml, self.guid = xml[0], xml[0].stem
        self.snapshots = self.folder / "Snapshots"
        self.disks_folder = self.snapshots / self.guid

    def do(self, verb, *arguments, **keywords):
        """A command on this machine that must succeed: its answer."""
        return self.home.json(verb, self.name, *arguments, **keywords)

    def refused(self, status, verb, *arguments, **keywords):
        return self.home.refused(status, verb, self.name, *arguments, **keywords)

    def snapshot(self, name=None, point_now=False):
        return self.do("snapshot", *(["--name", name] if name else []), *(["--point-now"] if point_now else []))

    def state(self):
        return self.do("show")["state"]

    def console(self, deadline_s=20):
        console = Console(self.do("console")["socket"], deadline_s)
        self.home._consoles.append(console)
        return console

    def disk(self, index=0):
        """The image that takes the writes, as the machine's XML says, seen by xmllint."""
        return xml_disks(self.xml, self.folder)[index]

    def snapshot_xml(self, guid):
        return self.snapshots / f"{guid}.xml"

    def memory_file(self, guid):
        return self.snapshots / guid / f"{guid}.bin"

    def state_file(self, guid):
        return self.snapshots / guid / f"{guid}.vsv"

    def files(self):
        """All files and folders below the machine's folder, as relative paths; a folder ends with a slash."""
        return sorted(str(p.relative_to(self.folder)) + ("/" if p.is_dir() else "")
                      for p in self.folder.rglob("*"))


# --- looks from outside ---

def xpath(file, expression):
    """What xmllint makes of an XPath expression: text."""
    result = subprocess.run(["xmllint", "--nonet", "--xpath", expression, str(file)], capture_output=True, text=True,
                            check=False)
    if result.returncode not in (0, 10):  # 10: an empty node set
        raise AssertionError(f"xmllint {file}: {result.stderr}")
    return result.stdout.rstrip("\n")


def xml_disks(file, vm_folder):
    """The hard disks' images in an XML, absolute, in the order of the XML."""
    count = int(float(xpath(file, f"count({DISK_PATHS})")))
    paths = [xpath(file, f"string(({DISK_PATHS})[{i + 1}])").replace("\\", "/") for i in range(count)]
    return [Path(os.path.normpath(vm_folder / p)) for p in paths]


DISK_PATHS = "//pathname[contains(., '.vhd') or contains(., '.avhd')]"


def sha256(file):
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def identity(file):
    """Content and time of a file that nothing may write."""
    seen = os.stat(file)
    return seen.st_ino, seen.st_size, seen.st_mtime_ns, sha256(file)


def chain(image):
    """A disk's images from the top to the base, by the relative locators."""
    images = [Path(image)]
    while VhdHeader.kind_of(images[-1]) == 4:
        parent = VhdHeader(images[-1]).relative_parent
        images.append(Path(os.path.normpath(images[-1].parent / parent.replace("\\", "/"))))
    return images


def flattened_by_7zip(image):
    """The bytes of a virtual disk, chain and all, as 7-Zip reads them. It follows no parent out of the child's folder, so
    the chain is shown to it in one folder, where it finds each parent by the plain name in its child's header."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        for file in chain(image):
            os.symlink(file, Path(folder, file.name))
        result = subprocess.run(["7zz", "e", "-so", "-tVHD", Path(folder, Path(image).name)], capture_output=True,
                                check=False)
    if result.returncode != 0:
        raise AssertionError(f"7zz e {image}: {result.stderr.decode(errors='replace')}")
    return result.stdout


class VhdHeader:
    """Footer and header of a dynamic or differencing VHD, read by the specification."""

    def __init__(self, path):
        with open(path, "rb") as stream:
            footer = stream.read(512)
            assert footer[:8] == b"conectix", f"{path}: no footer copy"
            stream.seek(int.from_bytes(footer[16:24], "big"))
            header = stream.read(1024)
        assert header[:8] == b"cxsparse", f"{path}: no header"
        self.kind = int.from_bytes(footer[60:64], "big")
        self.id = footer[68:84]
        self.parent_id = header[40:56]
        self.parent_name = header[64:576].decode("utf-16-be").rstrip("\0")
        self.relative_parent = None
        for at in range(576, 768, 24):
            entry = header[at:at + 24]
            if entry[:4] == b"W2ru":
                with open(path, "rb") as stream:
                    stream.seek(int.from_bytes(entry[16:24], "big"))
                    self.relative_parent = stream.read(int.from_bytes(entry[8:12], "big")).decode("utf-16-le")

    @staticmethod
    def kind_of(path):
        """2 fixed, 3 dynamic, 4 differencing; by the footer at the end, which each kind has."""
        with open(path, "rb") as stream:
            first = stream.read(512)
            if first[:8] != b"conectix":
                stream.seek(-512, os.SEEK_END)
                first = stream.read(512)
        assert first[:8] == b"conectix", f"{path}: no footer"
        return int.from_bytes(first[60:64], "big")


def memory_counters(file):
    """The (nonce, counter) pairs of the agent's page in a memory image: one, if the guest ran."""
    found = []
    with open(file, "rb") as stream:
        image = stream.read()
    at = image.find(AGENT_PAGE)
    while at >= 0:
        if at % 4096 == 0:
            nonce, counter = (int.from_bytes(image[at + o:at + o + 8], "little") for o in (16, 24))
            found.append((f"{nonce:016x}", counter))
        at = image.find(AGENT_PAGE, at + 1)
    return found


def different_pages(one, other):
    """Offsets of the pages in which two memory images differ."""
    a, b = one.read_bytes(), other.read_bytes()
    assert len(a) == len(b), (len(a), len(b))
    return [at for at in range(0, len(a), 4096) if a[at:at + 4096] != b[at:at + 4096]]


AGENT_PAGE, AGENT_RECORD = b"bough-memory".ljust(16, b"\0"), b"bough-disk".ljust(16, b"\0")


@contextlib.contextmanager
def replayed(image):
    """A disk's ext4 after a journal replay, as a file of its own: what a guest would find after a power loss."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        disk = Path(folder, "disk")
        disk.write_bytes(image)
        subprocess.run([sbin("e2fsck"), "-E", "journal_only", "-y", str(disk)], capture_output=True, check=False)
        yield disk


def disk_counter(image, nonce):
    """The newest counter of that run in the file `counter` of a disk's image, read by debugfs."""
    with replayed(image) as disk, tempfile.TemporaryDirectory(dir="/tmp") as folder:
        ring = Path(folder, "ring")
        result = subprocess.run([sbin("debugfs"), "-R", f"dump /counter {ring}", str(disk)], capture_output=True,
                                text=True, check=True)
        assert ring.exists(), f"debugfs: {result.stderr}"
        data = ring.read_bytes()
    records = [data[i:i + 32] for i in range(0, len(data), 4096)]
    ours = [int.from_bytes(r[24:32], "little") for r in records
            if r[:16] == AGENT_RECORD and f"{int.from_bytes(r[16:24], 'little'):016x}" == nonce]
    return max(ours, default=0)


def mark(console, text):
    """On the guest's disk and in its memory."""
    assert console.run(f"echo {text} > /disk/mark; echo {text} > /tmp/mark; sync")[0] == 0


def marks(console):
    return console.run("cat /disk/mark /tmp/mark")[1]


def file_system_check(image):
    """What e2fsck still finds after a journal replay: "" if nothing."""
    with replayed(image) as disk:
        result = subprocess.run([sbin("e2fsck"), "-fn", str(disk)], capture_output=True, text=True, check=False)
    return "" if result.returncode == 0 else result.stdout


def sbin(program):
    return shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin") or program


def kill(pid, signal_number=signal.SIGKILL):
    """Ends a process of a test's own machine and waits until all its threads are gone, with what they held."""
    if not pid:
        return
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(fd, signal_number)
            ended, _, _ = select.select([fd], [], [], 20)
            assert ended, f"process {pid} does not end"
        finally:
            os.close(fd)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(condition, deadline_s, what):
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {deadline_s} s for {what}"
        time.sleep(0.02)


def guest_folder():
    """The folder of the guest's kernel and initramfs; made by scripts/guest, once."""
    if "BOUGH_GUEST" not in os.environ:
        made = subprocess.run([str(TOP / "scripts" / "guest")], stdout=subprocess.PIPE, text=True, check=False)
        if made.returncode != 0:
            raise AssertionError("scripts/guest failed")
        os.environ["BOUGH_GUEST"] = made.stdout.split("\n")[-2]
    return Path(os.environ["BOUGH_GUEST"])


# --- running ---

def main(claims):
    """Runs the claim_* functions of a file's globals, or those that the command line names; answers in TAP."""
    chosen = {name: value for name, value in claims.items() if name.startswith("claim_")}
    if sys.argv[1:]:
        chosen = {name: chosen[name] for name in sys.argv[1:]}
    print(f"1..{len(chosen)}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # one that takes too long cleans up, too
    failures = 0
    for number, (name, claim) in enumerate(chosen.items(), 1):
        begun = time.monotonic()
        title = name.removeprefix("claim_")
        try:
            with Home() as home:
                claim(home)
            outcome, remark = "ok", ""
        except Skip as reason:
            outcome, remark = "ok", f" # SKIP {reason}"
        except Exception:  # pylint: disable=broad-except
            outcome, remark = "not ok", ""
            failures += 1
            traceback.print_exc()
        sys.stderr.flush()
        print(f"{outcome} {number} {title}{remark}\n# {time.monotonic() - begun:.1f} s", flush=True)
    sys.exit(1 if failures else 0)
