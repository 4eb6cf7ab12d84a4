"""Counts something of each client, and of the site of each client.

A count of zero is not kept: the memory is bounded by who has something now.
"""

from __future__ import annotations

from edgeproxy.core.admission.client_key import site_of


class ClientCounts(dict[str, int]):
    """Counts by the keys of clients and of their sites; see `client_key`."""

    def enter(self, key: str) -> None:
        """Count one more of this client."""
        self._add(key, 1)
        site = site_of(key)
        if site:
            self._add(site, 1)

    def leave(self, key: str) -> None:
        """Count one less of this client, which has one."""
        self._add(key, -1)
        site = site_of(key)
        if site:
            self._add(site, -1)

    def _add(self, key: str, number: int) -> None:
        count = self.get(key, 0) + number
        assert count >= 0
        if count:
            self[key] = count
        else:
            del self[key]
