"""What came out: the table, the shows (target, measured, met or missed), and the plot."""

import statistics
from collections import defaultdict

import clients
import plot

OWN, CEILING = "own", "raw"
DEEP_LIMIT = 0.9
OPEN_LIMIT_S, MEMORY_LIMIT_BYTES = 1.0, 128 << 20
HOLD_LIMIT_US = 2000
FIGURES = ("iops", "mib_per_second", "p50_us", "p99_us", "client_cpu", "server_cpu")
BLUE, ORANGE, GREY = "#2b6cb0", "#dd6b20", "#888888"


def figure_of(workload):
    return "iops" if workload.block < 1 << 20 else "mib_per_second"


def least_ratio(workload):
    """What our server has to reach of qemu-nbd's figure at depth 1."""
    if workload.order == "sequential":
        return 1.0
    return 1.2 if workload.depth > 1 else 1.1


class Runs:
    """All runs of the read and write workloads, each a dict."""

    def __init__(self):
        self.runs = []
        self._groups = defaultdict(dict)  # (workload, client, server, depth) -> round -> run

    def add(self, run):
        self.runs.append(run)
        self._groups[run["workload"], run["client"], run["server"], run["depth"]][run["round"]] = run

    def median(self, workload, client, server, depth, figure=None):
        rounds = self._groups.get((workload.name, client, server, depth))
        return statistics.median(run[figure or figure_of(workload)] for run in rounds.values()) if rounds else None

    def ratio(self, workload, client, one, other):
        """The median of the rounds' ratios: what one round's noise does to both counts little. (server, depth) each."""
        ours, theirs = (self._groups.get((workload.name, client, *each), {}) for each in (one, other))
        figure = figure_of(workload)
        both = [ours[r][figure] / theirs[r][figure] for r in ours if r in theirs and theirs[r][figure] > 0]
        return statistics.median(both) if both else None

    def servers(self):
        return sorted({run["server"] for run in self.runs})

    def clients_of(self, workload):
        used = {run["client"] for run in self.runs if run["workload"] == workload.name}
        return [name for name in clients.CLIENTS if name in used]

    def workloads(self):
        used = {run["workload"] for run in self.runs}
        return [workload for workload in clients.READS + clients.WRITES if workload.name in used]

    def depths(self):
        return sorted({run["depth"] for run in self.runs})

    def best_qcow2(self, workload, client, depth):
        """The setting of qemu-nbd that did best here."""
        names = [name for name in self.servers() if name.startswith("qcow2")]
        known = [(self.median(workload, client, name, depth), name) for name in names]
        return max((pair for pair in known if pair[0]), default=(None, None))[1]


# --- the table ---

def number(value, form="{:.0f}"):
    return form.format(value) if value is not None else "-"


def cost_us(runs, workload, client, server, depth):
    """Processor time of the server for a request."""
    cpu, iops = (runs.median(workload, client, server, depth, figure) for figure in ("server_cpu", "iops"))
    return cpu / iops * 1e6 if iops else None


HEADINGS = ("client", "depth", "own", "p50 us", "p99 us", "cpu us", "of depth 1", "qemu-nbd", "p50 us", "p99 us", "cpu us",
            "own/qemu", "its aio")


def rows_of(runs, workload, client):
    first = runs.depths()[0]
    for depth in runs.depths():
        best = runs.best_qcow2(workload, client, depth)
        cells = [client, str(depth)]
        for server in (OWN, best):
            cells.append(number(runs.median(workload, client, server, depth)))
            cells += [number(runs.median(workload, client, server, depth, each)) for each in ("p50_us", "p99_us")]
            cells.append(number(cost_us(runs, workload, client, server, depth), "{:.1f}"))
            if server == OWN:
                cells.append(number(runs.ratio(workload, client, (OWN, depth), (OWN, first)), "{:.2f}"))
        cells.append(number(runs.ratio(workload, client, (OWN, depth), (best, depth)), "{:.2f}"))
        cells.append(best.split()[1] if best else "-")
        yield cells


def table(runs):
    for workload in runs.workloads():
        unit = "IOPS" if figure_of(workload) == "iops" else "MiB/s"
        ceilings = ", ".join(f"{number(runs.median(workload, client, CEILING, 1))} ({client})"
                             for client in runs.clients_of(workload))
        yield ""
        yield f"{workload.title}: {unit}; nbdkit on a raw file, the ceiling: {ceilings}"
        yield "  " + " ".join(f"{heading:>10}" for heading in HEADINGS)
        for client in runs.clients_of(workload):
            for cells in rows_of(runs, workload, client):
                yield "  " + " ".join(f"{cell:>10}" for cell in cells)


def opening_table(opened):
    if not opened:
        return
    yield ""
    yield "opening: from the start of the server until it greets a client; resident memory then, and at most after all was read"
    yield "  " + " ".join(f"{heading:>14}" for heading in ("server", "depth", "ms", "worst ms", "MiB", "MiB at most"))
    for each in opened:
        cells = (each["server"], str(each["depth"]), f"{each['median_s'] * 1000:.1f}", f"{each['worst_s'] * 1000:.1f}",
                 f"{each['rss_bytes'] / (1 << 20):.1f}", f"{each['peak_bytes'] / (1 << 20):.1f}")
        yield "  " + " ".join(f"{cell:>14}" for cell in cells)


def seals_table(sealed):
    if not sealed:
        return
    yield ""
    yield ("seals under load (random 4 KiB, half reads and half writes, QD 8): latency in us of the requests that were under way "
           "in each phase,")
    yield "of the slowest request of each seal, and of all that met no seal"
    yield "  " + " ".join(f"{heading:>12}" for heading in ("depth", "phase", "requests", "p50", "p99", "max", "slowest p50",
                                                         "slowest p99", "it took p50", "it took p99"))
    for each in sealed:
        for phase in ("prepare", "switch", "flush", "undisturbed"):
            told = each[phase] if phase == "undisturbed" else each[phase]["requests"]
            cells = [str(each["depth"]), phase, str(told["count"]), *(f"{told[f]:.0f}" for f in ("p50_us", "p99_us", "max_us"))]
            for name in ("slowest_of_each", "took") if phase != "undisturbed" else ():
                cells += [f"{each[phase][name][f]:.0f}" for f in ("p50_us", "p99_us")]
            yield "  " + " ".join(f"{cell:>12}" for cell in cells)


# --- the shows ---

def show(title, target, measured, met):
    return {"title": title, "target": target, "measured": measured, "met": met}


def deep_shows(runs):
    first, last = runs.depths()[0], runs.depths()[-1]
    for workload in runs.workloads():
        for client in runs.clients_of(workload) if workload.op == "read" and last > first else ():
            ratio = runs.ratio(workload, client, (OWN, last), (OWN, first))
            yield show(f"own depth {last} to own depth {first}, {workload.title}, {client}", f">= {DEEP_LIMIT:.2f}",
                       f"{ratio:.2f}", ratio >= DEEP_LIMIT)


def peer_shows(runs):
    for workload in runs.workloads():
        for client in runs.clients_of(workload):
            best = runs.best_qcow2(workload, client, 1)
            ratio = runs.ratio(workload, client, (OWN, 1), (best, 1))
            if ratio is not None:
                least = least_ratio(workload)
                yield show(f"own depth 1 to {best.replace('qcow2', 'qemu-nbd')} depth 1, {workload.title}, {client}",
                           f">= {least:.2f}", f"{ratio:.2f}", ratio >= least)


def opening_shows(opened):
    own = [each for each in opened if each["server"] == OWN]
    for each in own[-1:]:
        title = f"opening a chain of {each['depth']} layers"
        yield show(f"{title}, median", f"<= {OPEN_LIMIT_S:.2f} s", f"{each['median_s']:.3f} s", each["median_s"] <= OPEN_LIMIT_S)
        yield show(f"{title}, memory at most", f"<= {MEMORY_LIMIT_BYTES >> 20} MiB", f"{each['peak_bytes'] / (1 << 20):.1f} MiB",
                   each["peak_bytes"] <= MEMORY_LIMIT_BYTES)


def seal_shows(sealed):
    for each in sealed:
        for phase in ("prepare", "switch"):
            held = each[phase]["requests"]["p99_us"]
            yield show(f"seal at depth {each['depth']}, {each['seals']} times: requests during its {phase}, 99th percentile",
                       f"< {HOLD_LIMIT_US / 1000:.2f} ms", f"{held / 1000:.3f} ms", held < HOLD_LIMIT_US)


def shows(runs, opened, sealed):
    return [*(deep_shows(runs) if runs.runs else ()), *(peer_shows(runs) if runs.runs else ()), *opening_shows(opened),
            *seal_shows(sealed)]


def shows_text(found):
    width = max((len(each["title"]) for each in found), default=0)
    yield ""
    for each in found:
        yield (f"{each['title']:{width}}  target {each['target']:>10}  measured {each['measured']:>10}  "
               f"{'met' if each['met'] else 'MISSED'}")
    yield f"{sum(each['met'] for each in found)} of {len(found)} met"


# --- the plot ---

def panel(runs, workload, client):
    depths = runs.depths()

    def points(server_at):
        found = [(depth, runs.median(workload, client, server_at(depth), depth)) for depth in depths]
        return [(depth, value) for depth, value in found if value is not None]

    ceiling = runs.median(workload, client, CEILING, 1)
    series = [(GREY, True, [(depths[0], ceiling)] if ceiling else []),
              (ORANGE, False, points(lambda depth: runs.best_qcow2(workload, client, depth))),
              (BLUE, False, points(lambda _: OWN))]
    unit = "IOPS" if figure_of(workload) == "iops" else "MiB/s"
    return plot.Panel(workload.title, f"{unit}, client: {client}", depths, series)


def drawing(runs, subtitle):
    panels = [panel(runs, workload, client) for workload in runs.workloads() for client in runs.clients_of(workload)]
    entries = ((BLUE, False, "Bough, VHD chain"), (ORANGE, False, "qemu-nbd, qcow2 chain of the same content"),
               (GREY, True, "nbdkit, raw file"))
    return plot.page("Disk servers over the depth of the chain, in files", subtitle, entries, panels)
