"""A file system of a few MiB, to run out of, for tests of the whole program. Needs root and loop devices.

It is mounted in a mount namespace that only this test and what it starts are in: whatever becomes of the test, with its last
process the mount and the loop device are gone."""

import contextlib
import ctypes
import errno
import os
import subprocess
import time
from pathlib import Path

from bough_test import Skip, sbin

CLONE_NEWNS = 0x00020000
MIB = 1 << 20
MAKERS = {
    "ext2": ("mke2fs", "-q", "-t", "ext2", "-F", "-m", "0"),
    "ext4": ("mke2fs", "-q", "-t", "ext4", "-F", "-m", "0"),
    "xfs": ("mkfs.xfs", "-q", "-f"),      # of 300 MiB at least
    "btrfs": ("mkfs.btrfs", "-q", "-f"),  # of 110 MiB at least
}


def _own_namespace(done=[]):  # pylint: disable=dangerous-default-value
    if done:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise Skip(f"no mount namespace: {os.strerror(ctypes.get_errno())}")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    done.append(True)


def _mount(*arguments):
    result = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise Skip(f"nothing can be mounted here: {result.stderr.strip()}")


def _unmount(folder):
    for _ in range(50):
        if subprocess.run(["umount", folder], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    subprocess.run(["umount", "-l", folder], check=True)
    raise AssertionError(f"{folder} is still in use")


class SmallDisk:
    """What lies in folder, and how full it is."""

    def __init__(self, folder):
        self.folder, self.ballast = Path(folder), Path(folder, "ballast")

    def free_bytes(self):
        seen = os.statvfs(self.folder)
        return seen.f_bavail * seen.f_frsize

    def leave(self, size):
        """A file takes all space but so many bytes, or but a little more."""
        if self.free_bytes() < size and self.ballast.exists():
            self.give_back(min(size - self.free_bytes(), os.path.getsize(self.ballast)))
        part = 1
        for _ in range(40):  # the file's own tables take space too
            take = self.free_bytes() - size
            if take <= 0 or take // part < 1024:
                break
            with open(self.ballast, "ab") as stream:
                try:
                    os.posix_fallocate(stream.fileno(), os.path.getsize(self.ballast), take // part)
                except OSError as error:
                    if error.errno == errno.EBADF:  # ext2 reserves nothing
                        stream.write(bytes(take // part))
                    part *= 2  # XFS gives nothing where it cannot give all

    def give_back(self, size):
        os.truncate(self.ballast, os.path.getsize(self.ballast) - size)

    def make_room(self):
        with contextlib.suppress(FileNotFoundError):
            self.ballast.unlink()


def _prepare(folder):
    if os.geteuid() != 0:
        raise Skip("mounting needs root")
    _own_namespace()
    Path(folder).mkdir(exist_ok=True)


@contextlib.contextmanager
def _mounted(home, folder):
    try:
        yield SmallDisk(folder)
    finally:
        try:
            home.end_machines()
        finally:
            _unmount(folder)


@contextlib.contextmanager
def small_disk(home, folder, mib, kind="ext4", backing=None):
    """mib MiB mounted on a folder of the home; the home's machines are ended before it goes. backing: where its image lies."""
    _prepare(folder)
    image = Path(backing or home.dir, f"{Path(folder).name}.img")
    with open(image, "wb") as stream:
        stream.truncate(mib * MIB)
    program, *options = MAKERS[kind]
    subprocess.run([sbin(program), *options, str(image)], check=True, stdout=subprocess.DEVNULL)
    _mount("-o", "loop", image, folder)
    with _mounted(home, folder) as disk:
        yield disk
    image.unlink()


@contextlib.contextmanager
def small_memory_disk(home, folder, mib):
    """The same in memory."""
    _prepare(folder)
    _mount("-t", "tmpfs", "-o", f"size={mib}m,mode=0700", "tmpfs", folder)
    with _mounted(home, folder) as disk:
        yield disk
