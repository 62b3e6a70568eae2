#!/usr/bin/python3
"""kill -9 of the process that serves a disk, again and again, under a guest that writes: the guest goes on with the next one,
and every write that was answered is there, flushed or not.

$BOUGH_TEST_KILLS: how often it is killed (10)."""

import os
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import file_system_check, flattened_by_7zip, kill, main  # noqa: E402
from plain_qemu import PlainQemu  # noqa: E402

KILLS = int(os.environ.get("BOUGH_TEST_KILLS", "10"))


class Server:
    """`bough disk serve`, always on the same socket."""

    def __init__(self, home, image):
        self._home, self._image = home, image
        self.socket = home.dir / "disk.sock"
        self.start()

    def start(self):
        self._process = self._home.start("disk", "serve", "--writable", "--socket", self.socket, self._image)
        line = self._process.stdout.readline()
        assert line.startswith("nbd+unix:"), line + self._process.stderr.read()

    def end(self, how):
        if self._process.poll() is None and how == "kill":
            kill(self._process.pid)
        elif self._process.poll() is None:
            self._process.terminate()
        self._process.communicate(timeout=60)
        return self._process.returncode

    def options(self):
        return f"file.driver=nbd,file.server.type=unix,file.server.path={self.socket},file.reconnect-delay=600"


def write_and_sum(console, number):
    """New data past the guest's page cache, without a flush: the sum of what was written."""
    script = (f"dd if=/dev/urandom of=/tmp/piece bs=4096 count=40 2>/dev/null; sha256sum </tmp/piece; "
              f"dd if=/tmp/piece of=/disk/f{number % 5} bs=4096 conv=notrunc oflag=direct 2>/dev/null")
    status, lines = console.run(script)
    assert status == 0, lines
    return lines[0]


def read_and_sum(console, number):
    status, lines = console.run(f"dd if=/disk/f{number % 5} bs=4096 count=40 iflag=direct 2>/dev/null | sha256sum")
    assert status == 0, lines
    return lines[0]


def seal(home, server, layers):
    """A new top, while nobody serves."""
    assert server.end("terminate") == 0
    layers.append(home.dir / f"{len(layers)}.avhd")
    home.bough("disk", "create", layers[-1], "--parent", layers[-2])
    return layers[-1]


def claim_every_answered_write_outlives_the_server(home):
    chance = random.SystemRandom()
    layers = [home.dir / "base.vhd"]
    home.bough("disk", "create", layers[0], "--size", "96M")
    server = Server(home, layers[0])
    server = Server(home, seal(home, server, layers))
    try:
        with PlainQemu(home.dir, server.options(), "raw") as guest:
            console = guest.console
            console.ready()
            for number in range(KILLS):
                console.command("step 0")  # each would flush what is to be found unflushed
                written = write_and_sum(console, number)
                time.sleep(chance.random() * 0.05)
                server.end("kill")
                time.sleep(chance.random() * 0.2)
                server.start()
                assert read_and_sum(console, number) == written, f"kill {number}: what was answered is gone"
                console.command("step 20")
                console.command("files 5")
                console.step(deadline_s=30)  # the guest itself looks at what it has synced
                server.end("kill")  # under load
                server.start()
                console.step(deadline_s=30)
                console.command("idle")
            assert console.run("umount /disk 2>/dev/null; sync; echo")[0] == 0
        assert server.end("terminate") == 0
    finally:
        server.end("kill")  # where a claim above did not hold
    assert file_system_check(flattened_by_7zip(layers[-1])) == ""
    assert home.run("disk", "check", layers[-1]).returncode == 0
    assert not list(home.runtime.glob("dirty/*"))


main(globals())
