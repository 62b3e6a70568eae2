#!/usr/bin/python3
"""check_style.py TOP: limits that no compiler checks: functions of 70 lines, files of 800, no goto, no tab, unique header
names, headers included once. Prints what breaks them; exit status 1 then."""

import re
import sys
from collections import defaultdict
from pathlib import Path

FUNCTION_LINES, FILE_LINES = 70, 800


def functions(lines):
    """(first line, length) of the bodies that end with a } in the first column."""
    begun = None
    for number, line in enumerate(lines, 1):
        if begun is None and (line == "{" or re.match(r"^[A-Za-z].*\)\s*\{$", line)):
            begun = number
        elif line.startswith("}"):
            if begun is not None and line == "}":
                yield begun, number - begun + 1
            begun = None


def complaints(file):
    lines = file.read_text(encoding="utf-8").splitlines()
    if len(lines) > FILE_LINES:
        yield f"{file}: {len(lines)} lines, at most {FILE_LINES}"
    for number, length in functions(lines):
        if length > FUNCTION_LINES:
            yield f"{file}:{number}: a function of {length} lines, at most {FUNCTION_LINES}"
    for number, line in enumerate(lines, 1):
        if "\t" in line:
            yield f"{file}:{number}: a tab"
        if re.match(r"^\s*goto\s+\w+\s*;", line):
            yield f"{file}:{number}: goto"
    if file.suffix == ".h" and "#pragma once" not in lines:
        yield f"{file}: no #pragma once"


def main():
    top = Path(sys.argv[1])
    files = [f for folder in ("src", "tests", "bench") for suffix in ("*.c", "*.h") for f in (top / folder).rglob(suffix)]
    found = [text for file in sorted(files) for text in complaints(file)]
    headers = defaultdict(list)
    for file in files:
        if file.suffix == ".h":
            headers[file.name].append(file)
    found += [f"two headers of one name: {' '.join(map(str, same))}" for same in headers.values() if len(same) > 1]
    print("\n".join(found) if found else f"{len(files)} files")
    sys.exit(1 if found or not files else 0)


main()
