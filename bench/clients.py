"""The workloads, and the two clients that run them: fio, and our own light one, which costs less than the servers do."""

import json
import subprocess
import tempfile
from collections import namedtuple

# order: random or sequential; flush: after each write; once: each block of the span is met once, or as many as the time
# allows; region: which span of the disk.
Workload = namedtuple("Workload", "name title op order block depth flush once region", defaults=(False, False, 0))

READS = (
    Workload("read-4k-q1", "random read 4 KiB, QD 1", "read", "random", 4096, 1),
    Workload("read-4k-q32", "random read 4 KiB, QD 32", "read", "random", 4096, 32),
    Workload("read-1m-q1", "sequential read 1 MiB, QD 1", "read", "sequential", 1 << 20, 1),
    Workload("read-1m-q4", "sequential read 1 MiB, QD 4", "read", "sequential", 1 << 20, 4),
)
# In this order on one top: the first three meet sectors that it lacks, each in a region of its own; the others overwrite
# region 0, which is filled before.
WRITES = (
    Workload("first-4k-q32", "random first write 4 KiB, QD 32", "write", "random", 4096, 32, once=True),
    Workload("first-4k-q1-flush", "random first write 4 KiB and flush, QD 1", "write", "random", 4096, 1, True, True, region=1),
    Workload("first-1m-q4", "sequential first write 1 MiB, QD 4", "write", "sequential", 1 << 20, 4, once=True, region=3),
    Workload("write-1m-q1", "sequential overwrite 1 MiB, QD 1", "write", "sequential", 1 << 20, 1),
    Workload("write-1m-q4", "sequential overwrite 1 MiB, QD 4", "write", "sequential", 1 << 20, 4),
    Workload("write-4k-q1", "random overwrite 4 KiB, QD 1", "write", "random", 4096, 1),
    Workload("write-4k-q32", "random overwrite 4 KiB, QD 32", "write", "random", 4096, 32),
    Workload("write-4k-q1-flush", "random overwrite 4 KiB and flush, QD 1", "write", "random", 4096, 1, True),
)
SMOKE = ("read-4k-q32", "read-1m-q4", "first-4k-q32", "first-1m-q4", "write-4k-q1-flush")

Result = namedtuple("Result", "seconds iops mib_per_second p50_us p99_us client_cpu")


def is_for_light(workload):
    """Where a client's own cost may be what is measured."""
    return workload.block == 4096 and not workload.flush


def light(programs, server, workload, span_bytes, seconds, seed):
    words = [programs.nbd_load, server.socket, f"op={workload.op}", f"order={workload.order}", f"block={workload.block}",
             f"depth={workload.depth}", f"flush={int(workload.flush)}", f"span={span_bytes}",
             f"start={workload.region * span_bytes}", f"once={int(workload.once)}", f"seconds={seconds}", f"seed={seed}"]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=seconds + 120,
                          check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
    told = json.loads(done.stdout)
    return Result(told["seconds"], told["iops"], told["mib_per_second"], told["p50_us"], told["p99_us"], told["cpu"])


def fio(_programs, server, workload, span_bytes, seconds, seed):
    pattern = ("rand" if workload.order == "random" else "") + workload.op
    with tempfile.NamedTemporaryFile(prefix="bough-fio-", mode="r") as output:
        words = ["fio", "--name=bench", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={server.socket}", f"--rw={pattern}",
                 f"--bs={workload.block}", f"--iodepth={workload.depth}", f"--size={span_bytes}",
                 f"--offset={workload.region * span_bytes}", f"--runtime={round(seconds * 1000)}ms",
                 *([] if workload.once else ["--time_based", "--norandommap"]), f"--randseed={seed}", "--output-format=json",
                 f"--output={output.name}", *(["--fsync=1"] if workload.flush else [])]
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds + 120,
                              check=False)
        text = output.read()
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stdout.strip()} {text[:500]}")
    job = json.loads(text[text.index("{"):])["jobs"][0]
    told = job[workload.op]
    if job["error"] != 0 or told["total_ios"] == 0:
        raise RuntimeError(f"{' '.join(words)}: error {job['error']}, {told['total_ios']} requests")
    percentiles = told["clat_ns"]["percentile"]
    return Result(told["runtime"] / 1000, told["iops"], told["bw_bytes"] / (1 << 20), percentiles["50.000000"] / 1000,
                  percentiles["99.000000"] / 1000, (job["usr_cpu"] + job["sys_cpu"]) / 100)


CLIENTS = {"fio": fio, "light": light}
