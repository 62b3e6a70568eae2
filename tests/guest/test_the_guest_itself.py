#!/usr/bin/python3
"""The measuring instrument: the guest of the tests sees a disk that is not of its memory's instant, and so do the looks
from outside. With QEMU alone, without Bough."""

import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import disk_counter, file_system_check, main, memory_counters, wait_until  # noqa: E402
from guest_console import GuestError  # noqa: E402
from plain_qemu import PlainQemu  # noqa: E402


def new_image(home):
    image = home.dir / "disk"
    with open(image, "wb") as stream:
        stream.truncate(96 << 20)
    return image


def claim_stopped_at_any_moment_memory_and_disk_agree_and_the_file_system_is_sound(home):
    image = new_image(home)
    with PlainQemu(home.dir, image, "raw", step_ms=5) as guest:
        nonce = guest.console.ready().nonce
        guest.console.command("files 3")
        guest.console.command("dirty 20")
        for _ in range(3):
            time.sleep(0.2)
            guest.qmp.do("stop")
            guest.qmp.do("pmemsave", val=0, size=192 << 20, filename=str(home.dir / "memory"))
            ((found, memory),) = memory_counters(home.dir / "memory")
            disk = image.read_bytes()
            guest.qmp.do("cont")
            assert found == nonce and 0 <= memory - disk_counter(disk, nonce) <= 1, memory
            assert file_system_check(disk) == ""


def claim_older_and_newer_disk_are_seen_by_the_guest_and_from_outside(home):
    image, older, newer, stream = new_image(home), home.dir / "older", home.dir / "newer", home.dir / "stream"
    with PlainQemu(home.dir, image, "raw", step_ms=5) as guest:
        nonce = guest.console.ready().nonce
        guest.qmp.do("stop")
        shutil.copyfile(image, older)
        guest.qmp.do("cont")
        time.sleep(0.2)
        guest.qmp.do("stop")
        guest.qmp.do("pmemsave", val=0, size=192 << 20, filename=str(home.dir / "memory"))
        guest.migrate_to(stream)
        guest.qmp.do("cont")
        time.sleep(0.3)
        guest.qmp.do("stop")
        shutil.copyfile(image, newer)
    ((_, memory),) = memory_counters(home.dir / "memory")
    assert memory - disk_counter(older.read_bytes(), nonce) > 1
    assert memory - disk_counter(newer.read_bytes(), nonce) < 0
    for disk in (older, newer):
        with PlainQemu(home.dir, disk, "raw", more=["-incoming", f"exec:cat {stream}"]) as guest:
            wait_until(lambda g=guest: g.qmp.do("query-status")["status"] != "inmigrate", 20, "the memory to be loaded")
            guest.qmp.do("cont")
            try:
                for _ in range(4):
                    guest.console.step()
            except GuestError as error:
                assert "memory" in str(error) and "disk" in str(error), error
                continue
            raise AssertionError(f"the guest did not see that its disk is {disk.name}")


def claim_damaged_file_system_is_seen(home):
    image = new_image(home)
    with PlainQemu(home.dir, image, "raw") as guest:
        guest.console.ready()
        guest.console.run("for i in $(seq 200); do echo $i > /disk/$i; done")
        guest.qmp.do("system_powerdown")  # unmounted: nothing is left in the journal that would mend it
        guest.process.wait(20)
    disk = bytearray(image.read_bytes())
    assert file_system_check(disk) == ""
    for block in range(0, 4 << 20, 1024):  # what came of writes that were lost: directories and inodes gone
        if block > 300 * 1024:
            disk[block:block + 1024] = bytes(1024)
    assert file_system_check(disk) != ""


def claim_power_button_ends_the_guest_with_a_clean_file_system(home):
    image = new_image(home)
    with PlainQemu(home.dir, image, "raw") as guest:
        guest.console.ready()
        guest.qmp.do("system_powerdown")
        guest.process.wait(20)
    assert file_system_check(image.read_bytes()) == ""


main(globals())
