"""Chooses a client's backend: the eligible candidate with the lowest score, or a fallback.

A function here reserves nothing and keeps no state. It returns None if it finds no candidate.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from edgeproxy.core.backends.live_state import Circuit
from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.routing import ranking
from edgeproxy.core.routing.choice import Choice, How, Reason
from edgeproxy.core.routing.eligibility import Ineligible, ineligible
from edgeproxy.core.routing.ranking import Candidate, Ranking
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
    offered = (
        (tier, place, candidate)
        for tier in tiers
        for place in tier.rankings
        for candidate in place.last_resort(tried)
    )
    return _best(offered, origin, How.LAST_RESORT)


def panic(
    tiers: tuple[Tier, ...], origin: Origin, now: float, tried: Collection[str]
) -> Choice | None:
    """Return the best of the backends that are down, if the probes say that all are down.

    All probes failing more likely means that the probing is broken than that every backend is.
    Failed dials are still trusted: backends that failed lately come last. Otherwise the dead
    backends, which have no load, would draw every client.
    """
    if any(each.standing for each in _members(tiers)):
        return None
    offered = [
        (tier, place, each)
        for tier in tiers
        for place in tier.rankings
        for each in place.members
        if ineligible(each.backend, each.live, now) is Ineligible.DOWN
        and each.live.active < each.limit
        and each.backend.id not in tried
    ]
    dialable = [offer for offer in offered if offer[2].live.passed_over_until <= now]
    failed = (offer for offer in offered if offer[2].live.circuit is Circuit.CLOSED)
    return _best(dialable or failed, origin, How.PANIC)


def why_none(tiers: tuple[Tier, ...]) -> Reason:
    """Return why no candidate is eligible."""
    if not tiers:
        return Reason.NO_BACKEND
    is_full = any(each.live.active >= each.limit for each in _members(tiers))
    return Reason.FULL if is_full else Reason.DOWN


def _members(tiers: tuple[Tier, ...]) -> Iterable[Candidate]:
    return (each for tier in tiers for place in tier.rankings for each in place.members)


def _best(
    offered: Iterable[tuple[Tier, Ranking, Candidate]], origin: Origin, how: How
) -> Choice | None:
    """Return the offer with the lowest score, ties by turn."""
    best: Choice | None = None
    best_order = (ranking.NEVER, 0.0, 0)
    for tier, place, candidate in offered:
        order = (tier.distance + candidate.load(), candidate.live.turn, candidate.sequence)
        if order < best_order:
            best, best_order = Choice(candidate, how, origin, tier, place), order
    return best
