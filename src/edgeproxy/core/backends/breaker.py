"""When a failing backend takes no clients, and how it comes back: a circuit breaker.

    closed      failures in a row reach failure_threshold         open
    open        timeout_secs have passed                          half-open
    half-open   answers reach success_threshold                   closed
    half-open   a failure                                         open

While half-open it takes `trials` clients at a time. An open breaker takes none: its backend is
not even a last resort.

A failure is a dial that fails. With `early_close_secs`, it is also a connection that the backend
ends so soon without having sent a byte; what counts then is how many of those come in a row, for
the dials before them all succeed. A trial then succeeds when its connection lives longer than
that or the backend has sent a byte. An earlier end without a byte is ignored.

Without the breaker, and for backends that have not failed often enough for it, `ejection` says
which backend is passed over. Both keep their state in `live_state.LiveState`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edgeproxy.core.backends.live_state import Circuit, LiveState


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When a backend is cut off, and how it is tried again.

    Attributes:
        enabled: Off, failed backends are passed over for a while (`core/backends/ejection`).
        failure_threshold: Failures in a row that open the breaker.
        success_threshold: Answers that close it again.
        timeout_secs: How long it is open.
        trials: How many clients at a time try a half-open one.
        early_close_secs: A connection that the backend closes within this time without having
            sent a byte is a failure too; 0: it is not.
    """

    enabled: bool = False
    failure_threshold: int = 5
    success_threshold: int = 3
    timeout_secs: float = 30.0
    trials: int = 1
    early_close_secs: float = 0.0


Changed = Callable[[str, Circuit], object]
"""Called with a backend's id and the new state of its breaker."""


class Trial:
    """A connection to a half-open backend that may still turn out to be mute.

    Attributes:
        live: The backend.
        until: When the moment is over.
    """

    __slots__ = ("live", "until")

    def __init__(self, live: LiveState, until: float) -> None:
        self.live = live
        self.until = until


class Breaker:
    """The breakers of all backends. For one thread."""

    def __init__(self, settings: BreakerSettings, changed: Changed) -> None:
        self.settings = settings
        self._changed = changed
        self._trials: dict[Trial, None] = {}

    def change(self, settings: BreakerSettings, lives: Iterable[LiveState]) -> list[LiveState]:
        """Apply new settings. Return the backends whose breaker is open for another time now."""
        longer_secs = settings.timeout_secs - self.settings.timeout_secs
        self.settings = settings
        moved = [live for live in lives if longer_secs and live.circuit is Circuit.OPEN]
        for live in moved:
            live.passed_over_until += longer_secs
        return moved

    def failed(self, live: LiveState, now: float) -> None:
        """A dial has failed."""
        live.failures += 1
        self._count(live, live.failures, now)

    def died(self, live: LiveState, now: float) -> None:
        """A connection has ended within a moment, without a byte from the backend."""
        live.deaths += 1
        self._count(live, live.deaths, now)

    def _count(self, live: LiveState, failures: int, now: float) -> None:
        if live.circuit is Circuit.HALF_OPEN or (
            live.circuit is Circuit.CLOSED and failures >= self.settings.failure_threshold
        ):
            live.passed_over_until = now + self.settings.timeout_secs
            self._drop_trials(live)
            self._become(live, Circuit.OPEN)

    def forget(self, live: LiveState) -> None:
        """It is somewhere else now: what it did there does not matter any more."""
        live.failures = live.deaths = 0
        live.passed_over_until = 0.0
        self._drop_trials(live)
        if live.circuit is not Circuit.CLOSED:
            self._become(live, Circuit.CLOSED)

    def trying(self, live: LiveState, dial_timeout_secs: float, now: float) -> None:
        """A backend that failed before is being dialed."""
        if live.circuit is Circuit.CLOSED:
            return
        if live.circuit is Circuit.OPEN:
            live.successes = 0
            live.trials = 0
            self._become(live, Circuit.HALF_OPEN)
        elif live.trials >= self.settings.trials:
            live.trials = 0  # their time is up, or this client could not be here
        live.trials += 1
        if live.trials >= self.settings.trials:
            live.passed_over_until = now + dial_timeout_secs

    def answered(self, live: LiveState) -> bool:
        """A dial has succeeded. Return whether more clients may come now."""
        live.failures = 0
        if live.circuit is not Circuit.HALF_OPEN or self.settings.early_close_secs:
            return False
        live.passed_over_until = 0.0
        self._succeeded(live)
        return True

    def on_trial(self, live: LiveState, now: float) -> Trial | None:
        """A dial has succeeded: return what has still to be seen of its connection, if any."""
        early_close_secs = self.settings.early_close_secs
        if live.circuit is not Circuit.HALF_OPEN or not early_close_secs:
            return None
        trial = Trial(live, now + early_close_secs)
        self._trials[trial] = None
        if live.trials >= self.settings.trials:
            live.passed_over_until = trial.until
        return trial

    def ended(self, trial: Trial, now: float, *, has_spoken: bool) -> bool:
        """The connection on trial has ended well. Return whether more clients may come now.

        `has_spoken`: the backend has sent a byte.
        """
        is_undecided = trial in self._trials
        self._trials.pop(trial, None)
        live = trial.live
        if live.circuit is not Circuit.HALF_OPEN or not is_undecided:
            return False
        live.passed_over_until = 0.0
        if has_spoken or now >= trial.until:
            self._succeeded(live)
        else:
            live.trials = max(live.trials - 1, 0)
        return True

    def outlived(self, now: float) -> list[LiveState]:
        """Count the trials whose moment is over. Return whose breakers have closed."""
        closed = []
        for trial in [each for each in self._trials if each.until <= now]:
            del self._trials[trial]
            if trial.live.circuit is Circuit.HALF_OPEN and self._succeeded(trial.live):
                closed.append(trial.live)
        return closed

    def _succeeded(self, live: LiveState) -> bool:
        """Count a trial that went well. Return whether the breaker has closed."""
        live.successes += 1
        live.trials = max(live.trials - 1, 0)
        if live.successes < self.settings.success_threshold:
            return False
        live.deaths = 0
        live.passed_over_until = 0.0
        self._become(live, Circuit.CLOSED)
        return True

    def _drop_trials(self, live: LiveState) -> None:
        """What comes of the trials of this backend does not matter any more."""
        for trial in [each for each in self._trials if each.live is live]:
            del self._trials[trial]

    def _become(self, live: LiveState, circuit: Circuit) -> None:
        live.circuit = circuit
        self._changed(live.backend_id, circuit)


def circuit_of(live: LiveState, now: float) -> Circuit:
    """Return the state of a breaker at this time: an open one may be tried by the next client."""
    if live.circuit is Circuit.OPEN and live.passed_over_until <= now:
        return Circuit.HALF_OPEN
    return live.circuit
