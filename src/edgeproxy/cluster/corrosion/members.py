"""The members of the cluster for people and programs, from what Corrosion answers.

It knows them by actors, each of which stands for one state; names and regions are those that every
POP has written for its own actor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

NTP_SECOND = 1 << 32
UP = "alive"


class Pop(NamedTuple):
    """What a POP has written of itself."""

    node_id: str
    region: str


class Facts(NamedTuple):
    """What the state of Corrosion says.

    Attributes:
        actor: The actor of this POP; "" before the first start.
        cluster_id: The number of its cluster.
        pops: The POPs by actor.
        missing: How many transactions of an actor are known and have not come yet.
        rows: How many replicated rows there are.
    """

    actor: str
    cluster_id: int
    pops: Mapping[str, Pop]
    missing: Mapping[str, int]
    rows: int = 0


def shown_members(
    facts: Facts, members: Sequence[Any], states: Sequence[Any], now: float
) -> list[dict[str, Any]]:
    """Return the other members by name, from answers to `Members` and `MembershipStates`.

    `now` is in Unix seconds. Raises ValueError for answers of another form.
    """
    try:
        details = {_actor(member["id"]): member for member in members}
        latest: dict[str, Any] = {}
        for state in states:
            actor = _actor(state["id"]["id"])
            if actor not in latest or latest[actor]["id"]["ts"] < state["id"]["ts"]:
                latest[actor] = state
        found = [
            _shown(actor, state, details.get(actor), facts, now)
            for actor, state in latest.items()
            if actor != facts.actor and state["id"]["cluster_id"] == facts.cluster_id
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"Corrosion answers with other fields: {error}") from None
    return sorted(found, key=lambda member: str(member["node_id"]))


def _shown(
    actor: str, state: Mapping[str, Any], detail: Mapping[str, Any] | None, facts: Facts, now: float
) -> dict[str, Any]:
    pop = facts.pops.get(actor, Pop(actor, ""))
    rtts = (detail and detail["rtts"]) or []
    identity = state["id"]
    is_up = state["state"].lower() == UP
    return {
        "node_id": pop.node_id,
        "state": state["state"].lower(),
        "since_secs": round(max(0.0, now - identity["ts"] / NTP_SECOND), 1) if is_up else None,
        "region": pop.region,
        "address": identity["addr"],
        "transport": identity["addr"],
        "rtt_ms": float(min(rtts)) if rtts else None,
        "clock_offset_ms": None,
        "is_connected": is_up and detail is not None,
        "key": None,
        "missing_here": facts.missing.get(actor, 0),
        "missing_there": None,
    }


def has_synced(members: Sequence[Any], actor: str) -> bool:
    """Return whether something that another member had was fetched, and all of it.

    Corrosion does not say that it has asked and that nothing was missing.
    """
    return any(
        member["state"]["last_sync_ts"] is not None and _actor(member["id"]) != actor
        for member in members
    )


def _actor(text: str) -> str:
    """Return an actor as the state of Corrosion has it in hexadecimal."""
    return text.replace("-", "").upper()
