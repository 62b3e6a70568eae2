"""The device state of a migration stream, field by field, by QEMU's own description of it: the JSON behind its end.

The layout is QEMU's (migration/savevm.c, migration/vmstate.c). What is read must fit byte for byte: each section's head
and footer stand where the description says, and the last section ends where the state does. Else StateError.
"""

import json
import re
import struct
from pathlib import Path

FULL, SUBSECTION, DESCRIPTION, FOOTER = 4, 5, 6, 0x7E


class StateError(AssertionError):
    """The state is not what its description says."""


class Device:
    """A device's section. fields: {path: bytes}, in the stream's order; a path is names and indices joined by slashes."""

    def __init__(self, name, instance, version, section, offset):
        self.name, self.instance, self.version, self.section, self.offset = name, instance, version, section, offset
        self.fields = {}

    @property
    def key(self):
        return f"{self.name}#{self.instance}"


def stream_of(vsv):
    """The stream in a .vsv, found by two fields of its header."""
    data = Path(vsv).read_bytes()
    at, length = struct.unpack_from(">QQ", data, 48)
    if data[:8] != b"BOUGHVSV" or len(data) != at + length or data[at:at + 8] != b"QEVM\0\0\0\3":
        raise StateError(f"{vsv}: no saved state")
    return data[at:]


def describe(stream):
    """(description, offset of the EOF before it)."""
    for match in re.finditer(rb"\0\x06(....)\{", stream, re.S):
        if match.start() + 6 + int.from_bytes(match[1], "big") == len(stream):
            return json.loads(stream[match.start() + 6:]), match.start()
    raise StateError("no description behind the state")


def decode(stream):
    """The devices of a whole stream, in its order."""
    description, end = describe(stream)
    devices = description["devices"]
    first = devices[0]["name"].encode()
    head = bytes([len(first)]) + first + struct.pack(">I", devices[0]["instance_id"])
    at = stream.find(head) - 5
    if at < 0:
        raise StateError("the first device is not in the stream")
    found = []
    for each in devices:
        reader = Reader(stream, at, end)
        found.append(reader.device(each))
        at = reader.at
    if at != end:
        raise StateError(f"the sections end at {at}, the state at {end}")
    return found


class Reader:
    def __init__(self, stream, at, end):
        self.stream, self.at, self.end = stream, at, end

    def take(self, length):
        if length > self.end - self.at:
            raise StateError(f"byte {self.at}: {length} bytes reach behind the end of the state")
        self.at += length
        return self.stream[self.at - length:self.at]

    def number(self, length):
        return int.from_bytes(self.take(length), "big")

    def expect(self, value, length, what):
        at, found = self.at, self.number(length)
        if found != value:
            raise StateError(f"byte {at}: {what} is {found}, the description says {value}")

    def name(self, name, what):
        at, found = self.at, self.take(self.number(1)).decode(errors="replace")
        if found != name:
            raise StateError(f"byte {at}: {what} is {found!r}, the description says {name!r}")

    def device(self, described):
        at, name = self.at, described["name"]
        self.expect(FULL, 1, f"the section of {name}")
        section = self.number(4)
        self.name(name, "the section")
        self.expect(described["instance_id"], 4, f"the instance of {name}")
        version = self.number(4)
        device = Device(name, described["instance_id"], version, section, at)
        if described.get("version", version) != version:
            raise StateError(f"byte {at}: version {version} of {name}, the description says {described['version']}")
        self.structure(described, "", device.fields)
        self.expect(FOOTER, 1, f"the footer of {name}")
        self.expect(section, 4, f"the footer of {name}")
        return device

    def structure(self, described, path, fields):
        for field in described.get("fields", []):
            self.field(field, path, fields)
        for sub in described.get("subsections", []):
            self.expect(SUBSECTION, 1, f"the subsection {sub['vmsd_name']}")
            self.name(sub["vmsd_name"], "a subsection")
            self.expect(sub["version"], 4, f"the version of {sub['vmsd_name']}")
            self.structure(sub, path + sub["vmsd_name"] + "/", fields)

    def field(self, field, path, fields):
        for index in range(field.get("array_len", 1)):
            name = path + field["name"]
            if "index" in field or "array_len" in field:
                name += f"[{field.get('index', index)}]"
            at = self.at
            if "struct" in field:
                self.structure(field["struct"], name + "/", fields)
            else:
                while name in fields:
                    name += "'"
                fields[name] = self.take(field["size"])
            if self.at - at != field["size"]:
                raise StateError(f"byte {at}: {name} takes {self.at - at} bytes, the description says {field['size']}")


def differences(one, other):
    """[(DEVICE#INSTANCE/field, bytes in one or None, bytes in the other or None)]."""
    found = []
    ours, theirs = ({d.key: d for d in devices} for devices in (one, other))
    for key in dict.fromkeys([*ours, *theirs]):
        a, b = (devices[key].fields if key in devices else {} for devices in (ours, theirs))
        found += [(f"{key}/{name}", a.get(name), b.get(name)) for name in dict.fromkeys([*a, *b])
                  if a.get(name) != b.get(name)]
    return found
