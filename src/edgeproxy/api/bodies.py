"""The bodies of requests and answers, as types: msgspec checks them and describes them for OpenAPI.

An answer that shows a record of the registry uses its type (`registry/views.py`). The docstrings
of all these types are part of the OpenAPI document.

`core/backends/rows.py` has the rules of values and words their faults, so some rules are only
described here (`extra_json_schema`): what fits the description is accepted, but for the two rules
that a schema cannot tell, which the text does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta, Struct

from edgeproxy.core.backends.rows import COUNTRY, MAX_LIMIT, MAX_NAME_CHARS, MAX_WEIGHT
from edgeproxy.core.geo.regions import CODE, COUNTRIES
from edgeproxy.registry.views import BackendView

NAME: dict[str, Any] = {
    "minLength": 1,
    "maxLength": MAX_NAME_CHARS,
    # Printable characters of ASCII and of Latin scripts, not only blanks. Those of others are
    # accepted, too, but no regular expression of JSON Schema says which are printable.
    "pattern": "^[ -~\u00a1-\u00ac\u00ae-\u024f]*[!-~\u00a1-\u00ac\u00ae-\u024f]"
    "[ -~\u00a1-\u00ac\u00ae-\u024f]*$",
}
"""How an id or the name of an app looks, in JSON Schema."""
ADDRESS: dict[str, Any] = {"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}
"""How an address looks, in JSON Schema."""
COUNTRY_CODES = sorted(code for codes in COUNTRIES.values() for code in codes)

Name = Annotated[
    str,
    Meta(min_length=1, max_length=MAX_NAME_CHARS, extra_json_schema={"pattern": NAME["pattern"]}),
]
Region = Annotated[
    str, Meta(pattern=f"^{CODE.pattern}$", description="sa, us, eu, ap or a short code")
]
Port = Annotated[int, Meta(ge=1, le=65535)]
Weight = Annotated[int, Meta(ge=0, le=MAX_WEIGHT, description="0 takes no new clients")]
Limit = Annotated[int, Meta(ge=0, le=MAX_LIMIT)]

SoftLimit = Annotated[
    Limit, Meta(description="connections at which it counts as loaded; at most the hard_limit")
]
HardLimit = Annotated[Limit, Meta(description="never exceeded; 0: no limit")]


class Registration(Struct, forbid_unknown_fields=True):
    """A backend that registers."""

    id: Annotated[Name, Meta(description="unique among all backends")]
    app: Name
    region: Region
    ip: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=MAX_NAME_CHARS,
            description="the IPv4 or IPv6 address of one host, without a zone; not unspecified, "
            "multicast, link-local or reserved",
            extra_json_schema=ADDRESS,
        ),
    ]
    port: Port
    country: (
        Annotated[
            str,
            Meta(
                max_length=2,
                description="ISO 3166-1, also in lower case; unset: that of the region",
                extra_json_schema={"enum": ["", *COUNTRY_CODES]},
            ),
        ]
        | None
    ) = None
    weight: Weight = 2
    soft_limit: SoftLimit = 100
    hard_limit: HardLimit = 150


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

    soft_limit: SoftLimit
    hard_limit: HardLimit


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
