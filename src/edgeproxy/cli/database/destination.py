"""Judges where a node is to be reached, by this host and its configuration.

An address of the proxy itself is refused, one that is most likely a mistake is accepted with a
warning. The configuration is loaded only for an address of this host: commands start fast.
"""

from __future__ import annotations

import os

from edgeproxy.core.backends.destination import Own, doubt, meanings
from edgeproxy.core.backends.rows import RowError
from edgeproxy.core.geo.address import normalise
from edgeproxy.engine.host_addresses import host_addresses
from edgeproxy.errors import ConfigError


def warning_of(wg_ip: str, port: int) -> str | None:
    """Return what to warn of, or None. Raises RowError for the address of the proxy itself."""
    host = Own(hosts=host_addresses() or frozenset())
    if any(host.has(str(each)) for each in meanings(wg_ip)):
        what = Own(_configured(), host.hosts).what_is_at(wg_ip, port)
        if what is not None:
            raise RowError(
                "wg_ip",
                f"wg_ip {wg_ip} with port {port} is {what} of the proxy itself: "
                "give the address of the backend; if the proxy listens elsewhere, run this command "
                "with its settings",
            )
    kind = doubt(wg_ip)
    return None if kind is None else f"wg_ip {wg_ip} is {kind}"


def own_addresses() -> Own:
    """Return where a proxy with this configuration listens on this host."""
    return Own(_configured(), host_addresses() or frozenset())


def _configured() -> dict[tuple[str, int], str]:
    """Return what a proxy with this configuration listens on."""
    from edgeproxy.config import load as config
    from edgeproxy.values import ListenAddress

    try:
        loaded = config.load(os.environ).config
    except ConfigError:  # no proxy starts with it
        return {}
    used = [(each.address, f"the listener {each}") for each in loaded.listen_settings().listen]
    if loaded.api.enabled:
        used.append((loaded.api.listen_addr, "the API"))
    if loaded.metrics.enabled:
        used.append((loaded.metrics.listen_addr, "the metrics page"))
    return {
        (normalise(address.host), address.port): what
        for address, what in used
        if isinstance(address, ListenAddress)
    }
