"""Decides in which phase of its life a proxy is: a table of phases and events, and nothing else.

Pure: it logs nothing, waits for nothing and touches no socket. Events come from signal handlers,
from the engine's threads and from the control plane, so none of them may be lost: they are only
appended to a list, and the phase is what the table makes of that list. An event that has no entry
for the phase leaves the phase as it is.

Invariants:
* A crash wins over everything, in every phase.
* A request made twice before the drain begins counts once; during the drain, one more stop
  signal ends it at once.
* After an upgrade the drain runs already, so the first stop signal only asks for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from itertools import accumulate


class Phase(Enum):
    """Where a proxy is between its start and its end."""

    STARTING = auto()
    """It reads its first routing table and opens its listeners."""
    SERVING = auto()
    """It accepts clients."""
    UPGRADING = auto()
    """It accepts clients, and a successor is starting."""
    HANDED_OVER = auto()
    """A successor accepts clients; the drain is to begin."""
    STOPPING = auto()
    """A signal has asked it to stop; the drain is to begin."""
    DRAINING_FOR_SUCCESSOR = auto()
    """It waits for open sessions; no signal has asked it to stop yet."""
    DRAINING = auto()
    """It waits for open sessions; the next stop signal closes them at once."""
    STOPPED = auto()
    """It waits for no session any more."""
    CRASHED = auto()
    """The engine has failed."""


class Event(Enum):
    """What moves a proxy from one phase to another."""

    READY = auto()
    STOP_SIGNAL = auto()
    UPGRADE_BEGUN = auto()
    UPGRADE_FAILED = auto()
    SUCCESSOR_READY = auto()
    DRAIN_BEGUN = auto()
    DRAIN_ENDED = auto()
    CRASH = auto()


TRANSITIONS = {
    (Phase.STARTING, Event.READY): Phase.SERVING,
    (Phase.STARTING, Event.STOP_SIGNAL): Phase.STOPPING,
    (Phase.SERVING, Event.STOP_SIGNAL): Phase.STOPPING,
    (Phase.SERVING, Event.UPGRADE_BEGUN): Phase.UPGRADING,
    (Phase.UPGRADING, Event.STOP_SIGNAL): Phase.STOPPING,
    (Phase.UPGRADING, Event.UPGRADE_FAILED): Phase.SERVING,
    (Phase.UPGRADING, Event.SUCCESSOR_READY): Phase.HANDED_OVER,
    (Phase.HANDED_OVER, Event.STOP_SIGNAL): Phase.STOPPING,
    (Phase.HANDED_OVER, Event.DRAIN_BEGUN): Phase.DRAINING_FOR_SUCCESSOR,
    (Phase.STOPPING, Event.DRAIN_BEGUN): Phase.DRAINING,
    (Phase.DRAINING_FOR_SUCCESSOR, Event.STOP_SIGNAL): Phase.DRAINING,
    (Phase.DRAINING_FOR_SUCCESSOR, Event.DRAIN_ENDED): Phase.STOPPED,
    (Phase.DRAINING, Event.STOP_SIGNAL): Phase.STOPPED,
    (Phase.DRAINING, Event.DRAIN_ENDED): Phase.STOPPED,
    **{(phase, Event.CRASH): Phase.CRASHED for phase in Phase},
}
ACCEPTING = {Phase.STARTING, Phase.SERVING, Phase.UPGRADING}
DRAINING = {Phase.DRAINING_FOR_SUCCESSOR, Phase.DRAINING}


def after(phase: Phase, event: Event) -> Phase:
    """Return the phase that follows an event."""
    return TRANSITIONS.get((phase, event), phase)


class Lifecycle:
    """The phase of one proxy. Its methods may be called from any thread and signal handler."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def add(self, event: Event) -> None:
        """Add an event."""
        self._events.append(event)

    @property
    def phase(self) -> Phase:
        """The phase that the events so far have led to."""
        *_, last = self._phases()
        return last

    @property
    def is_stopping(self) -> bool:
        """Whether the proxy is to accept no more clients, or has gone further than that."""
        return self.phase not in ACCEPTING

    @property
    def is_draining(self) -> bool:
        """Whether the proxy waits for open sessions."""
        return self.phase in DRAINING

    @property
    def has_successor(self) -> bool:
        """Whether another process has taken over."""
        return Phase.HANDED_OVER in self._phases()

    @property
    def has_crashed(self) -> bool:
        """Whether the engine has failed."""
        return Phase.CRASHED in self._phases()

    @property
    def exit_code(self) -> int:
        """The exit code of the process."""
        return 1 if self.has_crashed else 0

    @property
    def stop_requests(self) -> int:
        """How often the proxy was asked to stop; a crash counts."""
        return self._events.count(Event.STOP_SIGNAL) + self._events.count(Event.CRASH)

    def _phases(self) -> Iterator[Phase]:
        return accumulate(self._events, after, initial=Phase.STARTING)
