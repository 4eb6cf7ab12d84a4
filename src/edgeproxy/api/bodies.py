"""What requests and answers of the API hold, as types that check and describe themselves."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from edgeproxy.core.backends.rows import MAX_LIMIT, MAX_NAME_CHARS, MAX_WEIGHT

Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARS)]
Region = Annotated[
    str, Meta(pattern="^[a-z0-9][a-z0-9-]{0,15}$", description="sa, us, eu, ap or a short code")
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
        Annotated[str, Meta(max_length=2, description="ISO 3166-1; unset: that of the region")]
        | None
    ) = None
    weight: Weight = 2
    soft_limit: Limit = 100
    hard_limit: Annotated[Limit, Meta(description="never exceeded; 0: none")] = 150


class NewWeight(Struct, forbid_unknown_fields=True):
    """Another weight."""

    weight: Weight


class NewLimits(Struct, forbid_unknown_fields=True):
    """Other limits; both."""

    soft_limit: Limit
    hard_limit: Limit


class Lease(Struct):
    """How long a registered backend has been silent, and when its lease expires."""

    age_secs: float
    expires_in_secs: float
    ttl_secs: float


class BackendView(Struct, kw_only=True):
    """A backend: what is stored, and how this POP sees it.

    `state` is `eligible`, or why it takes no new clients; `healthy` is the operator's intent,
    `up` what probes say, if it is probed. Without a `lease` it was added by an operator.
    """

    id: str
    app: str
    region: str
    country: str | None
    ip: str
    port: int
    weight: int
    soft_limit: int
    hard_limit: int
    healthy: bool
    deleted: bool
    state: str
    up: bool | None
    circuit: str
    draining: bool
    active_connections: int
    registered: bool
    lease: Lease | None


class RegisteredView(BackendView, kw_only=True):
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
    """A heartbeat was heard."""

    id: str
    status: str
    ttl_secs: float


class Deregistered(Struct):
    """A backend has left."""

    id: str
    status: str


class Health(Struct):
    """This process lives."""

    status: str
    version: str
    backends: int
    uptime_secs: int
    engine: str
    region: str


class Readiness(Struct):
    """Whether clients would be served; `reason` says why not."""

    ready: bool
    reason: str | None


class TableView(Struct):
    """The routing table in force, and the leases.

    While `expiry_held_back`, most backends are silent, and none expires.
    """

    version: int
    age_secs: float
    backends: int
    eligible: int
    leases: int
    expiry_held_back: bool


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
    """What was wrong, and with which field of the request, if it was one."""

    error: str
    field: str | None = None
