"""What a bench tells of the machine that it ran on."""

import contextlib
import os
import platform
import subprocess
import time
from pathlib import Path


def version(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[0].strip()


def file_system(folder):
    device = os.stat(folder).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if line.split()[2] == number:
            return line.partition(" - ")[2].split()[0]
    return "?"


def told(folder, options):
    """The host, its load now, and the options of the run."""
    processors = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {"kernel": platform.release(), "processors": f"{len(processors)} x {processors[0] if processors else '?'}",
            "file_system": file_system(folder), "load_at_begin": os.getloadavg()[0],
            "options": {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}}


# --- before all else ---

GROUPS = ((Path("/sys/fs/cgroup/cpu"), "cpu.shares", "262144"), (Path("/sys/fs/cgroup"), "cpu.weight", "10000"))


def _group_make(top, file, most):
    """A group of processes that gets nearly all of the processors; None where that cannot be had."""
    if file == "cpu.weight" and "cpu" not in (top / "cgroup.subtree_control").read_text().split():
        return None
    group = top / f"bough-bench-{os.getpid()}"
    group.mkdir()
    try:
        (group / file).write_text(most)
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError:
        group.rmdir()
        raise
    return group


def _group_end(group):
    """With whatever a failed run may have left in it."""
    for _ in range(20):
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (group.parent / "cgroup.procs").write_text(pid)
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.05)


@contextlib.contextmanager
def before_all_else():
    """This process, and all that it starts, goes before others without being of a real-time class. `nice` alone would not do: the kernel
    counts it only among the processes of one session."""
    group = None
    for kind in GROUPS:
        with contextlib.suppress(OSError):
            group = group or _group_make(*kind)
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    try:
        yield
    finally:
        if group:
            _group_end(group)
