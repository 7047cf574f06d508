"""What calls.py and flags.py ask of both directories in the same way."""

import ctypes
import errno
import os
import stat

LIBC = ctypes.CDLL(None, use_errno=True)


def called(call, *arguments):
    """A call's result, or the name of its errno."""
    try:
        return call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    except ValueError as error:
        return f"ValueError: {error}"


def libc(name, *arguments):
    """A call that Python has not."""
    if getattr(LIBC, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), name)


def shape(status):
    """What of a stat must be the same everywhere."""
    return stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode), status.st_size, status.st_nlink


def made(path, data):
    """A file of these bytes that its owner may write and everybody read."""
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, 0o644)
    return path


def content(path):
    with open(path, "rb") as file:
        return file.read()
