"""What a bench tells of the machine that it ran on."""

import os
import platform
import subprocess
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
