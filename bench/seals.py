"""How long a seal holds requests: a new top is put over the present one again and again while the light client reads and
writes, and its record of each request is laid beside the times of the seals."""

import array
import bisect
import os
import shutil
import subprocess
import time
from pathlib import Path

import chains
import servers

WRITE_SPAN_BYTES = 32 << 20  # each new top reserves as much at most
QUEUE_DEPTH = 8
LEAD_S = 0.3  # load before the first seal and after the last


class Requests:
    """What nbd_load recorded, in the order of the ends; times in ns."""

    def __init__(self, path):
        numbers = array.array("Q")
        numbers.frombytes(Path(path).read_bytes())
        self.begun, self.ended = numbers[0::3], numbers[1::3]
        self.latency = [ended - begun for begun, ended in zip(self.begun, self.ended)]
        self._slowest = max(self.latency)

    def meeting(self, begun, ended):
        """Those that were under way at some instant of the time given."""
        last = ended + self._slowest
        for number in range(bisect.bisect_left(self.ended, begun), len(self.ended)):
            if self.ended[number] > last:
                return
            if self.begun[number] <= ended:
                yield number


def percentile(values, share):
    ordered = sorted(values)
    return ordered[int(share * (len(ordered) - 1))] if ordered else 0


def figures(nanoseconds):
    return {"count": len(nanoseconds), "p50_us": percentile(nanoseconds, 0.5) / 1000,
            "p99_us": percentile(nanoseconds, 0.99) / 1000, "max_us": max(nanoseconds, default=0) / 1000}


def seal(server, path):
    """Times of one seal in ns: prepare begins, switch begins, switch ends, and its flush ends."""
    times = [time.monotonic_ns()]
    for line in (f"prepare {path}", "switch", "flush"):
        server.ask(line)
        times.append(time.monotonic_ns())
    return times


def under_load(bench, server, folder, count, interval_s):
    log = folder / "requests"
    words = [bench.programs.nbd_load, server.socket, "op=mixed", f"depth={QUEUE_DEPTH}",
             f"span={bench.chains.shape['data_bytes']}", f"write_span={WRITE_SPAN_BYTES}", f"log={log}",
             f"seconds={2 * LEAD_S + count * interval_s}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as client:
        try:
            time.sleep(LEAD_S)
            seals = []
            for number in range(1, count + 1):
                due = time.monotonic() + interval_s
                seals.append(seal(server, folder / "tops" / f"{number}.avhd"))
                time.sleep(max(0, due - time.monotonic()))
            client.wait(timeout=120)
        finally:
            client.kill()
    if client.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: exit {client.returncode}")
    return seals, Requests(log)


def judge(seals, requests):
    """What the phases of the seals did to the requests that met them, and how it was otherwise."""
    disturbed = bytearray(len(requests.ended))
    phases = {}
    for name, first, last in (("prepare", 0, 1), ("switch", 1, 2), ("flush", 2, 3)):
        latencies, slowest = [], []
        for times in seals:
            met = list(requests.meeting(times[first], times[last]))
            for number in met:
                disturbed[number] = 1
            latencies += [requests.latency[number] for number in met]
            slowest.append(max((requests.latency[number] for number in met), default=0))
        phases[name] = {"requests": figures(latencies), "slowest_of_each": figures(slowest),
                        "took": figures([times[last] - times[first] for times in seals])}
    calm = [latency for latency, touched in zip(requests.latency, disturbed) if not touched]
    return {"seals": len(seals), **phases, "undisturbed": figures(calm)}


def measure(bench, depth, count, interval_s):
    folder = bench.folder / "seals"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        top = bench.chains.own_top(folder / "tops", depth, count + 1)
        os.sync()
        server = servers.own_to_be_told(bench.programs, folder / "s", top)
        try:
            data = bench.chains.shape["data_bytes"]  # the map is made before, as in a machine that has run a while
            chains.run(bench.programs.nbd_load, server.socket, "order=sequential", "block=1048576", "once=1", f"span={data}",
                       "seconds=60")
            return judge(*under_load(bench, server, folder, count, interval_s))
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
