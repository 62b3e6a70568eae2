"""`bough disk serve` as its users see it."""

import json
import os
import signal
import subprocess
import unittest

import nbd

from nbd_server import MIB, ServedTest

BOUGH = os.environ["BOUGH"]


class Serve(ServedTest):
    def start(self, *words):
        process = subprocess.Popen([BOUGH, "disk", "serve", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True, env=dict(os.environ, TMPDIR=self.directory))
        self.addCleanup(lambda: (process.kill(), process.wait(), process.stdout.close(), process.stderr.close()))
        return process

    def end(self, process, how=signal.SIGTERM):
        process.send_signal(how)
        self.assertEqual(process.wait(timeout=30), 0, process.stderr.read())

    def test_file_is_read_only_unless_asked(self):
        self.create("dynamic", "base.vhd", MIB)
        with open(self.path("base.vhd"), "rb") as file:
            before = file.read()
        process = self.start(self.path("base.vhd"))
        uri = process.stdout.readline().strip()
        client = nbd.NBD()
        client.connect_uri(uri)
        self.assertEqual(client.get_size(), MIB)
        self.assertTrue(client.is_read_only())
        client.shutdown()
        self.end(process)
        with open(self.path("base.vhd"), "rb") as file:
            self.assertEqual(file.read(), before)
        self.assertEqual(os.listdir(self.directory), ["base.vhd"], "something was left behind")

    def test_what_is_written_is_there_after_an_interrupt(self):
        self.create("dynamic", "base.vhd", MIB)
        self.create("differencing", "top.avhd", "base.vhd")
        process = self.start(self.path("top.avhd"), "--writable", "--json", "--socket", self.path("a socket"),
                             "--name", "disk0")
        text = ""
        while not text.endswith("}\n"):
            text += process.stdout.readline()
        told = json.loads(text)
        self.assertEqual((told["size_bytes"], told["read_only"], told["name"]), (MIB, False, "disk0"))
        self.assertEqual(told["socket"], self.path("a socket"))
        client = nbd.NBD()
        client.connect_uri(told["uri"])
        client.pwrite(b"\x42" * 4096, 8192)
        self.end(process, signal.SIGINT)
        self.assertEqual(self.flat("top.avhd")[8192:8192 + 4096], b"\x42" * 4096)
        self.assertFalse(os.path.exists(self.path("a socket")))

    def test_missing_file_and_bad_socket_say_what_is_wrong(self):
        self.create("dynamic", "base.vhd", MIB)
        missing = self.start(self.path("none.vhd"))
        self.assertEqual(missing.wait(timeout=30), 6)
        self.assertIn("none.vhd", missing.stderr.read())
        long = self.start(self.path("base.vhd"), "--socket", self.path("x" * 120))
        self.assertEqual(long.wait(timeout=30), 8)
        self.assertIn("107", long.stderr.read())


if __name__ == "__main__":
    unittest.main()
