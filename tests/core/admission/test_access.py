"""Lists, connections per client and rates bar in this order, and count what entered."""

from __future__ import annotations

import pytest

from edgeproxy.core.admission.access import Barred, Entrance, EntranceSettings, key_of
from edgeproxy.core.admission.rate_limit import RateLimitSettings
from edgeproxy.core.geo.prefix import Network, network


def nets(*texts: str) -> tuple[Network, ...]:
    found = tuple(network(text) for text in texts)
    assert None not in found
    return found  # type: ignore[return-value]


def test_without_settings_nobody_is_guarded_against() -> None:
    entrance = Entrance()
    assert not entrance.guarded
    assert entrance.bars("192.0.2.1", 0.0) is None
    assert entrance.enter("192.0.2.1") is None


@pytest.mark.parametrize(
    ("client", "barred"),
    [
        ("192.0.2.1", None),
        ("192.0.2.66", Barred.DENIED),
        ("198.51.100.1", Barred.DENIED),
        ("2001:db8::1", None),
        ("2001:db9::1", Barred.DENIED),
        ("no address", Barred.DENIED),
    ],
)
def test_deny_wins_over_allow(client: str, barred: Barred | None) -> None:
    entrance = Entrance(
        EntranceSettings(allow=nets("192.0.2.0/24", "2001:db8::/32"), deny=nets("192.0.2.66"))
    )
    assert entrance.bars(client, 0.0) is barred


def test_a_deny_list_alone_lets_all_others_in() -> None:
    entrance = Entrance(EntranceSettings(deny=nets("192.0.2.0/24")))
    assert entrance.bars("192.0.2.9", 0.0) is Barred.DENIED
    assert entrance.bars("192.0.3.9", 0.0) is None


def test_connections_are_counted_until_they_leave() -> None:
    entrance = Entrance(EntranceSettings(max_connections=2))
    keys = [entrance.enter("192.0.2.1") for _ in range(2)]
    assert entrance.bars("192.0.2.1", 0.0) is Barred.CLIENT_FULL
    assert entrance.bars("192.0.2.2", 0.0) is None
    for key in keys:
        assert key is not None
        entrance.leave(key)
    assert entrance.bars("192.0.2.1", 0.0) is None
    assert entrance._inside == {}


def test_an_ipv6_client_is_its_64() -> None:
    assert key_of("2001:db8:1:2::1") == key_of("2001:db8:1:2:ffff::9")
    assert key_of("2001:db8:1:2::1") != key_of("2001:db8:1:3::1")
    assert key_of("192.0.2.1") != key_of("192.0.2.2")


def test_only_whoever_passes_everything_else_takes_a_token() -> None:
    entrance = Entrance(
        EntranceSettings(max_connections=1, deny=nets("192.0.2.9")),
        RateLimitSettings(enabled=True, max_requests=1, burst=1),
    )
    assert entrance.bars("192.0.2.9", 0.0, takes=True) is Barred.DENIED
    key = entrance.enter("192.0.2.1")
    assert entrance.bars("192.0.2.1", 0.0, takes=True) is Barred.CLIENT_FULL
    assert key is not None
    entrance.leave(key)
    assert entrance.bars("192.0.2.1", 0.0) is None
    assert entrance.bars("192.0.2.1", 0.0, takes=True) is None
    assert entrance.bars("192.0.2.1", 0.0, takes=True) is Barred.RATE_LIMITED


def test_a_limit_that_is_lowered_throws_nobody_out() -> None:
    entrance = Entrance(EntranceSettings(max_connections=5))
    keys = [entrance.enter("192.0.2.1") for _ in range(4)]
    entrance.change(EntranceSettings(), RateLimitSettings())
    assert entrance.bars("192.0.2.1", 0.0) is None
    for key in keys:
        assert key is not None
        entrance.leave(key)
    assert entrance._inside == {}
