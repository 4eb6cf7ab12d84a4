"""A system that has no room to watch one more socket."""

from __future__ import annotations

import errno
import select
from typing import Any


class FullEpoll:
    """An epoll by which nothing more can be watched."""

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)

    def register(self, _descriptor: int, _mask: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")
