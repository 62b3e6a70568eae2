"""Clients that break the protocol, by raw sockets: an error of the protocol or a closed connection, and the others are
served as before."""

import struct
import time
import unittest

from nbd_server import (BLOCK_STATUS, DISC, EINVAL, ENOSPC, FLUSH, MIB, READ, WRITE, ServedTest, connect, greet, is_closed,
                        option, option_reply, receive, request, simple_reply, transmission)

REP_ACK, REP_INFO = 1, 3
ERR_UNSUP, ERR_INVALID, ERR_TOO_BIG = 0x80000001, 0x80000003, 0x80000009
MEMORY_LIMIT = 400 * MIB


class Hostile(ServedTest):
    def setUp(self):
        super().setUp()
        self.server = self.served_chain()
        self.witness, self.size = transmission(self.server)

    def tearDown(self):
        """Whatever happened, another connection works, and the server ends in order."""
        self.witness.sendall(request(READ, 0, 512))
        self.assertEqual(simple_reply(self.witness)[0], 0)
        receive(self.witness, 512)
        fresh, size = transmission(self.server)
        self.assertEqual(size, self.size)
        fresh.close()
        self.witness.close()
        self.assertLess(self.server.rss_bytes(), MEMORY_LIMIT)
        self.assertEqual(self.server.stop(), 0)

    def test_garbage_instead_of_flags_is_closed(self):
        client = connect(self.server)
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        self.assertTrue(is_closed(client))

    def test_garbage_instead_of_an_option_is_closed(self):
        client = greet(self.server)
        client.sendall(b"\0" * 64)
        self.assertTrue(is_closed(client))

    def test_option_that_claims_4_gib_is_closed(self):
        client = greet(self.server)
        client.sendall(option(7, length=0xFFFFFFFF))
        self.assertEqual(option_reply(client)[1], ERR_TOO_BIG)
        self.assertTrue(is_closed(client))

    def test_unknown_and_malformed_options_are_answered(self):
        client = greet(self.server)
        client.sendall(option(5) + option(99, b"abc") + option(7, b"\xFF" * 8) + option(10, b"\0" * 8))
        self.assertEqual([option_reply(client)[1] for _ in range(4)],
                         [ERR_UNSUP, ERR_UNSUP, ERR_INVALID, ERR_INVALID])
        client.sendall(option(7, struct.pack(">IH", 0, 0)))
        self.assertEqual([option_reply(client)[1] for _ in range(3)], [REP_INFO, REP_INFO, REP_ACK])

    def test_options_byte_by_byte_are_understood(self):
        client = greet(self.server)
        for byte in option(7, struct.pack(">IH", 0, 0)):
            client.sendall(bytes([byte]))
        self.assertEqual([option_reply(client)[1] for _ in range(3)], [REP_INFO, REP_INFO, REP_ACK])

    def test_flood_of_options_without_reading_costs_no_memory(self):
        client = greet(self.server)
        client.settimeout(1)
        try:
            for _ in range(2000):
                client.sendall(option(3) * 500)
            self.fail("a million answers were kept for a client that reads none")
        except TimeoutError:
            pass
        self.assertLess(self.server.rss_bytes(), MEMORY_LIMIT)
        client.close()

    def test_request_with_a_wrong_magic_is_closed(self):
        client, _ = transmission(self.server)
        client.sendall(request(READ, 0, 512, magic=0x25609514))
        self.assertTrue(is_closed(client))

    def test_refused_payload_is_skipped(self):
        client, size = transmission(self.server)
        client.sendall(request(WRITE, size, 4096, cookie=7) + b"\x25\x60\x95\x13" * 1024 + request(READ, 0, 512, cookie=8))
        self.assertEqual(simple_reply(client), (ENOSPC, 7))
        self.assertEqual(simple_reply(client), (0, 8))
        receive(client, 512)

    def test_oversized_requests_are_refused(self):
        client, _ = transmission(self.server)
        client.sendall(request(READ, 0, 32 * MIB + 512))
        self.assertEqual(simple_reply(client)[0], EINVAL)
        client.sendall(request(WRITE, 0, 33 * MIB, cookie=9))
        for _ in range(33):
            client.sendall(bytes(MIB))
        self.assertEqual(simple_reply(client), (EINVAL, 9))
        client.sendall(request(FLUSH, 0, 0))
        self.assertEqual(simple_reply(client)[0], 0)

    def test_offsets_that_overflow_are_refused(self):
        client, _ = transmission(self.server)
        for offset in (0xFFFFFFFFFFFFFE00, 0x7FFFFFFFFFFFFE00, 1 << 40):
            client.sendall(request(READ, offset, 1024))
            self.assertEqual(simple_reply(client)[0], EINVAL)

    def test_unknown_commands_and_flags_are_refused(self):
        client, _ = transmission(self.server)
        for kind, flags in ((5, 0), (8, 0), (0xFFFF, 0), (READ, 0x8000), (BLOCK_STATUS, 0)):
            client.sendall(request(kind, 0, 512, flags=flags))
            self.assertEqual(simple_reply(client)[0], EINVAL)

    def test_death_in_the_middle_of_a_payload_writes_nothing(self):
        for length in (4096, 8 * MIB):
            client, _ = transmission(self.server)
            client.sendall(request(WRITE, 0, length) + b"\xFF" * (length - 1))
            client.close()
        self.witness.sendall(request(READ, 0, 4096))
        self.assertEqual(simple_reply(self.witness)[0], 0)
        self.assertEqual(receive(self.witness, 4096), bytes(4096))

    def test_goodbye_comes_after_the_answers(self):
        client, _ = transmission(self.server)
        client.sendall(b"".join(request(READ, 0, 65536, cookie=each) for each in range(50)) + request(DISC, 0, 0))
        for _ in range(50):
            self.assertEqual(simple_reply(client)[0], 0)
            receive(client, 65536)
        self.assertEqual(client.recv(1), b"")

    def test_thousands_of_requests_at_once_are_all_answered(self):
        client, _ = transmission(self.server)
        client.sendall(b"".join(request(READ, 512 * each, 512, cookie=each) for each in range(3000)))
        cookies = set()
        for _ in range(3000):
            error, cookie = simple_reply(client)
            self.assertEqual(error, 0)
            receive(client, 512)
            cookies.add(cookie)
        self.assertEqual(len(cookies), 3000)

    def test_client_that_never_reads_holds_up_nobody(self):
        greedy = [transmission(self.server)[0] for _ in range(4)]
        for client in greedy:
            client.sendall(b"".join(request(READ, 0, 32 * MIB, cookie=each) for each in range(64)))
        time.sleep(1)
        self.assertLess(self.server.rss_bytes(), MEMORY_LIMIT)
        self.create("differencing", "new.avhd", "top.avhd")
        self.server.tell(f"prepare {self.path('new.avhd')}")
        self.server.tell("switch")
        self.server.tell("flush")
        for client in greedy:
            client.close()

    def test_more_clients_than_places_wait_their_turn(self):
        crowd = [connect(self.server) for _ in range(60)]
        self.assertLessEqual(int(self.server.tell("status")["clients"]), 32)
        for client in crowd[:40]:
            client.close()
        for client in crowd[40:]:
            receive(client, 18)
            client.close()


if __name__ == "__main__":
    unittest.main()
