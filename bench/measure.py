"""The runs: which server, which workload, in which order."""

import contextlib
import os
import shutil
import statistics
import sys
from collections import namedtuple

import chains
import clients
import report
import seals
import servers

MIB = 1 << 20
Contender = namedtuple("Contender", "name depth")
PASS_LIMIT_S = 10  # what takes longer for its first reading is slow for other reasons


def say(text):
    print(text, file=sys.stderr, flush=True)


class Bench:
    def __init__(self, options, programs, folder):
        self.options, self.programs, self.folder = options, programs, folder
        self.runs, self.opened, self.sealed = report.Runs(), [], []
        self.chains = chains.Chains(folder, programs, {
            "size_bytes": options.size_mib * MIB, "data_bytes": options.data_mib * MIB, "layers": max(options.depths),
            "writes": options.writes, "seed": 1}, say)

    def prepare(self):
        """Makes the chains, and finds out how deep a qcow2 chain may be for qemu-nbd."""
        self.chains.make()
        for depth in reversed(self.options.depths):
            self.chains.qcow2_depth = depth
            try:
                server = self.reader(Contender(f"qcow2 {self.options.qemu_aio[0]}", depth), self.folder / "q")
            except RuntimeError as error:
                say(f"qemu-nbd at depth {depth}: {error}")
                continue
            try:
                self.chains.check(server, depth, 2)
                return
            except RuntimeError as error:
                say(f"qemu-nbd at depth {depth}: {error}")
            finally:
                server.stop()
        self.chains.qcow2_depth = 0

    def contenders(self, depth):
        yield Contender("own", depth)
        if depth <= self.chains.qcow2_depth:
            for aio in self.options.qemu_aio:
                yield Contender(f"qcow2 {aio}", depth)
        if depth == 1:
            yield Contender("raw", 1)

    def reader(self, contender, path):
        if contender.name == "own":
            return servers.own(self.programs, path, self.chains.own(contender.depth))
        if contender.name == "raw":
            return servers.nbdkit(path, self.chains.raw)
        return servers.qemu_nbd(path, self.chains.qcow2(contender.depth), contender.name.split()[1])

    def writer(self, contender, path, place):
        """On a new top over the chain; of a raw file there is none, so a new file stands for it."""
        if contender.name == "own":
            return servers.own(self.programs, path, self.chains.own_top(place, contender.depth), writable=True)
        place.mkdir()
        if contender.name == "raw":
            with open(place / "raw", "wb") as new:
                new.truncate(self.options.size_mib * MIB)
            return servers.nbdkit(path, place / "raw")
        return servers.qemu_nbd(path, self.chains.qcow2_top(place / "top.qcow2", contender.depth),
                                contender.name.split()[1], writable=True)

    def _one(self, workload, client, contender, server, span, round_number):
        if workload.once and client == "light":  # it too finds sectors that nobody has written
            workload = workload._replace(region=workload.region + 2)
        if workload.flush and not self.options.smoke:
            os.sync()  # so that it does not wait for what others wrote
        before = server.cpu_s()
        result = clients.CLIENTS[client](self.programs, server, workload, span, self.options.seconds, round_number + 1)
        cpu = (server.cpu_s() - before) / result.seconds
        self.runs.add({"workload": workload.name, "server": contender.name, "depth": contender.depth, "client": client,
                       "round": round_number, **result._asdict(), "server_cpu": cpu})
        say(f"  {workload.name:17} {client:5} {contender.name:14} depth {contender.depth:4} {result.iops:10.0f} IOPS"
            f" {result.mib_per_second:7.0f} MiB/s  client {result.client_cpu * 100:3.0f} %  server {cpu * 100:3.0f} %")

    def _group(self, workloads, running, span, round_number):
        """All workloads by all clients on all servers, which take turns in going first."""
        order = list(running.items())
        turn = round_number % len(order)
        for workload in [each for each in workloads if not self.options.smoke or each.name in clients.SMOKE]:
            for client in self.options.client:
                if client == self.options.client[0] or clients.is_for_light(workload):
                    for contender, server in order[turn:] + order[:turn]:
                        self._one(workload, client, contender, server, span, round_number)

    def _pass(self, server, span, op="read"):
        """Once through the span, not measured."""
        chains.run(self.programs.nbd_load, server.socket, f"op={op}", "order=sequential", "block=1048576", "once=1",
                   f"span={span}", f"seconds={PASS_LIMIT_S}")

    def reads(self):
        running = {}
        span = self.options.data_mib * MIB
        contenders = [contender for depth in self.options.depths for contender in self.contenders(depth)]
        say(f"reads: {len(contenders)} servers")
        with contextlib.ExitStack() as stack:
            for number, contender in enumerate(contenders):
                running[contender] = self.reader(contender, self.folder / f"r{number}")
                stack.callback(running[contender].stop)
                self._pass(running[contender], span)
            for round_number in range(self.options.rounds):
                self._group(clients.READS, running, span, round_number)

    def writes(self):
        for round_number in range(self.options.rounds):
            for depth in self.options.write_depths:
                say(f"writes: round {round_number + 1}, depth {depth}")
                self._writes_at(depth, round_number)

    def _writes_at(self, depth, round_number):
        running = {}
        place = self.folder / "tops"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        span = self.options.write_mib * MIB
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            for number, contender in enumerate(self.contenders(depth)):
                running[contender] = self.writer(contender, self.folder / f"w{number}", place / str(number))
                stack.callback(running[contender].stop)
                self._pass(running[contender], 4 * span)  # of all regions
            self._group([each for each in clients.WRITES if each.once], running, span, round_number)
            for server in running.values():
                self._pass(server, span, "write")
            self._group([each for each in clients.WRITES if not each.once], running, span, round_number)

    def check(self):
        """Both chains hold the bytes that they must, at each depth."""
        for depth in self.options.depths:
            for contender in self.contenders(depth):
                server = self.reader(contender, self.folder / "c")
                try:
                    self.chains.check(server, depth, self.options.samples)
                finally:
                    server.stop()
        say(f"content: {self.options.samples} pages of each chain are as they must be")

    def opening(self):
        for depth in self.options.depths:
            for contender in self.contenders(depth):
                if contender.name in ("own", f"qcow2 {self.options.qemu_aio[-1]}"):
                    self.opened.append(self._opening_of(contender))

    def _opening_of(self, contender):
        took = []
        for _ in range(self.options.opens):
            server = self.reader(contender, self.folder / "o")
            try:
                took.append(server.open_s)
                if len(took) == self.options.opens:
                    self._pass(server, self.options.data_mib * MIB)
                    peak = server.memory()[1]
            finally:
                server.stop()
        return {"server": contender.name, "depth": contender.depth, "median_s": statistics.median(took),
                "worst_s": max(took), "rss_bytes": server.open_rss_bytes, "peak_bytes": peak}

    def seals(self):
        for depth in sorted({self.options.depths[0], self.options.depths[-1]}):
            say(f"seals: {self.options.seals} at depth {depth}")
            told = seals.measure(self, depth, self.options.seals, self.options.seal_interval)
            self.sealed.append({"depth": depth, **told})
