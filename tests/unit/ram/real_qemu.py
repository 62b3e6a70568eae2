"""Memory of a real QEMU, taken apart and given back.

usage: real_qemu.py RAM_TOOL GUEST_SOURCE MACHINE [--linux KERNEL INITRD] [--memory MIB] [--keep DIR]
MACHINE: pc | vga | q35-ovmf | smp | background

The guest (guest.S) tells its nonce and counter, which live in memory only, on the serial port. It is saved while it
runs, restored stopped, saved again (the memory must be identical), and goes on; its file must not have changed.
"""
import argparse, hashlib, json, os, re, shutil, socket, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../lib"))
import vmstate

SKIP = 77
OVMF = "/usr/share/OVMF/OVMF_CODE_4M.fd"
OVMF_VARS = "/usr/share/OVMF/OVMF_VARS_4M.fd"
TIMEOUT_S = 60


class Qemu:
    def __init__(self, folder, name, machine, backend, extra):
        self.events = []
        self.serial = os.path.join(folder, name + ".serial")
        monitor = os.path.join(folder, name + ".qmp")
        command = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-accel", "tcg", "-rtc", "clock=vm",
                   "-name", name, "-machine", machine + ",memory-backend=pc.ram", "-object", backend,
                   "-qmp", "unix:%s,server=on,wait=off" % monitor,
                   "-chardev", "file,id=serial,path=" + self.serial, "-serial", "chardev:serial", *extra]
        self.process = subprocess.Popen(command)
        self.socket = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                self.socket.connect(monitor)
                break
            except OSError:
                assert self.process.poll() is None and time.monotonic() < deadline, "QEMU does not start"
                time.sleep(0.01)
        self.socket.settimeout(TIMEOUT_S)
        self.file = self.socket.makefile("r")
        self.file.readline()
        self.call("qmp_capabilities")

    def receive(self):
        line = self.file.readline()
        assert line, "QEMU has closed its monitor"
        return json.loads(line)

    def call(self, name, fd=None, **arguments):
        text = json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n"
        if fd is None:
            self.socket.sendall(text)
        else:
            socket.send_fds(self.socket, [text], [fd])
        while True:
            answer = self.receive()
            if "event" in answer:
                self.events.append(answer)
                continue
            assert "return" in answer, (name, answer)
            return answer["return"]

    def wait(self, condition, what):
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert self.process.poll() is None, "QEMU ended while waiting for " + what
            assert time.monotonic() < deadline, "no " + what
            time.sleep(0.005)

    def lines(self):
        try:
            return open(self.serial, errors="replace").read().split("\n")[:-1]
        except FileNotFoundError:
            return []

    def end(self):
        self.socket.close()
        self.process.kill()
        self.process.wait()


class Machine:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.type, self.extra = "pc-i440fx-7.2", []
        kind = options.machine
        if kind == "q35-ovmf":
            if not (os.path.exists(OVMF) and os.path.exists(OVMF_VARS)):
                sys.exit(SKIP)
            nvram = os.path.join(folder, "vars.fd")
            shutil.copy(OVMF_VARS, nvram)
            self.type = "pc-q35-7.2"
            self.extra += ["-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + OVMF,
                           "-drive", "if=pflash,unit=1,format=raw,file=" + nvram]
        if kind in ("vga", "q35-ovmf"):
            self.extra += ["-device", "VGA"]
        if kind == "smp":
            self.extra += ["-smp", "4", "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net",
                           "-device", "virtio-rng-pci"]
        if options.linux:
            self.extra += ["-kernel", options.linux[0], "-initrd", options.linux[1], "-append", "console=ttyS0 quiet"]
        else:
            disk = os.path.join(folder, "guest.img")
            self.extra += ["-drive", "if=none,id=disk,format=raw,readonly=on,file=" + disk,
                           "-device", "virtio-blk-pci,drive=disk,bootindex=1"]
        self.has_lines = kind != "q35-ovmf" or options.linux
        self.bytes = options.memory << 20

    def start(self, name, bin_path=None):
        if bin_path:
            backend = "memory-backend-file,id=pc.ram,share=off,mem-path=%s,size=%d" % (bin_path, self.bytes)
            return Qemu(self.folder, name, self.type, backend, self.extra + ["-S", "-incoming", "defer"])
        return Qemu(self.folder, name, self.type, "memory-backend-ram,id=pc.ram,size=%d" % self.bytes, self.extra)


def assemble(source, folder):
    if not shutil.which("as") or not shutil.which("ld"):
        sys.exit(SKIP)
    code, image = os.path.join(folder, "guest.o"), os.path.join(folder, "guest.img")
    subprocess.run(["as", "--32", "-o", code, source], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-o", image, code], check=True)
    os.truncate(image, 1 << 20)


def told(qemu):
    """Nonce and counter of each whole line; a line that says anything but OK is a failure."""
    found = []
    for line in qemu.lines():
        match = re.fullmatch(r".*?([0-9A-F]{8}) ([0-9A-F]{8}) (OK|BAD)\r?", line)
        if match:
            assert match[3] == "OK", line
            found.append((match[1], int(match[2], 16)))
    return found


def save(tool, qemu, paths, machine, capabilities=("pause-before-switchover",), verb="save"):
    read_end, write_end = os.pipe()
    saver = subprocess.Popen([tool, verb, str(read_end), *paths, str(machine.bytes)], pass_fds=[read_end],
                             stdout=subprocess.PIPE)
    os.close(read_end)
    qemu.call("getfd", fd=write_end, fdname="stream")
    os.close(write_end)
    qemu.call("migrate-set-capabilities", capabilities=[
        {"capability": name, "state": name in capabilities} for name in ("pause-before-switchover", "background-snapshot")])
    qemu.call("migrate-set-parameters", **{"max-bandwidth": 1 << 50})
    qemu.call("migrate", uri="fd:stream")
    state = lambda: qemu.call("query-migrate").get("status")
    ended = ("completed", "failed", "cancelled")
    if "pause-before-switchover" in capabilities:
        qemu.wait(lambda: state() in ended + ("pre-switchover",), "pre-switchover")
        if state() == "pre-switchover":
            qemu.call("migrate-continue", state="pre-switchover")
    qemu.wait(lambda: state() in ended, "end of the migration")
    output = saver.communicate(timeout=TIMEOUT_S)[0]
    assert saver.returncode == 0 and state() == "completed", (saver.returncode, qemu.call("query-migrate"))
    return json.loads(output)


def may_save_in_background(qemu):
    try:
        qemu.call("migrate-set-capabilities", capabilities=[{"capability": "background-snapshot", "state": True}])
        return True
    except AssertionError:
        return False


def load(tool, qemu, vsv):
    ours, theirs = socket.socketpair()
    loader = subprocess.Popen([tool, "load", str(ours.fileno()), vsv], pass_fds=[ours.fileno()])
    ours.close()
    qemu.call("getfd", fd=theirs.fileno(), fdname="state")
    theirs.close()
    qemu.call("migrate-incoming", uri="fd:state")
    qemu.wait(lambda: qemu.call("query-status")["status"] != "inmigrate", "end of the load")
    assert loader.wait(timeout=TIMEOUT_S) == 0


def state_of(vsv):
    """What stands before the devices, and these, read by QEMU's description, but for the run state."""
    stream = vmstate.stream_of(vsv)
    devices = vmstate.decode(stream)
    return stream[:devices[0].offset], [device for device in devices if device.name != "globalstate"]


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").digest() if hasattr(hashlib, "file_digest") else \
            hashlib.blake2b(file.read()).digest()


def run(options, folder, running):
    tool = options.tool
    machine = Machine(options, folder)
    if not options.linux:
        assemble(options.guest, folder)
    path = lambda name: os.path.join(folder, name)
    first = (path("1.bin"), path("1.vsv"))
    second = (path("2.bin"), path("2.vsv"))

    present = machine.start("present")
    running.append(present)
    if machine.has_lines:
        present.wait(lambda: len(told(present)) >= 3, "life sign of the guest")
    else:
        time.sleep(3)
    background = options.machine == "background"
    if background and not may_save_in_background(present):
        print("no right to use userfaultfd: skipped")
        return SKIP
    start = time.monotonic()
    result = save(tool, present, first, machine,
                  ("background-snapshot",) if background else ("pause-before-switchover",))
    print("saved in %.2f s: %s" % (time.monotonic() - start, result))
    before = told(present)
    present.end()

    info = json.loads(subprocess.run([tool, "check", first[1], first[0]], check=True, stdout=subprocess.PIPE).stdout)
    assert info == {"machine": machine.type, "memory_bytes": machine.bytes}, info
    print("verified:", subprocess.run([tool, "verify", first[1], first[0]], check=True, stdout=subprocess.PIPE).stdout)
    first_blocks, first_devices = state_of(first[1])
    print("%d devices as QEMU describes them" % len(first_devices))
    sum_before = digest(first[0])

    target = machine.start("target", first[0])
    running.append(target)
    start = time.monotonic()
    load(tool, target, first[1])
    print("loaded in %.1f ms" % ((time.monotonic() - start) * 1e3))
    save(tool, target, second, machine, verb="hurry")
    assert digest(second[0]) == sum_before, "the memory that was saved again differs"
    subprocess.run([tool, "verify", second[1], second[0]], check=True, stdout=subprocess.DEVNULL)
    second_blocks, second_devices = state_of(second[1])
    assert second_blocks == first_blocks, "the small blocks that were saved again differ"
    differ = vmstate.differences(first_devices, second_devices)
    assert not differ, "the state that was saved again differs: %s" % differ
    target.call("cont")
    if machine.has_lines:
        target.wait(lambda: len(told(target)) >= 3, "life sign of the restored guest")
        after = told(target)
        assert {nonce for nonce, _ in before + after} == {before[0][0]}, "the guest has started anew"
        assert after[0][1] <= before[-1][1] + 1, "the counter has jumped"
        assert after[0][1] >= before[2][1], "the counter went back behind the point"
        print("counter %d before, goes on at %d" % (before[-1][1], after[0][1]))
    else:
        time.sleep(1)
        assert target.call("query-status")["status"] == "running"
    target.end()
    assert digest(first[0]) == sum_before, "the guest wrote to its snapshot"
    return 0


def main():
    parser = argparse.ArgumentParser()
    for name in ("tool", "guest", "machine"):
        parser.add_argument(name)
    parser.add_argument("--linux", nargs=2)
    parser.add_argument("--memory", type=int, default=128)
    parser.add_argument("--keep")
    options = parser.parse_args()
    if not shutil.which("qemu-system-x86_64"):
        print("no qemu-system-x86_64: skipped")
        return SKIP
    folder = options.keep or tempfile.mkdtemp(prefix="bough-ram-")
    os.makedirs(folder, exist_ok=True)
    running = []
    try:
        return run(options, folder, running)
    finally:
        for qemu in running:
            if qemu.process.poll() is None:
                qemu.end()
        if not options.keep:
            shutil.rmtree(folder)


sys.exit(main())
