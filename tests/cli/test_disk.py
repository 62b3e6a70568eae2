#!/usr/bin/python3
"""`bough disk`: plain image files, no VM."""

import contextlib
import json
import os
import pty
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import (CANCELLED, CORRUPT, EXISTS, INVALID, IO, MISMATCH, NO_SPACE, NOT_FOUND, STATE,  # noqa: E402
                        UNSUPPORTED, USAGE, main)
from cli_test import completed  # noqa: E402


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


def chain_of_two(home):
    base, top = home.dir / "base.vhd", home.dir / "top.avhd"
    home.bough("disk", "create", base, "--size", "8M")
    home.bough("disk", "create", top, "--parent", base)
    return base, top


def verbs(home):
    return re.findall(r"^  ([a-z]+) ", home.bough("disk", "help"), re.M)


def claim_every_verb_of_the_design_is_there_and_explains_its_options(home):
    wanted = "create info map check repair convert merge resize reconnect serve".split()
    assert verbs(home) == wanted, verbs(home)
    for verb in wanted:
        text = home.bough("disk", verb, "--help")
        assert text == home.bough("disk", "help", verb) == home.bough("help", "disk", verb)
        usage = "".join(line for line in text.splitlines() if line.startswith(("usage: ", "   or: ")))
        used, explained = set(re.findall(r"--[a-z-]+", usage)), set(re.findall(r"^  (--[a-z-]+)", text, re.M))
        assert used == explained and "--json" in used, (verb, used ^ explained)
        assert all(len(line) <= 130 for line in text.splitlines()), verb
        assert home.run("disk", verb, "--no-such").returncode == USAGE


def claim_the_names_in_the_answers_are_those_of_the_documentation(home):
    base, top = chain_of_two(home)
    layer = {"file", "type", "size_bytes", "block_bytes", "allocated_blocks", "file_bytes", "file_allocated_bytes", "id",
             "parent_id", "needs_repair", "parent_time_differs"}
    answers = {
        ("create", home.dir / "new.vhd", "--size", "1M"): {"file", "type", "size_bytes", "block_bytes", "parent"},
        ("info", top): {"size_bytes", "depth", "layers"},
        ("repair", top): {"repaired", "faults"},
        ("convert", top, home.dir / "to.raw"): {"source", "source_format", "file", "format", "size_bytes", "added_bytes",
                                                "file_bytes", "file_allocated_bytes"},
        ("resize", top, "16M"): {"file", "size_bytes"},
        ("reconnect", top, base): {"file", "parent"},
        ("merge", top, "--into-base"): {"parent", "copied_bytes", "children", "removable"},
    }
    for arguments, names in answers.items():
        answer = home.json("disk", *arguments)
        assert set(answer) == names, (arguments[0], set(answer) ^ names)
    assert set(home.json("disk", "info", top)["layers"][0]) == layer
    assert {frozenset(row) for row in home.json("disk", "map", top)} == {frozenset({"start", "length", "file"})}
    damaged = home.dir / "new.vhd"
    damage(damaged, 0x600, b"\0\0\0\x01")
    for faults in (json.loads(home.run("disk", "check", damaged, "--json").stdout),
                   json.loads(home.run("disk", "repair", damaged, "--json").stdout)["faults"]):
        assert faults and {frozenset(row) for row in faults} == {frozenset({"file", "text", "harmless"})}, faults


def damage(path, at, data):
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


def claim_odd_names_go_through_every_verb(home):
    """A parent's name must be Unicode, since it goes into the child; others are bytes."""
    for number, name in enumerate((b"-n", b"a b", b"new\nline", b"%s%n", b"a: b", b"\x1b[2J", b"--json", b"\xff\xfe")):
        folder = home.dir / str(number)
        folder.mkdir()
        base, top, flat = b"./" + name + b".vhd", b"./" + name + b".avhd", b"./" + name + b".raw"
        lines = [["create", base, "--size", "8M"], ["create", top, "--parent", base], ["info", top], ["map", top],
                 ["check", top], ["repair", top], ["convert", top, flat], ["resize", top, "9M"],
                 ["reconnect", top, base], ["merge", top, "--into-base"]]
        if name == b"\xff\xfe":
            lines = [[base if word == top else word for word in line] for line in lines if base not in line[1:]
                     and line[0] != "merge" or line[0] == "create" and line[1] == base]
        for line in lines:
            for form in ([], ["--json"]):
                if form and line[0] in ("create", "convert"):
                    Path(os.fsdecode(os.path.join(bytes(folder), line[2] if line[0] == "convert" else line[1]))).unlink()
                result = subprocess.run([home.program, "disk", *line, *form], cwd=folder, env=home.env, capture_output=True,
                                        check=False)
                assert result.returncode == 0, (line, result)
                assert b"\x1b" not in result.stdout + result.stderr, result
                assert not form or json.loads(result.stdout) is not None


def claim_damaged_images_end_no_verb_but_in_order(home):
    """Bytes of the header, the table and the bitmaps changed: each verb says what is wrong, or does its work."""
    base, top = home.dir / "base.vhd", home.dir / "top.avhd"
    raw = home.dir / "raw"
    raw.write_bytes(b"x" * (5 << 20))
    home.bough("disk", "convert", raw, base)
    home.bough("disk", "create", top, "--parent", base)
    whole, chance = {path: path.read_bytes() for path in (base, top)}, random.Random(4)
    work = {"info": [], "map": [], "check": [], "repair": [], "convert": [home.dir / "to.raw"], "resize": ["64M"],
            "merge": ["--into-base"], "reconnect": [base]}
    for _ in range(40):
        hurt = chance.choice((base, top))
        for path, data in whole.items():
            path.write_bytes(data)
        for _ in range(chance.randrange(1, 4)):
            damage(hurt, chance.choice((chance.randrange(512, 2048), chance.randrange(len(whole[hurt])))),
                   chance.randbytes(chance.choice((1, 4))))
        for verb, more in chance.sample(sorted(work.items()), 3):
            result = home.run("disk", verb, top, *more, timeout=60)
            assert result.returncode in (0, INVALID, NOT_FOUND, CORRUPT, MISMATCH, STATE, UNSUPPORTED, IO, NO_SPACE), (
                verb, result)
            assert result.returncode == 0 or result.stderr or verb in ("check", "repair"), (verb, result)
            (home.dir / "to.raw").unlink(missing_ok=True)


def claim_a_signal_at_any_moment_leaves_images_that_are_whole(home):
    base, top = chain_of_two(home)
    other, fixed, made = home.dir / "other.vhd", home.dir / "fixed.vhd", home.dir / "made.vhd"
    home.bough("disk", "convert", top, fixed, "--format", "fixed")
    other.hardlink_to(base)
    size, outcomes = 16, set()
    for _ in range(int(os.environ.get("BOUGH_TEST_INSTANTS", "20"))):
        size += 16
        for arguments in (["create", made, "--size", "4G"], ["resize", top, f"{size}M"], ["resize", fixed, f"{size}M"],
                          ["reconnect", top, other], ["reconnect", top, base], ["repair", top]):
            if arguments[0] == "repair":
                with open(top, "r+b") as file:
                    file.truncate(top.stat().st_size - 512)
            how = random.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
            with home.start("disk", *arguments) as process:
                time.sleep(random.random() * 0.02)
                process.send_signal(how)
                process.communicate()
            outcomes.add(process.returncode)
            assert process.returncode in (0, CANCELLED, -how), (arguments, process.returncode)
            for image in (top, fixed, *([made] if made.exists() else [])):
                assert all(fault["harmless"] for fault in home.json("disk", "check", image)), (arguments, image)
            made.unlink(missing_ok=True)
        home.bough("disk", "repair", top)
        assert home.json("disk", "check", top) == []
    assert 0 in outcomes, outcomes


def claim_a_bar_is_drawn_on_a_terminal_for_what_takes_long(home):
    """qemu-img's own progress; it is made slow by a script in its place."""
    slow, raw, real = home.dir / "bin" / "qemu-img", home.dir / "a.raw", shutil.which("qemu-img")
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\n[ $1 = convert ] && for percent in 1 25 50; do\n"
                    "printf '    (%s.00/100%%)\\r' $percent; sleep 0.7; done\n" f'exec {real} "$@"\n')
    slow.chmod(0o755)
    raw.write_bytes(b"x" * 4096)
    env = dict(home.env, PATH=f"{slow.parent}:{home.env['PATH']}")
    ours, theirs = pty.openpty()
    with subprocess.Popen([home.program, "disk", "convert", raw, home.dir / "a.qcow2"], env=env, stdin=theirs,
                          stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while more := os.read(ours, 4096):
                shown += more
        out = process.stdout.read()
    os.close(ours)
    assert process.returncode == 0 and out.startswith(bytes(home.dir)), (process.returncode, out)
    assert re.search(rb"convert \[={15} {15}\]  50%", shown), shown
    assert b"  1%" not in shown and shown.endswith(b"\r\x1b[K"), shown  # not before a second, and gone at the end


def claim_bash_completes_verbs_options_and_formats(home):
    (home.dir / "a name").touch()
    for line, offered in ((["disk", "re"], ["reconnect", "repair", "resize"]),
                          (["disk", "merge", "--"], ["--child", "--into-base", "--json"]),
                          (["disk", "convert", "a", "b", "--format", "v"], ["vdi", "vhdx", "vmdk"]),
                          (["disk", "info", f"{home.dir}/a"], [f"{home.dir}/a name"])):
        assert completed(home, line) == offered, (line, completed(home, line))


if __name__ == "__main__":
    main(globals())
