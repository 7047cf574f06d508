"""The soak test behind scripts/soak; see there."""

import argparse
import collections
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

MIB = 1 << 20
# Of 1,000 requests at each host; together 20.
FAULTS = [
    "asset:GET:*:%5:status=503",
    "asset:GET:*:%5:drop",
    "asset:GET:*:%4:cut=100000",
    "asset:GET:*:%3:status=403",
    "asset:GET:*:%3:status=429,retry-after=1",
    "useapi:*:*:%5:html=502",
    "useapi:*:*:%5:drop",
    "useapi:*:*:%4:lose-answer",
    "useapi:*:*:%3:status=503",
    "useapi:*:*:%3:status=429,retry-after=1",
    "runflow:*:*:%10:html=502",
    "runflow:*:*:%10:drop",
]
LARGE_FILES = 8
LARGE_BYTES = 24 * MIB
# Uploads that stand at once; older ones are deleted.
UPLOADS_KEPT = 20
# Of the whole time, before growth is looked for: caches fill, pools start.
WARM_UP = 0.2
# Growth from the first third's median to the last's that is no leak.
RSS_SLACK = 1.10
RSS_SLACK_BYTES = 8 * MIB
DESCRIPTOR_SLACK = 12
THREAD_SLACK = 6


def forget_pages(file):
    """Makes the kernel forget what it has of a file, so that the mount is asked."""
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Soak:
    def __init__(self, reelfs, minutes, home):
        self.reelfs = os.path.abspath(reelfs)
        self.seconds = minutes * 60
        self.home = home
        self.mount_point = os.path.join(home, "mnt")
        self.originals = os.path.join(home, "originals")
        self.scratch = os.path.join(home, "scratch")
        for directory in (self.mount_point, self.originals, self.scratch):
            os.mkdir(directory)
        self.done = threading.Event()
        self.lock = threading.Lock()
        self.counts = collections.Counter()
        self.errors = []
        self.read_bytes = 0
        self.standing = {}
        self.samples = []
        self.seed = random.randrange(1 << 32)

    # ---- services and mount ----

    def start(self):
        rng = random.Random(self.seed)
        files = []
        for n in range(LARGE_FILES):
            path = os.path.join(self.originals, f"large-{n}.mp4")
            with open(path, "wb") as file:
                file.write(rng.randbytes(LARGE_BYTES))
            files.append(path)
        arguments = [self.reelfs, "emulate", "--url-lifetime", "30s"]
        arguments += [word for file in files for word in ("--file", file)]
        arguments += [word for fault in FAULTS for word in ("--fault", fault)]
        self.services = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        said = dict(self.services.stdout.readline().strip().split("=", 1) for _ in range(5))
        self.api = said["USEAPI_URL"]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": self.home,
            "USEAPI_TOKEN": said["USEAPI_TOKEN"],
            "RUNFLOW_TOKEN": said["RUNFLOW_TOKEN"],
            "REELFS_USEAPI_URL": said["USEAPI_URL"],
            "REELFS_RUNFLOW_URL": said["RUNFLOW_URL"],
        }
        # Of scripts/sanitize.
        environment.update((k, v) for k, v in os.environ.items() if k.endswith("SAN_OPTIONS"))
        self.log = open(os.path.join(self.home, "log"), "wb")
        flags = ["--allow-delete", "--listing-ttl", "5s", "--cache-size", "32M"]
        self.daemon = subprocess.Popen(
            [self.reelfs, "mount", "-f", self.mount_point, *flags],
            env=environment, stdout=subprocess.DEVNULL, stderr=self.log)
        self.wait_for_mount()

    def wait_for_mount(self):
        limit = time.monotonic() + 60
        while not os.path.ismount(self.mount_point):
            if self.daemon.poll() is not None or time.monotonic() > limit:
                sys.exit("the mount did not come up: " + self.log_tail())
            time.sleep(0.05)

    def log_tail(self):
        with open(os.path.join(self.home, "log"), errors="replace") as log:
            return "".join(log.readlines()[-20:])

    def at(self, *parts):
        return os.path.join(self.mount_point, *parts)

    def levers(self, path):
        with urllib.request.urlopen(f"{self.api}/_emulator/{path}", timeout=60) as answer:
            return json.load(answer)

    # ---- clients ----

    def error(self, what):
        with self.lock:
            self.errors.append(what)
        print(f"ERROR {what}", flush=True)

    def program(self, kind, *arguments):
        ended = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if ended.returncode != 0:
            said = (ended.stderr or ended.stdout).strip()[-300:]
            self.error(f"{kind}: {' '.join(arguments)}: {ended.returncode}: {said}")
        self.counts[kind] += 1
        return ended.stdout

    def play(self, rng):
        directory = self.at("runway", "video")
        clips = [c for c in os.listdir(directory) if not c.startswith(("large", "soak"))]
        clip = os.path.join(directory, rng.choice(clips))
        self.program("mpv", "mpv", "--no-config", "--really-quiet", "--ao=null", "--vo=null",
                     "--untimed", "--speed=20", clip)

    def probe(self, rng):
        directory = self.at("ltx", "videos")
        clip = os.path.join(directory, rng.choice(os.listdir(directory)))
        self.program("ffprobe", "ffprobe", "-v", "error", clip)

    def read_part(self, rng):
        name = f"large-{rng.randrange(LARGE_FILES)}.mp4"
        offset = rng.randrange(LARGE_BYTES)
        length = rng.choice([1, 4096, 100_000, MIB])
        parts = []
        for path in (self.at("runway", "video", name), os.path.join(self.originals, name)):
            with open(path, "rb", buffering=0) as file:
                forget_pages(file)
                parts.append(os.pread(file.fileno(), length, offset))
        if parts[0] != parts[1]:
            self.error(f"{name}: other bytes at {offset}")
        with self.lock:
            self.read_bytes += len(parts[0])
        self.counts["random read"] += 1

    def copy_out(self, rng):
        name = f"large-{rng.randrange(LARGE_FILES)}.mp4"
        with open(self.at("runway", "video", name), "rb") as file:
            forget_pages(file)
        self.program("copy", "cmp", self.at("runway", "video", name),
                     os.path.join(self.originals, name))
        with self.lock:
            self.read_bytes += LARGE_BYTES

    def list_all(self, _rng):
        self.program("ls -lR", "ls", "-lR", self.mount_point)
        self.program("df", "df", self.mount_point)

    def upload(self, rng):
        name = f"soak-{rng.getrandbits(48):012x}.png"
        source = os.path.join(self.scratch, name)
        with open(source, "wb") as file:
            file.write(rng.randbytes(rng.choice([1, 5_000, 300_000, 2 * MIB])))
        target = self.at("runway", "image", name)
        self.program("upload", "cp", source, target)
        self.program("read back", "cmp", source, target)
        with open(source, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        os.remove(source)
        with self.lock:
            self.standing[name] = digest
            old = list(self.standing)[:-UPLOADS_KEPT]
            for name in old:
                del self.standing[name]
        for name in old:
            self.program("delete", "rm", self.at("runway", "image", name))

    def client(self, number, work):
        rng = random.Random(self.seed + number)
        while not self.done.is_set():
            try:
                work(rng)
            except OSError as error:
                self.error(f"{work.__name__}: {error}")
            self.done.wait(rng.uniform(0.05, 0.5))

    # ---- what is watched ----

    def sample(self):
        pid = self.daemon.pid
        with open(f"/proc/{pid}/status") as status:
            fields = dict(line.split(":", 1) for line in status)
        return (int(fields["VmRSS"].split()[0]) * 1024, len(os.listdir(f"/proc/{pid}/fd")),
                int(fields["Threads"]))

    def watch(self):
        began = time.monotonic()
        next_line = 60
        while (past := time.monotonic() - began) < self.seconds:
            if self.daemon.poll() is not None:
                self.error("the mount ended: " + self.log_tail())
                return
            self.samples.append(self.sample())
            if past >= next_line:
                self.print_minute(next_line // 60)
                next_line += 60
            time.sleep(1)

    def print_minute(self, minute):
        rss, descriptors, threads = self.samples[-1]
        with self.lock:
            operations, read = sum(self.counts.values()), self.read_bytes
        print(f"minute {minute}: {operations} operations, {read / MIB:.0f} MiB compared, "
              f"{len(self.errors)} errors; {rss / MIB:.1f} MiB, {descriptors} descriptors, "
              f"{threads} threads", flush=True)

    def run(self):
        works = [self.play, self.probe, self.read_part, self.read_part, self.copy_out,
                 self.list_all, self.upload, self.upload]
        clients = [threading.Thread(target=self.client, args=(n, work), daemon=True)
                   for n, work in enumerate(works)]
        for client in clients:
            client.start()
        self.watch()
        self.done.set()
        for client in clients:
            client.join(timeout=180)
            if client.is_alive():
                self.error("a client hangs")

    # ---- what must be so in the end ----

    def check_services(self):
        held = collections.Counter()
        for asset in self.levers("assets"):
            name = asset["name"] or ""
            if name.startswith("soak-"):
                held[name] += 1
                if self.standing.get(name) != asset["sha256"]:
                    self.error(f"{name}: other bytes at the service, or it should be gone")
        for name in self.standing:
            if held[name] != 1:
                self.error(f"{name}: {held[name]} times at the service")
        counters = self.levers("counters")
        if any(counters.values()):
            self.error(f"refused by the asset host: {counters}")

    def check_growth(self):
        warm = self.samples[int(len(self.samples) * WARM_UP):]
        third = len(warm) // 3
        if third == 0:
            return self.error("too short to look for growth")
        rows = [("memory", 0, MIB, "MiB"), ("descriptors", 1, 1, ""), ("threads", 2, 1, "")]
        limits = [lambda first: first * RSS_SLACK + RSS_SLACK_BYTES,
                  lambda first: first + DESCRIPTOR_SLACK, lambda first: first + THREAD_SLACK]
        for (what, column, unit, name), limit in zip(rows, limits):
            values = [sample[column] for sample in warm]
            first = statistics.median(values[:third])
            last = statistics.median(values[-third:])
            print(f"{what}: {first / unit:.1f} {name} in the first third after the warm-up, "
                  f"{last / unit:.1f} {name} in the last, {max(values) / unit:.1f} {name} at most")
            if last > limit(first):
                self.error(f"{what} grew")

    def end(self):
        self.daemon.send_signal(signal.SIGTERM)
        try:
            status = self.daemon.wait(timeout=120)
            if status != 0:
                self.error(f"the mount ended with {status}: {self.log_tail()}")
        except subprocess.TimeoutExpired:
            self.error("the mount does not end")
            self.daemon.kill()
            self.daemon.wait()
        if os.path.ismount(self.mount_point):
            subprocess.run(["umount", "-l", self.mount_point], check=False)


def main():
    parser = argparse.ArgumentParser(prog="scripts/soak")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--reelfs", required=True, help="the program; built unless given")
    arguments = parser.parse_args()
    home = tempfile.mkdtemp(prefix="reelfs-soak-")
    soak = Soak(arguments.reelfs, arguments.minutes, home)
    print(f"seed {soak.seed}, {arguments.minutes:g} minutes, {soak.reelfs}", flush=True)
    soak.start()
    try:
        soak.run()
        soak.check_services()
        asked = soak.levers("requests")
        failed = sum(1 for r in asked if r["status"] is None or r["status"] >= 400)
        print(f"{len(asked)} requests, of which {failed} got an error or no answer "
              "(bodies that were cut not counted)")
        print(", ".join(f"{count} x {kind}" for kind, count in sorted(soak.counts.items())))
        soak.check_growth()
    finally:
        soak.end()
        soak.services.terminate()
        soak.services.wait()
        shutil.rmtree(home, ignore_errors=True)
    print(f"{len(soak.errors)} errors")
    sys.exit(1 if soak.errors else 0)


if __name__ == "__main__":
    main()
