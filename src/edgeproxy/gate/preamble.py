"""Reads what a client sends before it gets a backend: a PROXY header, a TLS server name.

It decides two things: the client's real address, and the app it asks for.

Invariants:
* All input is hostile.
* A PROXY header is read only on a listener that expects one, and only from a trusted network.
  On such a listener it is required.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import NamedTuple

from edgeproxy.core.geo.prefix import Network, Prefixes
from edgeproxy.core.routing.server_names import ServerNames
from edgeproxy.engine.contract import Client, Identified, NeedMore, Preamble, Refuse
from edgeproxy.errors import WireError
from edgeproxy.wire import client_hello, proxy_protocol
from edgeproxy.wire.proxy_header import Endpoint, Header

MAX_ALPN_BYTES = 255
"""The longest name of a protocol (RFC 7301)."""


class PreambleFault(StrEnum):
    """What is wrong with the first bytes of a client."""

    CLIENT_GONE = "client_gone"
    """It has left before they were complete."""
    PROXY_UNTRUSTED = "proxy_untrusted"
    PROXY_MALFORMED = "proxy_malformed"
    HELLO_MALFORMED = "hello_malformed"
    NAME_UNKNOWN = "name_unknown"
    PREAMBLE_INCOMPLETE = "preamble_incomplete"
    """It is too slow, or says more than the longest preamble has."""


class PreambleInfo(NamedTuple):
    """What the first bytes of a client say.

    Attributes:
        app: The app of the server name; None on a listener that does not route by name.
        server_name: In normal form, or "". The one in the PROXY header on a listener that does not
            route by name.
        destination: The address the client connected to, from the PROXY header; None if unknown.
        alpn, tls: What a PROXY header says of the client's TLS (`wire.proxy_header`), or b"".
    """

    app: str | None = None
    server_name: str = ""
    destination: Endpoint | None = None
    alpn: bytes = b""
    tls: bytes = b""


class ListenerPolicy(NamedTuple):
    """What one listener expects of its clients.

    Attributes:
        scope: The app it serves, or "" for all apps.
        routes_by_sni: The TLS server name decides the app.
        expects_proxy_header: A load balancer in front sends the client's address.
        address: Where it listens, as configured.
    """

    scope: str = ""
    routes_by_sni: bool = False
    expects_proxy_header: bool = False
    address: str = ""


class PreambleParser:
    """Reads the preambles of all listeners. For one thread.

    `server_names` returns those of the routing table in force.

    Attributes:
        policies: What each listener expects, by the name of the listener.
    """

    def __init__(
        self,
        policies: Mapping[str, ListenerPolicy],
        server_names: Callable[[], ServerNames],
        trusted: tuple[Network, ...] = (),
    ) -> None:
        self.policies = policies
        self._server_names = server_names
        self.trust(trusted)

    def add(self, policies: Mapping[str, ListenerPolicy]) -> None:
        """Add policies of listeners, or replace them."""
        self.policies = {**self.policies, **policies}

    def trust(self, networks: tuple[Network, ...]) -> None:
        """Accept PROXY headers only from these networks from now on."""
        self._trusted = Prefixes(dict.fromkeys(networks, True))

    def untrusted(self, client: Client) -> PreambleFault | None:
        """Return why no PROXY header is read of a client, although its listener expects one."""
        if not self.policies[client.listener].expects_proxy_header:
            return None
        trusted = self._trusted.find(client.address) is not None
        return None if trusted else PreambleFault.PROXY_UNTRUSTED

    def preamble_read(
        self,
        client: Client,
        preamble: Preamble,
        identify: Callable[[str], str | None] = lambda _address: None,
    ) -> NeedMore | Identified | Refuse:
        """Return what the preamble says, or that it is incomplete, or why it is refused.

        `identify` is called with the client's real address as soon as the PROXY header has told it,
        which may be more than once, and returns why the client is refused.
        """
        policy = self.policies[client.listener]
        received, skip, header = preamble.received, 0, None
        if policy.expects_proxy_header:
            untrusted = self.untrusted(client)
            if untrusted is not None:
                return Refuse(untrusted)
            try:
                header = proxy_protocol.decode(received)
            except WireError:
                return Refuse(PreambleFault.PROXY_MALFORMED)
            if header is None:
                return _more(preamble, len(received) + 1)
            skip = header.size
            barred = identify(header.source.ip if header.source else client.address)
            if barred is not None:
                return Refuse(barred)
        said = PreambleInfo() if header is None else _said(header)
        source = None if header is None else header.source
        if not policy.routes_by_sni:
            return Identified(skip, source, said)
        from_client = memoryview(received)[skip:]
        try:
            hello = client_hello.decode(from_client)
        except WireError:
            return Refuse(PreambleFault.HELLO_MALFORMED)
        if hello is None:
            return _more(preamble, skip + client_hello.bytes_wanted(from_client))
        app = self._server_names().find(hello.server_name)
        if app is None:
            return Refuse(PreambleFault.NAME_UNKNOWN)
        # It is the client's TLS that is passed through, not that of the header.
        return Identified(
            skip, source, PreambleInfo(app, hello.server_name or "", said.destination)
        )


def _said(header: Header) -> PreambleInfo:
    alpn = header.alpn or b""
    return PreambleInfo(
        server_name=header.server_name or "",
        destination=header.destination,
        alpn=alpn if len(alpn) <= MAX_ALPN_BYTES else b"",
        tls=header.tls or b"",
    )


def _more(preamble: Preamble, bytes_wanted: int) -> NeedMore | Refuse:
    if preamble.has_ended:
        return Refuse(PreambleFault.CLIENT_GONE)
    if preamble.is_all:
        return Refuse(PreambleFault.PREAMBLE_INCOMPLETE)
    return NeedMore(bytes_wanted)
