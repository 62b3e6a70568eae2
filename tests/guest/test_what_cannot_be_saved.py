#!/usr/bin/python3
"""A VM that QEMU cannot save is told by QEMU's own reasons, before anything is done; its disks can be snapshotted when it is off."""

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import UNSUPPORTED, main  # noqa: E402


def qemu_with(home, *arguments):
    """A QEMU with a device more than the settings say, as one that is passed through would be."""
    qemu = home.dir / "qemu"
    qemu.write_text(f"""#!/usr/bin/python3
import os, sys
program = {shutil.which("qemu-system-x86_64")!r}
more = {list(arguments)!r} if "-uuid" in sys.argv else []
os.execv(program, [program, *sys.argv[1:], *more])
""", encoding="utf-8")
    qemu.chmod(0o755)
    home.env["BOUGH_QEMU"] = str(qemu)


def claim_it_is_refused_by_name_before_anything_is_done(home):
    vm = home.create_guest()
    point = vm.snapshot("off")["guid"]
    qemu_with(home, "-object", "memory-backend-ram,id=shared,size=1M,share=on", "-device",
              "ivshmem-plain,memdev=shared,master=off")
    vm.do("start")
    console = vm.console()
    nonce = console.ready().nonce
    files, disk = vm.files(), vm.disk()
    reason = "cannot save this VM while it runs: .*peer mode.*ivshmem"
    for arguments in (["snapshot"], ["snapshot", "--point-now"], ["snapshot", "--dry-run"], ["save"],
                      ["apply", point, "--snapshot-first", "--yes"], ["revert", "--snapshot-first", "--yes"]):
        vm.refused(UNSUPPORTED, *arguments, says=reason)
        assert vm.files() == files and vm.disk() == disk and vm.state() == "running", arguments
    assert console.step().nonce == nonce
    vm.do("pause")
    vm.refused(UNSUPPORTED, "snapshot", says=reason)
    assert vm.state() == "paused" and vm.files() == files
    vm.do("resume")
    assert console.step().nonce == nonce
    vm.do("stop", "--force")
    assert vm.snapshot()["state"] == "off"
    assert vm.do("apply", point)["state"] == "off"


main(globals())
