"""Locates a client: turns its address into a country and a region.

Sources, in this order: the override for its network, the geo database, the override for its
country, the table of regions. A private address without an override has an unknown origin,
whatever the database says. Nothing here touches a file or the network: the database is a
callable.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import ip_network
from typing import TYPE_CHECKING

from edgeproxy.core.geo.address import normalise
from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.geo.prefix import PRIVATE_NETWORKS, Prefixes
from edgeproxy.core.geo.regions import region_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.core.geo.overrides import Override, Overrides

# Addresses that mean something else in every network: besides the private ones, those of RFC 3927,
# 4291 and 6598.
_SHARED = map(ip_network, ("100.64.0.0/10", "169.254.0.0/16", "fe80::/10"))
_WITHOUT_ORIGIN = Prefixes(dict.fromkeys((*PRIVATE_NETWORKS, *_SHARED), True))


class Locator:
    """Finds origins and caches the last `cache_size` of them. For one thread.

    Its answers never change: for new overrides or a new database, make a new Locator.
    """

    __slots__ = ("_cache", "_cache_size", "_lookup", "_overrides")

    def __init__(
        self,
        lookup: Callable[[str], tuple[str | None, str]],
        overrides: Overrides,
        cache_size: int = 65536,
    ) -> None:
        """`lookup` returns country (or None) and network of an address in normal form."""
        self._lookup = lookup
        self._overrides = overrides
        self._cache_size = cache_size
        # Not a dict: finding its oldest key gets slow once many before it were deleted.
        self._cache: OrderedDict[str, Origin] = OrderedDict()

    def __call__(self, ip: str) -> Origin:
        """Return the origin of a client; unknown also for text that is not an address."""
        origin = self._cache.get(ip)
        if origin is None:
            origin = self._cache[ip] = self._find(ip)
            if len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        return origin

    def _find(self, text: str) -> Origin:
        try:
            ip = normalise(text)
            override = self._overrides.find(ip)
            if override is not None:
                return _overridden(ip, override)
            if _WITHOUT_ORIGIN.find(ip) is not None:
                return Origin(ip)
        except ValueError:
            return Origin(text)
        country, network = self._lookup(ip)
        if country is None:
            return Origin(ip)
        override = self._overrides.for_country(country)
        if override is not None:
            return _overridden(ip, override)
        return Origin(ip, country, region_of(country), "database", network)


def _overridden(ip: str, override: Override) -> Origin:
    return Origin(ip, override.country, override.region, "override", override.match)
