"""The members, from what Corrosion answered when it was recorded."""

from __future__ import annotations

from typing import Any

import pytest

from edgeproxy.cluster.corrosion.members import Facts, Pop, has_synced, shown_members
from tests.cluster.corrosion.exchanges import recorded

SA, US = recorded()["actors"]
MEMBERS, STATES = recorded()["members"], recorded()["states"]
CLUSTER_ID = STATES[0]["id"]["cluster_id"]
FACTS = Facts(SA, CLUSTER_ID, {SA: Pop("sa", "sa"), US: Pop("us", "eu")}, {US: 3})
START = STATES[0]["id"]["ts"] / (1 << 32)


def shown(facts: Facts = FACTS, states: list[Any] = STATES) -> list[dict[str, Any]]:
    return shown_members(facts, MEMBERS, states, START + 60)


def test_the_other_members_are_shown_by_the_names_they_have_given_themselves() -> None:
    (us,) = shown()
    assert us["node_id"] == "us"
    assert us["region"] == "eu"
    assert us["state"] == "alive"
    assert us["address"] == STATES[0]["id"]["addr"]
    assert us["is_connected"]
    assert us["missing_here"] == 3
    assert us["missing_there"] is None
    assert us["since_secs"] == 60
    assert us["rtt_ms"] is None or us["rtt_ms"] >= 0


def test_one_without_a_name_is_shown_by_its_actor() -> None:
    assert [member["node_id"] for member in shown(FACTS._replace(pops={}))] == [US]


def test_one_that_is_down_is_shown_too() -> None:
    (us,) = shown(states=[STATES[0] | {"state": "Down"}])
    assert (us["state"], us["is_connected"], us["since_secs"]) == ("down", False, None)


def test_of_two_lives_the_later_one_counts() -> None:
    later = {
        "id": STATES[0]["id"] | {"ts": STATES[0]["id"]["ts"] + 1, "addr": "10.0.0.1:1"},
        "incarnation": 0,
        "state": "Suspect",
    }
    for states in ([later, *STATES], [*STATES, later]):
        (us,) = shown(states=states)
        assert (us["state"], us["address"]) == ("suspect", "10.0.0.1:1")


def test_members_of_other_clusters_are_strangers() -> None:
    assert shown(FACTS._replace(cluster_id=CLUSTER_ID + 1)) == []


def test_it_has_synced_once_another_member_was_asked() -> None:
    assert has_synced(MEMBERS, SA)
    never = [each | {"state": each["state"] | {"last_sync_ts": None}} for each in MEMBERS]
    assert not has_synced(never, SA)
    assert not has_synced([], SA)


@pytest.mark.parametrize("states", [[{}], [{"id": {}}], [7], [{"id": 7, "state": "Alive"}]])
def test_answers_of_another_form_are_named(states: list[Any]) -> None:
    with pytest.raises(ValueError, match="other fields"):
        shown(states=states)
