"""What bench/time found: its tables, the shows (target, measured, met or missed), and the plot."""

import statistics

import plot
from report import number, show, shows_text  # noqa: F401  (shows_text is for bench/time)
from time_runs import MARKS, OWN_WAYS, WAYS

PAUSE_LIMIT_MS, PAUSE_WORST_MS = 8, 25
RUNNING_LIMIT_MS = 100
RATIO_LEAST, RATIO_MIB = 30, 4096
RATE_LEAST_GB_S = 1.0
DISK_SHARE = 0.8  # of the disk's own rate: then it is the disk that limits
COLOURS = {"pre-copy": "#2b6cb0", "point-now": "#2f855a", "savevm": "#dd6b20", "virsh": "#a0522d"}
TITLES = {"pre-copy": "Bough, pre-copy", "point-now": "Bough, --point-now", "savevm": "QEMU savevm/loadvm, qcow2",
          "virsh": "virsh snapshot-create-as/-revert"}


def values(records, key):
    return [record[key] for record in records if record.get(key) is not None]


def median(records, key):
    found = values(records, key)
    return statistics.median(found) if found else None


def worst(records, key):
    return max(values(records, key), default=None)


def of(records, **wanted):
    return [record for record in records if all(record.get(key) == value for key, value in wanted.items())]


def grouped(records, *keys):
    """(group's keys as a dict, records), in the order in which they were first seen."""
    order = []
    for record in records:
        name = tuple(record.get(key) for key in keys)
        if name not in order:
            order.append(name)
    for name in order:
        yield dict(zip(keys, name)), of(records, **dict(zip(keys, name)))


def one(value):
    return number(value, "{:.1f}" if value is not None and value < 100 else "{:.0f}")


def lines(headings, rows, widths):
    yield "  " + " ".join(f"{heading:>{width}}" for heading, width in zip(headings, widths))
    for row in rows:
        yield "  " + " ".join(f"{cell:>{width}}" for cell, width in zip(row, widths))


def rates_gb_s(records, time_key):
    """Of the memory that a snapshot holds, over a time of it: until it is in the page cache, or the whole command's. The median."""
    rates = [record["memory_bytes"] / 1e6 / record[time_key] for record in records if record.get("memory_bytes") and record.get(time_key)]
    return statistics.median(rates) if rates else None


# --- tables ---

def at_mark(records, mark, key):
    """The value of the first, second or tenth snapshot of a series."""
    first = min(record["number"] for record in records)
    return next((record[key] for record in records if record["number"] == first + mark - 1 and key in record), None)


def snapshot_rows(snapshots):
    for group, records in grouped(snapshots, "memory_mib", "load", "way", "kind"):
        yield [str(group["memory_mib"]), group["load"], group["way"], group["kind"], str(len(records)),
               one(median(records, "pause_ms")), one(worst(records, "pause_ms")),
               *(one(at_mark(records, mark, "pause_ms")) for mark in MARKS),
               one(median(records, "gap_ms")), one(worst(records, "gap_ms")), one(median(records, "calm_gap_ms")),
               one(median(records, "whole_ms")), *(one(at_mark(records, mark, "whole_ms")) for mark in MARKS),
               number(median(records, "written_bytes") / 1e6),
               *(number(rates_gb_s(records, key), "{:.2f}") for key in ("copied_ms", "whole_ms"))]


def snapshot_table(snapshots):
    if not snapshots:
        return
    yield ""
    yield ("snapshots: ms, medians and worst, and the first, second and tenth of each series. pause: from STOP to RESUME, the "
           "longest of a snapshot;")
    yield ("gap: the longest between two lines of the guest, which writes one each 10 ms, while the command ran; calm: in the time "
           "before; MB that the saving process wrote; GB/s of the memory, zeros aside: until it is in the page cache, and the whole command")
    yield from lines(("MiB", "load", "way", "guest", "n", "pause", "worst", "1st", "2nd", "10th", "gap", "worst", "calm", "whole",
                      "1st", "2nd", "10th", "MB", "cached", "whole"), snapshot_rows(snapshots),
                     (5, 5, 9, 8, 3, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 6, 6, 5))


def back_rows(backs):
    for group, records in grouped(backs, "memory_mib", "load", "way", "depth", "number", "cache"):
        depth = group["depth"] if group["depth"] is not None else group["number"] if group["way"] in OWN_WAYS else None
        yield [str(group["memory_mib"]), group["load"], group["way"], str(group["number"]), number(depth), group["cache"],
               str(len(records)), *(one(f(records, key)) for key in ("running_ms", "line_ms", "command_ms") for f in (median, worst))]


def back_table(backs):
    if not backs:
        return
    yield ""
    yield ("going back: ms, medians and worst, until QEMU runs, until the guest's next line has arrived, until the command ends; "
           "layers: of the disk")
    yield from lines(("MiB", "load", "way", "snapshot", "layers", "cache", "n", "running", "worst", "line", "worst", "command", "worst"),
                     back_rows(backs), (5, 5, 9, 8, 6, 5, 3, 8, 8, 8, 8, 8, 8))


def load_table(loads):
    for group, records in grouped(loads, "load"):
        rates = values(records, "bytes_per_second")
        unit = f"{min(rates) / 4096:.0f} to {max(rates) / 4096:.0f} pages/s" if group["load"] == "dirty" else \
            f"{min(rates) / 1e6:.0f} to {max(rates) / 1e6:.0f} MB/s"
        yield f"load {group['load']}: the guests reached {unit}"


# --- shows ---

def pause_shows(snapshots):
    for group, records in grouped(of(snapshots, way="pre-copy", load="dirty", kind="booted"), "memory_mib"):
        title = f"pre-copy, {group['memory_mib']} MiB, dirtying 20,000 pages/s: pause"
        middle, most = median(records, "pause_ms"), worst(records, "pause_ms")
        yield show(f"{title}, median", f"<= {PAUSE_LIMIT_MS} ms", f"{middle:.1f} ms", middle <= PAUSE_LIMIT_MS)
        yield show(f"{title}, worst of {len(records)}", f"<= {PAUSE_WORST_MS} ms", f"{most:.1f} ms", most <= PAUSE_WORST_MS)


def back_shows(backs):
    for group, records in grouped([each for each in backs if each["way"] in OWN_WAYS], "way", "memory_mib", "load", "depth",
                                  "cache"):
        chain = f", {group['depth']} layers" if group["depth"] else ""
        middle = median(records, "running_ms")
        yield show(f"{group['way']}, {group['memory_mib']} MiB, {group['load']}{chain}, {group['cache']}: back to running, median of {len(records)}",
                   f"<= {RUNNING_LIMIT_MS} ms", f"{middle:.1f} ms", middle <= RUNNING_LIMIT_MS)


def ratio_shows(backs):
    for cache in ("warm", "cold"):
        ours, theirs = (median(of(backs, way=way, memory_mib=RATIO_MIB, load="idle", cache=cache), "running_ms")
                        for way in ("pre-copy", "savevm"))
        if ours and theirs:
            yield show(f"loadvm to ours, {RATIO_MIB} MiB, {cache}, until QEMU runs", f">= {RATIO_LEAST}", f"{theirs / ours:.1f}",
                       theirs / ours >= RATIO_LEAST)


def rate_shows(snapshots, disk_mb_s):
    least = min(RATE_LEAST_GB_S, DISK_SHARE * disk_mb_s / 1000)
    for group, records in grouped(of(snapshots, way="pre-copy", load="idle", kind="booted"), "memory_mib"):
        rate = rates_gb_s(records, "copied_ms")
        if rate is not None:
            yield show(f"pre-copy, {group['memory_mib']} MiB, idle: saving, memory that is not zero", f">= {least:.2f} GB/s",
                       f"{rate:.2f} GB/s", rate >= least)


def shows(bench):
    return [*pause_shows(bench.snapshots), *back_shows(bench.backs), *ratio_shows(bench.backs),
            *rate_shows(bench.snapshots, bench.disk_mb_s)]


# --- the plot ---

PANELS = (
    ("Pause, idle", "ms, from STOP to RESUME, median", "snapshots", "pause_ms", {"load": "idle", "kind": "booted"}),
    ("Pause, dirtying 20,000 pages/s", "ms, from STOP to RESUME, median", "snapshots", "pause_ms", {"load": "dirty", "kind": "booted"}),
    ("Longest gap of the guest, idle", "ms, median", "snapshots", "gap_ms", {"load": "idle", "kind": "booted"}),
    ("Taking a snapshot, idle", "ms, the whole command, median", "snapshots", "whole_ms", {"load": "idle", "kind": "booted"}),
    ("Going back, page cache warm", "ms until QEMU runs, median", "backs", "running_ms", {"load": "idle", "cache": "warm", "depth": None}),
    ("Going back, page cache warm", "ms until the guest's next line, median", "backs", "line_ms", {"load": "idle", "cache": "warm", "depth": None}),
    ("Going back, page cache cold", "ms until QEMU runs, median", "backs", "running_ms", {"load": "idle", "cache": "cold", "depth": None}),
    ("Going back, page cache cold", "ms until the guest's next line, median", "backs", "line_ms", {"load": "idle", "cache": "cold", "depth": None}),
)


def panel(bench, title, unit, where, key, wanted):
    records = of(getattr(bench, where), **wanted)
    sizes = sorted({record["memory_mib"] for record in records})
    series = []
    for way in WAYS:
        points = [(size, median(of(records, way=way, memory_mib=size), key)) for size in sizes]
        series.append((COLOURS[way], False, [(size, value) for size, value in points if value]))
    return plot.Panel(title, unit, sizes, series, logarithmic=True) if any(
        points for _, _, points in series) else None


def drawing(bench, subtitle):
    panels = [each for each in (panel(bench, *described) for described in PANELS) if each]
    seen = {record["way"] for record in bench.snapshots}
    entries = [(COLOURS[way], False, TITLES[way]) for way in WAYS if way in seen]
    return plot.page("Snapshots of a running machine, over its memory in MiB, half of which is filled", subtitle, entries, panels)
