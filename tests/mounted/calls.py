"""Calls by name and by descriptor, each on a directory of the mount and on one of Linux' own.

    calls.py OURS THEIRS

Both hold an empty directory `video`. What pjdfstest asserts of open, unlink, rename, truncate,
chmod, utimensat, link, mkdir, rmdir, mkfifo and symlink, as far as a file system without directories
of its own can be asked; that suite itself begins by making a directory. A call's result, or its
errno, must be the same on both; `MEANT` has what the mount answers instead, with the reason.
"""

import fcntl
import mmap
import os
import stat
import sys
import types

import both
from both import LIBC, called, content, libc

LONG = "." + "n" * 254
TOO_LONG = "." + "n" * 255
PLAIN = stat.S_IFREG
NO_DIRECTORIES = "directories are those of the service"
NO_LINKS = "an asset has one name and is a plain file"
# What the mount answers where it differs.
MEANT = {
    "a_name_that_is_not_utf8": ("EILSEQ", "no service could be told the name"),
    "a_time_of_access": ("mtime", "reading changes nothing, so no time of access is kept"),
    "an_unnamed_file": ("ENOTSUP", "a file is uploaded under its name"),
    "chmod_with_the_sticky_bits": ((PLAIN, 0o755, 10, 1), "permissions alone are kept"),
    "link": ("EPERM", NO_LINKS),
    "mkdir": ("EPERM", NO_DIRECTORIES),
    "mkfifo": ("EPERM", NO_LINKS),
    "rename_a_directory": ("EPERM", NO_DIRECTORIES),
    "rename_exchanging": ("EINVAL", "no service lets two assets change places"),
    "rmdir_of_what_is_not_empty": ("EPERM", NO_DIRECTORIES),
    "symlink": ("EPERM", NO_LINKS),
    "unlinked_has_no_links": (1, "every file shows one name, also one that is open and gone"),
}


def made(path, data=b"0123456789"):
    return both.made(path, data)


def opened(path, flags, mode=0o644):
    os.close(os.open(path, flags, mode))
    return "opened"


def shape(path):
    return both.shape(os.lstat(path))


def renameat2(source, target, flags):
    libc("renameat2", -100, os.fsencode(source), -100, os.fsencode(target), flags)
    return "renamed"


def mtime(path, mtime_ns):
    os.utime(path, ns=(0, mtime_ns))
    return os.stat(path).st_mtime_ns


# ---- one function a behaviour; `d` is the directory, `f` a file of ten bytes in it ----


def open_a_directory_to_write(d, f):
    return opened(d, os.O_WRONLY)


def open_a_directory_to_read_and_write(d, f):
    return opened(d, os.O_RDWR)


def open_a_directory_with_creat(d, f):
    return opened(d, os.O_RDONLY | os.O_CREAT)


def open_a_directory_with_trunc(d, f):
    return opened(d, os.O_RDONLY | os.O_TRUNC)


def open_a_directory_to_append(d, f):
    return opened(d, os.O_RDONLY | os.O_APPEND)


def open_what_is_absent(d, f):
    return opened(d + "/.absent", os.O_RDONLY)


def open_below_what_is_absent(d, f):
    return opened(d + "/.absent/x", os.O_RDONLY | os.O_CREAT)


def open_below_a_file(d, f):
    return opened(f + "/x", os.O_RDONLY)


def create_below_a_file(d, f):
    return opened(f + "/x", os.O_WRONLY | os.O_CREAT)


def open_a_file_with_a_slash_behind(d, f):
    return opened(f + "/", os.O_RDONLY)


def create_with_a_slash_behind(d, f):
    return opened(d + "/.new/", os.O_WRONLY | os.O_CREAT)


def open_a_file_as_a_directory(d, f):
    return opened(f, os.O_RDONLY | os.O_DIRECTORY)


def create_exclusively_what_is_there(d, f):
    return opened(f, os.O_WRONLY | os.O_CREAT | os.O_EXCL)


def create_a_name_of_255_bytes(d, f):
    opened(d + "/" + LONG, os.O_WRONLY | os.O_CREAT)
    names = os.listdir(d)
    os.unlink(d + "/" + LONG)
    return LONG in names, os.listdir(d)


def a_name_of_256_bytes_everywhere(d, f):
    long = d + "/" + TOO_LONG
    said = []
    for call in [
        lambda: opened(long, os.O_RDONLY),
        lambda: opened(long, os.O_WRONLY | os.O_CREAT),
        lambda: os.stat(long),
        lambda: os.unlink(long),
        lambda: os.rename(f, long),
        lambda: os.rename(long, f),
        lambda: os.truncate(long, 1),
        lambda: os.chmod(long, 0o600),
        lambda: os.utime(long),
        lambda: os.mkdir(long),
        lambda: os.rmdir(long),
        lambda: os.link(f, long),
        lambda: os.symlink("x", long),
        lambda: os.mkfifo(long),
    ]:
        said.append(called(call))
    return said


def a_path_of_more_than_4096_bytes(d, f):
    return os.stat(d + "/." * 2100)


def a_name_that_is_not_utf8(d, f):
    return opened(os.fsencode(d) + b"/.\xff", os.O_WRONLY | os.O_CREAT)


def stat_a_name_that_is_not_utf8(d, f):
    return os.stat(os.fsencode(d) + b"/.\xff")


def a_name_with_a_newline(d, f):
    path = made(d + "/.a\nb")
    names = sorted(os.listdir(d))
    os.unlink(path)
    return names


def dot_and_dot_dot(d, f):
    same = os.path.samefile(d + "/.", d), os.path.samefile(d + "/..", os.path.dirname(d))
    return same


def unlink_a_directory(d, f):
    return os.unlink(d)


def unlink_what_is_absent(d, f):
    return os.unlink(d + "/.absent")


def unlink_below_a_file(d, f):
    return os.unlink(f + "/x")


def unlink_and_look(d, f):
    os.unlink(f)
    return called(os.stat, f), os.listdir(d)


def what_is_unlinked_lives_on_in_its_descriptor(d, f):
    fd = os.open(f, os.O_RDWR)
    os.unlink(f)
    os.pwrite(fd, b"more", 10)
    said = os.pread(fd, 100, 0), os.fstat(fd).st_size, os.listdir(d)
    os.close(fd)
    return said


def unlinked_has_no_links(d, f):
    fd = os.open(f, os.O_RDWR)
    os.unlink(f)
    links = os.fstat(fd).st_nlink
    os.close(fd)
    return links


def a_name_can_be_made_again_while_the_old_file_is_open(d, f):
    fd = os.open(f, os.O_RDWR)
    os.unlink(f)
    made(f, b"new")
    said = os.pread(fd, 100, 0), content(f)
    os.close(fd)
    return said


def rename_to_a_new_name(d, f):
    os.rename(f, d + "/.g")
    return called(os.stat, f), content(d + "/.g"), sorted(os.listdir(d))


def rename_over_a_file(d, f):
    os.rename(f, made(d + "/.g", b"other"))
    return content(d + "/.g"), sorted(os.listdir(d))


def rename_over_an_open_file(d, f):
    fd = os.open(made(d + "/.g", b"other"), os.O_RDONLY)
    os.rename(f, d + "/.g")
    said = os.pread(fd, 100, 0), content(d + "/.g")
    os.close(fd)
    return said


def a_renamed_file_is_the_same(d, f):
    before = os.stat(f)
    fd = os.open(f, os.O_RDWR)
    os.rename(f, d + "/.g")
    os.pwrite(fd, b"X", 0)
    after = os.stat(d + "/.g")
    os.close(fd)
    return before.st_ino == after.st_ino, content(d + "/.g")


def rename_to_itself(d, f):
    os.rename(f, f)
    return content(f)


def rename_what_is_absent(d, f):
    return os.rename(d + "/.absent", d + "/.g")


def rename_over_a_directory(d, f):
    return os.rename(f, d)


def rename_a_directory_over_a_file(d, f):
    return os.rename(d, f)


def rename_below_a_file(d, f):
    return os.rename(f, f + "/x")


def rename_a_directory(d, f):
    os.rename(d, d + "2")
    os.rename(d + "2", d)


def rename_without_replacing(d, f):
    made(d + "/.g")
    return called(renameat2, f, d + "/.g", 1), renameat2(f, d + "/.h", 1)


def rename_exchanging(d, f):
    return renameat2(f, made(d + "/.g"), 2)


def link(d, f):
    return os.link(f, d + "/.g")


def link_over_a_file(d, f):
    return os.link(f, made(d + "/.g"))


def link_what_is_absent(d, f):
    return os.link(d + "/.absent", d + "/.g")


def symlink(d, f):
    return os.symlink("x", d + "/.g")


def symlink_over_a_file(d, f):
    return os.symlink("x", f)


def readlink_of_a_file(d, f):
    return os.readlink(f)


def mkfifo(d, f):
    return os.mkfifo(d + "/.g")


def mkfifo_over_a_file(d, f):
    return os.mkfifo(f)


def mknod_of_a_plain_file(d, f):
    os.mknod(d + "/.g", stat.S_IFREG | 0o644)
    return shape(d + "/.g")


def mkdir(d, f):
    return os.mkdir(d + "/.g")


def mkdir_over_a_file(d, f):
    return os.mkdir(f)


def mkdir_over_a_directory(d, f):
    return os.mkdir(d)


def mkdir_below_a_file(d, f):
    return os.mkdir(f + "/x")


def rmdir_of_what_is_not_empty(d, f):
    return os.rmdir(d)


def rmdir_of_a_file(d, f):
    return os.rmdir(f)


def rmdir_of_what_is_absent(d, f):
    return os.rmdir(d + "/.absent")


def truncate_shorter_and_longer(d, f):
    os.truncate(f, 3)
    short = content(f)
    os.truncate(f, 12)
    return short, content(f), shape(f)


def truncate_to_less_than_nothing(d, f):
    return os.truncate(f, -1)


def truncate_a_directory(d, f):
    return os.truncate(d, 0)


def truncate_what_is_absent(d, f):
    return os.truncate(d + "/.absent", 0)


def truncate_below_a_file(d, f):
    return os.truncate(f + "/x", 0)


def ftruncate_of_a_descriptor_to_read(d, f):
    with open(f, "rb") as file:
        return called(os.ftruncate, file.fileno(), 0)


def truncate_changes_the_times(d, f):
    os.utime(f, ns=(10**18, 10**18))
    os.truncate(f, 5)
    return os.stat(f).st_mtime_ns > 10**18


def write_changes_the_times(d, f):
    os.utime(f, ns=(10**18, 10**18))
    with open(f, "r+b") as file:
        file.write(b"x")
    return os.stat(f).st_mtime_ns > 10**18


def a_write_of_nothing(d, f):
    fd = os.open(f, os.O_RDWR)
    said = os.write(fd, b""), os.pwrite(fd, b"", 100), os.fstat(fd).st_size
    os.close(fd)
    return said


def chmod_of_a_file(d, f):
    said = []
    for mode in [0o600, 0o755, 0o000, 0o444, 0o644]:
        os.chmod(f, mode)
        said.append(shape(f))
    return said


def chmod_of_what_is_absent(d, f):
    return os.chmod(d + "/.absent", 0o600)


def chmod_below_a_file(d, f):
    return os.chmod(f + "/x", 0o600)


def chmod_with_the_sticky_bits(d, f):
    os.chmod(f, 0o7755)
    return shape(f)


def chown_to_its_owner(d, f):
    status = os.stat(f)
    os.chown(f, status.st_uid, status.st_gid)
    return os.stat(f).st_uid == status.st_uid


def utimensat_keeps_nanoseconds(d, f):
    return mtime(f, 1_234_567_891_987_654_321)


def utimensat_before_1970(d, f):
    return mtime(f, -1), mtime(f, -2_500_000_000), mtime(f, -3_000_000_000)


def utimensat_after_2038(d, f):
    return mtime(f, 2**31 * 10**9), mtime(f, 2**32 * 10**9 + 5)


def a_time_of_access(d, f):
    os.utime(f, (1_000, 2_000))
    return "atime" if os.stat(f).st_atime == 1_000 else "mtime"


def utimensat_of_what_is_absent(d, f):
    return os.utime(d + "/.absent", (1, 1))


def utimensat_now(d, f):
    os.utime(f, (1, 1))
    os.utime(f)
    return os.stat(f).st_mtime > 1_600_000_000


def access_of_a_file(d, f):
    return [os.access(f, mode) for mode in (os.F_OK, os.R_OK, os.W_OK)]


def stat_and_fstat_agree(d, f):
    with open(f, "rb") as file:
        by_name, by_descriptor = os.stat(f), os.fstat(file.fileno())
    return by_name == by_descriptor, shape(f)


def a_directory_lists_what_was_made(d, f):
    made(d + "/.g")
    return sorted(os.listdir(d)), sorted(entry.is_file() for entry in os.scandir(d))


def statvfs_tells_the_longest_name(d, f):
    return os.statvfs(d).f_namemax


def flock_is_exclusive(d, f):
    first, second = os.open(f, os.O_RDWR), os.open(f, os.O_RDWR)
    fcntl.flock(first, fcntl.LOCK_EX)
    said = called(fcntl.flock, second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(first, fcntl.LOCK_UN)
    said = said, called(fcntl.flock, second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(first)
    os.close(second)
    return said


def fcntl_locks_hold_between_processes(d, f):
    fd = os.open(f, os.O_RDWR)
    fcntl.lockf(fd, fcntl.LOCK_EX, 5)
    child = os.fork()
    if child == 0:
        other = os.open(f, os.O_RDWR)
        taken = called(fcntl.lockf, other, fcntl.LOCK_EX | fcntl.LOCK_NB, 5)
        beside = called(fcntl.lockf, other, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 5)
        os._exit((taken == "EAGAIN") + 2 * (beside is None))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(fd)
    return status


def seek_to_holes_and_data(d, f):
    fd = os.open(f, os.O_RDWR)
    said = [
        called(os.lseek, fd, 0, os.SEEK_DATA),
        called(os.lseek, fd, 3, os.SEEK_DATA),
        called(os.lseek, fd, 0, os.SEEK_HOLE),
        called(os.lseek, fd, 10, os.SEEK_DATA),
        called(os.lseek, fd, 11, os.SEEK_HOLE),
    ]
    os.close(fd)
    return said


def what_was_not_written_is_zero(d, f):
    fd = os.open(f, os.O_RDWR)
    os.pwrite(fd, b"end", 3_000_000)
    said = os.fstat(fd).st_size, os.pread(fd, 10, 2_999_995), any(os.pread(fd, 100_000, 1_000_000))
    os.close(fd)
    return said


def copy_file_range_between_files(d, f):
    source, target = os.open(f, os.O_RDONLY), os.open(made(d + "/.g", b""), os.O_RDWR)
    said = os.copy_file_range(source, target, 4, 2, 1), content(d + "/.g")
    os.close(source)
    os.close(target)
    return said


def sendfile_between_files(d, f):
    source, target = os.open(f, os.O_RDONLY), os.open(made(d + "/.g", b""), os.O_RDWR)
    said = os.sendfile(target, source, 1, 5), content(d + "/.g")
    os.close(source)
    os.close(target)
    return said


def splice_from_a_pipe(d, f):
    out, into = os.pipe()
    os.write(into, b"through a pipe")
    fd = os.open(f, os.O_RDWR)
    said = os.splice(out, fd, 14), content(f)
    for each in (out, into, fd):
        os.close(each)
    return said


def pages_that_are_shared_reach_the_file(d, f):
    fd = os.open(f, os.O_RDWR)
    with mmap.mmap(fd, 10) as pages:
        pages[2:5] = b"map"
        pages.flush()
    said = os.pread(fd, 100, 0)
    os.close(fd)
    return said, content(f)


def pages_see_what_is_written(d, f):
    fd = os.open(f, os.O_RDWR)
    with mmap.mmap(fd, 10) as pages:
        before = bytes(pages)
        os.pwrite(fd, b"wrt", 4)
        after = bytes(pages)
    os.close(fd)
    return before, after


def private_pages_stay_private(d, f):
    fd = os.open(f, os.O_RDONLY)
    with mmap.mmap(fd, 10, mmap.MAP_PRIVATE) as pages:
        pages[0:3] = b"own"
        said = bytes(pages)
    os.close(fd)
    return said, content(f)


def two_descriptors_that_append_lose_nothing(d, f):
    fds = [os.open(f, os.O_WRONLY | os.O_APPEND) for _ in range(2)]
    for turn in range(6):
        os.write(fds[turn % 2], b"%d;" % turn)
    for fd in fds:
        os.close(fd)
    return content(f)


def the_end_is_where_another_descriptor_put_it(d, f):
    reader, writer = os.open(f, os.O_RDONLY), os.open(f, os.O_WRONLY | os.O_APPEND)
    os.read(reader, 100)
    os.write(writer, b"later")
    said = os.read(reader, 100), os.lseek(reader, 0, os.SEEK_END)
    os.close(reader)
    os.close(writer)
    return said


def a_directory_can_be_synced(d, f):
    fd = os.open(d, os.O_RDONLY)
    said = called(os.fsync, fd), called(os.fdatasync, fd)
    os.close(fd)
    return said


def a_directory_can_not_be_read_as_a_file(d, f):
    fd = os.open(d, os.O_RDONLY)
    said = called(os.read, fd, 10), called(os.pread, fd, 10, 0)
    os.close(fd)
    return said


def an_unnamed_file(d, f):
    return opened(d, os.O_RDWR | os.O_TMPFILE)


def the_map_of_extents(d, f):
    with open(f, "rb") as file:
        return fcntl.ioctl(file.fileno(), 0xC020660B, bytes(32 + 56))


def an_ioctl_that_nobody_knows(d, f):
    with open(f, "rb") as file:
        return fcntl.ioctl(file.fileno(), 0x1234)


def sync_of_the_file_system(d, f):
    fd = os.open(f, os.O_RDONLY)
    said = LIBC.syncfs(fd)
    os.close(fd)
    return said


def advice(d, f):
    with open(f, "rb") as file:
        for kind in range(6):
            os.posix_fadvise(file.fileno(), 0, 0, kind)
        return file.read()


def emptied(directory):
    for name in os.listdir(os.fsencode(directory)):
        path = os.fsencode(directory) + b"/" + name
        (os.rmdir if os.path.isdir(path) and not os.path.islink(path) else os.unlink)(path)


def main():
    ours, theirs = (os.path.join(place, "video") for place in sys.argv[1:])
    os.umask(0o022)
    behaviours = [
        (name, call)
        for name, call in globals().items()
        if isinstance(call, types.FunctionType) and call.__code__.co_varnames[:2] == ("d", "f")
    ]
    failed = 0
    for name, call in behaviours:
        results = []
        for directory in (ours, theirs):
            emptied(directory)
            results.append(called(call, directory, made(directory + "/.f")))
        expected = MEANT[name][0] if name in MEANT else results[1]
        if results[0] != expected:
            failed += 1
            print(f"{name}: {results[0]!r}, not {expected!r}; theirs {results[1]!r}")
    emptied(ours)
    print(f"{len(behaviours)} behaviours, {len(MEANT)} of them meant to differ, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
