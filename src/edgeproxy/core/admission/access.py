"""Which clients may connect: lists of networks, connections per client, connections per second.

Checked before anything else is decided about a client, in this order: the deny list, the allow
list, how many connections the client has, how fast it opens them. A client that one check
refuses does not reach the next ones; in particular it takes no token. Who is one client says
`client_key`. Clients of a site together are limited, too, to `clients_per_site` times as much.

A client without preamble and handshake is checked when it asks for a backend, any other before it
begins with these (`arrive`). Each is checked and charged once, and counts from then on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from edgeproxy.core.admission.arrivals import Arrival, Arrivals
from edgeproxy.core.admission.client_counts import ClientCounts
from edgeproxy.core.admission.client_key import ClientPrefixes, key_of, site_of
from edgeproxy.core.admission.rate_limit import RateLimit, RateLimitSettings
from edgeproxy.core.geo.prefix import Network, Prefixes


class Denied(StrEnum):
    """Why a client may not connect."""

    DENIED = "denied"
    CLIENT_FULL = "client_full"
    CLIENT_SETUP_FULL = "client_setup_full"
    RATE_LIMITED = "rate_limited"


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """Which clients may connect.

    Attributes:
        allow: Networks whose clients may connect; empty: all.
        deny: Clients of these networks are refused, even if `allow` lists them.
        max_conns_per_client: Maximum number of open connections of one client; 0: no limit.
        client_ipv4_prefix: Leading bits of an IPv4 address that one client has.
        client_ipv6_prefix: Leading bits of an IPv6 address that one client has.
        clients_per_site: What the clients of an IPv6 /48 may have together, in connections and
            their rate, as a number of clients; 0: as much as they are.
    """

    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()
    max_conns_per_client: int = 0
    client_ipv4_prefix: int = 32
    client_ipv6_prefix: int = 64
    clients_per_site: int = 16


class AccessControl:
    """The access checks of this POP. For one thread.

    Attributes:
        guarded: Whether any client could be refused when it asks for a backend.
        rate: The token buckets of the clients.
        arrivals: The clients that are not admitted yet.
    """

    def __init__(
        self,
        settings: AccessSettings | None = None,
        rate: RateLimitSettings | None = None,
    ) -> None:
        settings, rate = settings or AccessSettings(), rate or RateLimitSettings()
        self._inside = ClientCounts()
        self.rate = RateLimit(rate)
        self._site_rate = RateLimit(_of_site(settings, rate))
        self.arrivals = Arrivals()
        self.change(settings, rate)

    def change(self, settings: AccessSettings, rate: RateLimitSettings) -> None:
        """Apply new settings. Open connections stay."""
        self.rate.change(rate)
        self._site_rate.change(_of_site(settings, rate))
        self._limits_rate = rate.enabled
        self._most = settings.max_conns_per_client
        self._clients_per_site = settings.clients_per_site
        self._prefixes = ClientPrefixes(settings.client_ipv4_prefix, settings.client_ipv6_prefix)
        self._denied = Prefixes(dict.fromkeys(settings.deny, True))
        self._allowed = Prefixes(dict.fromkeys(settings.allow, True))
        self._has_lists = bool(settings.deny or settings.allow)
        self.guarded = bool(self._has_lists or self._most or rate.enabled)

    def key(self, client: str) -> str:
        """Return the key of a client: what its bindings, connections and tokens go by."""
        return key_of(client, self._prefixes)

    def check(
        self, client: str, now: float, *, takes: bool = False, again: bool = False
    ) -> Denied | None:
        """Return why a client may not connect now, or None.

        `client` is in normal form (`address.normalise`). `takes`: take a token if the
        client may connect. `again`: this client has taken one already.
        """
        if self._has_lists and not self._is_listed(client):
            return Denied.DENIED
        if not self._most and not self._limits_rate:
            return None
        key = self.key(client)
        site = self._site(key)
        if self._most and self._full(key, site):
            return Denied.CLIENT_FULL
        if self._limits_rate and not again and not self._has_token(key, site, now, takes):
            return Denied.RATE_LIMITED
        return None

    def _site(self, key: str) -> str:
        return site_of(key) if self._clients_per_site else ""

    def full(self, key: str) -> str:
        """Return who has all the connections that it may have: this client, its site, or ""."""
        return self._full(key, self._site(key)) if self._most else ""

    def _full(self, key: str, site: str) -> str:
        inside = self._inside
        if inside.get(key, 0) >= self._most:
            return key
        is_full = site and inside.get(site, 0) >= self._most * self._clients_per_site
        return site if is_full else ""

    def _has_token(self, key: str, site: str, now: float, takes: bool) -> bool:
        if site and not self._site_rate.remaining(site, now):
            return False
        if not takes:
            return bool(self.rate.remaining(key, now))
        if not self.rate.take(key, now):
            return False
        if site:
            self._site_rate.take(site, now)
        return True

    def _is_listed(self, client: str) -> bool:
        try:
            if self._denied.find(client):
                return False
            return not len(self._allowed) or self._allowed.find(client) is not None
        except ValueError:  # not an address
            return False

    # -- connections ---------------------------------------------------------------------

    def enter(self, client: str) -> str | None:
        """Count a connection. Return the key to `leave` with, or None if it is not counted."""
        if not self._most:
            return None
        key = self.key(client)
        # With its site whatever the settings say: they may be others at its end.
        self._inside.enter(key)
        return key

    def leave(self, key: str) -> None:
        """A connection that was counted has ended."""
        self._inside.leave(key)

    # -- clients before admission -----------------------------------------------------------

    def arrive(self, arrival: Arrival, client: str, now: float) -> Denied | None:
        """Return why a client may not begin with its preamble or handshake, or None.

        If it may, a token is taken and it counts, until `settle` or `depart`.
        """
        assert not arrival.client
        arrival.client = client
        barred = self.check(client, now)
        key = self.key(client)
        if barred is None and not self.arrivals.has_room(key):
            barred = Denied.CLIENT_SETUP_FULL
        if barred is None and self._limits_rate:
            self._has_token(key, self._site(key), now, takes=True)
        if barred is not None:
            return barred
        arrival.key = key
        arrival.entered = self.enter(client)
        self.arrivals.enter(key)
        return None

    def settle(self, arrival: Arrival) -> str | None:
        """A client is admitted. Return the key to `leave` with, which the caller now holds."""
        entered, arrival.entered = arrival.entered, None
        self.depart(arrival)
        return entered

    def depart(self, arrival: Arrival) -> None:
        """A client has gone, or is admitted: release what it holds. Idempotent."""
        if arrival.key:
            self.arrivals.leave(arrival.key)
            arrival.key = ""
        if arrival.entered is not None:
            self.leave(arrival.entered)
            arrival.entered = None

    def sweep(self, now: float) -> None:
        """Forget clients that have all their tokens."""
        self.rate.sweep(now)
        self._site_rate.sweep(now)


def _of_site(settings: AccessSettings, rate: RateLimitSettings) -> RateLimitSettings:
    """Return how fast the clients of one site together may open connections."""
    times = max(settings.clients_per_site, 1)
    return replace(rate, max_requests=rate.max_requests * times, burst=rate.burst * times)
