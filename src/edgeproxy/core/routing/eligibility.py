"""Whether a backend takes a client now, and if not, why not.

`ineligible` is the only place that decides it. Choosing, affinity, warm connections and the record
that operators see (`backend_snapshot`) all call it, so they cannot disagree. Its texts are part of
the API.
"""

from __future__ import annotations

from enum import StrEnum

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.live_state import Circuit, LiveState


class Ineligible(StrEnum):
    """Why a backend takes no client now."""

    DELETED = "deleted"
    UNHEALTHY = "unhealthy"
    NO_WEIGHT = "weight 0"
    """It takes no new clients. Clients bound to it stay."""
    DRAINING = "draining"
    LEASE_EXPIRED = "lease expired"
    DOWN = "down"
    """Its health checks fail."""
    FULL = "full"
    """It has as many connections as its hard limit."""
    PASSED_OVER = "failed lately"
    CIRCUIT_OPEN = "circuit open"


OF_THE_MOMENT = frozenset((Ineligible.FULL, Ineligible.PASSED_OVER, Ineligible.CIRCUIT_OPEN))
"""Reasons that soon pass: the binding stays, although this one connection goes elsewhere."""


def ineligible(
    backend: Backend, live: LiveState, now: float, is_bound: bool = False
) -> Ineligible | None:
    """Return why this backend takes no client now, or None.

    `is_bound`: the client is bound to this backend, so a weight of 0 does not matter.
    """
    # Every decision comes through here several times: no calls on the way to None.
    if backend.deleted:
        return Ineligible.DELETED
    if live.draining:  # before the row's own reasons: an operator who drains it wants to see that
        return Ineligible.DRAINING
    if not backend.healthy or not (backend.weight or is_bound):
        return ineligible_row(backend)
    if live.lease_expired:
        return Ineligible.LEASE_EXPIRED
    if live.down:
        return Ineligible.DOWN
    if backend.hard_limit and live.active >= backend.hard_limit:
        return Ineligible.FULL
    if live.passed_over_until <= now:
        return None
    return Ineligible.PASSED_OVER if live.circuit is Circuit.CLOSED else Ineligible.CIRCUIT_OPEN


def ineligible_row(backend: Backend) -> Ineligible | None:
    """Return why a backend takes no new clients while its row is as it is, or None."""
    if backend.deleted:
        return Ineligible.DELETED
    if not backend.healthy:
        return Ineligible.UNHEALTHY
    return None if backend.weight else Ineligible.NO_WEIGHT
