"""Where reelfs spends processor time in a scene, by `perf`, for work that missed its target."""
import re
import shutil
import signal
import subprocess
import tempfile

from world import PATIENCE_S, Meter, emulator, mounted

# A prime, so that it does not beat with timers; the clock, because virtual machines count no cycles.
RECORD = ["perf", "record", "--quiet", "-F", "997", "-e", "cpu-clock"]
REPORT = ["perf", "report", "--stdio", "--no-children", "--no-inline", "-g", "none"]
REPORT += ["--sort", "dso,symbol", "--percent-limit", "1.5"]
MOST_LINES = 10


def is_there():
    return shutil.which("perf") is not None


def of(scene, reelfs):
    """The functions that took the most of reelfs' processor time, as text; nothing if perf can't."""
    with tempfile.NamedTemporaryFile(prefix="reelfs-bench-") as file:
        with emulator(reelfs, *scene.options) as host, mounted("reelfs", host, reelfs) as mount:
            recorder = subprocess.Popen([*RECORD, "-o", file.name, "-p", str(mount.process.pid)])
            try:
                scene.work(Meter(host, mount), mount)
            finally:
                recorder.send_signal(signal.SIGINT)
                recorder.wait(PATIENCE_S)
        report = [*REPORT, "-i", file.name]
        told = subprocess.run(report, capture_output=True, text=True, timeout=PATIENCE_S)
    lines = [line.strip() for line in told.stdout.splitlines() if re.match(r"\s+[\d.]+%", line)]
    # Hashes at the end of Rust's names, and arguments of generics, say nothing here.
    short = [re.sub(r"::h[0-9a-f]{16}$", "", line)[:110].rstrip() for line in lines]
    return "\n".join(short[:MOST_LINES])
