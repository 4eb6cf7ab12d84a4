"""The bodies of requests and answers, as types: msgspec checks them and describes them for OpenAPI.

An answer that shows a record of the registry uses its type (`registry/views.py`). The docstrings
of all these types are part of the OpenAPI document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta, Struct

from edgeproxy.core.backends.rows import COUNTRY, MAX_LIMIT, MAX_NAME_CHARS, MAX_WEIGHT
from edgeproxy.core.geo.regions import CODE
from edgeproxy.registry.views import BackendView

Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARS)]
Region = Annotated[
    str, Meta(pattern=f"^{CODE.pattern}$", description="sa, us, eu, ap or a short code")
]
Port = Annotated[int, Meta(ge=1, le=65535)]
Weight = Annotated[int, Meta(ge=0, le=MAX_WEIGHT, description="0 takes no new clients")]
Limit = Annotated[int, Meta(ge=0, le=MAX_LIMIT)]


class Registration(Struct, forbid_unknown_fields=True):
    """A backend that registers."""

    id: Annotated[Name, Meta(description="unique among all backends")]
    app: Name
    region: Region
    ip: Annotated[Name, Meta(description="the IPv4 or IPv6 address of one host")]
    port: Port
    country: (
        Annotated[str, Meta(max_length=2, description="ISO 3166-1; unset: the region's default")]
        | None
    ) = None
    weight: Weight = 2
    soft_limit: Limit = 100
    hard_limit: Annotated[Limit, Meta(description="never exceeded; 0: no limit")] = 150


def row_of(registration: Registration) -> Mapping[str, object]:
    """Return the row of a backend that registers, by column; its values are not checked yet."""
    return {
        "id": registration.id,
        "app": registration.app,
        "region": registration.region,
        "wg_ip": registration.ip,
        "port": registration.port,
        "healthy": 1,
        "weight": registration.weight,
        "soft_limit": registration.soft_limit,
        "hard_limit": registration.hard_limit,
        "deleted": 0,
        COUNTRY: registration.country,
    }


class NewWeight(Struct, forbid_unknown_fields=True):
    """A new weight."""

    weight: Weight


class NewLimits(Struct, forbid_unknown_fields=True):
    """New connection limits; both are required."""

    soft_limit: Limit
    hard_limit: Limit


@dataclass(slots=True, kw_only=True)
class RegisteredView(BackendView):
    """A backend that has registered just now.

    `status` is `registered` or `updated`; send a heartbeat every `heartbeat_secs`.
    """

    status: str
    ttl_secs: float
    heartbeat_secs: float


class BackendList(Struct):
    """All backends in the table, registered or not."""

    backends: list[BackendView]
    total: int
    table_version: int


class HeartbeatAccepted(Struct):
    """A heartbeat was accepted."""

    id: str
    status: str
    ttl_secs: float


class Deregistered(Struct):
    """A backend has been deregistered."""

    id: str
    status: str


class SessionView(Struct):
    """An open connection."""

    client: str
    port: int
    backend: str
    how: str
    state: str
    secs: float
    bytes_in: int
    bytes_out: int


class SessionList(Struct):
    """All open connections."""

    sessions: list[SessionView]


class FaultView(Struct):
    """What was wrong, and which field of the request is to blame, if one is."""

    error: str
    field: str | None = None
