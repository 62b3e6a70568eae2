#!/usr/bin/python3
"""Memory of a snapshot in several passes holds the last write to each page, by a guest that gives the processor no reason to
tell of it: last_write.S. It writes to 16,128 pages again and again in each pass.

$BOUGH_TEST_ROUNDS: how many snapshots (3)."""

import mmap
import os
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from boot_sector import boot_sector_disk  # noqa: E402
from bough_test import main  # noqa: E402

ROUNDS = int(os.environ.get("BOUGH_TEST_ROUNDS", "3"))
PAGES = range(0x100000, 0x4000000, 0x1000)
ENOUGH_PASSES = 4


def counters(vm, guid):
    with open(vm.memory_file(guid), "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
        return [struct.unpack_from("<I", memory, page)[0] for page in PAGES]


def check_one_instant(values):
    wrong = [f"{page:x}h: {value}" for page, value in zip(PAGES, values) if value not in (values[0], values[0] - 1)]
    assert not wrong, f"{values[0]} is the first counter; lost: {len(wrong)}, such as {wrong[:4]}"
    assert values == sorted(values, reverse=True), "the guest counts in their order"


def claim_the_last_write_to_each_page_is_in_the_snapshot(home):
    vm = home.create("k", "--memory", "96M", "--accel", "tcg", "--nic", "none", "--disk",
                     f"{boot_sector_disk(home, 'last_write.S')},bus=ide")
    vm.do("start")
    vm.console().wait(r"R$", deadline_s=120)
    before = 0
    for _ in range(ROUNDS):
        answer = vm.snapshot()
        print(f"# {answer['passes']} passes, {answer['pauses']} pauses, the longest {answer['pause_us']} us", flush=True)
        values = counters(vm, answer["guid"])
        check_one_instant(values)
        assert values[0] > before, "it counts"
        before = values[0]
        assert answer["passes"] >= ENOUGH_PASSES, answer
    vm.do("revert")
    again = counters(vm, vm.snapshot()["guid"])
    check_one_instant(again)
    assert again[0] >= before, "it goes on"


def claim_a_machine_with_the_other_chipset_is_saved_in_passes_too(home):
    vm, console = home.booted_guest("g", memory="512M", more=("--generation", "2"))
    console.command("fill 200 3", deadline_s=120)
    console.command("churn 65536")
    console.command("churned", deadline_s=120)
    answer = vm.snapshot()
    print(f"# {answer['passes']} passes, {answer['pauses']} pauses, the longest {answer['pause_us']} us", flush=True)
    assert answer["passes"] >= ENOUGH_PASSES, answer
    console.close()
    vm.do("revert")
    vm.console().command("churned", deadline_s=120)


main(globals())
