"""What the answers of one member say about the path to it, and about its clock.

Round-trip times are smoothed as in RFC 6298. The offset of the clock is that of the fastest of the
last answers, as in NTP: what delays an answer falsifies its offset by at most half of the delay.
"""

from __future__ import annotations

from collections import deque

from edgeproxy.core.cluster.swim.tuning import RESEND_LEAST_SECS, RESEND_MOST_SECS

_GAIN, _DEVIATION_GAIN = 1 / 8, 1 / 4
_SAMPLES = 8


class RoundTrip:
    """The path to one member.

    Attributes:
        secs: The smoothed round-trip time; None before the first answer.
    """

    __slots__ = ("_deviation_secs", "_offsets", "secs")

    def __init__(self) -> None:
        self.secs: float | None = None
        self._deviation_secs = 0.0
        self._offsets: deque[tuple[float, float]] = deque(maxlen=_SAMPLES)

    def take(self, secs: float, offset_ms: float) -> None:
        """Take one direct answer: its round trip, and the member's clock less ours."""
        if self.secs is None:
            self.secs, self._deviation_secs = secs, secs / 2
        else:
            error = secs - self.secs
            self._deviation_secs += _DEVIATION_GAIN * (abs(error) - self._deviation_secs)
            self.secs += _GAIN * error
        self._offsets.append((secs, offset_ms))

    def offset_ms(self) -> float | None:
        """Return by how much the member's clock is ahead; None before the first answer."""
        return min(self._offsets)[1] if self._offsets else None

    def resend_secs(self) -> float:
        """Return after how long a ping without an answer is sent again."""
        if self.secs is None:
            return RESEND_MOST_SECS
        secs = self.secs + 4 * self._deviation_secs
        return min(max(secs, RESEND_LEAST_SECS), RESEND_MOST_SECS)
