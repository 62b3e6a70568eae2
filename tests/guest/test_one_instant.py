#!/usr/bin/python3
"""Memory and disk of a snapshot are of one instant, whenever it is taken and whatever the guest does.

$BOUGH_TEST_INSTANTS: how many snapshots (6; the long run is 20)."""

import os
import random
import time

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import disk_counter, file_system_check, flattened_by_7zip, main, memory_counters, xml_disks  # noqa: E402

INSTANTS = int(os.environ.get("BOUGH_TEST_INSTANTS", "6"))


def look_at_point(vm, guid, nonce):
    """Memory and disk of a snapshot, by their files alone: the counter in memory."""
    ((found, memory),) = memory_counters(vm.memory_file(guid))
    assert found == nonce, f"{guid}: nonce {found} is not {nonce}"
    (disk_file,) = xml_disks(vm.snapshot_xml(guid), vm.folder)
    disk = flattened_by_7zip(disk_file)
    on_disk = disk_counter(disk, nonce)
    assert 0 <= memory - on_disk <= 1, f"{guid}: memory {memory}, disk {on_disk}: they are not of one instant"
    complaint = file_system_check(disk)
    assert complaint == "", f"{guid}: e2fsck finds more than a journal to replay:\n{complaint}"
    return memory


def look_at_random_instants(home, *how):
    vm, console = home.booted_guest(step_ms=10)
    console.command("files 4")
    console.command("files 9")
    console.command("dirty 24")
    nonce = console.step().nonce
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"# seed {seed}", flush=True)
    chance = random.Random(seed)
    points = []
    for _ in range(INSTANTS):
        time.sleep(chance.random() * 0.4)
        points.append(vm.do("snapshot", *how)["guid"])
    counters = [look_at_point(vm, guid, nonce) for guid in points]
    assert counters == sorted(set(counters)), f"time went on between the snapshots: {counters}"

    for guid, counter in chance.sample(list(zip(points, counters)), len(points)):
        vm.do("apply", guid)
        console = vm.console()
        first = console.step()
        assert first.nonce == nonce and counter <= first.memory <= counter + 3000, (guid, counter, first)
        later = console.step(since=console.position())  # an E line, had the disk not been of that instant
        assert later.memory == later.disk, later
        assert look_at_point(vm, guid, nonce) == counter, "the restored VM changed its snapshot"


def claim_counters_agree_and_the_file_system_is_sound_at_random_instants_under_load(home):
    look_at_random_instants(home)


def claim_so_they_do_where_the_point_is_the_moment_of_the_request(home):
    look_at_random_instants(home, "--point-now")


main(globals())
