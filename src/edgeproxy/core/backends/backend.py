"""A backend: one valid row of the routing database, as an immutable value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backend:
    """One valid row of the routing database.

    Attributes:
        id: Unique name, for instance `sa-node-1`.
        app: The application it serves.
        region: Where it is: `sa`, `us`, `eu`, `ap` or any other short code.
        wg_ip: IPv4 or IPv6 address, usually on the WireGuard overlay.
        port: TCP port, 1 to 65535.
        healthy: The operator's intent; probe results are kept elsewhere.
        weight: Share of new clients among equals; 0 takes no new clients.
        soft_limit: Connections at which its load counts as 1; 0 counts as 1.
        hard_limit: Connections it never exceeds; 0 is no limit.
        deleted: Soft-deleted: kept in the database, never used.
        country: ISO 3166-1 alpha-2 code, or None where the database has none.
    """

    id: str
    app: str
    region: str
    wg_ip: str
    port: int
    healthy: bool = True
    weight: int = 1
    soft_limit: int = 100
    hard_limit: int = 200
    deleted: bool = False
    country: str | None = None

    @property
    def address(self) -> str:
        """`wg_ip:port`, with brackets around IPv6."""
        host = f"[{self.wg_ip}]" if ":" in self.wg_ip else self.wg_ip
        return f"{host}:{self.port}"
