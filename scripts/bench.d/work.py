"""What is done with each mount. A scene has options of the emulator, work for each mount, and what
is measured without a mount beside it."""
import concurrent.futures
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from world import KIB, MIB, PATIENCE_S, WAN, WORK

KNOWN = 10_000
READERS, READER_MIB = 64, 8
SPOTS, SPOT = 30, 64 * KIB
HEAD = 4 * KIB


def run(command):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    # Not `wait(PATIENCE_S)`: that one looks every 50 ms only, which is more than a round trip.
    limit = threading.Timer(PATIENCE_S, process.kill)
    limit.start()
    try:
        code = process.wait()
    finally:
        limit.cancel()
    if code != 0:
        raise SystemExit(f"bench: {command} ended with {code}")


def read_through(path):
    length = 0
    with open(path, "rb", buffering=0) as file:
        while data := file.read(MIB):
            length += len(data)
    if length != os.stat(path).st_size:
        raise SystemExit(f"bench: {path} ended after {length} bytes")


def read_at(path, offset, length):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.pread(fd, length, offset)
    finally:
        os.close(fd)


def files_of(directory):
    return sorted(directory / name for name in os.listdir(directory))


def long_list(directory):
    run(["ls", "-l", directory])


def big_files(meter, mount):
    files = files_of(mount.files)
    mib = os.stat(files[0]).st_size / MIB
    meter.give("in_order", mib / meter.timed("in_order", lambda: read_through(files[0])))
    meter.give("again", mib / meter.timed("again", lambda: read_through(files[0])))
    # The connections that reading in order used are warm now.
    fd = os.open(files[1], os.O_RDONLY)
    seconds = meter.timed("first_byte", lambda: os.pread(fd, HEAD, 0))
    os.close(fd)
    meter.give("first_byte", seconds * 1000)
    places = random.Random(1)
    spots = [places.randrange(0, int(mib) * MIB - SPOT) for _ in range(SPOTS)]
    fd = os.open(files[2], os.O_RDONLY)
    seconds = meter.timed("random", lambda: [os.pread(fd, SPOT, spot) for spot in spots])
    os.close(fd)
    meter.give("random", seconds * 1000 / SPOTS)
    meter.give("random_bytes", meter.costs["random"]["bytes"] / (SPOTS * SPOT))


def fast_files(meter, mount):
    files = files_of(mount.files)
    mib = os.stat(files[0]).st_size / MIB
    meter.give("in_order", mib / meter.timed("in_order", lambda: read_through(files[0])))
    meter.give("again", mib / meter.timed("again", lambda: read_through(files[0])))


def listing(meter, mount):
    meter.timed("ls", lambda: long_list(mount.files))
    if mount.name != "reelfs":
        meter.give("ls_unsized", meter.figures["ls"])
        meter.costs["ls_unsized"] = meter.costs["ls"]
        return
    # LTX begins in a mount of its own, or it would find connections.
    mount.remount()
    meter.timed("ls_unsized", lambda: long_list(mount.unsized))
    mount.remount()
    meter.timed("ls_remount", lambda: long_list(mount.unsized))


def small_files(meter, mount):
    long_list(mount.files)
    with tempfile.TemporaryDirectory() as target:
        meter.timed("rsync", lambda: run(["rsync", "-a", f"{mount.files}/", target]))
        copied = len(os.listdir(target))
    if copied != 300:
        raise SystemExit(f"bench: rsync copied {copied} files of 300")


def probe(path):
    run(["ffprobe", "-v", "error", "-show_streams", path])


def seconds_of(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def index_at_end(meter, mount):
    files = files_of(mount.files)
    local = statistics.median(seconds_of(lambda: probe(WORK / "end.mp4")) for _ in range(3))
    # Warms the connections that a player's mount has.
    for offset in (0, 40 * MIB, 20 * MIB):
        read_at(files[0], offset, HEAD)
    time.sleep(0.5)
    beyond = [meter.timed("ffprobe", lambda f=file: probe(f)) - local for file in files[1:4]]
    meter.give("ffprobe", statistics.median(beyond) * 1000)


def make_video():
    """About 90 MB with its index at the end, four times."""
    path = WORK / "end.mp4"
    if not path.exists():
        source = "testsrc2=s=1280x720:r=25,noise=alls=80:allf=t"
        command = ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", source, "-t", "20"]
        part = path.with_suffix(".part.mp4")
        run([*command, "-c:v", "mpeg4", "-b:v", "36M", part])
        part.rename(path)
    copies = [WORK / f"copy-{n}.mp4" for n in range(4)]
    for copy in copies:
        if not copy.exists():
            shutil.copyfile(path, copy)
    return [word for copy in copies for word in ("--file", str(copy))]


def forget_names():
    """Makes the kernel forget names and attributes, as far as we may."""
    try:
        Path("/proc/sys/vm/drop_caches").write_text("2")
    except OSError:
        pass


def known_entries(meter, mount):
    long_list(mount.unsized)
    # For rclone a directory of its own: it lists the files of Runway.
    cold, warm = [], []
    for _ in range(3):
        forget_names()
        cold.append(meter.timed("known_cold", lambda: long_list(mount.unsized)))
        warm.append(meter.timed("known", lambda: long_list(mount.unsized)))
    meter.give("known_cold", statistics.median(cold) * 1000)
    meter.give("known", statistics.median(warm) * 1000)


def tmpfs_entries(meter, _):
    place = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=place) as directory:
        for number in range(KNOWN):
            # As long as the names in the mount.
            (Path(directory) / f"{number:036}.mp4").write_bytes(b"")
        warm = [seconds_of(lambda: long_list(directory)) for _ in range(5)]
    for figure in ("known_cold", "known"):
        meter.give(figure, statistics.median(warm) * 1000)


def many_readers(meter, mount):
    files = files_of(mount.files)
    meter.timed("heads", lambda: [read_at(file, 0, HEAD) for file in files])
    meter.give("heads", meter.costs["heads"]["bytes"] / len(files) / KIB)
    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        work = lambda: list(pool.map(read_through, files))  # noqa: E731
        meter.give("readers", READERS * READER_MIB / meter.timed("readers", work))
    mount.note_peak()
    meter.give("readers_peak", mount.peak_mib)


def fetch_in_parts(url, total, parts):
    step = total // parts

    def fetch(n):
        run(["curl", "-sf", "-r", f"{n * step}-{(n + 1) * step - 1}", "-o", "/dev/null", url])

    with concurrent.futures.ThreadPoolExecutor(parts) as pool:
        list(pool.map(fetch, range(parts)))


def bare_wan(meter, of_reelfs):
    """The same file over as many connections as reelfs used for it."""
    connections = max(1, of_reelfs.costs["in_order"]["connections"])
    url = meter.host.files + "clip-000001.mp4"
    work = lambda: fetch_in_parts(url, 128 * MIB, connections)  # noqa: E731
    meter.give("in_order", 128 / meter.timed("in_order", work))
    meter.give("bare_connections", connections)


def bare_fast(meter, _):
    url = meter.host.files + "clip-000001.mp4"
    work = lambda: run(["curl", "-sf", "-o", "/dev/null", url])  # noqa: E731
    meter.give("in_order", 1024 / meter.timed("in_order", work))


@dataclass
class Scene:
    name: str
    options: list
    work: object
    bare: object = None


def scenes():
    many = ["--assets", str(READERS), "--asset-size", f"{READER_MIB}MiB", *WAN]
    return [
        Scene("wan, 128 MiB files", ["--assets", "4", "--asset-size", "128MiB", *WAN], big_files, bare_wan),
        Scene("wan, 1,000 assets", ["--assets", "1000", *WAN], listing),
        Scene("wan, 300 files of 100 KB", ["--assets", "300", *WAN], small_files),
        Scene("wan, index at the end", ["--assets", "0", *make_video(), *WAN], index_at_end),
        Scene(f"wan, {READERS} readers", many, many_readers),
        Scene("fast, 1 GiB files", ["--assets", "1", "--asset-size", "1GiB"], fast_files, bare_fast),
        Scene("fast, 10,000 entries", ["--assets", str(KNOWN), "--asset-size", "1K"], known_entries, tmpfs_entries),
    ]
