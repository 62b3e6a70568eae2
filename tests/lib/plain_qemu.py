"""QEMU alone, without Bough, with the same guest: what the guest is proven with, and what figures are compared to."""

import json
import socket
import subprocess
import time

from bough_test import guest_folder
from guest_console import Console


class Qmp:
    def __init__(self, path):
        self.events = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rw")
        self._next()
        self.do("qmp_capabilities")

    def _next(self):
        line = self._file.readline()
        if not line:
            raise AssertionError("QEMU closed its monitor")
        return json.loads(line)

    def do(self, command, **arguments):
        self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._file.flush()
        while True:
            message = self._next()
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise AssertionError(f"{command}: {message['error']['desc']}")
            self.events.append(message)

    def close(self):
        self._file.close()
        self._socket.close()


class PlainQemu:
    """A process with the guest; `folder` takes its sockets. image: a file, or QEMU's options of one (`file.driver=...`)."""

    def __init__(self, folder, image, image_format, memory="192M", step_ms=20, more=()):
        self.folder = folder
        for name in ("console", "qmp"):
            (folder / name).unlink(missing_ok=True)
        guest = guest_folder()
        source = image if str(image).startswith("file.") else f"file={image}"
        self.process = subprocess.Popen([
            "qemu-system-x86_64", "-machine", "pc", "-accel", "tcg", "-m", memory, "-display", "none", "-nodefaults",
            "-kernel", guest / "vmlinuz", "-initrd", guest / "initrd",
            "-append", f"console=ttyS0 quiet bough_step_ms={step_ms}",
            "-serial", f"unix:{folder}/console,server=on,wait=off", "-qmp", f"unix:{folder}/qmp,server=on,wait=off",
            "-drive", f"if=none,id=d0,format={image_format},{source}", "-device", "virtio-blk-pci,drive=d0", *more],
            stdin=subprocess.DEVNULL)
        try:
            self.console = Console(str(folder / "console"), 20)
            self.qmp = Qmp(folder / "qmp")
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.process.kill()
        self.process.wait()
        for end in ("console", "qmp"):
            if hasattr(self, end):
                getattr(self, end).close()

    def monitor(self, line):
        """A command of the human monitor: its output, which is empty if all is well."""
        return self.qmp.do("human-monitor-command", **{"command-line": line})

    def migrate_to(self, file):
        self.qmp.do("migrate", uri=f"exec:cat > {file}")
        end = time.monotonic() + 60
        while self.qmp.do("query-migrate").get("status") not in ("completed", "failed"):
            assert time.monotonic() < end, "migration to a file takes more than 60 s"
            time.sleep(0.02)
        assert self.qmp.do("query-migrate")["status"] == "completed"
