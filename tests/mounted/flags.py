"""The same system calls on a directory of the mount and on a file system of Linux' own.

    flags.py KIND OURS THEIRS SEED ROUNDS

KIND says what the files are: `staged` (temporary names, made here), `readonly` or `asset` (both
directories hold the same files). Every set of open(2) flags is tried on every state of a file, each
with ROUNDS sequences of calls drawn by SEED; results, errnos and bytes must be equal at every step.
What may differ is in `meant`, each with its reason. Prints the differences; exits 1 if there are any.
"""

import ctypes
import fcntl
import itertools
import mmap
import os
import random
import sys

from both import LIBC, called, content, libc, made, shape

LIBC.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
KEEP_SIZE, PUNCH_HOLE, COLLAPSE, ZERO_RANGE, INSERT = 1, 2, 8, 16, 32

ACCESS = {"RDONLY": os.O_RDONLY, "WRONLY": os.O_WRONLY, "RDWR": os.O_RDWR}
CHOICES = {"CREAT": os.O_CREAT, "EXCL": os.O_EXCL, "TRUNC": os.O_TRUNC, "APPEND": os.O_APPEND}
EXTRA = {
    "": 0,
    "DIRECT": os.O_DIRECT,
    "SYNC": os.O_SYNC,
    "DSYNC": os.O_DSYNC,
    "NOFOLLOW": os.O_NOFOLLOW,
    "DIRECTORY": os.O_DIRECTORY,
    "NOATIME": os.O_NOATIME,
    "NONBLOCK": os.O_NONBLOCK,
    "PATH": os.O_PATH,
    "TMPFILE": os.O_TMPFILE,
}
# Around a page, because that is what the kernel moves.
SIZES = [0, 1, 7, 511, 512, 4095, 4096, 4097, 6000]
STATES = {"absent": None, "empty": b"", "short": b"short", "long": bytes(range(256)) * 37}


def fallocate(fd, mode, offset, length):
    libc("fallocate", fd, mode, offset, length)


def map_and_read(fd):
    size = os.fstat(fd).st_size
    with mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ) as pages:
        return bytes(pages)


def map_and_write(fd, at, data):
    size = os.fstat(fd).st_size
    with mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as pages:
        data = data[: max(0, size - at)]
        pages[at : at + len(data)] = data
        pages.flush()


def draw(dice, kind, path_ops):
    """One operation: its name for the report, and a function of (fd, path)."""
    n, at = dice.choice(SIZES), dice.choice(SIZES)
    data = bytes([dice.randrange(1, 256)]) * n
    whence = dice.choice([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END])
    offset = dice.choice([-5000, -1, 0, 1, 100, 5000])
    operations = [
        (f"read({n})", lambda fd, path: os.read(fd, n)),
        (f"write({n})", lambda fd, path: os.write(fd, data)),
        (f"pread({n}, {at})", lambda fd, path: os.pread(fd, n, at)),
        (f"pwrite({n}, {at})", lambda fd, path: os.pwrite(fd, data, at)),
        (f"readv({n})", lambda fd, path: os.readv(fd, [bytearray(n), bytearray(3)])),
        (f"writev({n})", lambda fd, path: os.writev(fd, [data, b"end"])),
        (f"lseek({offset}, {whence})", lambda fd, path: os.lseek(fd, offset, whence)),
        ("where", lambda fd, path: os.lseek(fd, 0, os.SEEK_CUR)),
        (f"ftruncate({n})", lambda fd, path: os.ftruncate(fd, n)),
        (f"ftruncate(-1)", lambda fd, path: os.ftruncate(fd, -1)),
        ("fstat", lambda fd, path: shape(os.fstat(fd))),
        ("fsync", lambda fd, path: os.fsync(fd)),
        ("fdatasync", lambda fd, path: os.fdatasync(fd)),
        ("getfl", lambda fd, path: fcntl.fcntl(fd, fcntl.F_GETFL)),
    ]
    allocating = [
        (f"posix_fallocate({at}, {n})", lambda fd, path: os.posix_fallocate(fd, at, n)),
        (f"fallocate(KEEP_SIZE, {at}, {n})", lambda fd, path: fallocate(fd, KEEP_SIZE, at, n)),
        (f"punch({at}, {n})", lambda fd, path: fallocate(fd, PUNCH_HOLE | KEEP_SIZE, at, n)),
        (f"zero_range({at}, {n})", lambda fd, path: fallocate(fd, ZERO_RANGE, at, n)),
        ("collapse", lambda fd, path: fallocate(fd, COLLAPSE, 0, 4096)),
        ("insert", lambda fd, path: fallocate(fd, INSERT, 0, 4096)),
    ]
    operations += [
        ("map_and_read", lambda fd, path: map_and_read(fd)),
        (f"map_and_write({at}, {n})", lambda fd, path: map_and_write(fd, at, data)),
        (f"copy_file_range({n}, 0, {at})", lambda fd, path: os.copy_file_range(fd, fd, n, 0, at)),
        ("flock", lambda fd, path: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)),
        ("lockf", lambda fd, path: fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, 10, 5)),
        ("fchmod", lambda fd, path: os.fchmod(fd, 0o640)),
        ("futimens", lambda fd, path: os.utime(fd, (1_000_000_000, 1_000_000_000))),
    ]
    by_path = [
        ("stat", lambda fd, path: shape(os.stat(path))),
        ("read by name", lambda fd, path: content(path)),
        (f"truncate({n})", lambda fd, path: os.truncate(path, n)),
        ("chmod", lambda fd, path: os.chmod(path, 0o600)),
        ("access", lambda fd, path: os.access(path, os.R_OK | os.W_OK)),
        ("utime", lambda fd, path: os.utime(path, (1_100_000_000, 1_100_000_000))),
        ("mtime", lambda fd, path: os.stat(path).st_mtime == 1_000_000_000),
    ]
    # No room is reserved for an asset that is not copied here yet; a changed asset is a new one,
    # which has the name, and until it is closed the name may show either.
    if kind != "asset":
        operations += allocating + (by_path if path_ops else [])
    return dice.choice(operations)


class Side:
    """One of the two directories."""

    def __init__(self, directory, kind):
        self.directory = directory
        self.kind = kind

    def prepare(self, name, state):
        path = os.path.join(self.directory, name)
        if self.kind == "staged" and STATES[state] is not None:
            made(path, STATES[state])
        return path

    def clean(self, path, state):
        is_new = self.kind == "staged" or (self.kind == "asset" and state == "absent")
        # Below a newer version is the one before.
        while is_new and os.path.lexists(path):
            os.unlink(path)


def meant(kind, flags, what, ours, theirs):
    """The reason why a difference is right, if it is."""
    if "TMPFILE" in flags and what == "open" and ours == "ENOTSUP":
        return "a file is uploaded under its name"
    if what.startswith("punch") and ours == "ENOTSUP":
        return "the copy that is uploaded has no holes"
    if kind == "readonly" and what == "access" and ours:
        return "access goes by the permissions; opening says EROFS"
    if "DIRECT" in flags and what == "open" and theirs == "EINVAL":
        return "tmpfs has O_DIRECT since Linux 6.6"
    return None


def run(kind, sides, state, name, flags, dice, report):
    spelled = "|".join(flag for flag in flags if flag)
    value = 0
    for flag in flags:
        value |= {**ACCESS, **CHOICES, **EXTRA}[flag]
    paths = [side.prepare(name, state) for side in sides]
    target = [os.path.dirname(path) if "TMPFILE" in flags else path for path in paths]
    fds = [called(os.open, path, value, 0o644) for path in target]
    story = []

    def same(what, ours, theirs):
        """Whether the story goes on: it ends at the first difference, meant or not."""
        story.append(what)
        if ours != theirs and not meant(kind, flags, what, ours, theirs):
            report(f"{state} {spelled}: {', '.join(story)}: {brief(ours)}, not {brief(theirs)}")
        return ours == theirs

    opened = [isinstance(fd, int) for fd in fds]
    goes_on = same("open", *["opened" if ok else fd for fd, ok in zip(fds, opened)])
    for _ in range(dice.randrange(2, 9) if goes_on and opened[0] else 0):
        what, operation = draw(dice, kind, "TMPFILE" not in flags)
        goes_on = goes_on and same(what, *[called(operation, *at) for at in zip(fds, paths)])
    if goes_on and kind != "asset":
        goes_on = same("the bytes", *[called(content, path) for path in paths])
    closed = [called(os.close, fd) for fd, ok in zip(fds, opened) if ok]
    if goes_on and same("close", closed, [None] * len(closed)):
        same("the bytes after it", *[called(content, path) for path in paths])
    for side, path in zip(sides, paths):
        side.clean(path, state)


def brief(value):
    text = repr(value)
    return text if len(text) < 80 else f"{text[:60]}... ({len(value)})"


def combinations():
    for access, extra in itertools.product(ACCESS, EXTRA):
        for count in range(len(CHOICES) + 1):
            for some in itertools.combinations(CHOICES, count):
                yield (access, *some, extra)


def main():
    kind, ours, theirs, seed, rounds = sys.argv[1:]
    print(f"seed {seed}, {rounds} rounds")
    os.umask(0o022)
    sides = [Side(ours, kind), Side(theirs, kind)]
    differences = []
    cases = 0
    if kind == "staged":
        states = {state: itertools.repeat(".case") for state in STATES}
    else:
        files = sorted(name for name in os.listdir(theirs))
        states = {"remote": itertools.cycle(files), "absent": itertools.repeat("absent.mp4")}
    for number, (flags, state, turn) in enumerate(
        itertools.product(combinations(), states, range(int(rounds)))
    ):
        dice = random.Random(f"{seed} {number}")
        run(kind, sides, state, next(states[state]), flags, dice, differences.append)
        cases += 1
        if kind == "asset" and differences:
            break  # The files differ from here on.
    print(*differences, sep="\n")
    print(f"{cases} cases, {len(differences)} differences")
    sys.exit(1 if differences else 0)


main()
