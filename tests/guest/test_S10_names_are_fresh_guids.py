#!/usr/bin/python3
"""S10: every file name that is a GUID is a real, fresh GUID."""

import re
import uuid

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import main  # noqa: E402

ANY = re.compile(r"[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}")


def guids(vm):
    return {text for name in vm.files() for text in ANY.findall(name)}


def claim_all_guids_in_names_are_random_version_4_upper_case_and_never_used_twice(home):
    seen = set()
    for number, name in enumerate(("a", "b", "c"), 1):
        vm = home.create(name, "--disk", "64M,bus=virtio")
        for _ in range(3):
            vm.snapshot()
            seen |= guids(vm)
            vm.do("revert")
            seen |= guids(vm)
        # the VM, and three times: a snapshot, its working disk, the working disk of the revert
        assert len(seen) == number * (1 + 3 * 3), f"a GUID was used twice, or one is missing: {sorted(seen)}"
    for text in seen:
        value = uuid.UUID(text)
        assert value.version == 4 and value.variant == uuid.RFC_4122, text
        assert text == text.upper(), text
    assert len({text[:4] for text in seen}) > 20, "they are not random"


main(globals())
