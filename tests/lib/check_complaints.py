#!/usr/bin/python3
"""docs/complaints.md: twenty rows, each with tests that show what it says, and each of those tests exists."""

import re
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
ROWS = 20


def exists(file, name):
    """Is there such a claim in a script, such a function of cmocka in a C file?"""
    path = TOP / file
    if not path.is_file():
        return False
    text = path.read_text()
    if path.suffix == ".py":
        return f"def claim_{name}(home)" in text
    return re.search(rf"\bvoid {name}\(void \*\*state\)", text) is not None and re.search(rf"\W(TEST|cmocka_unit_test\w*)\(\s*{name}\b", text)


def faults_of(number, row):
    """What is wrong with one row of the table."""
    cells = [cell.strip() for cell in row.strip().strip("|").split(" | ")]
    if len(cells) != 4 or cells[0] != str(number) or not all(cells):
        return [f"row {number}: not `number | complaint | answer | tests`"]
    found = []
    references = re.findall(r"`(tests/[^`]+)`: ((?:`\w+`(?:, )?)+)", cells[3])
    for file, names in references:
        found += [f"row {number}: {file} has no {name}" for name in re.findall(r"\w+", names) if not exists(file, name)]
    return found or ([] if references else [f"row {number}: no test is named"])


def main():
    rows = re.findall(r"^\| \d+ \|.*$", (TOP / "docs" / "complaints.md").read_text(), re.M)
    faults = [fault for number, row in enumerate(rows, 1) for fault in faults_of(number, row)]
    if len(rows) != ROWS:
        faults.append(f"{len(rows)} rows, not {ROWS}")
    print("\n".join(faults) or f"{len(rows)} complaints, all tests that are named exist")
    sys.exit(1 if faults else 0)


main()
