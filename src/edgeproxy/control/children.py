"""The child processes of this one: those it has started, and the orphans left to process 1.

A process that is process 1, as in a container, becomes the parent of every orphan, and each orphan
that ends stays in the process table until process 1 has taken its exit status. The exit status of
a process that was started here is never taken from its owner: whoever starts one enters it in
`RUNNING` before anything else runs on the same thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable

RUNNING: dict[int, Callable[[], object]] = {}
"""What takes the exit status of each process that was started here, by process id."""
LOOK_SECS = 1.0
MOST_AT_ONCE = 1000


def has_ended(pid: int) -> bool:
    """Return whether a child has ended; its exit status can still be taken."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def reap() -> None:
    """Take the exit statuses of children that have ended. Those of `RUNNING` go to their owners."""
    for _ in range(MOST_AT_ONCE):
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return
            owner = RUNNING.get(ended.si_pid)
            if owner is None:
                os.waitpid(ended.si_pid, os.WNOHANG)
            else:
                owner()
        except ChildProcessError:  # there is none, or its owner was faster
            return


async def reap_always() -> None:
    """Reap once a second, until cancelled. On the thread that starts processes."""
    import asyncio

    while True:
        reap()
        await asyncio.sleep(LOOK_SECS)
