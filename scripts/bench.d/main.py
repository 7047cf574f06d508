"""Takes the arguments of scripts/bench, measures, and has the report written."""
import argparse
import json
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import profiler  # noqa: E402
import report  # noqa: E402
import work  # noqa: E402
from world import ROOT, WORK, Meter, Neighbours, emulator, mounted, rclone_program  # noqa: E402

MOUNTS = ["reelfs", "rclone", "rclone tuned"]
# For one run of everything; far more than it takes.
RUN_LIMIT_S = 900


class Collected:
    def __init__(self):
        self.figures, self.costs, self.peaks = {}, {}, {}

    def take(self, scene, program, meter):
        for kind, found in ((self.figures, meter.figures), (self.costs, meter.costs)):
            for figure, value in found.items():
                by_program = kind.setdefault((scene, figure), {})
                by_program.setdefault(program, []).append(value)


def measure(reelfs, runs, only):
    collected = Collected()
    for scene in work.scenes():
        if only not in scene.name:
            continue
        with emulator(reelfs, *scene.options) as host:
            for _ in range(runs):
                for name in MOUNTS:
                    with mounted(name, host, reelfs) as mount:
                        meter = Meter(host, mount)
                        scene.work(meter, mount)
                    collected.take(scene.name, name, meter)
                    peak = max(collected.peaks.get(name, 0), mount.peak_mib)
                    collected.peaks[name] = peak
                    if name == "reelfs":
                        of_reelfs = meter
                if scene.bare:
                    meter = Meter(host)
                    scene.bare(meter, of_reelfs)
                    collected.take(scene.name, "bare", meter)
        print(f"measured: {scene.name}", file=sys.stderr)
    return report.Results(collected.figures, collected.costs, collected.peaks)


def stop(signal_number, _):
    """Ends the run the ordinary way, so that mounts and programs end with it."""
    sys.exit(f"bench: ended by {signal.Signals(signal_number).name}")


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures reelfs beside rclone and curl.")
    parser.add_argument("--runs", type=int, default=3, help="runs of everything (default: 3)")
    parser.add_argument("--only", default="", metavar="WORD", help="only the scenes whose name has this; no document")
    parser.add_argument("--reelfs", type=Path, metavar="PROGRAM", help="a built reelfs")
    parser.add_argument("--no-document", action="store_true", help="leave docs/ alone")
    return parser.parse_args()


def main():
    args = arguments()
    WORK.mkdir(parents=True, exist_ok=True)
    reelfs = args.reelfs and args.reelfs.resolve()
    if reelfs is None:
        subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=True)
        reelfs = ROOT / "target" / "release" / "reelfs"
    rclone_program()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, stop)
    signal.alarm(RUN_LIMIT_S * args.runs)
    neighbours = Neighbours()
    results = measure(reelfs, args.runs, args.only)
    busy = neighbours.busy()
    print(report.table(results), report.cost_table(results), sep="\n\n")
    kept = {f"{scene}: {figure}": by for (scene, figure), by in results.figures.items()}
    (WORK / "figures.json").write_text(json.dumps(kept, indent=1))
    if not args.only:
        print(report.target_table(report.targets(results)))
        if not args.no_document:
            by_name = {scene.name: scene for scene in work.scenes()}
            profile_of = lambda name: profiler.of(by_name[name], reelfs)  # noqa: E731
            report.write(results, args.runs, busy, profile_of if profiler.is_there() else None)


if __name__ == "__main__":
    main()
