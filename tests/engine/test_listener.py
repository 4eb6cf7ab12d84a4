"""A listener has its TLS context from the start, or its socket is closed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from socket import socket

import pytest

from edgeproxy.engine.contract import PLAIN, ListenerSettings
from edgeproxy.engine.listener import Listener
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
