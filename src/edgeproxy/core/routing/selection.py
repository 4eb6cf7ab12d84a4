"""Which of the candidates a client gets: the lowest score, or what is left if none is eligible.

Reserves nothing and remembers nothing. Each function returns None if it finds no candidate.
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
        for each in tier.rankings:
            entry = each.best(now, tried)
            if entry is None:
                continue
            order = (tier.distance + entry[0], tier.distance, tier.turn(each))
            if order < best_order:
                how = How.SCORED if tier is tiers[0] else How.SPILLED
                best = Choice(entry[3], how, origin, tier, each)
                best_order = order
    if best is not None and best.candidate.slow_standing:
        return _in_turn(best, now, tried)
    return best


def _in_turn(chosen: Choice, now: float, tried: Collection[str]) -> Choice:
    """Return the choice of the place whose turn it is, instead of one in slow start.

    That one carries less only because it came late, which is no reason to prefer its place.
    """
    tier = chosen.tier
    assert tier is not None
    for place in sorted(tier.rankings, key=tier.turn):
        entry = place.best(now, tried)
        if entry is not None:
            return Choice(entry[3], chosen.how, chosen.origin, tier, place)
    return chosen


def last_resort(tiers: tuple[Tier, ...], origin: Origin, tried: Collection[str]) -> Choice | None:
    """Return the best of those that failed lately."""
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
    """Return the best of those whose probes call them down, if all are called so.

    If probes call all backends down, the probes are more likely wrong than all backends are. But
    failed dials are trusted: backends that failed lately come after all others. Otherwise the dead
    ones, which carry nothing, would draw every client.
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
    well = [each for each in offered if each[2].live.passed_over_until <= now]
    failed = (each for each in offered if each[2].live.circuit is Circuit.CLOSED)
    return _best(well or failed, origin, How.PANIC)


def why_nobody(tiers: tuple[Tier, ...]) -> Reason:
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
    """Return the one with the lowest score, ties by turn."""
    best: Choice | None = None
    best_order = (ranking.NEVER, 0.0, 0)
    for tier, place, candidate in offered:
        order = (tier.distance + candidate.load(), candidate.live.turn, candidate.sequence)
        if order < best_order:
            best, best_order = Choice(candidate, how, origin, tier, place), order
    return best
