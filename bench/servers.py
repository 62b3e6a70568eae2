"""The NBD servers that are measured, each on a unix socket."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

GREETING_BYTES = 18
START_TIMEOUT_S = 120


class Server:
    """A process that serves `socket`; open_s is from its start until a client is greeted."""

    def __init__(self, words, socket_path, environment=None):
        self.socket = str(socket_path)
        begun = time.monotonic()
        self._process = subprocess.Popen([str(w) for w in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.PIPE, text=True, env=environment)
        try:
            self._wait_greeting(begun)
        except BaseException:
            self.stop()
            raise
        self.open_s = time.monotonic() - begun
        self.open_rss_bytes = self.memory()[0]

    def _wait_greeting(self, begun):
        while not self._greets():
            if self._process.poll() is not None:
                raise RuntimeError(f"{self._process.args[0]} does not serve")
            if time.monotonic() - begun > START_TIMEOUT_S:
                raise RuntimeError(f"{self._process.args[0]} does not serve after {START_TIMEOUT_S} s")
            time.sleep(0.001)

    def _greets(self):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(START_TIMEOUT_S)
            try:
                client.connect(self.socket)
                return len(client.recv(GREETING_BYTES)) > 0
            except (FileNotFoundError, ConnectionError, TimeoutError):
                return False

    def alive(self):
        return self._process.poll() is None

    def memory(self):
        """Resident bytes now and at most."""
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines())
        return tuple(int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))

    def cpu_s(self):
        """Of all its threads so far, ended ones and those of io_uring too."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def ask(self, line):
        """Of nbd_serve: a line, and its answer."""
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self.hear()

    def hear(self):
        answer = self._process.stdout.readline().strip()
        if not answer.startswith("ok"):
            raise RuntimeError(f"nbd_serve: {answer or 'no answer'}")
        return answer

    def stop(self):
        """A server that does not end in order is an error."""
        self._process.stdin.close()
        if self.alive():
            self._process.terminate()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        said = self._process.stderr.read().strip()
        self._process.stdout.close()
        self._process.stderr.close()
        Path(self.socket).unlink(missing_ok=True)
        if self._process.returncode not in (0, -signal.SIGTERM):
            raise RuntimeError(f"{self._process.args[0]} ended: {self._process.returncode}: {said}")


def own(programs, socket_path, top, writable=False):
    return Server([programs.bough, "disk", "serve", "--socket", socket_path, *(["--writable"] if writable else []), top],
                  socket_path)


def own_to_be_told(programs, socket_path, top):
    """Our engine in the program of the tests, which prepares and switches tops when it is told to."""
    server = Server([programs.nbd_serve, "serve", top, socket_path], socket_path)
    server.hear()  # that it has started
    return server


def qemu_nbd(socket_path, top, aio, writable=False):
    return Server(["qemu-nbd", "--format=qcow2", "--persistent", "--shared=8", "--cache=writeback", f"--aio={aio}",
                   "--discard=unmap", f"--socket={socket_path}", *([] if writable else ["--read-only"]), top], socket_path)


def nbdkit(socket_path, path):
    return Server(["nbdkit", "--foreground", "--unix", socket_path, "file", path], socket_path,
                  dict(os.environ, LC_ALL="C"))
