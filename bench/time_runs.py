"""The runs of bench/time: which machine, which load, in which order."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import time_guests
from bough_test import Skip

WAYS = ("pre-copy", "point-now", "savevm", "virsh")
OWN_WAYS = WAYS[:2]
MARKS = (1, 2, 10)
CACHES = ("warm", "cold")
CHAIN_MEMORY_MIB = 192  # of the guest that makes the layers
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
ERRORS = (AssertionError, OSError, RuntimeError, ValueError, KeyError, subprocess.SubprocessError)  # TimeoutError is an OSError


def say(text):
    print(text, file=sys.stderr, flush=True)


def disk_mb_s(room, mib=1024):
    """What the file system takes from one writer that waits for the disk in the end."""
    path, block = room / "rate", os.urandom(time_guests.MIB)
    begun = time.monotonic()
    with open(path, "wb", buffering=0) as file:
        for _ in range(mib):
            file.write(block)
        os.fdatasync(file.fileno())
    took = time.monotonic() - begun
    path.unlink()
    return mib * time_guests.MIB / 1e6 / took


class Bench:
    def __init__(self, options, home, room):
        self.options, self.home, self.room = options, home, room
        self.snapshots, self.backs, self.loads, self.left_out, self.failures = [], [], [], [], []
        self.disk_mb_s = disk_mb_s(room, 64 if options.quick else 1024)
        self.told = {}

    # --- one machine ---

    @contextlib.contextmanager
    def _machine(self, way):
        make = {"savevm": lambda: time_guests.Savevm(self.room),
                "virsh": lambda: time_guests.Virsh(self.room, self.options.limit)}
        machine = make[way]() if way in make else time_guests.Own(self.home, way, self.options.limit)
        try:
            yield machine
        finally:
            with time_guests.limit(120, f"{way}: its end"):
                machine.close()

    def _guarded(self, what, work):
        """A part that fails or hangs costs that part; a run has failed then."""
        begun = time.monotonic()
        say(f"{what}")
        try:
            work()
        except Skip as reason:
            self.left_out.append(f"{what}: {reason}")
            say(f"  left out: {reason}")
        except ERRORS as error:
            self.failures.append(f"{what}: {type(error).__name__}: {error}")
            say(f"  FAILED: {error}")
        say(f"  {time.monotonic() - begun:.0f} s")
        self.write_json()

    def write_json(self):
        if self.options.json:
            everything = {"environment": self.told, "disk_mb_s": self.disk_mb_s, "snapshots": self.snapshots,
                          "going_back": self.backs, "loads": self.loads, "left_out": self.left_out, "failures": self.failures}
            Path(self.options.json).write_text(json.dumps(everything, indent=1) + "\n")

    def _settled(self):
        """Nothing that was written before is written during what is measured."""
        subprocess.run(["sync", "-f", self.room], check=True, timeout=self.options.limit)

    # --- snapshots ---

    def _take(self, machine, number, keep, where):
        if number - 1 in machine.counts and number - 1 not in keep:
            machine.forget(number - 1)
        self._settled()
        with time_guests.limit(self.options.limit, "a snapshot"):
            found = {**where, **machine.snapshot(number, self.options.calm)}
        self.snapshots.append(found)
        pause = f"pause {found['pause_ms']:7.1f} ms" if "pause_ms" in found else "               "
        say(f"  snapshot {number:3} {pause}  gap {found['gap_ms']:8.1f} ms ({found['calm_gap_ms']:.1f} in calm)  "
            f"whole {found['whole_ms']:8.0f} ms  written {found['written_bytes'] / 1e6:7.0f} MB")

    def _series(self, machine, where, first, count, keep):
        for number in range(first, first + count):
            self._take(machine, number, keep, where)

    def _back(self, machine, number, cache, where):
        if cache == "warm":
            machine.warm(number)
        self._settled()
        if cache == "cold":
            DROP_CACHES.write_text("3\n")
        with time_guests.limit(self.options.limit, "going back"):
            found = {**where, "number": number, "cache": cache, **machine.back(number)}
        time.sleep(0.2)
        self.backs.append(found)
        running = f"running {found['running_ms']:8.1f} ms" if "running_ms" in found else "                   "
        say(f"  back to {number:3} {cache} {running}  next line {found['line_ms']:8.1f} ms  command {found['command_ms']:8.1f} ms")

    def _go_back(self, machine, numbers, where, repeats):
        """To one after the other, so that the present one has no page of the next one mapped."""
        for cache in self.options.caches:
            if cache == "cold" and not os.access(DROP_CACHES, os.W_OK):
                self.left_out.append("cold: /proc/sys/vm/drop_caches is not ours to write")
                continue
            for _ in range(repeats):
                for number in numbers:
                    self._back(machine, number, cache, where)

    def _run(self, way, size_mib, load):
        own = way in OWN_WAYS
        count, repeats = ((self.options.snapshots, self.options.repeats) if own else
                          (self.options.peer_snapshots, self.options.peer_repeats))
        where = {"way": way, "memory_mib": size_mib, "load": load, "kind": "booted"}
        marks = [mark for mark in MARKS if mark <= count] if own and load == "idle" else [count - 1, count] if count > 1 else [1]
        with self._machine(way) as machine:
            with time_guests.limit(1200, "starting the guest"):
                machine.boot(size_mib, size_mib // 2)
                rate = machine.begin_load(load)
            if rate is not None:
                self.loads.append({**where, "bytes_per_second": rate})
                say(f"  load: {rate / 1e6:.1f} MB/s")
            self._series(machine, where, 1, count, {*marks, count} if "back" in self.options.parts else {count})
            if "back" in self.options.parts:
                self._go_back(machine, marks, where, repeats)
            if way == "pre-copy" and "restored" in self.options.parts:
                self._restored(machine, count, where)

    def _restored(self, machine, last, where):
        """The snapshots of a VM that runs from a snapshot's memory file."""
        say("  of a restored VM")
        machine.back(last)
        where = {**where, "kind": "restored"}
        for number in range(1, self.options.restored + 1):
            self._take(machine, last + number, {last}, where)

    def sizes(self):
        """All that is done with machines of each size."""
        for size_mib in self.options.sizes:
            for load in self.options.loads:
                if load == "disk" and size_mib not in self.options.disk_sizes:
                    continue
                for way in self.options.ways:
                    self._guarded(f"{way}, {size_mib} MiB, {load}", lambda w=way, s=size_mib, d=load: self._run(w, s, d))

    # --- chains ---

    def _layers(self, machine, count):
        """Small snapshots of a guest that writes to its disk."""
        machine.console.command("write 10")
        machine.console.command(f"beat {time_guests.BEAT_MS}")
        for number in range(1, count + 1):
            with time_guests.limit(self.options.limit, "a layer"):
                machine.take(f"layer {number}")

    def _chain(self):
        with self._machine("pre-copy") as machine:
            with time_guests.limit(300, "starting the guest"):
                machine.boot(CHAIN_MEMORY_MIB, 0)
            self._layers(machine, self.options.depth - 2)
            for size_mib in self.options.sizes:
                self._chain_of(machine, size_mib)

    def _chain_of(self, machine, size_mib):
        machine.stop()
        machine.home.bough("set", "g", f"memory={size_mib}M")
        machine.counts.clear()
        with time_guests.limit(1200, "starting the guest"):
            machine.start(size_mib // 2)
            machine.begin_load("idle")
        for number in (1, 2):
            machine.snapshot(number, self.options.calm)
        where = {"way": "pre-copy", "memory_mib": size_mib, "load": "idle", "kind": "booted", "depth": machine.depth()}
        say(f"  {size_mib} MiB, {where['depth']} layers")
        self._go_back(machine, (1, 2), where, self.options.repeats)
        for number in (1, 2):
            machine.forget(number)

    def chain(self):
        self._guarded(f"a chain of {self.options.depth} layers", self._chain)
