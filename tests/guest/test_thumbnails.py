#!/usr/bin/python3
"""A small picture of the screen beside the memory of each snapshot of a VM that has a display."""

import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import main  # noqa: E402


def png_read(file):
    """(width, height, colors seen) of an RGB PNG, each chunk's checksum and the length of its data checked."""
    data = file.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n", data[:8]
    at, chunks = 8, []
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        content = data[at + 8:at + 8 + length]
        assert zlib.crc32(kind + content) == struct.unpack(">I", data[at + 8 + length:at + 12 + length])[0], kind
        chunks.append((kind, content))
        at += 12 + length
    assert at == len(data) and chunks[0][0] == b"IHDR" and chunks[-1] == (b"IEND", b""), [kind for kind, _ in chunks]
    width, height, depth, color = struct.unpack(">IIBB", chunks[0][1][:10])
    rows = zlib.decompress(b"".join(content for kind, content in chunks if kind == b"IDAT"))
    assert (depth, color) == (8, 2) and len(rows) == height * (1 + width * 3), (width, height, depth, color, len(rows))
    assert b"PNG image data" in subprocess.run(["file", "-b", file], capture_output=True, check=True).stdout
    return width, height, set(rows)


def thumbnail(vm, guid):
    """The picture that `tree` names for the snapshot, or None."""
    entry = next(s for s in vm.do("tree")["snapshots"] if s["guid"] == guid)
    assert vm.do("settings", guid)["thumbnail"] == entry["thumbnail"], entry
    expected = vm.snapshots / guid / f"{guid}.png"
    assert entry["thumbnail"] == (str(expected) if expected.exists() else None), entry
    return Path(entry["thumbnail"]) if entry["thumbnail"] else None


def claim_each_snapshot_with_memory_has_one_and_it_goes_with_it(home):
    vm, console = home.booted_guest(more=("--display", "vnc"))
    planned = [s["step"] for s in vm.do("snapshot", "--dry-run")["plan"]["steps"]]
    assert planned.index("save-memory") + 1 == planned.index("save-thumbnail"), planned
    first, second = vm.snapshot()["guid"], vm.snapshot()["guid"]
    vm.do("pause")
    paused = vm.snapshot()["guid"]
    for guid in (first, second, paused):
        width, height, colors = png_read(thumbnail(vm, guid))
        assert 160 <= width <= 320 and 100 <= height <= 240 and max(width / 320, height / 240) == 1, (width, height)
        assert len(colors) > 2, "a screen with something on it"
        assert len(list((vm.snapshots / guid).iterdir())) == 3, "nothing beside memory, device state and picture"
    vm.do("apply", second)  # going back needs none
    vm.do("delete", second)
    assert not (vm.snapshots / second).exists() and thumbnail(vm, first) and thumbnail(vm, paused)
    thumbnail(vm, first).unlink()
    assert thumbnail(vm, first) is None
    vm.do("apply", first)
    assert vm.console().step().nonce
    vm.do("stop", "--force")
    off = vm.snapshot()["guid"]
    assert thumbnail(vm, off) is None and thumbnail(vm, paused)
    vm.do("delete", first)
    assert not (vm.snapshots / first).exists()


def claim_it_shows_the_screen_of_its_own_time(home):
    """The firmware's text screen and the guest's are not the same; the picture of a paused VM is that of `screenshot`."""
    vm = home.create_guest(more=("--display", "vnc"))
    vm.do("start", "--paused")
    early = vm.snapshot()["guid"]
    vm.do("resume")
    vm.console().ready()
    vm.do("pause")
    late = vm.snapshot()["guid"]
    assert thumbnail(vm, early).read_bytes() != thumbnail(vm, late).read_bytes()
    again = vm.snapshot()["guid"]
    assert thumbnail(vm, again).read_bytes() == thumbnail(vm, late).read_bytes()


def claim_a_vm_without_a_display_has_none(home):
    vm, _ = home.booted_guest()
    guid = vm.snapshot()["guid"]
    assert thumbnail(vm, guid) is None
    assert sorted(p.suffix for p in (vm.snapshots / guid).iterdir()) == [".bin", ".vsv"]


def claim_a_picture_that_cannot_be_had_does_not_fail_the_snapshot(home):
    """A QEMU whose display adapter is missing has no screen to show."""
    qemu = home.dir / "qemu"
    qemu.write_text(f"""#!/usr/bin/python3
import os, sys
program, arguments = {shutil.which("qemu-system-x86_64")!r}, sys.argv[1:]
for i in [i for i, text in enumerate(arguments) if "VGA" in text]:
    del arguments[i - 1:i + 1]
os.execv(program, [program, *arguments])
""")
    qemu.chmod(0o755)
    home.env["BOUGH_QEMU"] = str(qemu)
    vm, console = home.booted_guest(more=("--display", "vnc"))
    guid = vm.snapshot()["guid"]
    assert console.step() and thumbnail(vm, guid) is None
    assert len(list((vm.snapshots / guid).iterdir())) == 2
    logs = "".join(file.read_text() for file in home.runtime.rglob("*.log"))
    assert "no thumbnail" in logs, logs


main(globals())
