"""How many descriptors there may be, and how many the engine leaves to the rest of the process.

The system gives out the lowest free number, so a descriptor's number tells how many are
left. The engine gives back or stops asking for those from `ceiling()` on; otherwise a rush
of clients could take the last one from the control plane, which would then fail to open
the routing database, or even to import a module.
"""

from __future__ import annotations

import os
import resource

from edgeproxy.log import EventLog

log = EventLog("app")

RESERVED = 64


def raise_limit() -> None:
    """Use as many descriptors as this process may have; each connection takes two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            log.debug("descriptor_limit", soft=soft, hard=hard)


def ceiling() -> int:
    """Return the first number that the engine does not use."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1 << 30
    return soft - min(RESERVED, soft // 4)


def room_below(limit: int) -> bool:
    """Return whether a number below `limit` is free."""
    try:
        probe = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    os.close(probe)
    return probe < limit
