"""The outcome of a choice: the backend for a client and how it was chosen, or why there is none."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.routing.ranking import Candidate, Ranking
from edgeproxy.core.routing.table import Tier


class How(StrEnum):
    """How a backend was chosen."""

    BOUND = "bound"
    SCORED = "scored"
    SPILLED = "spilled"
    """Scored, but not in the nearest tier that the table has for this client."""
    LAST_RESORT = "last_resort"
    """It failed lately, but nothing else is eligible."""
    PANIC = "panic"
    """Its probes say that it is down, but they say the same of every backend."""


class Reason(StrEnum):
    """Why a client was refused."""

    NO_BACKEND = "no_backend"
    """No healthy backend with a weight is in the table for this app."""
    FULL = "full"
    """Every backend is at its hard limit."""
    DOWN = "down"
    """Every backend is down, draining, without a lease, or behind an open breaker."""
    UNREACHABLE = "unreachable"
    """The backends that were tried could not be dialed, and no other is left."""
    LOOP = "loop"
    """Its backend leads back to this proxy (`core/admission/loops`)."""
    NO_RESOURCES = "no_resources"
    """This host has no descriptors, ports or memory to dial with."""


class Choice(NamedTuple):
    """The backend for a client, before a slot is reserved."""

    candidate: Candidate
    how: How
    origin: Origin | None = None
    tier: Tier | None = None
    ranking: Ranking | None = None
