"""How long a suspicion lasts: less, the more members confirm it.

A member that is suspected has this long to refute it. One accuser may be wrong about the path, so
alone it waits for `most_secs`. Every independent confirmation shortens that, down to `least_secs`
with all that are wanted (Lifeguard's LHA-Suspicion, with the decay of memberlist).
"""

from __future__ import annotations

import math

from edgeproxy.core.cluster.swim.tuning import SUSPICION_ALONE


class Suspicion:
    """One member that is suspected.

    Attributes:
        started_at: When the time to refute began.
        asked_at: When this node last asked the suspect; 0 if it has not yet.
    """

    __slots__ = ("_accusers", "_least_secs", "_most_secs", "_wanted", "asked_at", "started_at")

    def __init__(
        self, accuser: str, started_at: float, secs: tuple[float, float], wanted: int
    ) -> None:
        self._accusers = {accuser}
        self._least_secs, self._most_secs = secs
        self._wanted = wanted
        if not wanted:
            self._least_secs *= SUSPICION_ALONE
        self.started_at = started_at
        self.asked_at = 0.0

    def confirm(self, accuser: str) -> bool:
        """Count one more accuser; return whether that is news."""
        if accuser in self._accusers or len(self._accusers) > self._wanted:
            return False
        self._accusers.add(accuser)
        return True

    def confirm_wholly(self) -> None:
        """Somebody has waited for the whole time already: the least is enough."""
        self._wanted = 0

    def ends_at(self) -> float:
        """Return when the member is dead, unless it refutes."""
        if not self._wanted:
            return self.started_at + self._least_secs
        confirmations = len(self._accusers) - 1
        decay = math.log(confirmations + 1) / math.log(self._wanted + 1)
        secs = self._most_secs - (self._most_secs - self._least_secs) * decay
        return self.started_at + max(self._least_secs, secs)
