#!/usr/bin/env python3
"""Each fuzz target for a while, and what came of it: executions, speed, memory, and the lines of src/vhd, src/disk and src/ram that
the inputs reach.

report.py BUILD-FOLDER [TARGET...]      a build with -Dfuzz=true
    $FUZZ_SECONDS   for each target, 60 if it is not set
    $FUZZ_CORPUS    a folder that keeps what is found, one below it for each target, and is read in the next run

The exit status says whether a target found a crash, a hang (20 s), a leak, or more than 2 GiB of memory.
"""

import json
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TARGETS = ["vhd_footer", "vhd_header", "vhd_locators", "vhd_blocks", "vhd_image", "nbd_handshake", "nbd_server", "nbd_requests",
           "dirty_log", "ram_description", "ram_files", "ram_stream", "ram_vsv"]
LIMITS = ["-timeout=20", "-rss_limit_mb=2048", "-max_len=65536", "-print_final_stats=1"]
MEASURED = ("src/vhd", "src/disk", "src/ram")


def tool(name):
    """The clang of the build is Debian's, whose tools carry its version where no others are installed."""
    for each in (name, name + "-14", name + "-16", name + "-19"):
        if subprocess.run(["which", each], stdout=subprocess.DEVNULL).returncode == 0:
            return each
    raise SystemExit(f"{name} is missing: scripts/packages names the package")


def run_target(build, target, seconds, found, seeds):
    """The figures that libFuzzer prints in the end; None if it found something."""
    with tempfile.TemporaryDirectory(prefix="bough-fuzz-") as work:
        done = subprocess.run([os.path.join(build, "tests/fuzz/fuzz_" + target), f"-max_total_time={seconds}", *LIMITS,
                               f"-artifact_prefix={found}/", found, seeds],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=work)
    output = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        print(output)
        return None
    stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", output))
    return [int(stats[name]) for name in ("number_of_executed_units", "average_exec_per_sec", "peak_rss_mb")]


def reached(build, target, folders, profile):
    subprocess.run([os.path.join(build, f"tests/fuzz/fuzz_{target}_coverage"), "-runs=0", *folders], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ, LLVM_PROFILE_FILE=profile))
    return profile


def lines_of(build, profiles, work):
    """(lines reached, lines) by file, over all targets: a line that one of them reaches is reached."""
    merged = os.path.join(work, "merged")
    subprocess.run([tool("llvm-profdata"), "merge", "-sparse", "-o", merged, *profiles], check=True)
    programs = [os.path.join(build, f"tests/fuzz/fuzz_{target}_coverage") for target in TARGETS]
    objects = [word for program in programs[1:] for word in ("-object", program)]
    done = subprocess.run([tool("llvm-cov"), "export", "-summary-only", f"-instr-profile={merged}", programs[0], *objects],
                          stdout=subprocess.PIPE, check=True)
    files = {}
    for each in json.loads(done.stdout)["data"][0]["files"]:
        name = each["filename"]
        lines = each["summary"]["lines"]
        folder = next((folder for folder in MEASURED if f"{folder}/" in name), None)
        if folder and lines["count"] > 0:
            files[folder + name.split(folder)[-1]] = (lines["covered"], lines["count"])
    return files


def percent(pairs):
    covered, count = sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
    return f"{100 * covered / count:5.1f} %" if count else "    - "


def print_coverage(seeds, whole):
    print(f"\n{'lines reached':32} {'seeds':>8} {'with what was found':>20}")
    for name in sorted(whole):
        print(f"{name:32} {percent([seeds.get(name, (0, 0))]):>8} {percent([whole[name]]):>20}")
    for folder in MEASURED:
        print(f"{folder + ', all':32} {percent([pair for name, pair in seeds.items() if name.startswith(folder)]):>8} "
              f"{percent([pair for name, pair in whole.items() if name.startswith(folder)]):>20}")


def main():
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    build, targets = os.path.abspath(sys.argv[1]), sys.argv[2:] or TARGETS
    seconds = int(os.environ.get("FUZZ_SECONDS", "60"))
    subprocess.run(["ninja", "-C", build] + [f"tests/fuzz/fuzz_{target}{kind}" for target in TARGETS
                                            for kind in ("", "_coverage")], check=True, stdout=subprocess.DEVNULL)
    failed, profiles, seed_profiles = 0, [], []
    print(f"{'target':16} {'executions':>12} {'a second':>10} {'memory':>9} {'inputs':>7}")
    with tempfile.TemporaryDirectory(prefix="bough-fuzz-report-") as work:
        for target in targets:
            found = os.path.join(os.environ.get("FUZZ_CORPUS", work), target)
            seeds = os.path.join(HERE, "corpus-" + target)
            os.makedirs(found, exist_ok=True)
            figures = run_target(build, target, seconds, found, seeds)
            if figures is None:
                failed += 1
                continue
            print(f"{target:16} {figures[0]:12} {figures[1]:10} {figures[2]:5} MiB {len(os.listdir(found)):7}", flush=True)
            seed_profiles.append(reached(build, target, [seeds], os.path.join(work, target + ".seeds")))
            profiles.append(reached(build, target, [seeds, found], os.path.join(work, target + ".profile")))
        if profiles:
            print_coverage(lines_of(build, seed_profiles, work), lines_of(build, profiles, work))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
