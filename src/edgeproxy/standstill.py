"""Tells a standstill of this process from the silence of its peers.

A process stands still when it is stopped (SIGSTOP), its machine is paused or moved, or something
holds it up. It hears nobody meanwhile, so nobody may be judged by that time. What times peers goes
by two rules:

* A deadline is judged only after everything that came before it has been read. This covers short
  standstills, and those after which everything is there.
* A timer that goes off at least every `WATCH_SECS` watches for standstills. By as much as it is
  late, every deadline that runs is moved (`excuse`), because an answer may have been lost, or may
  need several turns.

The engines do this on each of their threads, the event loops of the control plane in
`control/awake_loop`, the leases of registered backends in `registry/lease_watch`. What only lets
time pass, such as a pause between two tries or the age of a binding, is not moved.
"""

from __future__ import annotations

WATCH_SECS = 1.0
LATE_SECS = 0.5
"""A timer that is later than this shows a standstill."""


def standstill_secs(due_at: float, now: float) -> float:
    """Return for how long this process stood still, if a timer for `due_at` goes off `now`."""
    late_secs = now - due_at
    return late_secs if late_secs > LATE_SECS else 0.0
