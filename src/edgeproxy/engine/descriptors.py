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

API_SHARE, METRICS_SHARE, CONTROL_SHARE = 0.5, 0.625, 0.75
"""How much of what the engine leaves is used when a part of the process takes no more connections.

Each part leaves some to the next: the API to the metrics page, that to the control socket, and all
of them to files and probes.
"""


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


def ceiling_of(share: float) -> int:
    """Return the first number that a part does not use; see the shares above."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return ceiling()
    return ceiling() + int((soft - ceiling()) * share)


def room_below(limit: int) -> bool:
    """Return whether a number below `limit` is free."""
    try:
        probe = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    os.close(probe)
    return probe < limit
