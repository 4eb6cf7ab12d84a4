"""Lists, connections per client and rates bar in this order, and count what entered."""

from __future__ import annotations

import pytest

from edgeproxy.core.admission.access import AccessControl, AccessSettings, Denied
from edgeproxy.core.admission.arrivals import Arrival
from edgeproxy.core.admission.rate_limit import RateLimitSettings
from edgeproxy.core.geo.prefix import Network, network


def nets(*texts: str) -> tuple[Network, ...]:
    found = tuple(network(text) for text in texts)
    assert None not in found
    return found  # type: ignore[return-value]


def test_without_settings_nobody_is_guarded_against() -> None:
    access = AccessControl()
    assert not access.guarded
    assert access.check("192.0.2.1", 0.0) is None
    assert access.enter("192.0.2.1") is None


@pytest.mark.parametrize(
    ("client", "barred"),
    [
        ("192.0.2.1", None),
        ("192.0.2.66", Denied.DENIED),
        ("198.51.100.1", Denied.DENIED),
        ("2001:db8::1", None),
        ("2001:db9::1", Denied.DENIED),
        ("no address", Denied.DENIED),
    ],
)
def test_deny_wins_over_allow(client: str, barred: Denied | None) -> None:
    access = AccessControl(
        AccessSettings(allow=nets("192.0.2.0/24", "2001:db8::/32"), deny=nets("192.0.2.66"))
    )
    assert access.check(client, 0.0) is barred


def test_a_deny_list_alone_lets_all_others_in() -> None:
    access = AccessControl(AccessSettings(deny=nets("192.0.2.0/24")))
    assert access.check("192.0.2.9", 0.0) is Denied.DENIED
    assert access.check("192.0.3.9", 0.0) is None


def test_connections_are_counted_until_they_leave() -> None:
    access = AccessControl(AccessSettings(max_conns_per_client=2))
    keys = [access.enter("192.0.2.1") for _ in range(2)]
    assert access.check("192.0.2.1", 0.0) is Denied.CLIENT_FULL
    assert access.check("192.0.2.2", 0.0) is None
    for key in keys:
        assert key is not None
        access.leave(key)
    assert access.check("192.0.2.1", 0.0) is None
    assert access._inside == {}


def test_a_site_has_as_many_connections_as_so_many_clients() -> None:
    """Whoever owns an IPv6 /48 cannot pass the limit with another /64 for each connection."""
    access = AccessControl(AccessSettings(max_conns_per_client=2, clients_per_site=3))
    keys = [access.enter(f"2001:db8:1:{number:x}::1") for number in range(6)]
    assert access.check("2001:db8:1:ff::1", 0.0) is Denied.CLIENT_FULL
    assert access.check("2001:db8:2:ff::1", 0.0) is None
    for key in keys:
        assert key is not None
        access.leave(key)
    assert access._inside == {}


def test_a_site_has_the_rate_of_so_many_clients() -> None:
    access = AccessControl(
        AccessSettings(clients_per_site=3),
        RateLimitSettings(enabled=True, max_requests=1, burst=2),
    )
    let_in = [
        access.check(f"2001:db8:1:{number:x}::1", 0.0, takes=True) is None for number in range(9)
    ]
    assert let_in == [True] * 6 + [False] * 3
    assert access.check("2001:db8:1:0::1", 0.0) is Denied.RATE_LIMITED
    assert access.check("2001:db8:1:0::1", 1.0, takes=True) is None
    assert access.check("2001:db8:2:0::1", 0.0, takes=True) is None
    access.sweep(100.0)
    assert len(access.rate) == len(access._site_rate) == 0


def test_a_client_whose_site_has_no_tokens_keeps_its_own() -> None:
    access = AccessControl(
        AccessSettings(clients_per_site=1),
        RateLimitSettings(enabled=True, max_requests=1, burst=2),
    )
    for _ in range(2):
        assert access.check("2001:db8:1:1::1", 0.0, takes=True) is None
    assert access.check("2001:db8:1:2::1", 0.0, takes=True) is Denied.RATE_LIMITED
    assert access.rate.remaining(access.key("2001:db8:1:2::1"), 0.0) == 2


def test_no_site_is_bounded_if_that_is_not_wanted() -> None:
    access = AccessControl(
        AccessSettings(max_conns_per_client=1, clients_per_site=0),
        RateLimitSettings(enabled=True, max_requests=1, burst=1),
    )
    for number in range(50):
        client = f"2001:db8:1:{number:x}::1"
        assert access.check(client, 0.0, takes=True) is None
        assert access.enter(client) is not None


def test_who_is_one_client_can_change_while_connections_are_open() -> None:
    access = AccessControl(AccessSettings(max_conns_per_client=1))
    keys = [access.enter("2001:db8:1:1::1"), access.enter("192.0.2.1")]
    access.change(
        AccessSettings(max_conns_per_client=1, client_ipv4_prefix=24, client_ipv6_prefix=56),
        RateLimitSettings(),
    )
    keys += [access.enter("2001:db8:1:2::1"), access.enter("192.0.2.2")]
    assert access.check("2001:db8:1:3::1", 0.0) is Denied.CLIENT_FULL
    assert access.check("192.0.2.3", 0.0) is Denied.CLIENT_FULL
    for key in keys:
        assert key is not None
        access.leave(key)
    assert access._inside == {}


@pytest.mark.parametrize("is_admitted", [True, False])
def test_a_client_that_arrives_is_charged_once_and_counts_until_it_leaves(
    is_admitted: bool,
) -> None:
    access = AccessControl(
        AccessSettings(max_conns_per_client=1),
        RateLimitSettings(enabled=True, max_requests=1, burst=2),
    )
    arrival = Arrival()
    assert access.arrive(arrival, "192.0.2.1", 0.0) is None
    assert access.rate.remaining("192.0.2.1", 0.0) == 1
    assert access.check("192.0.2.1", 0.0) is Denied.CLIENT_FULL
    assert len(access.arrivals) == 1
    if is_admitted:
        entered = access.settle(arrival)
        assert entered is not None
        assert len(access.arrivals) == 0
        assert access.check("192.0.2.1", 0.0) is Denied.CLIENT_FULL
        access.leave(entered)
    access.depart(arrival)
    access.depart(arrival)
    assert access.check("192.0.2.1", 0.0) is None
    assert access.rate.remaining("192.0.2.1", 0.0) == 1
    assert access._inside == access.arrivals._counts == {}


def test_a_client_that_is_barred_as_it_arrives_holds_nothing() -> None:
    access = AccessControl(
        AccessSettings(deny=nets("192.0.2.9"), max_conns_per_client=5),
        RateLimitSettings(enabled=True, max_requests=1, burst=1),
    )
    access.arrivals.room = 4
    barred = Arrival()
    assert access.arrive(barred, "192.0.2.9", 0.0) is Denied.DENIED
    access.depart(barred)
    assert access._inside == access.arrivals._counts == {}
    assert len(access.rate) == 0
    for number in range(4):
        assert access.arrive(Arrival(), "192.0.2.1", float(number)) is None
    late = Arrival()
    assert access.arrive(late, "192.0.2.1", 9.0) is Denied.CLIENT_SETUP_FULL
    assert access.rate.remaining("192.0.2.1", 9.0) == 1
    access.depart(late)
    assert len(access.arrivals) == 4


def test_only_whoever_passes_everything_else_takes_a_token() -> None:
    access = AccessControl(
        AccessSettings(max_conns_per_client=1, deny=nets("192.0.2.9")),
        RateLimitSettings(enabled=True, max_requests=1, burst=1),
    )
    assert access.check("192.0.2.9", 0.0, takes=True) is Denied.DENIED
    key = access.enter("192.0.2.1")
    assert access.check("192.0.2.1", 0.0, takes=True) is Denied.CLIENT_FULL
    assert key is not None
    access.leave(key)
    assert access.check("192.0.2.1", 0.0) is None
    assert access.check("192.0.2.1", 0.0, takes=True) is None
    assert access.check("192.0.2.1", 0.0, takes=True) is Denied.RATE_LIMITED


def test_a_limit_that_is_lowered_throws_nobody_out() -> None:
    access = AccessControl(AccessSettings(max_conns_per_client=5))
    keys = [access.enter("192.0.2.1") for _ in range(4)]
    access.change(AccessSettings(), RateLimitSettings())
    assert access.check("192.0.2.1", 0.0) is None
    for key in keys:
        assert key is not None
        access.leave(key)
    assert access._inside == {}
