"""What the NBD tests share: a served chain in a directory of its own, and raw protocol for hostile clients."""

import os
import resource
import shutil
import socket
import struct
import subprocess
import tempfile
import unittest

SERVE = os.environ["NBD_SERVE"]
MIB = 1 << 20


class Server:
    """A running nbd_serve."""

    def __init__(self, top, socket_path, *options, file_limit=None):
        def limit():
            if file_limit:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

        self.socket = socket_path
        self.raw_clients = []
        # Sanitizers keep freed memory for a while, which would hide how much is really held.
        environment = dict(os.environ, ASAN_OPTIONS="quarantine_size_mb=8",
                           UBSAN_OPTIONS="halt_on_error=1")
        self.process = subprocess.Popen([SERVE, "serve", top, socket_path, *options], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, preexec_fn=limit, env=environment)
        line = self.process.stdout.readline()
        if line != "ok\n":
            self.process.wait()
            raise RuntimeError(f"nbd_serve did not start: {line!r}")

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def tell(self, line):
        answer = self.ask(line)
        if not answer.startswith("ok"):
            raise RuntimeError(f"{line}: {answer}")
        return dict(word.split("=") for word in answer.split()[1:])

    def rss_bytes(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        raise RuntimeError("no VmRSS")

    def stop(self):
        self.process.stdin.close()
        code = self.process.wait(timeout=60)
        self.process.stdout.close()
        return code

    def kill(self):
        for client in self.raw_clients:
            client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    @property
    def uri(self):
        return f"nbd+unix:///?socket={self.socket}"


class ServedTest(unittest.TestCase):
    """Each test has a directory, and its servers end with it."""

    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="bough-nbd-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.sockets = 0

    def path(self, name):
        return os.path.join(self.directory, name)

    def create(self, kind, name, last):
        last = self.path(last) if kind == "differencing" else str(last)
        subprocess.run([SERVE, "create", kind, self.path(name), last], check=True)
        return self.path(name)

    def serve(self, name, *options, **more):
        self.sockets += 1
        server = Server(self.path(name), self.path(f"s{self.sockets}"), *options, **more)
        self.addCleanup(server.kill)
        return server

    def served_chain(self, size=64 * MIB):
        """A dynamic base and a differencing top over it."""
        self.create("dynamic", "base.vhd", size)
        self.create("differencing", "top.avhd", "base.vhd")
        return self.serve("top.avhd")

    def run_tool(self, *words, code=0, **more):
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, text=True, **more)
        self.assertEqual(done.returncode, code, f"{' '.join(words)}:\n{done.stdout}")
        return done.stdout

    def flat(self, name):
        """The content of a chain as 7-Zip sees it."""
        done = subprocess.run(["7zz", "e", "-so", "-tvhd", self.path(name)], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return done.stdout


IHAVEOPT = 0x49484156454F5054


def connect(server):
    client = socket.socket(socket.AF_UNIX)
    server.raw_clients.append(client)
    client.settimeout(20)
    client.connect(server.socket)
    return client


def receive(client, length):
    data = b""
    while len(data) < length:
        part = client.recv(length - len(data))
        if not part:
            raise EOFError(f"closed after {len(data)} of {length} bytes")
        data += part
    return data


def is_closed(client):
    """Does the server close, whatever it still says before?"""
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        pass
    except socket.timeout:
        return False
    return True


def greet(server, flags=3):
    client = connect(server)
    magic, ihaveopt, _ = struct.unpack(">QQH", receive(client, 18))
    assert magic == 0x4E42444D41474943 and ihaveopt == IHAVEOPT
    client.sendall(struct.pack(">I", flags))
    return client


def option(number, data=b"", length=None):
    return struct.pack(">QII", IHAVEOPT, number, len(data) if length is None else length) + data


def option_reply(client):
    magic, number, kind, length = struct.unpack(">QIII", receive(client, 20))
    assert magic == 0x3E889045565A9
    return number, kind, receive(client, length)


def transmission(server):
    """A raw client behind its handshake, without structured replies."""
    client = greet(server)
    client.sendall(option(1))
    size, _ = struct.unpack(">QH", receive(client, 10))
    return client, size


def request(kind, offset, length, cookie=1, flags=0, magic=0x25609513):
    return struct.pack(">IHHQQI", magic, flags, kind, cookie, offset, length)


def simple_reply(client):
    magic, error, cookie = struct.unpack(">IIQ", receive(client, 16))
    assert magic == 0x67446698, hex(magic)
    return error, cookie


READ, WRITE, DISC, FLUSH, TRIM, WRITE_ZEROES, BLOCK_STATUS = 0, 1, 2, 3, 4, 6, 7
EPERM, EIO, EINVAL, ENOSPC = 1, 5, 22, 28
