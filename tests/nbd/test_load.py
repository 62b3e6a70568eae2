"""Clients that are not ours and want much at once: fio, nbdcopy, qemu-img bench, nbdsh; with seals and re-opens in between."""

import json
import os
import random
import subprocess
import unittest

import nbd

from nbd_server import MIB, ServedTest

SIZE = 64 * MIB


class Load(ServedTest):
    def fio(self, server, *options):
        """randrepeat: the same requests in every run with the same options."""
        return self.run_tool("fio", "--ioengine=nbd", f"--uri={server.uri}", "--randrepeat=1", "--group_reporting",
                             "--verify_fatal=1", *options, cwd=self.directory)

    def push(self, server, top, new):
        self.create("differencing", new, top)
        server.tell(f"prepare {self.path(new)}")
        server.tell("switch")

    def read_all(self, server, size=SIZE):
        client = nbd.NBD()
        client.connect_unix(server.socket)
        content = b"".join(client.pread(16 * MIB, offset) for offset in range(0, size, 16 * MIB))
        client.shutdown()
        return content

    def test_fio_verifies_after_seals_and_a_reopen(self):
        server = self.served_chain()
        writes = ("--name=verify", "--rw=randwrite", "--bsrange=512-64k", "--blockalign=512", "--iodepth=32", "--size=48m",
                  "--verify=crc32c", "--verify_interval=512")
        fio = subprocess.Popen(["fio", "--ioengine=nbd", f"--uri={server.uri}", "--randrepeat=1", "--fsync=200", "--do_verify=0",
                                "--rate=,40m", *writes], cwd=self.directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        top, seals = "top.avhd", 0
        while fio.poll() is None and seals < 6:
            if int(server.tell("status")["writes"]) > (seals + 1) * 40:
                self.push(server, top, f"seal{seals}.avhd")
                top, seals = f"seal{seals}.avhd", seals + 1
        output = fio.communicate(timeout=120)[0]
        self.assertEqual(fio.returncode, 0, output)
        self.assertGreater(seals, 2, "the seals did not fall into the load")
        self.fio(server, *writes, "--verify_only")
        content = self.read_all(server)
        self.assertEqual(server.stop(), 0)
        self.assertTrue(self.flat(top) == content, "7-Zip reads something else")
        again = self.serve(top)
        self.fio(again, *writes, "--verify_only")
        self.assertEqual(again.stop(), 0)

    def test_fio_verifies_while_sealed_layers_are_merged(self):
        """Layers come and are merged away, first, middle and last, down and up, under a load that checks itself."""
        server = self.served_chain()
        fio = subprocess.Popen(["fio", "--ioengine=nbd", f"--uri={server.uri}", "--randrepeat=1", "--group_reporting",
                                "--verify_fatal=1", "--name=verify", "--rw=randwrite", "--bsrange=512-64k", "--blockalign=512",
                                "--iodepth=32", "--size=60m", "--io_size=100m", "--verify=crc32c", "--verify_interval=512",
                                "--verify_backlog=64", "--fsync=100", "--rate=,25m"], cwd=self.directory,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        names, merges, choice, made = ["base.vhd", "top.avhd"], 0, random.Random(5), 0
        while fio.poll() is None:
            if len(names) < 6:
                name = f"layer{made}.avhd"
                made += 1
                self.push(server, names[-1], name)
                names.append(name)
                continue
            upper = choice.randrange(1, len(names) - 1)
            up = upper > 1 and choice.randrange(2) == 0
            other = names[upper - 2] if up else names[upper + 1]
            other = "top" if other == names[-1] else self.path(other)
            server.tell(f"merge {'up' if up else 'down'} {self.path(names[upper])} {self.path(names[upper - 1])} {other}")
            del names[upper - 1 if up else upper]
            merges += 1
            self.assertEqual(server.tell("status")["depth"], str(len(names)))
        output = fio.communicate(timeout=120)[0]
        self.assertEqual(fio.returncode, 0, output)
        self.assertGreater(merges, 5, "the merges did not fall into the load")
        content = self.read_all(server)
        self.assertEqual(server.stop(), 0)
        self.assertTrue(self.flat(names[-1]) == content, "7-Zip reads something else")
        again = self.serve(names[-1])
        self.assertTrue(self.read_all(again) == content)
        self.assertEqual(again.stop(), 0)

    def test_fio_overwrites_and_verifies_what_was_sealed(self):
        server = self.served_chain()
        base = ("--rw=randwrite", "--bs=4k", "--iodepth=16", "--size=24m", "--verify=crc32c", "--do_verify=1")
        self.fio(server, "--name=first", *base)
        self.push(server, "top.avhd", "next.avhd")
        self.fio(server, "--name=second", *base, "--randseed=77", "--verify_pattern=0x5a")
        self.fio(server, "--name=second", *base, "--randseed=77", "--verify_pattern=0x5a", "--verify_only")

    def test_two_fio_jobs_on_two_connections(self):
        server = self.served_chain()
        self.fio(server, "--name=both", "--numjobs=2", "--offset_increment=32m", "--size=32m", "--rw=randwrite", "--bs=8k",
                 "--iodepth=16", "--verify=crc32c", "--do_verify=1", "--fsync=64")
        self.assertEqual(server.tell("status")["clients"], "0")

    def test_fio_trims_before_it_writes(self):
        server = self.served_chain()
        self.fio(server, "--name=fill", "--rw=write", "--bs=1m", "--size=32m")
        self.fio(server, "--name=trim", "--rw=randtrimwrite", "--bs=16k", "--iodepth=8", "--size=32m")
        self.fio(server, "--name=mix", "--rw=randrw", "--bssplit=512/30:4k/40:64k/20:1m/10", "--blockalign=512", "--iodepth=24",
                 "--size=32m", "--fsync=50")
        content = self.read_all(server)
        self.assertEqual(server.stop(), 0)
        self.assertTrue(self.flat("top.avhd") == content)

    def test_qemus_client_at_depth_16_across_a_seal(self):
        server = self.served_chain()
        count, step = 3200, 20480
        bench = ["qemu-img", "bench", "-f", "raw", "-t", "none", "-d", "16", "-s", "4096", "-S", str(step), "-w",
                 "--flush-interval", "100", "--pattern", "66", "-c", str(count), server.uri]
        writes = subprocess.Popen(bench, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while writes.poll() is None and int(server.tell("status")["writes"]) < 1000:
            pass
        self.push(server, "top.avhd", "next.avhd")
        output = writes.communicate(timeout=120)[0]
        self.assertEqual(writes.returncode, 0, output)
        want = bytearray(SIZE)
        for number in range(count):
            want[number * step:number * step + 4096] = b"\x42" * 4096
        self.assertTrue(self.read_all(server) == want)
        self.assertEqual(server.stop(), 0)
        self.assertTrue(self.flat("next.avhd") == want)

    def test_nbdcopy_from_a_deep_chain_to_a_new_image(self):
        server = self.served_chain()
        top = "top.avhd"
        for number in range(12):
            self.fio(server, "--name=layer", "--rw=randwrite", "--bs=4k", "--iodepth=16", "--size=64m", "--io_size=1m",
                     f"--randseed={number + 1}")
            self.push(server, top, f"layer{number}.avhd")
            top = f"layer{number}.avhd"
        self.create("dynamic", "copy.vhd", SIZE)
        copy = self.serve("copy.vhd")
        self.run_tool("nbdcopy", "--flush", "--connections=4", "--requests=32", server.uri, copy.uri)
        content = self.read_all(server)
        self.assertTrue(self.read_all(copy) == content)
        self.assertEqual(copy.stop(), 0)
        self.assertEqual(server.stop(), 0)
        self.assertTrue(self.flat("copy.vhd") == content)
        self.assertTrue(self.flat(top) == content)

    def test_nbdinfo_maps_a_large_disk_whole(self):
        size = 200 << 30
        self.create("dynamic", "base.vhd", size)
        self.create("differencing", "top.avhd", "base.vhd")
        server = self.serve("top.avhd")
        client = nbd.NBD()
        client.connect_unix(server.socket)
        places = [0, (5 << 30) + 512 * 7, (100 << 30) - 4096, size - 8192]
        for place in places:
            client.pwrite(b"\x11" * 8192, place)
        client.shutdown()
        extents = json.loads(self.run_tool("nbdinfo", "--map", "--json", server.uri))
        self.assertEqual(sum(each["length"] for each in extents), size)
        offset, data = 0, []
        for each in extents:
            self.assertEqual(each["offset"], offset)
            offset += each["length"]
            if each["type"] == 0 and data and sum(data[-1]) == each["offset"]:
                data[-1] = (data[-1][0], data[-1][1] + each["length"])
            elif each["type"] == 0:
                data.append((each["offset"], each["length"]))
        self.assertEqual(data, [(place, 8192) for place in places])

    def test_nbdsh_script_with_malformed_and_oversized_requests(self):
        server = self.served_chain()
        system_python = dict(os.environ, PATH=f"/usr/bin:{os.environ['PATH']}")  # the one that has libnbd
        self.assertIn("all was refused", self.run_tool("nbdsh", "-u", server.uri, "-c", NBDSH_SCRIPT, env=system_python))
        self.assertEqual(self.read_all(server), bytes(SIZE))
        self.assertEqual(server.stop(), 0)


NBDSH_SCRIPT = """
h.set_strict_mode(0)
size = h.get_size()

def refused(call, *errors):
    try:
        call()
    except nbd.Error as error:
        assert error.errno in errors, error
        return
    raise AssertionError("it was carried out")

for offset in (1, 511, size - 1, size, size + 512, 1 << 40, (1 << 63) - 512):
    refused(lambda: h.pread(512, offset), "EINVAL")
    refused(lambda: h.pwrite(b"x" * 512, offset), "EINVAL", "ENOSPC")
    refused(lambda: h.trim(512, offset), "EINVAL", "ENOSPC")
    refused(lambda: h.zero(512, offset), "EINVAL", "ENOSPC")
for length in (1, 100, 513, (32 << 20) + 512, 33 << 20):
    refused(lambda: h.pread(length, 0), "EINVAL", "ERANGE", "ENOMEM")
    refused(lambda: h.pwrite(bytes(length), 0), "EINVAL", "ERANGE")
for length in (1, 513, size + 512, (1 << 32) - 512):
    refused(lambda: h.zero(length, 0), "EINVAL", "ENOSPC")
    refused(lambda: h.trim(length, 0), "EINVAL", "ENOSPC")
refused(lambda: h.pread(0, 0), "EINVAL")
refused(lambda: h.cache(4096, 0), "EINVAL", "ENOTSUP")
for flags in (0x8000, nbd.CMD_FLAG_FAST_ZERO):
    refused(lambda: h.zero(512, 0, flags), "EINVAL", "ENOTSUP")
assert h.pread(512, 0) == bytes(512)
h.flush()
print("all was refused, and the connection lives")
"""


if __name__ == "__main__":
    unittest.main()
