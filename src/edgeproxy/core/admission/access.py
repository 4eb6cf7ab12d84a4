"""Which clients may connect: lists of networks, connections per client, connections per second.

Checked before anything else is decided about a client, in this order: the deny list, the allow
list, how many connections the client has, how fast it opens them. A client that one check
refuses does not reach the next ones; in particular it takes no token.

A client is an IPv4 address or an IPv6 /64, which is what one household or machine has.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv6Address

from edgeproxy.core.admission.rate_limit import RateLimit, RateLimitSettings
from edgeproxy.core.geo.prefix import Network, Prefixes

_HOST_BITS = 64


class Denied(StrEnum):
    """Why a client may not connect."""

    DENIED = "denied"
    CLIENT_FULL = "client_full"
    RATE_LIMITED = "rate_limited"


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """Which clients may connect.

    Attributes:
        allow: Networks whose clients may connect; empty: all.
        deny: Clients of these networks are refused, even if `allow` lists them.
        max_conns_per_client: Maximum number of open connections of one client; 0: no limit.
    """

    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()
    max_conns_per_client: int = 0


class AccessControl:
    """The access checks of this POP. For one thread.

    Attributes:
        guarded: Whether any client could be refused.
        rate: The token buckets of the clients.
    """

    def __init__(
        self,
        settings: AccessSettings | None = None,
        rate: RateLimitSettings | None = None,
    ) -> None:
        rate = rate or RateLimitSettings()
        self._inside: dict[str, int] = {}
        self.rate = RateLimit(rate)
        self.change(settings or AccessSettings(), rate)

    def change(self, settings: AccessSettings, rate: RateLimitSettings) -> None:
        """Apply new settings. Open connections stay."""
        self.rate.change(rate)
        self._limits_rate = rate.enabled
        self._most = settings.max_conns_per_client
        self._denied = Prefixes(dict.fromkeys(settings.deny, True))
        self._allowed = Prefixes(dict.fromkeys(settings.allow, True))
        self._has_lists = bool(settings.deny or settings.allow)
        self.guarded = bool(self._has_lists or self._most or rate.enabled)

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
        key = key_of(client)
        if self._most and self._inside.get(key, 0) >= self._most:
            return Denied.CLIENT_FULL
        if self._limits_rate and not again:
            rate = self.rate
            if not (rate.take(key, now) if takes else rate.remaining(key, now)):
                return Denied.RATE_LIMITED
        return None

    def _is_listed(self, client: str) -> bool:
        try:
            if self._denied.find(client):
                return False
            return not len(self._allowed) or self._allowed.find(client) is not None
        except ValueError:  # not an address
            return False

    def enter(self, client: str) -> str | None:
        """Count a connection. Return the key to `leave` with, or None if it is not counted."""
        if not self._most:
            return None
        key = key_of(client)
        self._inside[key] = self._inside.get(key, 0) + 1
        return key

    def leave(self, key: str) -> None:
        """A connection that was counted has ended."""
        inside = self._inside[key] - 1
        if inside:
            self._inside[key] = inside
        else:
            del self._inside[key]


def key_of(client: str) -> str:
    """Return the key that all addresses of one client share."""
    if ":" not in client:
        return client
    return f"{int(IPv6Address(client)) >> _HOST_BITS:x}/{_HOST_BITS}"
