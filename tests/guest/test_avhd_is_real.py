#!/usr/bin/python3
"""The AVHDs that a running machine leaves are read by others as they are by ours."""

import subprocess

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import Skip, VhdHeader, flattened_by_7zip, main, wait_until, xml_disks  # noqa: E402


def read_by_nbd(socket, size):
    import nbd  # pylint: disable=import-outside-toplevel
    client = nbd.NBD()
    client.connect_uri(f"nbd+unix:///?socket={socket}")
    step = 8 << 20
    data = b"".join(bytes(client.pread(min(step, size - at), at)) for at in range(0, size, step))
    assert client.get_size() == size
    client.shutdown()
    return data


def disk_sockets(home, vm):
    """The exports that QEMU is attached to, seen in its command line."""
    command = Path("/proc", str(vm.do("show")["qemu_pid"]), "cmdline").read_bytes().decode()
    found = []
    for word in command.replace('"', "\0").replace("=", "\0").replace(",", "\0").split("\0"):
        if word.startswith(str(home.runtime)) and Path(word).is_socket() and "disk" in Path(word).name:
            found.append(word)
    return found


def claim_seven_zip_reads_from_the_top_of_a_chain_what_nbd_exports(home):
    try:
        import nbd  # noqa: F401 pylint: disable=import-outside-toplevel,unused-import
    except ImportError as error:
        raise Skip("no python3-libnbd") from error
    vm, console = home.booted_guest()
    console.command("files 3")
    for _ in range(3):
        console.run("sleep 1")
        vm.snapshot()
    console.run("sleep 1; sync")
    console.command("idle")
    console.run("fstrim /disk; sync")
    vm.do("pause")
    size = 96 << 20
    exports = disk_sockets(home, vm)
    assert len(exports) == 1, f"one disk, one export: {exports}"
    exported = read_by_nbd(exports[0], size)
    vm.do("stop", "--force")
    assert flattened_by_7zip(vm.disk()) == exported


def claim_every_point_of_a_chain_is_a_disk_that_seven_zip_reads(home):
    vm, console = home.booted_guest()
    for number in range(4):
        assert console.run(f"echo {number} > /disk/number; sync")[0] == 0
        vm.snapshot(str(number))
    vm.do("stop", "--force")
    for snapshot in vm.do("tree")["snapshots"]:
        (image,) = xml_disks(vm.snapshot_xml(snapshot["guid"]), vm.folder)
        assert f"\n{snapshot['name']}\n".encode() in b"\n" + flattened_by_7zip(image).replace(b"\0", b"\n")


def claim_base_made_by_us_is_read_by_qemu_img(home):
    vm, console = home.booted_guest()
    assert console.run("dd if=/dev/urandom of=/disk/x bs=64k count=64 2>/dev/null; sync")[0] == 0
    vm.do("stop", "--force")
    base = vm.disk()
    assert VhdHeader(base).kind == 3
    wait_until(lambda: home.processes() == [], 10, "the end of the machine's processes")
    raw = home.dir / "raw"
    subprocess.run(["qemu-img", "convert", "-f", "vpc", "-O", "raw", base, raw], check=True, timeout=60)
    ours = flattened_by_7zip(base)
    theirs = raw.read_bytes()
    assert theirs[:len(ours)] == ours and not any(theirs[len(ours):])


def claim_vm_boots_from_an_image_made_by_qemu_img(home):
    for subformat in ("dynamic", "fixed"):
        image = home.dir / f"{subformat}.vhd"
        subprocess.run(["qemu-img", "create", "-q", "-f", "vpc", "-o", f"subformat={subformat},force_size=on", image, "96M"],
                       check=True, timeout=60)
        vm, console = home.booted_guest(name=subformat, disks=(f"{image},bus=virtio",))
        assert vm.disk() == image
        assert console.run("echo kept > /disk/file; sync")[0] == 0
        vm.snapshot()
        assert console.run("rm /disk/file; sync")[0] == 0
        vm.do("revert")
        assert vm.console().run("cat /disk/file") == (0, ["kept"])
        vm.do("stop", "--force")
        assert b"kept" in flattened_by_7zip(image)


main(globals())
