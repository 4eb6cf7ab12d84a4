"""The circuit breaker: when a failing backend takes no clients, and how it comes back.

    closed      failures in a row reach failure_threshold         open
    open        timeout_secs have passed                          half-open
    half-open   answers reach success_threshold                   closed
    half-open   a failure                                         open

A half-open breaker lets `trials` clients at a time try its backend. An open one lets none: its
backend is not even a last resort.

A failure is a dial that fails. With `early_close_secs`, an early close is a failure too: the
backend ends the connection within that time without having sent a byte. The dials before early
closes succeed, so early closes have a count of their own (`LiveState.early_closes`). A trial then
succeeds when its connection lives longer than `early_close_secs` or the backend has sent a byte.
If the client ends it earlier, it decides nothing.

Without the breaker, `core/backends/ejection` says how long a failed backend is passed over. Both
keep their state in `live_state.LiveState`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edgeproxy.core.backends.live_state import Circuit, LiveState


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When a breaker opens and closes.

    Attributes:
        enabled: If not, failed backends are passed over for a while (`core/backends/ejection`).
        failure_threshold: Failures in a row that open the breaker.
        success_threshold: Successful trials that close it again.
        timeout_secs: How long it stays open before a client tries the backend.
        trials: Clients that may try a half-open backend at a time.
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
    """An open connection to a half-open backend that may still close early.

    Attributes:
        live: The backend.
        until: The trial has succeeded if the connection is open at this time (monotonic seconds).
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
        """Apply new settings. Return the backends whose open breakers now end at another time."""
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

    def closed_early(self, live: LiveState, now: float) -> None:
        """The backend has closed a connection early, without having sent a byte."""
        live.early_closes += 1
        self._count(live, live.early_closes, now)

    def _count(self, live: LiveState, failures: int, now: float) -> None:
        if live.circuit is Circuit.HALF_OPEN or (
            live.circuit is Circuit.CLOSED and failures >= self.settings.failure_threshold
        ):
            live.passed_over_until = now + self.settings.timeout_secs
            self._drop_trials(live)
            self._become(live, Circuit.OPEN)

    def forget(self, live: LiveState) -> None:
        """The backend has a new address: failures at the old one do not count."""
        live.failures = live.early_closes = 0
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
            live.trials = 0  # the earlier trials have timed out, else no client would get here
        live.trials += 1
        if live.trials >= self.settings.trials:
            live.passed_over_until = now + dial_timeout_secs

    def answered(self, live: LiveState) -> bool:
        """A dial has succeeded. Return whether the backend may take more clients now."""
        live.failures = 0
        if live.circuit is not Circuit.HALF_OPEN or self.settings.early_close_secs:
            return False
        live.passed_over_until = 0.0
        self._succeeded(live)
        return True

    def begin_trial(self, live: LiveState, now: float) -> Trial | None:
        """A dial has succeeded: return the trial that its connection still has to pass, if any."""
        early_close_secs = self.settings.early_close_secs
        if live.circuit is not Circuit.HALF_OPEN or not early_close_secs:
            return None
        trial = Trial(live, now + early_close_secs)
        self._trials[trial] = None
        if live.trials >= self.settings.trials:
            live.passed_over_until = trial.until
        return trial

    def end_trial(self, trial: Trial, now: float, *, has_answered: bool) -> bool:
        """The connection of a trial has ended, and not by an early close.

        `has_answered`: the backend has sent a byte. Return whether the backend may take more
        clients now.
        """
        is_undecided = trial in self._trials
        self._trials.pop(trial, None)
        live = trial.live
        if live.circuit is not Circuit.HALF_OPEN or not is_undecided:
            return False
        live.passed_over_until = 0.0
        if has_answered or now >= trial.until:
            self._succeeded(live)
        else:
            live.trials = max(live.trials - 1, 0)
        return True

    def excuse(self, secs: float) -> None:
        """Let all trials last longer by the seconds in which no end of theirs could be heard."""
        for trial in self._trials:
            trial.until += secs

    def pass_trials(self, now: float) -> list[LiveState]:
        """Count the trials that are still open at their `until`; return the closed breakers."""
        closed = []
        for trial in [trial for trial in self._trials if trial.until <= now]:
            del self._trials[trial]
            if trial.live.circuit is Circuit.HALF_OPEN and self._succeeded(trial.live):
                closed.append(trial.live)
        return closed

    def _succeeded(self, live: LiveState) -> bool:
        """Count a successful trial. Return whether the breaker has closed."""
        live.successes += 1
        live.trials = max(live.trials - 1, 0)
        if live.successes < self.settings.success_threshold:
            return False
        live.early_closes = 0
        live.passed_over_until = 0.0
        self._become(live, Circuit.CLOSED)
        return True

    def _drop_trials(self, live: LiveState) -> None:
        """Forget the trials of a backend whose state another event has decided."""
        for trial in [trial for trial in self._trials if trial.live is live]:
            del self._trials[trial]

    def _become(self, live: LiveState, circuit: Circuit) -> None:
        live.circuit = circuit
        self._changed(live.backend_id, circuit)


def circuit_of(live: LiveState, now: float) -> Circuit:
    """Return the state of a breaker at this time.

    An open breaker becomes half-open only when a client tries its backend; from the time at which
    one may, it counts as half-open.
    """
    if live.circuit is Circuit.OPEN and live.passed_over_until <= now:
        return Circuit.HALF_OPEN
    return live.circuit
