#!/usr/bin/python3
"""A snapshot of a running guest holds every write up to its instant, also when the host is busy.

Under TCG a QEMU that reads its bitmap of changed pages while the guest runs loses writes now and then, the more so the
more often its processors are interrupted: hence the load, and many rounds for who wants to be sure.

$BOUGH_TEST_ROUNDS: how many snapshots, each with a revert (4). $BOUGH_TEST_LOAD: processes that keep the host busy (2)."""

import contextlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import GuestError, kill, main  # noqa: E402

ROUNDS = int(os.environ.get("BOUGH_TEST_ROUNDS", "4"))
LOAD = int(os.environ.get("BOUGH_TEST_LOAD", "2"))
CHURN_KIB = (65536, 1024, 64)  # one job each: pages that are written seldom, often, and all the time


@contextlib.contextmanager
def busy_host(count):
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            kill(process.pid)
            process.wait()


def booted(home, name):
    vm, console = home.booted_guest(name, more=("--cpus", "2"))
    for kib in CHURN_KIB:
        console.command(f"churn {kib}")
    console.command("churned", deadline_s=120)
    nonce = console.step().nonce
    console.close()
    return vm, nonce


def look(vm, nonce):
    """What is wrong with the guest behind a revert, or None."""
    try:
        console = vm.console()
        if console.step(deadline_s=20).nonce != nonce:
            return "it was started anew"
        console.command("churned", deadline_s=120)
        console.close()
        return None
    except GuestError as error:
        return str(error)


def claim_no_write_is_lost_on_a_busy_host(home):
    chance = random.Random(0)
    damaged, pauses = [], []
    vm, nonce = booted(home, "g0")
    with busy_host(LOAD):
        for number in range(1, ROUNDS + 1):
            time.sleep(chance.random() * 0.3)
            point = vm.snapshot()
            pauses.append(point["pause_us"])
            vm.do("revert")
            wrong = look(vm, nonce)
            if wrong:
                damaged.append(number)
                print(f"# round {number}: {wrong}", flush=True)
                vm.do("stop", "--force")
                vm, nonce = booted(home, f"g{number}")
            else:
                vm.do("delete", point["guid"])
    pauses.sort()
    print(f"# {ROUNDS} rounds, {len(damaged)} damaged, pause {pauses[len(pauses) // 2]} us, at most {pauses[-1]} us",
          flush=True)
    assert not damaged, f"{len(damaged)} of {ROUNDS} snapshots were damaged"


def claim_none_is_lost_where_the_point_is_the_moment_of_the_request(home):
    """All are taken from one run: a guest that has gone back maps its memory from a file, and cannot be saved so."""
    chance = random.Random(0)
    vm, nonce = booted(home, "g")
    points = []
    with busy_host(LOAD):
        for _ in range(ROUNDS):
            time.sleep(chance.random() * 0.3)
            points.append(vm.snapshot(point_now=True))
        wrong = look(vm, nonce)
        assert wrong is None, f"the guest that was saved is damaged itself: {wrong}"
        damaged = []
        for point in points:
            assert point["mode"] == "background", point
            vm.do("apply", point["guid"])
            wrong = look(vm, nonce)
            if wrong:
                damaged.append(f"{point['name']}: {wrong}")
    assert not damaged, f"{len(damaged)} of {ROUNDS} snapshots were damaged: {damaged}"


main(globals())
