"""Clients that are not ours: libnbd, nbdinfo, nbdcopy, qemu-io, qemu-img, fio; and 7-Zip on the files behind them."""

import json
import os
import random
import subprocess
import threading
import unittest

import nbd

from nbd_server import MIB, ServedTest

AIO_REQUESTS = 64


class Clients(ServedTest):
    def connect(self, server, allocation=False):
        client = nbd.NBD()
        if allocation:
            client.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        client.connect_unix(server.socket)
        return client

    def test_the_setting_chooses_the_ring(self):
        server = self.served_chain()
        plain = os.environ.get("BOUGH_NO_IO_URING") == "1"
        self.assertEqual(server.tell("status")["io_uring"], "0" if plain else "1")

    def test_socket_is_for_its_owner_alone(self):
        server = self.served_chain()
        self.assertEqual(os.stat(server.socket).st_mode & 0o777, 0o600)
        self.assertEqual(server.stop(), 0)
        self.assertFalse(os.path.exists(server.socket))

    def test_nbdinfo_shows_the_export(self):
        server = self.served_chain()
        export = json.loads(self.run_tool("nbdinfo", "--json", server.uri))["exports"][0]
        self.assertEqual(export["export-size"], 64 * MIB)
        self.assertEqual(export["contexts"], ["base:allocation"])
        self.assertEqual([export[f"block_size_{which}"] for which in ("minimum", "preferred", "maximum")],
                         [512, 4096, 32 * MIB])
        for flag in ("can_flush", "can_fua", "can_trim", "can_zero", "can_multi_conn", "can_df"):
            self.assertTrue(export[flag], flag)
        self.assertFalse(export["is_read_only"])

    def test_nbdinfo_lists_a_named_export(self):
        self.create("fixed", "base.vhd", MIB)
        server = self.serve("base.vhd", "name=disk0")
        listed = json.loads(self.run_tool("nbdinfo", "--list", "--json", server.uri))
        self.assertEqual([each["export-name"] for each in listed["exports"]], ["disk0"])
        self.run_tool("nbdinfo", f"nbd+unix:///disk0?socket={server.socket}")
        self.run_tool("nbdinfo", f"nbd+unix:///other?socket={server.socket}", code=1)

    def test_nbdcopy_there_and_back_gives_the_same_bytes(self):
        server = self.served_chain()
        content = bytearray(64 * MIB)
        pick = random.Random(7)
        for _ in range(40):
            offset = pick.randrange(0, len(content) // 512 - 2000) * 512
            content[offset:offset + 512 * 1000] = pick.randbytes(512 * 1000)
        with open(self.path("in"), "wb") as file:
            file.write(content)
        self.run_tool("nbdcopy", "--flush", self.path("in"), server.uri)
        self.run_tool("nbdcopy", server.uri, self.path("out"))
        with open(self.path("out"), "rb") as file:
            self.assertTrue(file.read() == content, "what comes back differs")
        self.assertEqual(server.stop(), 0)
        self.assertTrue(self.flat("top.avhd") == content, "7-Zip reads something else")
        self.assertTrue(self.flat("base.vhd") == bytes(64 * MIB), "the parent was written")

    def test_qemu_io_reads_what_it_wrote(self):
        server = self.served_chain()
        self.run_tool("qemu-io", "-f", "raw", server.uri, "-c", "write -P 0x11 0 64k", "-c", "write -f -P 0x22 1M 3M",
                      "-c", "write -z 2M 64k", "-c", "write -z -u 3M 64k", "-c", "discard 16k 16k", "-c", "flush",
                      "-c", "read -P 0x11 0 16k", "-c", "read -P 0 16k 16k", "-c", "read -P 0x11 32k 32k",
                      "-c", "read -P 0x22 1M 1M", "-c", "read -P 0 2M 64k", "-c", "read -P 0 3M 64k",
                      "-c", "read -P 0 10M 1M")

    def test_qemu_img_map_and_compare_agree_with_the_content(self):
        server = self.served_chain()
        self.run_tool("qemu-io", "-f", "raw", server.uri, "-c", "write -P 0x33 2M 2M", "-c", "flush")
        extents = json.loads(self.run_tool("qemu-img", "map", "--output=json", "-f", "raw", server.uri))
        data = [(each["start"], each["length"]) for each in extents if each["data"]]
        self.assertEqual(data, [(2 * MIB, 2 * MIB)])
        self.run_tool("qemu-img", "convert", "-f", "raw", "-O", "raw", server.uri, self.path("flat"))
        self.run_tool("qemu-img", "compare", "-f", "raw", "-F", "raw", server.uri, self.path("flat"))

    def test_qemu_outlives_a_restart_of_the_server(self):
        server = self.served_chain()
        options = (f"driver=nbd,server.type=unix,server.path={server.socket},export=,reconnect-delay=60")
        client = subprocess.Popen(["qemu-io", "--image-opts", options], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True)
        try:
            client.stdin.write("write -P 0x44 0 64k\nflush\n")
            client.stdin.flush()
            while "wrote" not in client.stdout.readline():
                pass
            self.assertEqual(server.stop(), 0)
            again = self.serve("top.avhd")
            os.rename(again.socket, server.socket)
            output = client.communicate("write -P 0x55 1M 64k\nread -P 0x44 0 64k\nread -P 0x55 1M 64k\nquit\n",
                                        timeout=60)[0]
        finally:
            client.kill()
            client.wait()
            client.stdout.close()
        self.assertNotIn("error", output.lower())
        self.assertNotIn("fail", output.lower())
        self.assertEqual(output.count("read 65536/65536"), 2)

    def test_two_connections_see_one_disk_and_share_the_flush(self):
        server = self.served_chain()
        one, two = self.connect(server), self.connect(server)
        self.assertTrue(one.can_multi_conn())
        one.pwrite(b"\xA5" * 4096, 8192)
        self.assertEqual(two.pread(4096, 8192), b"\xA5" * 4096)
        two.flush()
        self.assertEqual(server.tell("status")["dirty"], "0")
        self.assertEqual(server.tell("status")["clients"], "2")

    def test_fua_leaves_nothing_dirty(self):
        server = self.served_chain()
        client = self.connect(server)
        client.pwrite(b"\x5A" * 65536, MIB, nbd.CMD_FLAG_FUA)
        self.assertEqual(server.tell("status")["dirty"], "0")
        client.zero(65536, 4 * MIB, nbd.CMD_FLAG_FUA)
        client.trim(65536, MIB, nbd.CMD_FLAG_FUA)
        self.assertEqual(server.tell("status")["dirty"], "0")
        self.assertEqual(client.pread(65536, MIB), bytes(65536))

    def test_zeros_hide_what_the_parent_holds(self):
        self.create("dynamic", "base.vhd", 16 * MIB)
        base = self.serve("base.vhd")
        self.connect(base).pwrite(b"\xEE" * (8 * MIB), 0)
        self.assertEqual(base.stop(), 0)
        self.create("differencing", "top.avhd", "base.vhd")
        server = self.serve("top.avhd")
        client = self.connect(server)
        client.trim(512, 512)
        client.zero(MIB, 2 * MIB)
        client.zero(4096, 5 * MIB, nbd.CMD_FLAG_NO_HOLE)
        expected = bytearray(b"\xEE" * (8 * MIB) + bytes(8 * MIB))
        expected[512:1024] = bytes(512)
        expected[2 * MIB:3 * MIB] = bytes(MIB)
        expected[5 * MIB:5 * MIB + 4096] = bytes(4096)
        self.assertTrue(client.pread(16 * MIB, 0) == expected)
        self.assertEqual(server.stop(), 0)
        self.assertTrue(self.flat("top.avhd") == expected)

    def extents(self, client, length, offset, flags=0):
        found = []
        client.block_status(length, offset, lambda name, at, entries, error: found.extend(entries), flags)
        return list(zip(found[::2], found[1::2]))

    def test_block_status_tells_data_from_zeros(self):
        server = self.served_chain()
        client = self.connect(server, allocation=True)
        client.pwrite(b"\1" * MIB, 4 * MIB)
        hole = nbd.STATE_HOLE | nbd.STATE_ZERO
        self.assertEqual(self.extents(client, 6 * MIB, 2 * MIB), [(2 * MIB, hole), (MIB, 0), (3 * MIB, hole)])
        self.assertEqual(self.extents(client, 6 * MIB, 2 * MIB, nbd.CMD_FLAG_REQ_ONE), [(2 * MIB, hole)])
        self.assertEqual(self.extents(client, 4096, 4 * MIB + 512, nbd.CMD_FLAG_REQ_ONE), [(4096, 0)])

    def test_errors_are_those_of_the_protocol(self):
        server = self.served_chain()
        client = self.connect(server)
        client.set_strict_mode(0)
        for call, number in ((lambda: client.pread(512, 64 * MIB), "EINVAL"),
                             (lambda: client.pread(512, 100), "EINVAL"),
                             (lambda: client.pwrite(bytes(100), 0), "EINVAL"),
                             (lambda: client.pwrite(bytes(1024), 64 * MIB - 512), "ENOSPC"),
                             (lambda: client.trim(512, 64 * MIB), "ENOSPC"),
                             (lambda: client.cache(512, 0), "EINVAL"),
                             (lambda: client.zero(512, 0, nbd.CMD_FLAG_FAST_ZERO), "EINVAL")):
            with self.assertRaises(nbd.Error) as caught:
                call()
            self.assertEqual(caught.exception.errno, number)
        self.assertEqual(client.pread(512, 0), bytes(512))

    def test_read_only_export_refuses_writes(self):
        self.create("dynamic", "base.vhd", MIB)
        with open(self.path("base.vhd"), "rb") as file:
            before = file.read()
        server = self.serve("base.vhd", "read-only")
        client = self.connect(server)
        self.assertTrue(client.is_read_only())
        client.set_strict_mode(0)
        for call in (lambda: client.pwrite(bytes(512), 0), lambda: client.trim(512, 0), lambda: client.zero(512, 0)):
            with self.assertRaises(nbd.Error) as caught:
                call()
            self.assertEqual(caught.exception.errno, "EPERM")
        self.assertEqual(client.pread(512, 0), bytes(512))
        self.assertEqual(server.stop(), 0)
        with open(self.path("base.vhd"), "rb") as file:
            self.assertEqual(file.read(), before)

    def test_no_space_is_enospc_and_harms_nothing(self):
        self.create("dynamic", "base.vhd", 64 * MIB)
        server = self.serve("base.vhd", file_limit=9 * MIB)
        client = self.connect(server)
        client.pwrite(b"\x77" * (2 * MIB), 0)
        with self.assertRaises(nbd.Error) as caught:
            for block in range(1, 32):
                client.pwrite(b"\x88" * MIB, block * 2 * MIB)
        self.assertEqual(caught.exception.errno, "ENOSPC")
        client.flush()
        self.assertEqual(client.pread(2 * MIB, 0), b"\x77" * (2 * MIB))
        client.pwrite(b"\x99" * 512, 512)  # an overwrite needs no space
        client.flush()

    def test_largest_requests_pass(self):
        server = self.served_chain()
        client = self.connect(server)
        content = random.Random(3).randbytes(32 * MIB)
        client.pwrite(content, 16 * MIB)
        self.assertTrue(client.pread(32 * MIB, 16 * MIB) == content)

    def test_many_in_flight_on_two_connections_keep_every_byte(self):
        server = self.served_chain()
        clients = [self.connect(server), self.connect(server)]
        pick = random.Random(11)
        model = bytearray(64 * MIB)
        buffers = []
        for number in range(4000):
            client = clients[number % 2]
            while client.aio_in_flight() >= AIO_REQUESTS:
                client.poll(-1)
            # Requests in flight must not overlap: one slice of the disk for each 4000th.
            offset = (number * 16384 + pick.randrange(0, 20) * 512)
            data = pick.randbytes(pick.randrange(1, 12) * 512)
            model[offset:offset + len(data)] = data
            buffers.append(nbd.Buffer.from_bytearray(data))
            client.aio_pwrite(buffers[-1], offset, lambda error: 1)
        for client in clients:
            while client.aio_in_flight():
                client.poll(-1)
        clients[0].flush()
        got = b"".join(clients[1].pread(16 * MIB, part * 16 * MIB) for part in range(4))
        self.assertTrue(got == model)
        self.assertEqual(server.stop(), 0)
        self.assertTrue(self.flat("top.avhd") == model)

    def test_two_requests_that_allocate_the_same_block_at_once(self):
        server = self.served_chain()
        client = self.connect(server)
        buffers = [nbd.Buffer.from_bytearray(bytes([number % 251 + 1]) * 512) for number in range(4096)]
        for number, each in enumerate(buffers):
            while client.aio_in_flight() >= AIO_REQUESTS:
                client.poll(-1)
            # Neighbours in time lie in the same new block, far from each other in it.
            client.aio_pwrite(each, (number % 64) * 32768 + number // 64 * 2 * MIB % (64 * MIB), lambda error: 1)
        while client.aio_in_flight():
            client.poll(-1)
        model = bytearray(64 * MIB)
        for number in range(4096):
            offset = (number % 64) * 32768 + number // 64 * 2 * MIB % (64 * MIB)
            model[offset:offset + 512] = bytes([number % 251 + 1]) * 512
        self.assertTrue(b"".join(client.pread(16 * MIB, part * 16 * MIB) for part in range(4)) == model)
        self.assertEqual(server.stop(), 0)
        self.assertTrue(self.flat("top.avhd") == model)

    def test_fio_verifies_its_writes(self):
        server = self.served_chain()
        self.run_tool("fio", "--name=verify", "--ioengine=nbd", f"--uri={server.uri}", "--rw=randwrite", "--bs=4k",
                      "--iodepth=32", "--size=32m", "--verify=crc32c", "--do_verify=1", "--fsync=512",
                      "--randrepeat=1", cwd=self.directory)

    def test_stop_under_load_closes_and_never_answers_an_error(self):
        server = self.served_chain()
        client = self.connect(server)
        failures = []

        def work():
            try:
                while True:
                    client.pwrite(b"\x42" * 65536, random.randrange(0, 512) * 65536)
            except nbd.Error as error:
                failures.append(error)

        worker = threading.Thread(target=work)
        worker.start()
        while int(server.tell("status")["writes"]) < 100:
            pass
        self.assertEqual(server.stop(), 0)
        worker.join(timeout=30)
        self.assertFalse(worker.is_alive())
        self.assertIn(failures[0].errno, ("ENOTCONN", "EPIPE", "ECONNRESET", "EINVAL"))
        self.assertTrue(client.aio_is_dead() or client.aio_is_closed())


class Sealing(ServedTest):
    def test_switch_under_load_keeps_every_write_and_the_old_tops(self):
        server = self.served_chain(size=32 * MIB)
        model = bytearray(32 * MIB)
        stop = threading.Event()
        failures = []

        def work(first):
            pick = random.Random(first)
            try:
                client = nbd.NBD()
                client.connect_unix(server.socket)
                while not stop.is_set():
                    offset = pick.randrange(first * 8192, (first + 1) * 8192 - 16) * 512
                    data = pick.randbytes(4096)
                    client.pwrite(data, offset, nbd.CMD_FLAG_FUA if pick.randrange(50) == 0 else 0)
                    model[offset:offset + 4096] = data
                client.shutdown()
            except Exception as error:  # told by the main thread
                failures.append(error)

        workers = [threading.Thread(target=work, args=(first,)) for first in range(8)]
        for worker in workers:
            worker.start()
        sealed = {}
        top = "top.avhd"
        for number in range(12):
            new = f"top{number}.avhd"
            self.create("differencing", new, top)
            server.tell(f"prepare {self.path(new)}")
            server.tell("switch")
            server.tell("flush")
            with open(self.path(top), "rb") as file:
                sealed[top] = file.read()
            top = new
        stop.set()
        for worker in workers:
            worker.join(timeout=60)
        self.assertEqual(failures, [])
        self.assertEqual(server.tell("status")["depth"], "14")
        client = nbd.NBD()
        client.connect_unix(server.socket)
        self.assertTrue(client.pread(32 * MIB, 0) == model)
        self.assertEqual(server.stop(), 0)
        for name, content in sealed.items():
            with open(self.path(name), "rb") as file:
                self.assertTrue(file.read() == content, f"{name} was written after it was sealed and clean")
        self.assertTrue(self.flat(top) == model)

    def test_prepare_of_a_stranger_is_refused(self):
        server = self.served_chain(size=MIB)
        self.create("dynamic", "other.vhd", MIB)
        self.create("differencing", "stranger.avhd", "other.vhd")
        self.assertTrue(server.ask(f"prepare {self.path('stranger.avhd')}").startswith("error"))
        self.assertTrue(server.ask(f"prepare {self.path('missing.avhd')}").startswith("error"))
        self.assertEqual(server.tell("status")["depth"], "2")


if __name__ == "__main__":
    unittest.main()
