"""A listener has its TLS context from the start; its clients have addresses in plain form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv6Address
from socket import AF_INET6, inet_ntop, socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.geo.address import normalise
from edgeproxy.engine.contract import PLAIN, Client, ListenerSettings
from edgeproxy.engine.listener import Listener, client_at
from edgeproxy.engine.sockets import open_listener
from edgeproxy.engine.tls import TlsError, TlsSettings

OLD, NEW = TlsSettings(()), TlsSettings((), alpn=("h2",))


@pytest.fixture
def listening() -> Iterator[socket]:
    with closing(open_listener("127.0.0.1", 0)) as opened:
        yield opened


def context(settings: TlsSettings) -> tuple[str, TlsSettings]:
    """Stand for the TLS context of an engine."""
    return "context", settings


def test_without_tls_there_is_no_context(listening: socket) -> None:
    listener = Listener.prepare("web", listening, PLAIN, context)
    assert (listener.name, listener.settings, listener.tls) == ("web", PLAIN, None)
    assert listener.listening.fileno() >= 0


def test_with_tls_the_context_is_made_of_its_settings(listening: socket) -> None:
    listener = Listener.prepare("web", listening, ListenerSettings(tls=OLD), context)
    assert listener.tls == ("context", OLD)


def test_a_context_that_cannot_be_made_closes_the_socket(listening: socket) -> None:
    def fail(_settings: TlsSettings) -> None:
        raise TlsError("of no use")

    with pytest.raises(TlsError, match="of no use"):
        Listener.prepare("web", listening, ListenerSettings(tls=OLD), fail)
    assert listening.fileno() == -1


def test_renewed_settings_keep_everything_but_tls(listening: socket) -> None:
    settings = ListenerSettings(preamble_secs=3.0, tls=OLD, tells_local=True)
    listener = Listener.prepare("web", listening, settings, context)
    listener.renew(NEW, context(NEW))
    assert listener.settings == ListenerSettings(preamble_secs=3.0, tls=NEW, tells_local=True)
    assert listener.tls == ("context", NEW)


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (("192.0.2.1", 1), "192.0.2.1"),
        (("::ffff:192.0.2.1", 1, 0, 0), "192.0.2.1"),
        (("2001:db8::1", 1, 0, 0), "2001:db8::1"),
        (("fe80::1%eth0", 1, 0, 2), "fe80::1"),
        (("fe80::1", 1, 0, 2), "fe80::1"),
        (("::192.0.2.1", 1, 0, 0), "::c000:201"),
        (("::ffff:0:c000:201", 1, 0, 0), "::ffff:0:c000:201"),
    ],
)
def test_addresses_of_sockets_have_one_plain_form(given: tuple[str, int], plain: str) -> None:
    assert client_at(given, "web") == Client(plain, 1, "web")
    assert client_at(given, "web", given) == Client(plain, 1, "web", None, (plain, 1))


@given(st.ip_addresses(v=6) | st.ip_addresses(v=4).map(lambda four: IPv6Address(f"::ffff:{four}")))
def test_the_plain_form_is_the_one_of_decisions(ip: IPv6Address) -> None:
    address = inet_ntop(AF_INET6, ip.packed)
    assert client_at((address, 1, 0, 0), "web").address == normalise(address)
