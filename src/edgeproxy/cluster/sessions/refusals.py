"""Counts what is refused and why, and tells an operator what to do about it, once a minute each."""

from __future__ import annotations

from collections import Counter

from edgeproxy.cluster.sessions.auth import HINTS, Refusal
from edgeproxy.log import EventLog, Throttle

LOG_SECS = 60.0
NO_PLACE = "no_place"
"""A stranger came while others held all places."""

_NO_PLACE_HINT = (
    "more strangers than allowed open connections: let only the other nodes reach this port"
)
_LOG = EventLog("cluster")


class Refusals:
    """The counts since the start, by reason: each `Refusal`, and `NO_PLACE`."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter({each.value: 0 for each in Refusal})
        self.counts[NO_PLACE] = 0
        self._throttles = {reason: Throttle(LOG_SECS) for reason in self.counts}

    def note(self, reason: str, address: str, now: float) -> None:
        """Count a refusal of somebody at this address. `now` is monotonic."""
        self.counts[reason] += 1
        suppressed = self._throttles[reason].admit(now)
        if suppressed is not None:
            hint = _NO_PLACE_HINT if reason == NO_PLACE else HINTS[Refusal(reason)]
            _LOG.warning(
                "replication_peer_refused",
                reason=reason,
                address=address,
                suppressed=suppressed,
                hint=hint,
            )
