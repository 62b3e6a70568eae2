#!/usr/bin/python3
"""`bough disk convert`: what other programs read of what it writes, what it refuses, and what it leaves when it is ended."""

import bz2
import contextlib
import gzip
import hashlib
import lzma
import os
import random
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import (BUSY, CANCELLED, CORRUPT, EXISTS, INVALID, IO, NO_SPACE, NOT_FOUND, QEMU, TOP, UNSUPPORTED,  # noqa: E402
                        USAGE, Skip, flattened_by_7zip, is_alive, main, sha256, wait_until)

try:
    import pyvhdi
except ImportError:
    pyvhdi = None

SAMPLES = Path(os.environ.get("BOUGH_SAMPLES", TOP.parent / "shared" / "samples"))
FOREIGN = ("qcow2", "vmdk", "vdi", "vhdx")
MIB = 1 << 20


def qemu_img(*arguments):
    return subprocess.run(["qemu-img", *map(str, arguments)], capture_output=True, text=True, check=True).stdout


def assert_same(a, a_format, b, b_format):
    """By qemu-img, which reads neither as we do."""
    told = subprocess.run(["qemu-img", "compare", "-f", a_format, "-F", b_format, f"file:{a}", f"file:{b}"],
                          capture_output=True, text=True, check=False)
    assert told.returncode == 0 and "size mismatch" not in told.stdout, f"{a} and {b}: {told.stdout}{told.stderr}"


def sparse_raw(path, size, seed):
    """A raw file with data of odd sizes here and there, zeros that are written, and holes."""
    chance = random.Random(seed)
    with open(path, "wb") as file:
        file.truncate(size)
        for _ in range(12):
            length = min(size, chance.choice((1, 511, 512, 4096, 70000, 3 * MIB)))
            file.seek(chance.randrange(size - length + 1))
            file.write(bytes(length) if chance.random() < 0.2 else chance.randbytes(length))
    return path


def read_by_libvhdi(path):
    file = pyvhdi.file()
    file.open(str(path))
    try:
        return b"".join(iter(lambda: file.read_buffer(4096), b""))
    finally:
        file.close()


def taken(path):
    return path.stat().st_blocks * 512


def left(folder):
    """What a conversion that was ended may have left in its target's folder."""
    return sorted(p.name for p in folder.iterdir() if p.name.endswith("~"))


def claim_content_goes_round_through_every_format_and_back(home):
    for seed in range(3):
        folder = home.dir / str(seed)
        folder.mkdir()
        # libvhdi misreads the bits of pieces that are no whole 4 KiB.
        size = random.Random(seed).randrange(1, 60000) * 512 if seed else 20 * MIB
        raw = sparse_raw(folder / "src.raw", size, seed)
        images = {f: folder / f"a.{f}" for f in FOREIGN}
        images |= {"dynamic": folder / "d.vhd", "fixed": folder / "f.vhd"}
        for form, image in images.items():
            told = home.json("disk", "convert", raw, image, *(["--format", "fixed"] if form == "fixed" else []))
            assert told == {"source": str(raw), "source_format": "raw", "file": str(image), "format": form,
                            "size_bytes": size, "added_bytes": 0, "file_bytes": image.stat().st_size,
                            "file_allocated_bytes": taken(image)}, told
            assert stat.S_IMODE(image.stat().st_mode) == 0o600
            assert_same(image, "vpc" if image.suffix == ".vhd" else form, raw, "raw")
        for form, image in images.items():
            for target, target_form in (("r.raw", "raw"), ("q.qcow2", "qcow2"), ("v.vhd", "vpc")):
                home.bough("disk", "convert", image, folder / target)
                assert_same(folder / target, target_form, raw, "raw")
                if target == "v.vhd":
                    assert home.json("disk", "check", folder / target) == []
                    assert hashlib.sha256(flattened_by_7zip(folder / target)).hexdigest() == sha256(raw)
                    if pyvhdi and seed == 0:
                        assert hashlib.sha256(read_by_libvhdi(folder / target)).hexdigest() == sha256(raw)
                (folder / target).unlink()
        assert left(folder) == []


def claim_a_chain_is_flattened_into_every_format(home):
    base, child, raw = home.dir / "base.vhd", home.dir / "child.avhd", sparse_raw(home.dir / "raw", 40 * MIB, 7)
    home.bough("disk", "convert", raw, base)
    home.bough("disk", "create", child, "--parent", base)
    socket = home.dir / "s"
    with ended(home.start("disk", "serve", child, "--writable", "--socket", socket)):
        wait_until(socket.is_socket, 20, "the server")
        for command in ("write -P 7 5M 300k", "write -z 1M 3M", "write -P 8 39M 1M"):
            subprocess.run(["qemu-io", "-f", "raw", "-c", command, f"nbd+unix:///?socket={socket}"], check=True,
                           capture_output=True)
    want = hashlib.sha256(flattened_by_7zip(child)).hexdigest()
    assert want != sha256(raw)
    flat = home.dir / "flat.raw"
    home.bough("disk", "convert", child, flat)
    assert sha256(flat) == want
    for form in FOREIGN:
        image = home.dir / f"a.{form}"
        told = home.json("disk", "convert", child, image)
        assert told["source_format"] == "vhd", told
        assert_same(image, form, flat, "raw")


def claim_holes_stay_holes(home):
    raw = home.dir / "src.raw"
    with open(raw, "wb") as file:
        file.truncate(1 << 40)
        file.seek(77 << 30)
        file.write(b"x" * MIB)
    if taken(raw) > 2 * MIB:
        raise Skip("no sparse files here")
    for target, most in (("d.vhd", 6 * MIB), ("q.qcow2", 3 * MIB), ("r.raw", 2 * MIB)):
        begun = time.monotonic()
        home.bough("disk", "convert", raw, home.dir / target)
        assert taken(home.dir / target) <= most, (target, taken(home.dir / target))
        back = home.dir / "back.raw"
        home.bough("disk", "convert", home.dir / target, back)
        assert taken(back) <= 2 * MIB and back.stat().st_size == 1 << 40, (target, taken(back))
        with open(back, "rb") as file:
            file.seek(77 << 30)
            assert file.read(MIB + 1) == b"x" * MIB + b"\0"
        back.unlink()
        assert time.monotonic() - begun < 60, f"{target}: holes were read"


def claim_zeros_that_were_written_take_no_space(home):
    raw = home.dir / "src.raw"
    raw.write_bytes(bytes(20 * MIB) + b"x" + bytes(MIB - 1))
    for target in ("d.vhd", "q.qcow2", "r.raw"):
        home.bough("disk", "convert", raw, home.dir / target)
        assert taken(home.dir / target) <= 3 * MIB, (target, taken(home.dir / target))


def claim_small_pieces_take_no_whole_blocks(home):
    """Pieces of 4 KiB, one in each MiB: a dynamic VHD allocates all its blocks for them, but not their space."""
    raw = home.dir / "src.raw"
    with open(raw, "wb") as file:
        file.truncate(256 * MIB)
        for at in range(256):
            file.seek(at * MIB + 4096 * at)
            file.write(bytes([at + 1 & 255 or 7]) * 4096)
    home.bough("disk", "convert", raw, home.dir / "a.qcow2")
    for source in (raw, home.dir / "a.qcow2"):
        image = home.dir / "d.vhd"
        told = home.json("disk", "convert", source, image)
        assert told["file_allocated_bytes"] == taken(image) <= 8 * MIB, (source, taken(image))
        assert_same(image, "vpc", raw, "raw")
        assert home.json("disk", "check", image) == []
        image.unlink()


def claim_an_odd_size_is_rounded_up_and_told(home):
    raw = home.dir / "odd.raw"
    raw.write_bytes(b"y" * 70001)
    for target in ("d.vhd", "q.qcow2"):
        image = home.dir / target
        told = home.json("disk", "convert", raw, image)
        assert (told["size_bytes"], told["added_bytes"]) == (70144, 143), told
        home.bough("disk", "convert", image, home.dir / f"{target}.raw")
        assert (home.dir / f"{target}.raw").read_bytes() == b"y" * 70001 + bytes(143)
    assert "143 zeros were added" in home.bough("disk", "convert", raw, home.dir / "e.vhd")
    assert home.json("disk", "convert", raw, home.dir / "same.raw")["added_bytes"] == 0
    assert sha256(home.dir / "same.raw") == sha256(raw)


def claim_a_wrong_command_line_or_size_writes_nothing(home):
    raw, large = home.dir / "a.raw", home.dir / "large.raw"
    raw.write_bytes(bytes(MIB))
    large.touch()
    os.truncate(large, (2040 << 30) + 512)
    before = sorted(home.dir.iterdir())
    to = home.dir / "to.vhd"
    for arguments, says in ((["--format", "vhd"], "dynamic, fixed"), (["--source-format", "fixed"], "vhd, raw"),
                            (["--format", "raw", "--block-size", "1M"], "dynamic"), (["--block-size", "4K"], "512K")):
        home.refused(USAGE, "disk", "convert", raw, to, *arguments, says=says)
    home.refused(USAGE, "disk", "convert", raw, home.dir / "to.avhd", says="--format")
    home.refused(USAGE, "disk", "convert", raw, home.dir / "to", says="--format")
    home.refused(INVALID, "disk", "convert", large, to, says="2040 GiB")
    home.refused(INVALID, "disk", "convert", large, to, "--format", "fixed", says="2040 GiB")
    home.refused(NOT_FOUND, "disk", "convert", home.dir / "none.raw", to, says=r"none\.raw")
    home.refused(INVALID, "disk", "convert", home.dir, to, says="no regular file")
    home.refused(EXISTS, "disk", "convert", large, raw)
    home.refused(NOT_FOUND, "disk", "convert", raw, home.dir / "no" / "to.vhd", says="no/")
    assert sorted(home.dir.iterdir()) == before


def claim_files_that_an_image_names_are_read_only_if_trusted(home):
    secret = home.dir / "secret"
    secret.write_bytes(b"s" * MIB)
    names = {
        "backing.qcow2": ["create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw"],
        "data.qcow2": ["create", "-q", "-f", "qcow2", "-o", f"data_file={home.dir}/data,data_file_raw=on"],
        "flat.vmdk": ["create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat"],
    }
    for name, command in names.items():
        qemu_img(*command, home.dir / name, "1M")
    shutil.copy(secret, home.dir / "data")
    shutil.copy(secret, home.dir / "flat-flat.vmdk")
    for name in names:
        for target in ("to.raw", "to.vhd", "to.qcow2"):
            home.refused(UNSUPPORTED, "disk", "convert", home.dir / name, home.dir / target, says="--trust-source")
            assert not (home.dir / target).exists()
        home.bough("disk", "convert", home.dir / name, home.dir / "to.raw", "--trust-source")
        assert sha256(home.dir / "to.raw") == sha256(secret), name
        (home.dir / "to.raw").unlink()


def claim_qemu_does_not_even_see_an_image_that_names_files(home):
    """A trap in the place of qemu-img, which nothing may step into."""
    trap, image = home.dir / "bin" / "qemu-img", home.dir / "a.qcow2"
    trap.parent.mkdir()
    trap.write_text(f"#!/bin/sh\ntouch {home.dir}/sprung\nexit 1\n")
    trap.chmod(0o755)
    env = dict(home.env, PATH=f"{trap.parent}:{home.env['PATH']}")
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", "nbd+unix:///?socket=/nonexistent", "-F", "raw", image, "1M")
    home.refused(UNSUPPORTED, "disk", "convert", image, home.dir / "to.raw", says="backing file", env=env)
    # An extent that is all its own, but for a capacity of 0, which makes QEMU believe the text in it.
    vmdk = home.dir / "a.vmdk"
    vmdk.write_bytes(b"KDMV" + struct.pack("<II", 1, 3) + struct.pack("<QQQQ", 0, 128, 1, 1) + bytes(1024))
    home.refused(UNSUPPORTED, "disk", "convert", vmdk, home.dir / "to.raw", says="extents", env=env)
    assert not (home.dir / "sprung").exists()
    qemu_img("create", "-q", "-f", "qcow2", home.dir / "b.qcow2", "1M")
    home.refused(QEMU, "disk", "convert", home.dir / "b.qcow2", home.dir / "to.raw", env=env)
    assert (home.dir / "sprung").exists(), "the trap works"


def claim_damaged_images_are_errors_and_leave_nothing(home):
    good, image, to = home.dir / "good.qcow2", home.dir / "bad.qcow2", home.dir / "to.vhd"
    home.bough("disk", "convert", sparse_raw(home.dir / "a.raw", 8 * MIB, 3), good)
    whole = good.read_bytes()
    for name in ("bad.qcow2", "bad.vmdk"):
        (home.dir / name).write_bytes(b"none of it" * 1000)
        home.refused(CORRUPT, "disk", "convert", home.dir / name, to, says="is no")
    for name in ("bad.vdi", "bad.vhdx"):
        (home.dir / name).write_bytes(b"none of it" * 1000)
        home.refused(QEMU, "disk", "convert", home.dir / name, to, says="qemu-img")
    qemu_img("create", "-q", "-f", "qcow2", image, "2P")
    home.refused(UNSUPPORTED, "disk", "convert", image, home.dir / "to.qcow2", says="1 PiB")
    chance = random.Random(5)
    for _ in range(30):
        image.write_bytes(damaged(whole, chance))
        result = home.run("disk", "convert", image, to, timeout=60)
        assert result.returncode in (0, IO, NO_SPACE, INVALID, CORRUPT, UNSUPPORTED, QEMU), result
        assert to.exists() == (result.returncode == 0), result
        assert left(home.dir) == []
        to.unlink(missing_ok=True)


def damaged(whole, chance):
    """Bytes of the header changed, or of the tables behind it, or the end cut off."""
    data = bytearray(whole)
    for _ in range(chance.randrange(1, 4)):
        at = chance.choice((chance.randrange(4, 112), chance.randrange(len(data))))
        data[at] = chance.randrange(256)
    return bytes(data[:chance.choice((len(data), chance.randrange(1, len(data))))])


def claim_a_missing_qemu_img_is_told_with_its_package(home):
    raw, image = sparse_raw(home.dir / "a.raw", MIB, 1), home.dir / "a.qcow2"
    home.bough("disk", "convert", raw, image)
    env = dict(home.env, PATH="/nonexistent")
    for pair in ((raw, "b.qcow2"), (image, "b.vhd"), (image, "b.raw")):
        home.refused(QEMU, "disk", "convert", pair[0], home.dir / pair[1], says="qemu-utils", env=env)
        assert not (home.dir / pair[1]).exists()
    # What needs no qemu-img needs none.
    assert home.run("disk", "convert", raw, home.dir / "b.vhd", env=env).returncode == 0
    assert home.run("disk", "convert", home.dir / "b.vhd", home.dir / "b.raw", env=env).returncode == 0
    home.refused(QEMU, "disk", "convert", home.dir / "b.vhd", home.dir / "c.qcow2", says="qemu-utils", env=env)
    assert left(home.dir) == []


def claim_file_names_are_never_taken_for_anything_else(home):
    raw = sparse_raw(home.dir / "src.raw", 3 * MIB, 9)
    names = (b"nbd:x", b"-c", b"--help", b"a,size=1", b"json:{}", b"new\nline", b"\xff\xfe", b"file:y", b"a b'\"$(x)",
             b"%41?socket=z", b"[x]*")
    for number, name in enumerate(names):
        folder = home.dir / str(number)
        folder.mkdir()
        first, second, third = name + b".qcow2", name + b".vhd", name + b".raw"
        for source, target in ((bytes(raw), first), (first, second), (second, name + b"2.qcow2"),
                               (name + b"2.qcow2", third)):
            result = subprocess.run([home.program, "disk", "convert", "--json", "--", source, target], cwd=folder,
                                    env=home.env, capture_output=True, check=False)
            assert result.returncode == 0, (name, result.stderr)
        assert sha256(os.path.join(bytes(folder), third)) == sha256(raw), name
        assert len(os.listdir(folder)) == 4, os.listdir(folder)


def claim_names_work_in_a_folder_of_any_name(home):
    raw, folder = sparse_raw(home.dir / "src.raw", 3 * MIB, 9), home.dir / "a:b,c\n\udcff"
    folder.mkdir()
    env = dict(home.env, TMPDIR=str(folder))
    for source, target in ((raw, folder / "a.vhd"), (folder / "a.vhd", folder / "a.qcow2"),
                           (folder / "a.qcow2", folder / "b.vhd"), (folder / "b.vhd", folder / "b.raw")):
        result = home.run("disk", "convert", source, target, env=env)
        assert result.returncode == 0, result
    assert sha256(folder / "b.raw") == sha256(raw)
    assert sorted(os.listdir(folder)) == ["a.qcow2", "a.vhd", "b.raw", "b.vhd"]


def children(pid):
    """Processes that a process has started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(entry.name))
    return found


def claim_an_interrupt_at_any_moment_leaves_all_or_nothing(home):
    raw = sparse_raw(home.dir / "src.raw", 40 * MIB, 11)
    with open(raw, "r+b") as file:  # enough to take its time
        file.seek(40 * MIB)
        for _ in range(12):
            file.write(os.urandom(8 * MIB))
    qcow2, vhd, private = home.dir / "src.qcow2", home.dir / "src.vhd", home.dir / "tmp"
    private.mkdir()
    env = dict(home.env, TMPDIR=str(private))
    home.bough("disk", "convert", raw, qcow2)
    home.bough("disk", "convert", raw, vhd)
    chance, outcomes = random.Random(), set()
    for source, name in ((raw, "to.vhd"), (qcow2, "to.vhd"), (vhd, "to.qcow2"), (qcow2, "to.raw"), (raw, "to.qcow2")):
        target = home.dir / name
        for _ in range(int(os.environ.get("BOUGH_TEST_INSTANTS", "20")) // 4):
            how = chance.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
            process = subprocess.Popen([home.program, "disk", "convert", source, target], env=env,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            time.sleep(chance.random() * 0.4)
            started = children(process.pid)
            process.send_signal(how)
            process.communicate(timeout=60)
            outcomes.add(process.returncode)
            assert process.returncode in (0, CANCELLED, -how), process.returncode
            assert target.exists() == (process.returncode == 0)
            assert not [pid for pid in started if is_alive(pid)], "qemu-img goes on"
            assert left(home.dir) == [] and not list(private.iterdir()), (left(home.dir), list(private.iterdir()))
            if target.exists():
                assert_same(target, "vpc" if name == "to.vhd" else target.suffix[1:], raw, "raw")
                target.unlink()
    assert CANCELLED in outcomes, outcomes


def claim_qemu_img_ends_with_a_command_that_is_killed(home):
    raw, target = home.dir / "src.raw", home.dir / "to.qcow2"
    raw.write_bytes(os.urandom(64 * MIB))
    with home.start("disk", "convert", raw, target) as process:
        found = wait_until(lambda: children(process.pid) or process.poll() is not None, 30, "qemu-img")
        process.kill()
    if found is not True:
        wait_until(lambda: not [pid for pid in found if is_alive(pid)], 20, "the end of qemu-img")
        assert not target.exists(), "what is not whole has not the name"


@contextlib.contextmanager
def ended(process):
    """A server for the time of a test."""
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def claim_a_disk_that_somebody_writes_is_not_converted(home):
    raw, vhd, socket = sparse_raw(home.dir / "a.raw", 4 * MIB, 2), home.dir / "a.vhd", home.dir / "s"
    home.bough("disk", "convert", raw, vhd)
    with ended(home.start("disk", "serve", vhd, "--writable", "--socket", socket)):
        wait_until(socket.is_socket, 20, "the server")
        home.refused(BUSY, "disk", "convert", vhd, home.dir / "to.raw", says="writing")
        home.refused(BUSY, "disk", "convert", vhd, home.dir / "to.qcow2", says="writing")
    with ended(subprocess.Popen(["qemu-nbd", "-t", "-f", "raw", "-k", str(socket), str(raw)])):
        wait_until(socket.is_socket, 20, "qemu-nbd")
        home.refused(BUSY, "disk", "convert", raw, home.dir / "to.vhd", says="writing")
        home.refused(QEMU, "disk", "convert", raw, home.dir / "to.qcow2", says="lock")
    home.bough("disk", "convert", raw, home.dir / "to.vhd")


def claim_a_full_file_system_is_told_and_nothing_is_left(home):
    """In a small tmpfs of a name space of our own, where the system lets us have one."""
    raw = home.dir / "src.raw"
    raw.write_bytes(os.urandom(24 * MIB))
    qcow2, vhd, small = home.dir / "src.qcow2", home.dir / "src.vhd", home.dir / "small"
    home.bough("disk", "convert", raw, qcow2)
    home.bough("disk", "convert", raw, vhd)
    small.mkdir()
    script = 'mount -t tmpfs -o size=8m none "$1" || exit 77; shift; "$@"; status=$?; ls "$0"; exit $status'
    for source in (raw, qcow2, vhd):
        for target in ("to.vhd", "to.raw", "to.qcow2"):
            result = subprocess.run(["unshare", "--mount", "--map-root-user", "sh", "-c", script, small, small, home.program,
                                     "disk", "convert", source, small / target], capture_output=True, text=True,
                                    env=home.env, check=False)
            if result.returncode == 77 or "unshare" in result.stderr:
                raise Skip("no file system of our own can be mounted")
            assert result.returncode == NO_SPACE, (source, target, result)
            assert result.stdout == "", f"left: {result.stdout}"


def unpacked(home):
    """The samples by other writers, unpacked: (path, format)."""
    if not SAMPLES.is_dir():
        raise Skip(f"no samples in {SAMPLES}")
    openers = {".bz2": bz2.open, ".gz": gzip.open}
    for packed in sorted((SAMPLES / "qemu-iotests").glob("*.bz2")) + sorted((SAMPLES / "hyper-v").glob("*.gz")):
        path = home.dir / packed.stem
        with openers[packed.suffix](packed) as source, open(path, "wb") as target:
            shutil.copyfileobj(source, target)
        yield path, "vpc" if path.suffix == ".vhd" else path.suffix[1:]
        path.unlink()


def claim_samples_of_other_writers_come_through(home):
    for path, form in unpacked(home):
        seen = subprocess.run(["qemu-img", "compare", "-f", form, "-F", form, path, path], capture_output=True, text=True,
                              check=False)
        result = home.run("disk", "convert", path, home.dir / "to.qcow2")
        if seen.returncode != 0:  # an image with a log to be replayed, which QEMU wants to write to
            assert result.returncode == QEMU and "log" in result.stderr, (path.name, seen.stderr, result)
            continue
        assert result.returncode == 0, (path.name, result.stderr)
        assert_same(home.dir / "to.qcow2", "qcow2", path, form)
        (home.dir / "to.qcow2").unlink()
        print(f"# {path.name}", flush=True)


def claim_chains_of_another_engine_come_through(home):
    if not SAMPLES.is_dir():
        raise Skip(f"no samples in {SAMPLES}")
    for folder in (SAMPLES / "libvhd-gen", SAMPLES / "libvhd-gen-4k"):
        for packed in folder.glob("*.xz"):
            with lzma.open(packed) as source, open(home.dir / packed.stem, "wb") as target:
                shutil.copyfileobj(source, target)
        for line in (folder / "MANIFEST.sha256-flattened").read_text().splitlines():
            want, name = line.split()
            home.bough("disk", "convert", home.dir / name, home.dir / "to.qcow2")
            home.bough("disk", "convert", home.dir / "to.qcow2", home.dir / "to.raw")
            assert sha256(home.dir / "to.raw") == want, name
            for path in (home.dir / "to.qcow2", home.dir / "to.raw"):
                path.unlink()


if __name__ == "__main__":
    main(globals())
