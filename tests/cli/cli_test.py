"""What the tests of the commands share, beside tests/lib/bough_test.py."""

import contextlib
import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import TOP  # noqa: E402


def contents(folder):
    """Each file and folder below, with its mode, its inode and a hash of its content. Lock files tell who looked last: of
    them the name alone counts."""
    seen = {}
    for path in sorted(Path(folder).rglob("*")):
        status = os.lstat(path)
        name = str(path.relative_to(folder))
        if path.suffix == ".lock":
            seen[name] = "lock"
        elif stat.S_ISREG(status.st_mode):
            seen[name] = (status.st_mode, status.st_ino, hashlib.sha256(path.read_bytes()).hexdigest())
        else:
            seen[name] = (status.st_mode, status.st_ino, None)
    return seen


def write_disk(home, image, *writes):
    """(offset, bytes) into an image that nobody has."""
    import nbd  # pylint: disable=import-outside-toplevel

    socket = home.dir / "s"
    with home.start("disk", "serve", image, "--writable", "--socket", socket) as server:
        server.stdout.readline()  # it listens
        handle = nbd.NBD()
        handle.connect_unix(str(socket))
        for offset, data in writes:
            handle.pwrite(data, offset)
        handle.flush()
        handle.shutdown()
        server.terminate()


@contextlib.contextmanager
def unchanged(home):
    """What runs inside leaves all machines as they were, and no process."""
    before = contents(home.machines)
    yield
    after = contents(home.machines)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert not changed, f"changed: {sorted(changed)}"
    assert home.no_process_is_left()


def completed(home, line):
    """What bash offers for the last word of `bough LINE...`, sorted."""
    script = f"""bough() {{ '{home.program}' "$@"; }}
        . '{TOP}/src/cli/completion.bash'; compopt() {{ :; }}
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _bough bough "${{!#}}" "${{COMP_WORDS[COMP_CWORD - 1]}}"
        printf '%s\\n' "${{COMPREPLY[@]}}" """
    told = subprocess.run(["bash", "-c", script, "bash", "bough", *line], env=home.env, cwd=home.dir, capture_output=True,
                          text=True, check=True)
    assert told.stderr == "", told
    return sorted(told.stdout.splitlines())
