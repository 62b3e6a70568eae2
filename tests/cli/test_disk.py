#!/usr/bin/python3
"""`bough disk`: plain image files, no VM."""

import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import CANCELLED, CORRUPT, EXISTS, INVALID, MISMATCH, NOT_FOUND, STATE, USAGE, main  # noqa: E402


def claim_created_images_are_what_was_asked_for(home):
    base, child, fixed = home.dir / "base.vhd", home.dir / "sub" / "child.avhd", home.dir / "fixed.vhd"
    child.parent.mkdir()
    home.bough("disk", "create", base, "--size", "1G")
    home.bough("disk", "create", child, "--parent", base)
    home.bough("disk", "create", fixed, "--size", "5M", "--fixed")
    info = home.json("disk", "info", child)
    assert info["depth"] == 2 and info["size_bytes"] == 1 << 30, info
    top, bottom = info["layers"]
    assert (top["type"], bottom["type"]) == ("differencing", "dynamic"), info
    assert top["parent_id"] == bottom["id"] and bottom["parent_id"] is None, info
    assert home.json("disk", "info", fixed)["layers"][0]["type"] == "fixed"
    assert fixed.stat().st_size == (5 << 20) + 512
    assert base.stat().st_mode & 0o777 == 0o600
    # Parentless ones only: QEMU must never open a differencing image.
    told = subprocess.run(["qemu-img", "info", "-f", "vpc", base], capture_output=True, text=True, check=True).stdout
    assert "1 GiB" in told, told


def claim_a_wrong_command_line_makes_no_file(home):
    path = home.dir / "x.vhd"
    for arguments in ([], ["--size", "1G", "--parent", "p", "--fixed"], ["--size", "1G", "--block-size", "4K"],
                      ["--size", "much"]):
        home.refused(USAGE, "disk", "create", path, *arguments)
    home.refused(INVALID, "disk", "create", path, "--size", "3T", says="2040 GiB")
    home.refused(INVALID, "disk", "create", path, "--size", "1000", says="multiple of 512")
    home.refused(NOT_FOUND, "disk", "create", path, "--parent", home.dir / "none.vhd", says="none.vhd")
    assert not path.exists()
    home.bough("disk", "create", path, "--size", "1M")
    before = path.read_bytes()
    home.refused(EXISTS, "disk", "create", path, "--size", "2M")
    assert path.read_bytes() == before


def claim_a_missing_or_changed_parent_is_named(home):
    base, child = home.dir / "base.vhd", home.dir / "child.avhd"
    home.bough("disk", "create", base, "--size", "10M")
    home.bough("disk", "create", child, "--parent", base)
    base.unlink()
    home.refused(NOT_FOUND, "disk", "info", child, says=r"child\.avhd.*base\.vhd")
    home.bough("disk", "create", base, "--size", "10M")
    home.refused(MISMATCH, "disk", "info", child, says="[0-9a-f]{32}.*base.vhd.*[0-9a-f]{32}")


def claim_damage_is_found_and_told(home):
    path = home.dir / "d.vhd"
    home.bough("disk", "create", path, "--size", "10M")
    assert home.json("disk", "check", path) == []
    whole = path.read_bytes()
    path.write_bytes(whole[:-512] + bytes(512))
    faults = home.json("disk", "check", path)
    assert len(faults) == 1 and faults[0]["harmless"], faults
    path.write_bytes(whole[:0x600] + b"\0\0\0\x01" + whole[0x604:])
    result = home.run("disk", "check", path)
    assert result.returncode == CORRUPT and "BAT entry 0" in result.stdout, result
    path.write_bytes(whole[:100] + b"x" + whole[101:-512] + bytes(512))
    home.refused(CORRUPT, "disk", "check", path, says="footer")
    home.refused(CORRUPT, "disk", "info", path, says="footer")


def claim_map_names_the_file_of_every_byte(home):
    base, child = home.dir / "base.vhd", home.dir / "child.avhd"
    home.bough("disk", "create", base, "--size", "3M", "--fixed")
    home.bough("disk", "create", child, "--parent", base, "--size", "10M")
    rows = home.json("disk", "map", child)
    assert rows == [{"start": 0, "length": 3 << 20, "file": str(base), "offset": 0},
                    {"start": 3 << 20, "length": 7 << 20, "file": None}], rows


def claim_a_moved_parent_is_reconnected(home):
    base, child, moved = home.dir / "base.vhd", home.dir / "child.avhd", home.dir / "far" / "b.vhd"
    moved.parent.mkdir()
    home.bough("disk", "create", base, "--size", "10M")
    home.bough("disk", "create", child, "--parent", base)
    base.rename(moved)
    home.refused(NOT_FOUND, "disk", "info", child)
    home.refused(INVALID, "disk", "reconnect", child, child, "--force")
    home.bough("disk", "reconnect", child, moved)
    assert home.json("disk", "info", child)["layers"][1]["file"] == str(moved)
    assert home.json("disk", "check", child) == []
    home.refused(INVALID, "disk", "reconnect", moved, child, says="has no parent")
    other = home.dir / "other.vhd"
    home.bough("disk", "create", other, "--size", "10M")
    before = child.read_bytes()
    home.refused(MISMATCH, "disk", "reconnect", child, other, says="[0-9a-f]{32}")
    assert child.read_bytes() == before
    home.bough("disk", "reconnect", child, other, "--force")
    assert home.json("disk", "info", child)["layers"][1]["file"] == str(other)


def claim_convert_makes_one_image_of_a_chain(home):
    raw, base, child = home.dir / "raw", home.dir / "base.vhd", home.dir / "child.avhd"
    raw.write_bytes(b"".join(bytes([i % 7]) * 512 for i in range(9000)))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", "force_size=on", raw, base], check=True)
    home.bough("disk", "create", child, "--parent", base)
    for name, options in (("d.vhd", []), ("s.vhd", ["--block-size", "512K"]), ("f.vhd", ["--format", "fixed"])):
        image, back = home.dir / name, home.dir / (name + ".raw")
        home.bough("disk", "convert", child, image, *options)
        assert home.json("disk", "info", image)["depth"] == 1
        subprocess.run(["qemu-img", "convert", "-f", "vpc", "-O", "raw", image, back], check=True)
        assert back.read_bytes() == raw.read_bytes(), name
    home.refused(EXISTS, "disk", "convert", child, home.dir / "d.vhd")
    base.unlink()
    home.refused(NOT_FOUND, "disk", "convert", child, home.dir / "n.vhd")
    assert not (home.dir / "n.vhd").exists()


def claim_a_footer_is_repaired_and_the_rest_is_told(home):
    path = home.dir / "d.vhd"
    home.bough("disk", "create", path, "--size", "10M")
    whole = path.read_bytes()
    assert home.json("disk", "repair", path) == {"repaired": [], "faults": []}
    path.write_bytes(whole[:-512] + bytes(512))
    assert len(home.json("disk", "repair", path)["repaired"]) == 1
    assert path.read_bytes() == whole
    path.write_bytes(bytes(512) + whole[512:])
    assert "copy of the footer" in home.bough("disk", "repair", path)
    assert path.read_bytes() == whole
    path.write_bytes(whole[:0x600] + b"\0\0\0\x01" + whole[0x604:-512])
    result = home.run("disk", "repair", path)
    assert result.returncode == CORRUPT and "not repaired" in result.stdout and "BAT entry 0" in result.stdout, result
    path.write_bytes(bytes(512) + whole[512:-512] + bytes(512))
    home.refused(CORRUPT, "disk", "repair", path, says="footer")


def claim_a_disk_grows_and_other_programs_see_it(home):
    path, fixed = home.dir / "d.vhd", home.dir / "f.vhd"
    raw, back = home.dir / "raw", home.dir / "back"
    content = b"".join(bytes([i % 7]) * 512 for i in range(9000))
    raw.write_bytes(content)
    for image, kind in ((path, []), (fixed, ["-o", "subformat=fixed,force_size=on"])):
        kind = kind or ["-o", "force_size=on"]
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "vpc", *kind, raw, image], check=True)
        home.refused(INVALID, "disk", "resize", image, "1M", says="smaller")
        home.refused(USAGE, "disk", "resize", image, "more")
        size = 512 << 20 if image == path else 32 << 20
        assert home.json("disk", "resize", image, str(size)) == {"file": str(image), "size_bytes": size}
        assert home.json("disk", "check", image) == []
        subprocess.run(["qemu-img", "convert", "-f", "vpc", "-O", "raw", image, back], check=True)
        with open(back, "rb") as file:
            assert file.read(len(content)) == content
            assert file.read().count(0) == size - len(content)


def claim_a_merge_keeps_what_is_seen(home):
    base, middle, top = home.dir / "base.vhd", home.dir / "m.avhd", home.dir / "top.avhd"
    raw, image = home.dir / "raw", home.dir / "flat.vhd"
    raw.write_bytes(b"".join(bytes([i % 7]) * 512 for i in range(9000)))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", "force_size=on", raw, base], check=True)
    home.bough("disk", "create", middle, "--parent", base)
    home.bough("disk", "create", top, "--parent", middle)
    home.refused(STATE, "disk", "merge", middle, "--child", top, says="base disk")
    home.refused(INVALID, "disk", "merge", base, says="has no parent")
    told = home.json("disk", "merge", middle, "--into-base", "--child", top)
    assert told == {"parent": str(base), "copied_bytes": 0, "children": [str(top)], "removable": str(middle)}, told
    middle.unlink()
    assert [layer["file"] for layer in home.json("disk", "info", top)["layers"]] == [str(top), str(base)]
    assert "can be removed" in home.bough("disk", "merge", top, "--into-base")
    home.bough("disk", "convert", top, image)
    back = home.dir / "back"
    subprocess.run(["qemu-img", "convert", "-f", "vpc", "-O", "raw", image, back], check=True)
    assert back.read_bytes() == raw.read_bytes()
    other = home.dir / "other.vhd"
    other.hardlink_to(base)
    home.refused(STATE, "disk", "merge", top, "--into-base", says="another name")


def claim_a_merge_that_is_interrupted_leaves_all_valid_and_can_be_done_again(home):
    base, middle, top, socket = home.dir / "base.vhd", home.dir / "m.avhd", home.dir / "top.avhd", home.dir / "s"
    home.bough("disk", "create", base, "--size", "1G")
    home.bough("disk", "create", middle, "--parent", base)
    with home.start("disk", "serve", middle, "--writable", "--socket", socket) as server:
        server.stdout.readline()
        subprocess.run(["qemu-io", "-f", "raw", "-c", "write -P 7 1M 300M", f"nbd+unix:///?socket={socket}"], check=True,
                       capture_output=True)
        server.terminate()
        assert server.wait() == 0
    home.bough("disk", "create", top, "--parent", middle)
    arguments = ("disk", "merge", middle, "--into-base", "--child", top)
    for delay_ms in (10, 20, 40, 80):
        with home.start(*arguments) as merge:
            time.sleep(delay_ms / 1000)
            merge.send_signal(signal.SIGINT)
            merge.communicate()
        # Before the command listens to it, the signal ends it as any program.
        assert merge.returncode in (0, CANCELLED, -signal.SIGINT), merge.returncode
        assert home.json("disk", "check", top) == []
        if merge.returncode == 0:
            break
    home.bough(*arguments)
    middle.unlink()
    assert home.json("disk", "info", top)["depth"] == 2
    for pattern, start, length in ((7, "1M", "300M"), (0, "0", "1M"), (0, "301M", "700M")):
        told = subprocess.run(["qemu-io", "-f", "vpc", "-r", "-c", f"read -P {pattern} {start} {length}", base],
                              check=True, capture_output=True, text=True).stdout
        assert "verification failed" not in told, told


if __name__ == "__main__":
    main(globals())
