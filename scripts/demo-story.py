#!/usr/bin/python3
"""The story that scripts/demo tells: demo-story.py BOUGH GUEST-FOLDER SECONDS-SO-FAR, with $BOUGH_HOME set."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "lib"))
from guest_console import Console  # noqa: E402

PROGRAM, GUEST, SO_FAR = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
VM = "demo"
BEGUN = time.monotonic()


def say(text=""):
    print(text, flush=True)


def chapter(title):
    say(f"\n== {title}  [{SO_FAR + time.monotonic() - BEGUN:.0f} s]")


def shown(argument):
    return f"'{argument}'" if " " in argument or argument == "" else argument


def run(*arguments, quiet=False):
    """A command as one would type it: shown, done, its output."""
    if not quiet:
        words = " ".join(shown(str(a).replace(str(GUEST), "GUEST")) for a in arguments if a != "--json")
        say(f"$ bough {words}")
    done = subprocess.run([PROGRAM, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"demo: bough {arguments[0]} failed, exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def ask(*arguments, quiet=False):
    return json.loads(run(*arguments, "--json", quiet=quiet))


def must(condition, what):
    if not condition:
        sys.exit(f"demo: this must not be: {what}")


def connect():
    return Console(ask("console", VM, quiet=True)["socket"], 30)


class Seen:
    """What the guest is at a moment: memory, process, files, hardware."""

    def __init__(self, console):
        self.step = console.step()
        self.hash = console.command("hash")
        self.process = console.run("pidof sleep")[1]
        self.files = console.run("find /disk/etc -type f 2>/dev/null | wc -l; cat /disk/etc/motd 2>/dev/null")[1]
        self.hardware = console.run("nproc; grep MemTotal /proc/meminfo; cat /sys/block/vda/size")[1]

    def tell(self):
        cpus, memory, sectors = self.hardware
        say(f"   nonce in memory    {self.step.nonce}")
        say(f"   counter            {self.step.memory} in memory, {self.step.disk} on the disk")
        say(f"   64 MiB in memory   {self.hash}")
        say(f"   processes          sleep, PID {' '.join(self.process) or 'none'}")
        say(f"   files in /disk/etc {self.files[0]}; motd: {' '.join(self.files[1:]) or 'none'}")
        say(f"   hardware           {cpus} CPU, {memory.split()[1]} kB, disk of {int(sectors) // 2048} MiB")

    def must_equal(self, then):
        must(self.step.nonce == then.step.nonce, "another nonce: the guest was started anew")
        must(self.step.memory >= then.step.memory, "the counter went back behind the snapshot")
        for key in ("hash", "process", "files", "hardware"):
            must(getattr(self, key) == getattr(then, key), f"{key}: {getattr(self, key)}, not {getattr(then, key)}")


def go_back(console, *arguments):
    """An apply or revert: (the new console, milliseconds until QEMU ran, and until the guest's next line)."""
    console.close()
    begun = time.monotonic()
    answer = ask(*arguments)
    console = connect()
    step = console.step()
    return console, answer["running_us"] / 1000, (step.arrival - begun) * 1000


def make_and_start():
    chapter("A VM with a real Linux guest")
    run("create", VM, "--memory", "512M", "--cpus", "1", "--disk", "1G,bus=virtio", "--nic", "none",
        "--kernel", GUEST / "vmlinuz", "--initrd", GUEST / "initrd",
        "--append", "console=ttyS0 quiet bough_step_ms=50")
    begun = time.monotonic()
    run("start", VM)
    console = connect()
    console.ready()
    how = ask("show", VM, quiet=True)["accelerator"]
    say(f"   booted in {time.monotonic() - begun:.1f} s ({how}); its first process counts, in memory and synced to ext4 on the disk")
    return console


def live_in_it(console):
    console.run("mkdir /disk/etc; for i in $(seq 200); do echo setting $i > /disk/etc/$i; done; "
                "echo all is well > /disk/etc/motd; sync; sleep 100000 </dev/null >/dev/null 2>&1 &")
    console.run("sync")
    console.command("fill 64 1")
    return Seen(console)


def damage(console):
    chapter("Damage: everything")
    say("guest# rm -rf /disk/etc; killall sleep; memory overwritten; dd if=/dev/urandom of=/dev/vda")
    console.run("rm -rf /disk/etc; killall sleep; sync")
    console.command("fill 64 2")
    now = Seen(console)
    now.tell()
    console.command("step 0")
    console.run("dd if=/dev/urandom of=/dev/vda bs=1M count=64 2>/dev/null")
    console.close()
    run("stop", VM, "--force")
    run("set", VM, "memory=768M", "cpus=2")
    say("   the VM is off, its disk is rubbish, and it is another machine now: 2 CPUs, 768 MiB")


def main():
    console = make_and_start()
    then = live_in_it(console)
    then.tell()

    chapter("A snapshot while it runs")
    first = ask("snapshot", VM, "--name", "all is well")
    say(f"   the guest stood still for {first['pause_us'] / 1000:.1f} ms; "
        f"all took {first['total_us'] / 1000:.0f} ms, in the background of the guest")

    damage(console)

    chapter("Going back")
    console, running_ms, line_ms = go_back(console, "revert", VM)
    say(f"   running after {running_ms:.0f} ms; the guest's next line after {line_ms:.0f} ms, as seen from here")
    now = Seen(console)
    now.tell()
    now.must_equal(then)
    say("   the same nonce, memory, process, files and hardware; the counter goes on from the snapshot")

    chapter("Snapshots make a tree")
    console.run("echo upgraded > /disk/etc/motd; sync")
    ask("snapshot", VM, "--name", "upgraded")
    console, running_ms, line_ms = go_back(console, "apply", VM, "all is well")
    must(Seen(console).files == then.files, "the older snapshot has other files")
    say(f"   the older one, running after {running_ms:.0f} ms; next line after {line_ms:.0f} ms")
    console.run("echo another way > /disk/etc/motd; sync")
    ask("snapshot", VM, "--name", "another way")
    say()
    say(run("tree", VM))
    must(console.step().nonce == then.step.nonce, "another nonce")
    console.close()

    chapter("Done. It still runs; go on by hand")
    say(f"export BOUGH_HOME={os.environ['BOUGH_HOME']} PATH={Path(PROGRAM).parent}:$PATH BOUGH_WORKER={os.environ['BOUGH_WORKER']}")
    say("bough console demo          # type: help, or sh for a shell; Ctrl-] leaves")
    say("bough snapshot demo --name mine; bough revert demo; bough tree demo; bough apply demo upgraded; bough help")
    say(f"# its files: {os.environ['BOUGH_HOME']}/{VM};  scripts/demo --clean removes it")


main()
