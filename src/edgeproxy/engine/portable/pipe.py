"""Pipes through which bulk data is spliced from socket to socket, pooled.

A flow borrows a pipe while bytes are inside it and gives it back empty, so that an idle
session holds none.
"""

from __future__ import annotations

import fcntl
import os

PIPE_BYTES = 256 * 1024
MAX_POOLED = 32


class Pipe:
    """One pipe: `write_fd` takes bytes, `read_fd` gives them."""

    __slots__ = ("read_fd", "write_fd")

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.fcntl(self.write_fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            pass  # the user's share of pipe memory is used up; 64 KiB works too

    def close(self) -> None:
        """Discard the pipe and what is in it."""
        os.close(self.read_fd)
        os.close(self.write_fd)


class PipePool:
    """Keeps up to `MAX_POOLED` empty pipes for the next flow."""

    __slots__ = ("_empty",)

    def __init__(self) -> None:
        self._empty: list[Pipe] = []

    def borrow(self, ceiling: int) -> Pipe | None:
        """Return an empty pipe, or None when no descriptors below `ceiling` are left."""
        if self._empty:
            return self._empty.pop()
        try:
            pipe = Pipe()
        except OSError:
            return None
        if pipe.write_fd < ceiling:
            return pipe
        pipe.close()
        return None

    def give_back(self, pipe: Pipe, *, empty: bool) -> None:
        """Take a pipe back; one that still holds bytes is closed."""
        if empty and len(self._empty) < MAX_POOLED:
            self._empty.append(pipe)
        else:
            pipe.close()

    def close(self) -> None:
        """Close the pooled pipes."""
        while self._empty:
            self._empty.pop().close()
