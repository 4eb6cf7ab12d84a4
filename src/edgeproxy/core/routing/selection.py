"""Chooses a client's backend: the eligible candidate with the lowest score, or a fallback.

A function here reserves nothing and keeps no state. It returns None if it finds no candidate.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.routing import ranking
from edgeproxy.core.routing.choice import Choice, How, Reason
from edgeproxy.core.routing.ranking import Entry, Ranking
from edgeproxy.core.routing.table import Tier


def lowest(
    tiers: tuple[Tier, ...], origin: Origin, now: float, tried: Collection[str]
) -> Choice | None:
    """Return the eligible candidate with the lowest score, ties by turn."""
    best: Choice | None = None
    best_order = (ranking.NEVER, 0.0, 0.0)
    for tier in tiers:
        if best_order[0] <= tier.distance:
            break
        for place in tier.rankings:
            entry = place.best(now, tried)
            if entry is None:
                continue
            order = (tier.distance + entry[0], tier.distance, tier.turn(place))
            if order < best_order:
                how = How.SCORED if tier is tiers[0] else How.SPILLED
                best = Choice(entry[3], how, origin, tier, place)
                best_order = order
    if best is not None and best.candidate.slow_standing:
        return _in_turn(best, now, tried)
    return best


def _in_turn(chosen: Choice, now: float, tried: Collection[str]) -> Choice:
    """Return the choice from the place whose turn it is, instead of a backend in slow start.

    That backend has a low load only because it is new. Its place is not preferred for that.
    """
    tier = chosen.tier
    assert tier is not None
    for place in sorted(tier.rankings, key=tier.turn):
        entry = place.best(now, tried)
        if entry is not None:
            return Choice(entry[3], chosen.how, chosen.origin, tier, place)
    return chosen


def last_resort(tiers: tuple[Tier, ...], origin: Origin, tried: Collection[str]) -> Choice | None:
    """Return the best of the backends that are passed over because they failed lately."""
    offers = ((tier, place, place.passed_over.best(tried)) for tier, place in _places(tiers))
    return _least(offers, origin, How.LAST_RESORT)


def panic(
    tiers: tuple[Tier, ...], origin: Origin, now: float, tried: Collection[str]
) -> Choice | None:
    """Return the best of the backends that are down, if the probes say that all are down.

    All probes failing more likely means that the probing is broken than that every backend is.
    Failed dials are still trusted: backends that failed lately come last. Otherwise the dead
    backends, which have no load, would draw every client.
    """
    if any(place.available for _, place in _places(tiers)):
        return None
    offers = ((tier, place, place.down.best(now, tried)) for tier, place in _places(tiers))
    failed = ((tier, place, place.down.passed_over.best(tried)) for tier, place in _places(tiers))
    return _least(offers, origin, How.PANIC) or _least(failed, origin, How.PANIC)


def why_none(tiers: tuple[Tier, ...]) -> Reason:
    """Return why no candidate is eligible."""
    if not tiers:
        return Reason.NO_BACKEND
    return Reason.FULL if any(place.full for _, place in _places(tiers)) else Reason.DOWN


def _places(tiers: tuple[Tier, ...]) -> Iterable[tuple[Tier, Ranking]]:
    return ((tier, place) for tier in tiers for place in tier.rankings)


def _least(
    offers: Iterable[tuple[Tier, Ranking, Entry | None]], origin: Origin, how: How
) -> Choice | None:
    """Return the offer with the lowest score, ties by turn."""
    best: Choice | None = None
    best_order = (ranking.NEVER, 0.0, 0)
    for tier, place, entry in offers:
        if entry is None:
            continue
        order = (tier.distance + entry[0], entry[1], entry[2])
        if order < best_order:
            best, best_order = Choice(entry[3], how, origin, tier, place), order
    return best
