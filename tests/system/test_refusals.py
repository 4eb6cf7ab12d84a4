"""Where no backend is eligible, clients are closed at once and the log stays quiet."""

from __future__ import annotations

from typing import Any

import pytest

from tests.system.clients import rush
from tests.system.pop import Pop

pytestmark = pytest.mark.system

CLIENTS = 100


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"healthy": 0}, "no_backend"),
        ({"weight": 0}, "no_backend"),
        ({"app": "another"}, "no_backend"),
        ({"hard_limit": 1}, "full"),
    ],
    ids=["unhealthy", "no_weight", "another_app", "full"],
)
def test_clients_without_an_eligible_backend_are_closed_promptly_with_one_warning(
    pop: Pop, columns: dict[str, Any], reason: str
) -> None:
    backend = pop.backend("sa-1", **columns)
    proxy = pop.serve(EDGEPROXY_APP="myapp", EDGEPROXY_CONNECT_TIMEOUT_SECS="60")
    holders = [pop.holder()] if reason == "full" else []

    answers = rush(proxy.address, [pop.new_address() for _ in range(CLIENTS)])

    assert answers == [""] * CLIENTS
    assert backend.total == len(holders)
    for client, _ in holders:
        client.close()
    stopped = proxy.stop()
    (warning,) = proxy.seen("client_refused")
    assert (warning["level"], warning["reason"]) == ("warning", reason)
    assert warning["hint"]
    assert (stopped["accepted"], stopped["refused"]) == (str(len(holders)), str(CLIENTS))


def test_a_refused_client_sees_an_ordinary_end_and_no_byte(pop: Pop) -> None:
    pop.serve()

    for _ in range(10):
        assert pop.client().rest() == (b"", False)


def test_an_empty_table_is_left_as_soon_as_there_is_a_backend(pop: Pop) -> None:
    pop.serve()
    assert pop.reached() == ""

    pop.backend("sa-1")

    assert pop.reached() == "sa-1"
