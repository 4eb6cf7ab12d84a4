"""The score of a backend for a client; the lowest wins.

    score = region_score * 100 + load_factor / weight

    region_score = 0    backend in the client's region (and country, where both are known)
                 = 0.5  backend in the client's region, in another country
                 = 1    backend in the region of this POP
                 = 2    any other
    load_factor  = current connections / soft_limit

A soft limit of 0 counts as 1. Because only sums of these are compared, a near backend
under enormous load can lose to a far one that is idle: that is what the formula says.

Connections come in ones and weights do not. Where weights differ, two backends are compared
by the whole rounds they carry, a round being as many connections as the weight, in lowest
terms and at most a fifth of the soft limit: with weights 3 and 1, a backend with 0, 1 or 2
connections and one with 0 are equal, and ties are settled by weight. Otherwise a single
connection that is still closing would send the next client to the lightest backend. Equal
weights give the plain formula.
"""

from __future__ import annotations

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.geo.origin import Origin

REGION_UNIT = 100.0

ROUNDS_IN_SOFT_LIMIT = 5
"""A round is at most this part of the soft limit."""

SAME_COUNTRY = 0.0
OTHER_COUNTRY = 0.5
POP_REGION = 1.0
ELSEWHERE = 2.0

TIER_NAMES = {
    SAME_COUNTRY: "client region",
    OTHER_COUNTRY: "client region, other country",
    POP_REGION: "POP region",
    ELSEWHERE: "elsewhere",
}


def region_score(region: str, country: str | None, origin: Origin, pop_region: str) -> float:
    """Return how far a backend in `region` and `country` is from a client from `origin`."""
    if region == origin.region:
        known = country is not None and origin.country is not None
        return OTHER_COUNTRY if known and country != origin.country else SAME_COUNTRY
    return POP_REGION if region == pop_region else ELSEWHERE


def capacity(backend: Backend) -> int:
    """Return the connections at which this backend's load adds 1 to its score."""
    return max(backend.soft_limit, 1) * backend.weight


def load_score(active: int, capacity: int) -> float:
    """Return what `active` connections add to the score.

    One division of integers: equal loads give equal floats, so ties are exact.
    """
    return active / capacity


def round_of(backend: Backend, divisor: int) -> int:
    """Return the connections in a round: the weight in lowest terms, but never many.

    Weights like 100 and 99 would make load count for nothing until 100 connections.
    """
    most = max(backend.soft_limit // ROUNDS_IN_SOFT_LIMIT, 1)
    return min(backend.weight // divisor, most)


def compared_load(active: int, capacity: int, unit: int) -> float:
    """Return the load score of the whole rounds of `unit` connections in `active`."""
    return (active - active % unit) / capacity
