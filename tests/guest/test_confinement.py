#!/usr/bin/python3
"""What a guest that got out of its devices would find: a QEMU under its sandbox, with nothing open but what the VM needs, in a directory
that is its user's alone."""

import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import main  # noqa: E402

DENIALS = {"obsolete": "deny", "elevateprivileges": "deny", "spawn": "deny", "resourcecontrol": "deny"}


def status_of(pid, task=None):
    path = f"/proc/{pid}/task/{task}/status" if task else f"/proc/{pid}/status"
    return dict(line.split(":\t", 1) for line in Path(path).read_text(encoding="utf-8").splitlines() if ":\t" in line)


def arguments_of(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]


def unix_sockets(pid):
    """The paths of the unix sockets that the process listens on, and has connections from."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        target = os.readlink(fd)
        if found := re.match(r"socket:\[(\d+)\]", target):
            inodes.add(found.group(1))
    lines = Path("/proc/net/unix").read_text(encoding="utf-8").splitlines()[1:]
    return {Path(fields[7]) for fields in (line.split() for line in lines) if fields[6] in inodes and len(fields) > 7}


def inet_listeners(pid):
    """(address, port) of each TCP socket on which the process listens."""
    inodes = {os.readlink(fd)[8:-1] for fd in Path(f"/proc/{pid}/fd").iterdir() if os.readlink(fd).startswith("socket:")}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="utf-8").splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, port = fields[1].split(":")
                found.append((address, int(port, 16)))
    return found


def check_process(vm, forwards=()):
    shown = vm.do("show")
    pid, runtime = shown["qemu_pid"], Path(vm.do("console")["socket"]).parent
    # every thread under a filter, no way to more rights
    for task in os.listdir(f"/proc/{pid}/task"):
        seen = status_of(pid, task)
        assert seen["Seccomp"] == "2" and int(seen["Seccomp_filters"]) >= 1, (task, seen["Seccomp"])
        assert seen["NoNewPrivs"] == "1", (task, seen["NoNewPrivs"])
    arguments = arguments_of(pid)
    values = {arguments[i]: arguments[i + 1] for i in range(1, len(arguments) - 1)}
    sandbox = dict(part.split("=") for part in values["-sandbox"].split(",")[1:])
    assert values["-sandbox"].startswith("on,") and sandbox == DENIALS, values["-sandbox"]
    assert "-nodefaults" in arguments and "-no-user-config" in arguments, arguments
    # one monitor, of ours; nothing else that takes commands
    assert arguments.count("-mon") == 1 and values["-mon"] == "chardev=monitor,mode=control", arguments
    assert not {"-monitor", "-qmp", "-qmp-pretty", "-gdb", "-s", "-serial", "-parallel", "-daemonize"} & set(arguments), arguments
    # sockets only in a directory that nobody else enters
    named = {path for path in unix_sockets(pid) if path.is_absolute()}
    assert {path.name for path in named} >= {"qmp.sock", "console.sock"}, named
    for path in named:
        assert path.parent == runtime, (path, runtime)
        for folder in (path.parent, path.parent.parent):
            seen = os.stat(folder)
            assert stat.S_IMODE(seen.st_mode) == 0o700 and seen.st_uid == os.geteuid(), (folder, oct(seen.st_mode))
    assert sorted(inet_listeners(pid)) == sorted(("0100007F", port) for port in forwards), inet_listeners(pid)
    # what is open for writing: the VM's own, and its log
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        target = os.readlink(fd)
        if target.startswith(("/home", "/root", "/etc", "/var")):
            flags = int(re.search(r"flags:\t(\d+)", Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text(encoding="utf-8")).group(1), 8)
            assert flags & os.O_ACCMODE == os.O_RDONLY or str(vm.home.dir) in target, (target, oct(flags))
    assert os.readlink(f"/proc/{pid}/cwd") == "/" and os.getsid(pid) != os.getsid(0)


def a_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def claim_each_process_of_a_vm_is_confined(home):
    port = a_port()
    vm, _ = home.booted_guest(nic=f"user,forward=tcp:{port}:22", more=("--display", "vnc"))
    check_process(vm, [port])
    point = vm.snapshot()["guid"]
    check_process(vm, [port])
    vm.do("apply", point)  # by another process, which has taken the port
    check_process(vm, [port])
    vm.do("pause")
    vm.snapshot()  # and by one that has loaded what was saved
    check_process(vm, [port])


def claim_the_sandbox_ends_a_qemu_that_does_what_it_never_needs(home):
    """The same filter, on a QEMU that is made to spawn a program: its monitor has a command for that."""
    options = ["-nodefaults", "-no-user-config", "-display", "none", "-S", "-machine", "pc", "-monitor", "stdio"]
    command = 'migrate "exec:touch %s"\nquit\n'
    qemu = shutil.which("qemu-system-x86_64")
    for sandbox, made in (([], True), (["-sandbox", "on," + ",".join(f"{k}={v}" for k, v in DENIALS.items())], False)):
        file = home.dir / "made"
        subprocess.run([qemu, *options, *sandbox], input=command % file, text=True, capture_output=True, timeout=60, check=False)
        assert file.exists() == made, (sandbox, "a program was started" if file.exists() else "no program was started")
        file.unlink(missing_ok=True)


def claim_only_its_own_user_reaches_the_worker(home):
    vm, _ = home.booted_guest()
    control = next(home.runtime.rglob("control.sock"))
    for folder in (control.parent, home.runtime):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700, folder
    with socket.socket(socket.AF_UNIX) as client:  # as ourselves it answers
        client.connect(str(control))
        client.sendall(b'{"execute": "status"}\n')
        assert b'"running"' in client.recv(65536)
    if os.geteuid() != 0:
        return
    # a directory that stands open is not the only thing in the way: another user's connection is closed unheard
    other = f"""
import os, socket, sys
os.setgid(65534); os.setuid(65534)
client = socket.socket(socket.AF_UNIX)
try:
    client.connect({str(control)!r})
except PermissionError:
    sys.exit(3)
try:
    client.sendall(b'{{"execute": "status"}}\\n')
    sys.exit(4 if client.recv(65536) == b"" else 0)
except (BrokenPipeError, ConnectionResetError):
    sys.exit(4)
"""
    assert subprocess.run([sys.executable, "-c", other], check=False).returncode == 3
    open_up = [home.dir, home.runtime, control.parent, control]
    modes = [(path, stat.S_IMODE(os.stat(path).st_mode)) for path in open_up]
    try:
        for path in open_up:
            path.chmod(0o777)
        assert subprocess.run([sys.executable, "-c", other], check=False).returncode == 4
    finally:
        for path, mode in modes:
            path.chmod(mode)
    assert vm.state() == "running"


main(globals())
