"""How long a backend that could not be dialed is passed over.

A dead backend has no load, so it would draw every new client if it were not passed over. The time
doubles with each further failure, up to a limit. After it, one client at a time tries the backend:
while that client dials, the backend is passed over again.

    failures      passed over for
    1             first_secs
    n             first_secs * 2**(n-1), at most longest_secs
    0 (success)   not at all
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeproxy.core.backends.live_state import LiveState


@dataclass(frozen=True, slots=True)
class EjectionSettings:
    """How long a failed backend is passed over by new clients.

    Attributes:
        first_secs: Time after one failure; 0: no backend is passed over.
        longest_secs: Maximum time.
    """

    first_secs: float = 5.0
    longest_secs: float = 60.0


class Ejection:
    """Applies the settings to the live state of backends."""

    def __init__(self, settings: EjectionSettings) -> None:
        self._settings = settings

    def failed(self, live: LiveState, now: float) -> None:
        """A dial has failed."""
        live.failures += 1
        doublings = min(live.failures - 1, 16)
        secs = min(self._settings.first_secs * 2**doublings, self._settings.longest_secs)
        live.passed_over_until = now + secs

    def forget(self, live: LiveState) -> None:
        """The backend has a new address: failures at the old one do not count."""
        live.failures = 0
        live.passed_over_until = 0.0

    def trying(self, live: LiveState, dial_timeout_secs: float, now: float) -> None:
        """A backend that failed before is being dialed: no other client tries it meanwhile."""
        live.passed_over_until = max(live.passed_over_until, now + dial_timeout_secs)

    def answered(self, live: LiveState) -> bool:
        """A dial has succeeded. Return whether the backend had been passed over."""
        if not live.failures:
            return False
        live.failures = 0
        live.passed_over_until = 0.0
        return True
