"""Which `Host` a foreign page can have, and which only those who mean this proxy send."""

from __future__ import annotations

import socket

import pytest

from edgeproxy.control.admin.host_header import is_own_host


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.0.0.1:8081", "10.50.0.1:80", "[::1]", "[::1]:8081", "[fd00::2]:1"),
        *("localhost", "localhost:8081", "LocalHost.", "a.localhost", "edgeproxy", "pop-1:8081"),
        *("edgeproxy.prod.svc.cluster.local:8081", "pop.internal", "nas.home.arpa", ""),
        socket.gethostname(),
    ],
)
def test_addresses_and_private_names_are_ours(host: str) -> None:
    assert is_own_host(host)


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8081", "EVIL.example.", "127.0.0.1.evil.example"),
        *("localhost.evil.example", "local.evil.com", "xlocal.com", "0x7f.1", "127.1"),
        *("[evil.com]", "evil.com:123456", "evil.com:", "127.0.0.1@evil.com", "1.2.3.4.5"),
        "notlocal.internal.com",
    ],
)
def test_all_others_may_be_those_of_a_foreign_page(host: str) -> None:
    assert not is_own_host(host)
