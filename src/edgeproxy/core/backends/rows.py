"""Parses a backend that comes from outside: a database row, a command, an API request.

Two parsers share one set of rules. `parse_row` reads a row that any tool may have written, and
refuses only what cannot be routed to. `parse_node` reads what a person or a program asks for now,
and also refuses likely mistakes (weight 5000, a soft limit above the hard limit, a country that
does not exist). An error names the field, the value and what is allowed. A value of another type is
never converted: the text '80' is not a port.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.geo.regions import CODE, region_of
from edgeproxy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

COLUMNS = (
    "id",
    "app",
    "region",
    "wg_ip",
    "port",
    "healthy",
    "weight",
    "soft_limit",
    "hard_limit",
    "deleted",
)
"""The documented columns in the documented order: people insert rows by position."""

COUNTRY = "country"
"""An optional column besides the documented ones."""

ALLOWED_REGION = "a short code like sa, us, eu or ap: 1 to 16 of a-z, 0-9 and -, no - in front"
MAX_NAME_CHARS = 128
MAX_WEIGHT = 1000
MAX_LIMIT = 1_000_000_000
MAX_SHOWN_CHARS = 160

_COUNTRY = re.compile(r"[A-Za-z]{2}")
_USABLE = dict(zip(COLUMNS, ("a", "a", "sa", "10.0.0.1", 80, 1, 1, 1, 1, 0), strict=True))
"""A row with nothing wrong, to judge one value of another row in."""


class RowError(UsageError, ValueError):
    """A value that a backend may not have.

    Attributes:
        field: The column.
        reason: The message: field, value and what is allowed.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason


def parse_row(row: Mapping[str, object]) -> Backend:
    """Parse a database row, or raise `RowError`.

    A missing key counts as NULL. Weight and limits may be any number from 0.
    """
    return Backend(
        id=check_name("id", row.get("id")),
        app=check_name("app", row.get("app")),
        region=check_region(row.get("region")),
        wg_ip=check_address(row.get("wg_ip")),
        port=check_port(row.get("port")),
        healthy=_flag("healthy", row.get("healthy")),
        weight=_whole("weight", row.get("weight"), 0, None),
        soft_limit=_whole("soft_limit", row.get("soft_limit"), 0, None),
        hard_limit=_whole("hard_limit", row.get("hard_limit"), 0, None),
        deleted=_flag("deleted", row.get("deleted")),
        country=check_country(row.get(COUNTRY)),
    )


def parse_rows(rows: Iterable[Mapping[str, object]]) -> Iterator[Backend | RowError]:
    """Yield the backend of each row, or the error in it.

    If several valid rows have one id, all but the first are errors: a table that was made without
    a primary key can hold such rows.
    """
    seen: set[str] = set()
    for row in rows:
        try:
            backend = parse_row(row)
        except RowError as error:
            yield error
            continue
        if backend.id in seen:
            yield RowError("id", f"id {shown(backend.id)} is used by an earlier row already")
            continue
        seen.add(backend.id)
        yield backend


def faults_of(row: Mapping[str, object]) -> list[str]:
    """Return what is wrong with each value of a row by itself; `parse_row` ends at the first."""
    faults = []
    for name in (*COLUMNS, COUNTRY):
        try:
            parse_row({**_USABLE, name: row.get(name)})
        except RowError as error:
            faults.append(error.reason)
    return faults


def parse_node(values: Mapping[str, object]) -> Backend:
    """Parse a backend that is to be added or changed now, or raise `RowError`."""
    check_weight(values.get("weight"))
    check_limits(values.get("soft_limit"), values.get("hard_limit"))
    backend = parse_row(values)
    if backend.country is not None and region_of(backend.country) is None:
        raise _refused(COUNTRY, values[COUNTRY], "an ISO 3166-1 code like BR, or nothing")
    return backend


def check_column(field: str, value: object) -> object:
    """Return the value that a person may set in this column, or raise `RowError`."""
    checks: Mapping[str, Callable[[object], object]] = {
        "app": lambda text: check_name("app", text),
        "region": check_region,
        "wg_ip": check_address,
        "port": check_port,
        "weight": check_weight,
        "soft_limit": lambda limit: _whole("soft_limit", limit, 0, MAX_LIMIT),
        "hard_limit": lambda limit: _whole("hard_limit", limit, 0, MAX_LIMIT),
        COUNTRY: lambda text: check_country(text) or "",
    }
    return checks[field](value)


def check_name(field: str, value: object) -> str:
    """Return an id or app name, or raise `RowError`."""
    text = value if isinstance(value, str) else ""
    if text.strip() and text.isprintable() and len(text) <= MAX_NAME_CHARS:
        return text
    allowed = f"1 to {MAX_NAME_CHARS} printable characters, not only blanks"
    raise _refused(field, value, allowed)


def check_region(value: object) -> str:
    """Return a region code, or raise `RowError`."""
    if isinstance(value, str) and CODE.fullmatch(value):
        return value
    raise _refused("region", value, ALLOWED_REGION)


def check_address(value: object) -> str:
    """Return the one spelling of an IPv4 or IPv6 address of one host, or raise `RowError`.

    An IPv4-mapped IPv6 address becomes the IPv4 address in it.
    """
    allowed = "the IPv4 or IPv6 address of one host, like 10.50.1.2 or fd00::2"
    if not isinstance(value, str):  # ip_address(5) is 0.0.0.5
        raise _refused("wg_ip", value, allowed)
    try:
        address = ip_address(value)
    except ValueError:
        raise _refused("wg_ip", value, allowed) from None
    if address.version == 6:
        if address.scope_id is not None:
            raise _refused("wg_ip", value, f"{allowed}, without a zone")
        address = address.ipv4_mapped or address
    is_unusable = address.is_reserved if address.version == 4 else address.is_link_local
    if address.is_unspecified or address.is_multicast or is_unusable:
        raise _refused("wg_ip", value, allowed)
    return str(address)


def check_port(value: object) -> int:
    """Return a TCP port, or raise `RowError`."""
    return _whole("port", value, 1, 65535)


def check_weight(value: object) -> int:
    """Return a weight in the range that a person may set, or raise `RowError`."""
    return _whole("weight", value, 0, MAX_WEIGHT)


def check_limits(soft: object, hard: object) -> tuple[int, int]:
    """Return the soft and the hard limit if a person may set them, or raise `RowError`."""
    soft_limit = _whole("soft_limit", soft, 0, MAX_LIMIT)
    hard_limit = _whole("hard_limit", hard, 0, MAX_LIMIT)
    if 0 < hard_limit < soft_limit:
        allowed = f"at most the hard_limit, {hard_limit} (a hard_limit of 0 means none)"
        raise _refused("soft_limit", soft_limit, allowed)
    return soft_limit, hard_limit


def check_country(value: object) -> str | None:
    """Return an upper-case country code, None for NULL or empty text, or raise `RowError`."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and _COUNTRY.fullmatch(value):
        return value.upper()
    raise _refused(COUNTRY, value, "two letters like BR, or nothing")


def shown(value: object) -> str:
    """Return a value as a message shows it: on one line, escaped, of bounded length."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"a blob of {len(value)} bytes"
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."


def _whole(field: str, value: object, low: int, high: int | None) -> int:
    if type(value) is int and low <= value and (high is None or value <= high):
        return value
    allowed = f"{low} or more" if high is None else f"{low} to {high}"
    if type(value) is not int:
        allowed = f"a whole number, {allowed}"
    raise _refused(field, value, allowed)


def _flag(field: str, value: object) -> bool:
    if type(value) is int and value in (0, 1):
        return value == 1
    raise _refused(field, value, "0 or 1")


def _refused(field: str, value: object, allowed: str) -> RowError:
    return RowError(field, f"{field} {shown(value)} is not allowed: {allowed}")
