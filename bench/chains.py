"""The chains that are measured: the same bytes as VHD images, as qcow2 images and, the base alone, as a raw file.

A chain of depth N is N image files: the base and N - 1 differencing ones. Layer numbers begin at 0, the base; the chain of
depth N is the one whose top is layer N - 1, so that one long chain holds all depths. bench/content.h says what they hold."""

import json
import os
import resource
import shutil
import subprocess
from pathlib import Path

QCOW2_CLUSTER_BYTES = 64 << 10  # what qemu-img makes if it is not told
TIMEOUT_S = 900


class Programs:
    """What was built, and what is installed."""

    def __init__(self, bough):
        self.bough = str(Path(bough).resolve())
        build = Path(self.bough).parents[2]
        self.chain_make = str(build / "bench" / "chain_make")
        self.nbd_load = str(build / "bench" / "nbd_load")
        self.page_hold = str(build / "bench" / "page_hold")
        self.nbd_serve = str(build / "tests" / "nbd" / "nbd_serve")

    def missing(self):
        built = (self.bough, self.chain_make, self.nbd_load, self.page_hold, self.nbd_serve)
        installed = ("qemu-img", "qemu-nbd", "qemu-storage-daemon", "nbdkit", "fio")
        return [p for p in built if not os.access(p, os.X_OK)] + [p for p in installed if not shutil.which(p)]


def open_files_raise():
    """A server of a chain has each of its files open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def run(*words, timeout=TIMEOUT_S, **more):
    done = subprocess.run([str(w) for w in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=timeout, check=False, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


class StorageDaemon:
    """qemu-storage-daemon with its monitor on its standard input and output, and one NBD socket."""

    def __init__(self, socket_path):
        self.socket = str(socket_path)
        self._process = subprocess.Popen(
            ["qemu-storage-daemon", "--chardev", "stdio,id=m", "--monitor", "chardev=m", "--nbd-server",
             f"addr.type=unix,addr.path={self.socket}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._events = []  # that nobody has waited for yet
        json.loads(self._process.stdout.readline())
        self.do("qmp_capabilities")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.terminate()
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def _message(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"qemu-storage-daemon ended: {self._process.wait()}")
        return json.loads(line)

    def do(self, command, **arguments):
        words = {key.replace("_", "-"): value for key, value in arguments.items()}
        self._process.stdin.write(json.dumps({"execute": command, "arguments": words}) + "\n")
        self._process.stdin.flush()
        while True:
            message = self._message()
            if "error" in message:
                raise RuntimeError(f"{command}: {message['error']['desc']}")
            if "return" in message:
                return message["return"]
            self._events.append(message)

    def wait(self, event, **data):
        """Until the event has come, perhaps before; those before it are forgotten."""
        while True:
            message = self._events.pop(0) if self._events else self._message()
            if message["event"] == event and data.items() <= message["data"].items():
                return

    def create(self, **options):
        self.do("blockdev-create", job_id="make", options=options)
        self.wait("JOB_STATUS_CHANGE", id="make", status="concluded")
        for job in self.do("query-jobs"):
            if "error" in job:
                raise RuntimeError(f"blockdev-create: {job['error']}")
        self.do("job-dismiss", id="make")


class Held:
    def __init__(self, programs, files, say):
        self._process = subprocess.Popen([programs.page_hold, *map(str, files)], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"page_hold: exit {self._process.wait()}")
        held_bytes, held_files = map(int, line.split())
        say(f"chains: {held_bytes >> 20} MiB, {held_files} of {len(files)} files, are held in the page cache")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.communicate()


class Chains:
    """All that one folder holds; `shape` is what it was made from."""

    def __init__(self, folder, programs, shape, say):
        self.folder, self.programs, self.shape, self._say = Path(folder), programs, shape, say
        self.raw = self.folder / "base.raw"
        self.qcow2_depth = shape["layers"]  # that qemu-nbd bears

    def own(self, depth):
        return self.folder / "own" / (f"{depth - 1}.avhd" if depth > 1 else "0.vhd")

    def qcow2(self, depth):
        return self.folder / "qcow2" / f"{depth - 1}.qcow2"

    def _numbers(self, *names):
        return [self.shape[name] for name in names]

    def make(self):
        """Takes what the folder has if it was made from the same numbers."""
        record = self.folder / "chains.json"
        if record.exists() and json.loads(record.read_text()) == self.shape:
            self._say(f"chains: those of {self.folder} are used again")
            return
        record.unlink(missing_ok=True)
        for name in ("own", "qcow2"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir(parents=True)
        self.raw.unlink(missing_ok=True)
        size, data, layers, writes, seed = self._numbers("size_bytes", "data_bytes", "layers", "writes", "seed")
        self._say(f"chains: {layers} VHD images")
        run(self.programs.chain_make, "own", self.folder / "own", size, data, layers, writes, seed)
        self._say("chains: the raw file")
        run(self.programs.chain_make, "raw", self.raw, size, data, seed)
        self._say(f"chains: {layers} qcow2 images")
        self._qcow2_make()
        os.sync()
        record.write_text(json.dumps(self.shape))

    def _qcow2_make(self):
        size, data, layers, writes, seed = self._numbers("size_bytes", "data_bytes", "layers", "writes", "seed")
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", self.raw, self.qcow2(1))
        with StorageDaemon(self.folder / "qsd.sock") as daemon:
            for layer in range(1, layers):
                path = str(self.qcow2(layer + 1))
                daemon.create(driver="file", filename=path, size=0)
                daemon.do("blockdev-add", node_name="file", driver="file", filename=path)
                daemon.create(**{"driver": "qcow2", "file": "file", "size": size, "backing-fmt": "qcow2",
                                 "backing-file": self.qcow2(layer).name})
                daemon.do("blockdev-add", node_name="image", driver="qcow2", file="file", backing=None)
                daemon.do("block-export-add", type="nbd", id="export", node_name="image", name="", writable=True)
                run(self.programs.chain_make, "layer", daemon.socket, data, layer, writes, seed, QCOW2_CLUSTER_BYTES)
                daemon.do("block-export-del", id="export", mode="hard")
                daemon.wait("BLOCK_EXPORT_DELETED", id="export")
                daemon.do("blockdev-del", node_name="image")
                daemon.do("blockdev-del", node_name="file")

    def held(self):
        """All files of the chains stay in the page cache while this is entered."""
        files = [self.raw, *sorted((self.folder / "own").iterdir()), *sorted((self.folder / "qcow2").iterdir())]
        return Held(self.programs, files, self._say)

    def remove(self):
        for name in ("own", "qcow2"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for file in (self.raw, self.folder / "chains.json"):
            file.unlink(missing_ok=True)

    def check(self, server, depth, samples):
        """Over NBD: the served chain holds what it must."""
        data, writes, seed = self._numbers("data_bytes", "writes", "seed")
        run(self.programs.chain_make, "check", server.socket, data, depth - 1, writes, seed, samples)

    def own_top(self, folder, depth, count=1):
        """`count` new empty images in the new folder, each over the one before, the first over the chain of that depth."""
        Path(folder).mkdir()
        run(self.programs.chain_make, "tops", folder, self.own(depth), count)
        return Path(folder) / "0.avhd"

    def qcow2_top(self, path, depth):
        run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", self.qcow2(depth), path,
            self.shape["size_bytes"])
        return path
