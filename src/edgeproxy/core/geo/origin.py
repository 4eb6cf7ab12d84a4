"""Where a client comes from, as an immutable value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a client comes from, and how that is known.

    Attributes:
        ip: The client's address, IPv4-mapped IPv6 written as IPv4.
        country: ISO 3166-1 alpha-2 code, or None where unknown.
        region: Region code, or None where unknown.
        source: `override`, `database` or `unknown`.
        match: The override's prefix or the database's network that matched, or "".
    """

    ip: str
    country: str | None = None
    region: str | None = None
    source: str = "unknown"
    match: str = ""
