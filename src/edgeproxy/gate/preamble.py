"""Hears what clients say before they are let in: PROXY headers of balancers, names of TLS clients.

Everything here is hostile text. A header is read only where it is expected, and only from whom
it is trusted; it then has to be there. Decides nothing but who somebody is and which app is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from edgeproxy.core.geo.address import normalise
from edgeproxy.core.geo.prefix import Network, Prefixes
from edgeproxy.core.routing.server_names import ServerNames
from edgeproxy.engine.contract import Identified, NeedMore, Preamble, Refuse, SocketAddress
from edgeproxy.errors import WireError
from edgeproxy.wire import client_hello, proxy_protocol
from edgeproxy.wire.proxy_header import Endpoint


class PreambleFault(StrEnum):
    """What is wrong with what a client said first."""

    PROXY_UNTRUSTED = "proxy_untrusted"
    PROXY_MALFORMED = "proxy_malformed"
    HELLO_MALFORMED = "hello_malformed"
    NAME_UNKNOWN = "name_unknown"
    PREAMBLE_INCOMPLETE = "preamble_incomplete"


class PreambleInfo(NamedTuple):
    """What a client said first.

    Attributes:
        app: The one that is meant by the server name; None if that does not decide.
        server_name: In normal form, or "".
        destination: Where it had connected to before, as far as that is known.
    """

    app: str | None = None
    server_name: str = ""
    destination: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class ListenerPolicy:
    """How the clients of one listener are met.

    Attributes:
        scope: The app, or "" for all of them.
        by_name: The app is that of the server name.
        announced: Balancers in front say who the client is.
    """

    scope: str = ""
    routes_by_sni: bool = False
    expects_proxy_header: bool = False


class PreambleParser:
    """Hears clients. For one thread.

    Attributes:
        doors: By the name of their listener.
        names: The apps of server names.
    """

    def __init__(
        self,
        doors: Mapping[str, ListenerPolicy],
        trusted: tuple[Network, ...] = (),
        names: ServerNames | None = None,
    ) -> None:
        self.doors = doors
        self.names = names or ServerNames({})
        self.trust(trusted)

    def add(self, doors: Mapping[str, ListenerPolicy]) -> None:
        """Know these doors too, or in another manner."""
        self.doors = {**self.doors, **doors}

    def trust(self, networks: tuple[Network, ...]) -> None:
        """Take headers from these networks from now on."""
        self._trusted = Prefixes(dict.fromkeys(networks, True))

    def preamble_read(
        self, client: SocketAddress, listener: str, preamble: Preamble
    ) -> NeedMore | Identified | Refuse:
        """See whether a client has said enough."""
        door = self.doors[listener]
        said, skip, source, destination = preamble.said, 0, None, None
        if door.expects_proxy_header:
            if self._trusted.find(normalise(client[0])) is None:
                return Refuse(PreambleFault.PROXY_UNTRUSTED)
            try:
                header = proxy_protocol.decode(said)
            except WireError:
                return Refuse(PreambleFault.PROXY_MALFORMED)
            if header is None:
                return _more(preamble)
            skip, source, destination = header.size, header.source, header.destination
        if not door.routes_by_sni:
            return Identified(skip, source, PreambleInfo(destination=destination))
        try:
            hello = client_hello.decode(memoryview(said)[skip:])
        except WireError:
            return Refuse(PreambleFault.HELLO_MALFORMED)
        if hello is None:
            return _more(preamble)
        app = self.names.find(hello.server_name)
        if app is None:
            return Refuse(PreambleFault.NAME_UNKNOWN)
        return Identified(skip, source, PreambleInfo(app, hello.server_name or "", destination))


def _more(preamble: Preamble) -> NeedMore | Refuse:
    if preamble.is_all:
        return Refuse(PreambleFault.PREAMBLE_INCOMPLETE)
    return NeedMore(len(preamble.said) + 1)
