"""From figures to tables, a plot and docs/PERFORMANCE.md. Every word that depends on a figure is made
from it here."""
import datetime
import math
import os
import platform
import shutil
import statistics
import subprocess
from dataclasses import dataclass
from xml.sax.saxutils import escape

from work import HEAD, KNOWN, READER_MIB, READERS, SPOT, SPOTS
from world import CACHE_MIB, KIB, MIB, RATE, ROOT, RTT_MS, SETUP, TUNED, rclone_version

BIG, THOUSAND, SMALL = "wan, 128 MiB files", "wan, 1,000 assets", "wan, 300 files of 100 KB"
INDEX, MANY, FAST = "wan, index at the end", f"wan, {READERS} readers", "fast, 1 GiB files"
ENTRIES = "fast, 10,000 entries"
PROGRAMS = ["reelfs", "rclone", "rclone tuned", "bare"]
LARGER, SMALLER = max, min
CORES = os.cpu_count()


@dataclass
class Row:
    scene: str
    figure: str
    title: str
    form: str
    better: object


ROWS = [
    Row(BIG, "in_order", "wan: 128 MiB in order, cold", "{:.0f} MiB/s", LARGER),
    Row(BIG, "again", "wan: the same again", "{:.0f} MiB/s", LARGER),
    Row(BIG, "first_byte", "wan: first byte, connections warm", "{:.0f} ms", SMALLER),
    Row(BIG, "random", f"wan: {SPOT // KIB} KiB at random, each of {SPOTS}", "{:.0f} ms", SMALLER),
    Row(BIG, "random_bytes", "wan: the same, bytes fetched for each byte asked for", "{:.2f}", SMALLER),
    Row(INDEX, "ffprobe", "wan: ffprobe, index at the end, beyond local", "{:.0f} ms", SMALLER),
    Row(THOUSAND, "ls", "wan: ls -l of 1,000 (Runway)", "{:.2f} s", SMALLER),
    Row(THOUSAND, "ls_unsized", "wan: ls -l of 1,000 (LTX: sizes unknown)", "{:.2f} s", SMALLER),
    Row(THOUSAND, "ls_remount", "wan: the same after a remount", "{:.2f} s", SMALLER),
    Row(SMALL, "rsync", "wan: rsync -a of 300 files of 100 KB", "{:.2f} s", SMALLER),
    Row(MANY, "heads", f"wan: the first {HEAD // KIB} KiB of each of {READERS} files, fetched a file", "{:.0f} KiB", SMALLER),
    Row(MANY, "readers", f"wan: {READERS} readers of {READERS} files of {READER_MIB} MiB at once", "{:.0f} MiB/s", LARGER),
    Row(MANY, "readers_peak", "wan: the same, peak memory", "{:.0f} MiB", SMALLER),
    Row(FAST, "in_order", "fast: 1 GiB in order, cold", "{:.0f} MiB/s", LARGER),
    Row(FAST, "again", "fast: the same again", "{:.0f} MiB/s", LARGER),
    Row(ENTRIES, "known_cold", f"ls -l of {KNOWN:,} known entries, forgotten by the kernel", "{:.0f} ms", SMALLER),
    Row(ENTRIES, "known", "the same again", "{:.0f} ms", SMALLER),
]


class Results:
    """Medians over the runs."""

    def __init__(self, figures, costs, peaks):
        self.figures = {
            key: {program: statistics.median(values) for program, values in by.items()}
            for key, by in figures.items()
        }
        self.costs = {
            key: {program: _median_cost(values) for program, values in by.items()}
            for key, by in costs.items()
        }
        self.peaks = peaks

    def own(self, scene, figure):
        return self.figures[scene, figure]["reelfs"]

    def best_peer(self, scene, figure, better):
        by = self.figures[scene, figure]
        return better(value for name, value in by.items() if name.startswith("rclone"))

    def bare(self, scene, figure):
        return self.figures[scene, figure]["bare"]

    def cost(self, scene, figure, program="reelfs"):
        return self.costs[scene, figure][program]

    def advantage(self, row):
        best, own = self.best_peer(row.scene, row.figure, row.better), self.own(row.scene, row.figure)
        # A difference between two measurements may fall below zero.
        if best <= 0 or own <= 0:
            return None
        return own / best if row.better is LARGER else best / own

    def has(self, row):
        return (row.scene, row.figure) in self.figures


def _median_cost(costs):
    return {name: statistics.median(cost[name] for cost in costs) for name in costs[0]}


def table(results):
    lines = ["| work | reelfs | rclone | rclone tuned | no mount | reelfs against the best mount |"]
    lines.append("|---|---|---|---|---|---|")
    for row in filter(results.has, ROWS):
        values = results.figures[row.scene, row.figure]
        costs = results.costs.get((row.scene, row.figure), {})
        cells = []
        for program in PROGRAMS:
            cell = row.form.format(values[program]) if program in values else ""
            if cell and program in costs and program != "bare":
                cell += f" ({costs[program]['requests']:.0f})"
            cells.append(cell)
        peers = any(name.startswith("rclone") for name in values)
        times = results.advantage(row) if peers else None
        cells.append(f"{times:.1f} times" if times else "")
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    cells = [f"{results.peaks[p]:.0f} MiB" if p in results.peaks else "" for p in PROGRAMS]
    lines.append(f"| peak memory over all of it | {' | '.join(cells)} | |")
    return "\n".join(lines)


@dataclass
class Target:
    title: str
    measured: str
    wanted: str
    met: bool
    scene: str
    figure: str


def _at_least(title, value, wanted, form, where):
    return Target(title, form.format(value), "at least " + form.format(wanted), value >= wanted, *where)


def _at_most(title, value, wanted, form, where):
    return Target(title, form.format(value), "at most " + form.format(wanted), value <= wanted, *where)


def targets(r):
    """The targets of the project, each with the figure of this run."""

    def times(scene, figure, better):
        return r.advantage(Row(scene, figure, "", "", better)) or 0

    in_order, again = (BIG, "in_order"), (BIG, "again")
    ls, unsized, remount = (THOUSAND, "ls"), (THOUSAND, "ls_unsized"), (THOUSAND, "ls_remount")
    rsync, fast = (SMALL, "rsync"), (FAST, "in_order")
    trips = r.own(*ls) * 1000 / RTT_MS
    tuned = r.figures[unsized]["rclone tuned"]
    beyond = r.own(ENTRIES, "known_cold") - r.bare(ENTRIES, "known_cold")
    peak = max(r.peaks["reelfs"], r.own(MANY, "readers_peak"))
    bare = r.own(*in_order) / r.bare(*in_order)
    connections = r.bare(BIG, "bare_connections")
    first = r.own(BIG, "first_byte") / RTT_MS
    index = r.own(INDEX, "ffprobe") / RTT_MS
    sizes = r.cost(*remount)["to_assets"]
    random_bytes = r.own(BIG, "random_bytes")
    most_random = 2 + MIB / (SPOTS * SPOT)
    return [
        _at_least("wan, in order: against the best mount", times(*in_order, LARGER), 1.4, "{:.2f} times", in_order),
        _at_least(f"wan, in order: against {connections:.0f} bare connections, as many as reelfs used", bare, 0.9, "{:.2f}", in_order),
        _at_most("wan, first byte", first, 1.15, "{:.2f} round trips", (BIG, "first_byte")),
        _at_most("wan, ffprobe with the index at the end, beyond a local file", index, 2, "{:.1f} round trips", (INDEX, "ffprobe")),
        _at_most("wan, ls -l of 1,000 Runway assets: 6 round trips and the connect", trips, 6 + SETUP, "{:.1f} round trips", ls),
        _at_most("wan, ls -l of 1,000 LTX assets: against the tuned rclone", r.own(*unsized) / tuned, 0.5, "{:.2f}", unsized),
        _at_most("the same after a remount: requests for sizes", sizes, 0, "{:.0f}", remount),
        _at_most("wan, rsync -a of 300 small files", r.own(*rsync), 1.2, "{:.2f} s", rsync),
        _at_least("the same: against the best mount", times(*rsync, SMALLER), 10, "{:.1f} times", rsync),
        _at_least("fast, in order: against the best mount", times(*fast, LARGER), 1.3, "{:.2f} times", fast),
        _at_most(f"ls -l of {KNOWN:,} known entries, beyond tmpfs", beyond / 1000, 0.1, "{:.3f} s", (ENTRIES, "known_cold")),
        _at_least("wan, read again: against the best mount", times(*again, LARGER), 8, "{:.1f} times", again),
        _at_least("fast, read again: against the best mount", times(FAST, "again", LARGER), 8, "{:.1f} times", (FAST, "again")),
        _at_most(f"memory beyond --cache-size {CACHE_MIB}M, also with {READERS} readers", peak - CACHE_MIB, 48, "{:.0f} MiB", (MANY, "readers")),
        _at_most("random reads: bytes fetched for each asked for, and a block", random_bytes, most_random, "{:.2f}", (BIG, "random")),
    ]


def target_table(found):
    lines = ["| target | measured | wanted | |", "|---|---|---|---|"]
    for t in found:
        lines.append(f"| {t.title} | {t.measured} | {t.wanted} | {'met' if t.met else '**missed**'} |")
    return "\n".join(lines)


def missed(found):
    return [target for target in found if not target.met]


def reasons(results, found):
    """What each missed target's time went to, as far as the run counted it."""
    if not missed(found):
        return f"All {len(found)} are met."
    lines = [f"{len(found) - len(missed(found))} of {len(found)} are met. Of the others:", ""]
    told = set()
    for target in missed(found):
        cost = results.costs.get((target.scene, target.figure), {}).get("reelfs")
        text = f"- {target.title}: {target.measured}, wanted {target.wanted}."
        if cost and (target.scene, target.figure) not in told:
            text += f" {_account(cost)}"
        told.add((target.scene, target.figure))
        lines.append(text)
    return "\n".join(lines)


def profiles(results, found, profile_of):
    """For each scene with a missed target, where reelfs' processor time went."""
    scenes = list(dict.fromkeys(target.scene for target in missed(found)))
    if not scenes:
        return ""
    parts = ["", "## Profiles of what was missed", ""]
    if profile_of is None:
        return "\n".join([*parts, "None: `perf` is not installed on this machine.", ""])
    parts.append("Processor time of reelfs by function (`perf record -e cpu-clock`), of one more run each.")
    for scene in scenes:
        text = profile_of(scene) or "no function stands out"
        parts += ["", f"{scene}:", "", "```", text, "```"]
    return "\n".join([*parts, ""])


def _account(cost):
    busy = (cost["cpu"] + cost["host_cpu"]) / cost["seconds"]
    text = (
        f"It took {cost['seconds']:.2f} s: {cost['cpu']:.2f} s of processor time in reelfs and "
        f"{cost['host_cpu']:.2f} s in the emulated host"
    )
    if busy > 0.75 * CORES:
        return text + f", which together filled {busy:.1f} of {CORES} processors, without the reader and the kernel."
    return text + f" ({busy:.1f} of {CORES} processors); {cost['requests']:.0f} requests were made."


def cost_table(results):
    lines = ["| work | wall | reelfs | the host | requests | of them to assets | connections | fetched |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for row in filter(results.has, ROWS):
        cost = results.costs.get((row.scene, row.figure), {}).get("reelfs")
        if cost:
            cells = [f"{cost['seconds']:.2f} s", f"{cost['cpu']:.2f} s", f"{cost['host_cpu']:.2f} s"]
            cells += [f"{cost[name]:.0f}" for name in ("requests", "to_assets", "connections")]
            lines.append(f"| {row.title} | {' | '.join(cells)} | {cost['bytes'] / MIB:.1f} MiB |")
    return "\n".join(lines)


# The plot: for each row, how many times as fast as the best rclone.

COLOURS = {"reelfs": "#2f6db5", "rclone": "#b9b9b9", "rclone tuned": "#7d7d7d", "bare": "#d9a441"}
LEFT, RIGHT, TOP, BAR, GAP = 400, 40, 60, 10, 12
WIDTH, LEAST, MOST = 1000, 0.05, 50.0


def _x(value):
    span = math.log(MOST / LEAST)
    part = math.log(min(max(value, LEAST), MOST) / LEAST) / span
    return LEFT + part * (WIDTH - LEFT - RIGHT)


def plot(results):
    parts, y = [], TOP
    for row in filter(results.has, ROWS):
        values = results.figures[row.scene, row.figure]
        if not any(name.startswith("rclone") for name in values):
            continue
        best = results.best_peer(row.scene, row.figure, row.better)
        bars = []
        for program in PROGRAMS:
            if values.get(program, 0) > 0 and best > 0:
                times = values[program] / best if row.better is LARGER else best / values[program]
                bars.append((program, times, row.form.format(values[program])))
        middle = y + len(bars) * BAR / 2 + 4
        parts.append(f'<text x="{LEFT - 8}" y="{middle:.0f}" text-anchor="end">{escape(row.title)}</text>')
        for program, times, label in bars:
            end = _x(times)
            width = max(end - LEFT, 1)
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR - 1}" fill="{COLOURS[program]}"/>')
            parts.append(f'<text class="value" x="{end + 4:.1f}" y="{y + BAR - 2}">{escape(label)}</text>')
            y += BAR
        y += GAP
    for times in (0.1, 0.5, 1, 2, 10):
        x = _x(times)
        dash = "" if times == 1 else ' stroke-dasharray="2 4"'
        parts.insert(0, f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{y}" stroke="#999"{dash}/>')
        parts.append(f'<text x="{x:.1f}" y="{TOP - 14}" text-anchor="middle">{times:g}</text>')
    x = LEFT
    for program in PROGRAMS:
        name = "no mount" if program == "bare" else program
        parts.append(f'<rect x="{x}" y="14" width="12" height="12" fill="{COLOURS[program]}"/>')
        parts.append(f'<text x="{x + 17}" y="24">{name}</text>')
        x += 110
    parts.append('<text x="10" y="24">times as good as the best rclone mount, logarithmic</text>')
    style = "text{font:12px sans-serif;fill:#222}text.value{font-size:9px;fill:#555}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 10}" viewBox="0 0 {WIDTH} {y + 10}">'
    return "\n".join([head, f"<style>{style}</style>", '<rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>\n"])


# The document.


def machine():
    lines = open("/proc/cpuinfo").read().splitlines()
    models = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    model = next(models, platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MIB
    return f"{CORES} x {model}, {memory} MiB, Linux {platform.release()}"


def commit():
    if not shutil.which("git"):
        return "an unknown commit"
    asked = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return f"commit {asked.stdout.strip()}" if asked.returncode == 0 else "an unknown commit"


def document(results, runs, neighbours, profile_of):
    today = datetime.date.today().isoformat()
    found = targets(results)
    others = f"Other programs kept {neighbours:.1f} of {CORES} processors busy meanwhile"
    others += ", which shows in every figure." if neighbours > 0.1 * CORES else "."
    return f"""# How fast reelfs is

Written by `scripts/bench --runs {runs}` on {today}, of {commit()}; nothing here is written by hand.
The machine: {machine()}.
{others}
Beside reelfs {rclone_version()}. Medians of {runs} run{'s' if runs > 1 else ''}, each with a new mount, so
that nothing is cached. The host is `reelfs emulate` on the same machine. "wan": {RTT_MS} ms a round trip,
{SETUP} round trips for a new connection, {RATE // 1_000_000} MB/s a connection. "fast": bare loopback. Ratios travel to
other machines, figures do not.

- reelfs: `reelfs mount --cache-size {CACHE_MIB}M`
- rclone: `rclone mount` of its `http` backend
- rclone tuned: with `{' '.join(TUNED)}`
- no mount: `curl`, at "wan" over as many connections as reelfs used, at "fast" over one; for `ls` a
  directory on tmpfs

![How many times as good as the best rclone mount](performance.svg)

In brackets: requests that the host was sent.

{table(results)}

## Targets

{target_table(found)}

{reasons(results, found)}

## What it cost reelfs

Processor time of reelfs and of the emulated host, and what the host was asked for, in medians. Bytes
are those that the host handed to the connection.

{cost_table(results)}
{profiles(results, found, profile_of)}"""


def write(results, runs, neighbours, profile_of):
    """`profile_of` takes a scene's name; nothing where there is no profiler."""
    docs = ROOT / "docs"
    (docs / "PERFORMANCE.md").write_text(document(results, runs, neighbours, profile_of))
    (docs / "performance.svg").write_text(plot(results))
