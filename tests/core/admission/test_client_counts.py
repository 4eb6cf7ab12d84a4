"""Counts by client and site: exact, and nothing is kept of who has nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.admission.client_counts import ClientCounts

KEYS = st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8:1:1", "2001:db8:1:2", "2001:db8:2:1"])


@given(st.lists(KEYS))
def test_clients_count_with_their_site_and_leave_nothing(keys: list[str]) -> None:
    counts = ClientCounts()
    for key in keys:
        counts.enter(key)
    for key in set(keys):
        assert counts[key] == keys.count(key)
    assert counts.get("2001:db8:1", 0) == sum(key.startswith("2001:db8:1:") for key in keys)
    for key in keys:
        counts.leave(key)
    assert counts == {}


def test_nobody_leaves_who_did_not_enter() -> None:
    with pytest.raises(AssertionError):
        ClientCounts().leave("192.0.2.1")
