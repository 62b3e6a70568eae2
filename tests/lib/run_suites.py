#!/usr/bin/python3
"""run_suites.py BUILD TITLE RESULTS SUITE...: runs meson's suites and counts their claims.

A line a test program as it ends, all output of those that failed, and `PASSED FAILED SKIPPED` appended to RESULTS. A
program counts as its claims where it tells them (TAP, cmocka), else as one."""

import json
import re
import subprocess
import sys
from pathlib import Path


def counts(test):
    """(passed, failed, skipped) of one test of meson's log."""
    output = (test.get("stdout") or "") + "\n" + (test.get("stderr") or "")
    skipped = len(re.findall(r"^ok .*# SKIP", output, re.M | re.I))
    skipped += len({*re.findall(r"^\[  SKIPPED \] (?!\d+ test)(\S+)", output, re.M)})
    passed = len(re.findall(r"^ok \d", output, re.M)) - len(re.findall(r"^ok .*# SKIP", output, re.M | re.I))
    passed += len(re.findall(r"^\[       OK \] ", output, re.M))
    failed = len(re.findall(r"^not ok ", output, re.M))
    failed += len(set(re.findall(r"^\[  FAILED  \] (?!\d+ test)(\S+)", output, re.M)))
    if test["result"] == "SKIP":
        return 0, 0, max(skipped, 1)
    if test["result"] in ("OK", "EXPECTEDFAIL"):
        return (passed, 0, skipped) if passed + skipped else (1, 0, 0)
    return passed, max(failed, 1), skipped


def main():
    build, title, results, *suites = sys.argv[1:]
    command = ["meson", "test", "-C", build, "--no-rebuild", "--num-processes", "2", "--print-errorlogs",
               "--timeout-multiplier", "3"]
    for suite in suites:
        command += ["--suite", suite]
    log = Path(build, "meson-logs", "testlog.json")
    log.unlink(missing_ok=True)
    print(f"suites with {title}: {' '.join(suites)}", flush=True)
    status = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    tests = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    passed, failed, skipped = (sum(column) for column in zip((0, 0, 0), *map(counts, tests)))
    if status != 0 and failed == 0 or not tests:
        print(f"meson test: exit {status}, {len(tests)} tests", flush=True)
        failed += 1
    for test in tests:
        for line in (test.get("stdout") or "").splitlines():
            if re.match(r"^not ok |.*# SKIP|^\[  FAILED  \] (?!\d+ test)", line, re.I):
                print(f"  {test['name']}: {line}", flush=True)
    with open(results, "a", encoding="utf-8") as stream:
        stream.write(f"{passed} {failed} {skipped}\n")
    sys.exit(1 if failed else 0)


main()
