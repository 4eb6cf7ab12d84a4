"""Reads files that people put in place: settings, tokens, certificates, geo data, snapshots.

Such a file may be replaced by anything while it is followed: a FIFO that no process writes, a
device that never ends, a file of any size. So opening never waits, only regular files are read,
those of procfs and behind symbolic links included, and never more than the limit of their kind.

A file system that hangs still holds a reader up: who follows a file reads it on a thread of its
own.
"""

from __future__ import annotations

import codecs
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KIB, MIB = 1 << 10, 1 << 20

MAX_TOKEN_BYTES = 16 * KIB
MAX_PEM_BYTES = MIB
MAX_CONFIG_BYTES = 8 * MIB
MAX_OVERRIDES_BYTES = 64 * MIB
MAX_SNAPSHOT_BYTES = 256 * MIB
MAX_GEO_BYTES = 1024 * MIB

_CHUNK_BYTES = MIB
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class UnsuitableFileError(OSError):
    """What is there is no regular file, or a larger one than its kind may be."""


def read(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file of at most this size.

    Raises OSError, whose `strerror` says what is wrong, or ValueError for a path that no file has.
    """
    return b"".join(chunks(path, max_bytes))


def read_text(path: Path, max_bytes: int) -> str:
    """Return the text of such a file, without a byte order mark.

    Raises OSError as `read` does, and ValueError for what is not UTF-8.
    """
    content = read(path, max_bytes)
    if content.startswith(_UTF16):
        raise ValueError("it is UTF-16 text; save it as UTF-8")
    return content.decode("utf-8-sig")


def chunks(path: Path, max_bytes: int) -> Iterator[bytes]:
    """Yield the content of such a file in parts. Raises as `read` does."""
    with _opened(path, max_bytes) as descriptor:
        total_bytes = 0
        while chunk := os.read(descriptor, _CHUNK_BYTES):
            total_bytes += len(chunk)
            if total_bytes > max_bytes:  # it grows, or its file system tells no size
                raise _too_large(path, max_bytes)
            yield chunk


def tail(path: Path, count: int, max_bytes: int) -> bytes:
    """Return the last `count` bytes of such a file. Raises as `read` does."""
    with _opened(path, max_bytes) as descriptor:
        return os.pread(descriptor, count, max(os.fstat(descriptor).st_size - count, 0))


@contextmanager
def _opened(path: Path, max_bytes: int) -> Iterator[int]:
    _check(path.stat(), path, max_bytes)  # before it is opened: opening a device may do something
    # Without O_NONBLOCK, a FIFO that has come into its place would be waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check(os.fstat(descriptor), path, max_bytes)
        yield descriptor
    finally:
        os.close(descriptor)


def _check(status: os.stat_result, path: Path, max_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UnsuitableFileError(errno.EINVAL, "it is not a regular file", str(path))
    if status.st_size > max_bytes:
        raise _too_large(path, max_bytes)


def _too_large(path: Path, max_bytes: int) -> UnsuitableFileError:
    unit, name = (MIB, "MiB") if max_bytes >= MIB else (KIB, "KiB")
    return UnsuitableFileError(
        errno.EFBIG, f"it is larger than {max_bytes // unit} {name}", str(path)
    )
