"""The serial console of the guest of the tests (tests/guest/agent.c), over a unix socket."""

import re
import socket
import threading
import time


class GuestError(AssertionError):
    """The guest did not say what it had to say, or said that something is wrong."""


class Console:
    """Reads lines in a thread of its own, so that times are those of arrival; commands are answered in order."""

    def __init__(self, path, deadline_s=60):
        self.lines = []  # (time.monotonic() of arrival, text)
        self.error = None  # the first E line
        self.closed = False
        self._news = threading.Condition()
        self._socket = _connect(path, deadline_s)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self):
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._thread.join(5)
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _read(self):
        pending = b""
        while True:
            try:
                more = self._socket.recv(65536)
            except OSError:
                more = b""
            now = time.monotonic()
            pending += more
            *whole, pending = pending.split(b"\n")
            with self._news:
                for line in whole:
                    text = line.decode("utf-8", "replace").rstrip("\r")
                    self.lines.append((now, text))
                    if text.startswith("E ") and self.error is None:
                        self.error = text
                self.closed = not more
                self._news.notify_all()
            if not more:
                return

    def send(self, command):
        self._socket.sendall(command.encode() + b"\n")

    def position(self):
        """Where to wait() from: only lines that come after this call."""
        with self._news:
            return len(self.lines)

    def wait(self, pattern, deadline_s=60, since=0):
        """The first line from `since` on that matches, as (arrival, match). An E line of the guest, now or ever, is a
        failure."""
        pattern = re.compile(pattern)
        end = time.monotonic() + deadline_s
        at = since
        with self._news:
            while True:
                if self.error is not None:
                    raise GuestError(f"the guest says: {self.error}")
                while at < len(self.lines):
                    arrival, text = self.lines[at]
                    at += 1
                    match = pattern.search(text)
                    if match:
                        return arrival, match
                left = end - time.monotonic()
                if self.closed or left <= 0:
                    last = "\n".join(text for _, text in self.lines[-15:])
                    why = "its console was closed" if self.closed else f"not within {deadline_s} s"
                    raise GuestError(f"the guest never said {pattern.pattern!r}: {why}; last lines:\n{last}")
                self._news.wait(left)

    def command(self, text, answer=r"^R (.*)", deadline_s=60):
        """Sends a command and waits for its answer; the answer's text."""
        since = self.position()
        self.send(text)
        return self.wait(answer, deadline_s, since)[1].group(1)

    def run(self, command, deadline_s=60):
        """A shell command in the guest: (exit status, lines of output)."""
        since = self.position()
        self.send("run " + command)
        self.wait(r"^R exit (\d+)", deadline_s, since)
        with self._news:
            new = [text for _, text in self.lines[since:]]
        end = next(i for i, text in enumerate(new) if text.startswith("R exit "))
        return int(new[end].split()[2]), [text[2:] for text in new[:end] if text.startswith("| ")]

    def step(self, deadline_s=60, since=None):
        """The next step that the guest prints: a Step."""
        since = self.position() if since is None else since
        arrival, match = self.wait(STEP, deadline_s, since)
        return Step(match, arrival)

    def ready(self, deadline_s=120):
        """Waits until the guest has booted and made its first step."""
        self.wait(r"^R ready", deadline_s)
        return self.step(deadline_s, since=0)


STEP = re.compile(r"^T ([0-9a-f]{16}) (\d+) (\d+)$")


class Step:
    """One T line: what the guest found in its memory and on its disk."""

    def __init__(self, match, arrival):
        self.nonce, self.memory, self.disk = match.group(1), int(match.group(2)), int(match.group(3))
        self.arrival = arrival

    def __repr__(self):
        return f"Step(nonce={self.nonce}, memory={self.memory}, disk={self.disk})"


def _connect(path, deadline_s):
    end = time.monotonic() + deadline_s
    while True:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            client.connect(path)
            return client
        except OSError as error:
            client.close()
            if time.monotonic() > end:
                raise GuestError(f"no console at {path}: {error}") from error
            time.sleep(0.002)
