"""The settings of the registry."""

from __future__ import annotations

from dataclasses import dataclass

from edgeproxy.core.geo.prefix import Network


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """Leases, and which callers may change which backends.

    Attributes:
        heartbeat_ttl_secs: How long a registered backend may be silent.
        home: The name of this POP, where several POPs register backends in one database.
        own_address_only: A backend may speak only for the address that it calls from.
        max_backends: How many backends may be registered.
        register_networks: Networks that a backend may register in; empty: all, within the rules
            of `core/backends/destination`.
    """

    heartbeat_ttl_secs: float = 60.0
    home: str | None = None
    own_address_only: bool = False
    max_backends: int = 20_000
    register_networks: tuple[Network, ...] = ()
