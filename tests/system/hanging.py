"""Files that hang: whoever opens one waits, as on a file system whose server does not answer."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_FAN_CLASS_CONTENT, _FAN_CLOEXEC = 0x4, 0x1
_FAN_MARK_ADD, _FAN_OPEN_PERM = 0x1, 0x10000
_AT_FDCWD = -100


@contextmanager
def hanging(*paths: Path) -> Iterator[None]:
    """Let no other process open these files meanwhile: it waits until this ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "fanotify_init"):
        pytest.skip("there is no fanotify")
    asked = libc.fanotify_init(_FAN_CLASS_CONTENT | _FAN_CLOEXEC, os.O_RDONLY)
    if asked < 0:
        pytest.skip(f"fanotify: {os.strerror(ctypes.get_errno())}; it needs root")
    try:
        for path in paths:
            marked = libc.fanotify_mark(
                asked,
                _FAN_MARK_ADD,
                ctypes.c_uint64(_FAN_OPEN_PERM),
                _AT_FDCWD,
                os.fsencode(path),
            )
            if marked < 0:
                pytest.skip(f"fanotify: {os.strerror(ctypes.get_errno())}")
        yield
    finally:
        os.close(asked)  # whoever waits goes on
