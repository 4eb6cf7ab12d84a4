"""The operator's corrections of where clients come from: the lines of an override file.

    # prefix or address, country[, region]
    10.50.0.0/16,   BR          # region: that of the country
    2001:db8::/32,  DE, eu-2    # a region of your own
    192.0.2.7,      ,   sa      # country unknown on purpose (ZZ says the same)
    MX, MX, sa                  # every client whose country in the database is MX

The longest prefix that holds an address wins. An IPv4-mapped IPv6 prefix counts as the IPv4 prefix
in it. If a line names no region, the file's line for that country decides, and without one the
table of regions. A file with a fault yields no overrides; the error lists its faults. One with
`MAX_FAULTS` is read no further: it is another kind of file, and may be large.

Lookups are those of `core/geo/prefix`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from edgeproxy.core.geo.prefix import Network, Prefixes, network
from edgeproxy.core.geo.regions import CODE, region_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Target: TypeAlias = Network | str
"""What a line applies to: the addresses of a network, or the clients of a country."""

_COUNTRY = re.compile(r"[A-Za-z]{2}")
_FAULTS_SHOWN = 10
_MAX_CHARS = 200
"""Of a line without its comment."""

MAX_FAULTS = 1000
MAX_LINES = 1_000_000
"""Lines that say something: each takes memory while the file is in use."""


class Override(NamedTuple):
    """One line of an override file.

    Attributes:
        match: What it applies to: a prefix such as `10.0.0.0/8`, or a country code.
        country: ISO 3166-1 alpha-2 code in upper case, or None for unknown.
        region: Region code, or None for unknown.
        line: Its line number in the file, from 1.
    """

    match: str
    country: str | None
    region: str | None
    line: int


class Fault(NamedTuple):
    """What is wrong with one line, and what would be right."""

    line: int
    message: str


class OverridesError(ValueError):
    """An override file has faults: those that were found in `faults`, the first in the message."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = tuple(faults)
        shown = [f"line {line}: {message}" for line, message in faults[:_FAULTS_SHOWN]]
        if len(faults) >= MAX_FAULTS:
            shown.append("and so on")
        elif len(faults) > _FAULTS_SHOWN:
            shown.append(f"and {len(faults) - _FAULTS_SHOWN} more")
        super().__init__("; ".join(shown))


class Overrides:
    """The lines of one override file, ready for lookups. Immutable."""

    __slots__ = ("_countries", "_prefixes")

    def __init__(self, lines: Mapping[Target, Override] | None = None) -> None:
        items = (lines or {}).items()
        self._countries = {on: line for on, line in items if isinstance(on, str)}
        self._prefixes = Prefixes({on: line for on, line in items if not isinstance(on, str)})

    def __len__(self) -> int:
        return len(self._countries) + len(self._prefixes)

    def find(self, ip: str) -> Override | None:
        """Return the line with the longest prefix that holds `ip`; see `Prefixes.find`."""
        return self._prefixes.find(ip)

    def for_country(self, code: str) -> Override | None:
        """Return the line for clients whose country in the database is `code`, or None."""
        return self._countries.get(code)


class _Row(NamedTuple):
    line: int
    country: str | None
    region: str | None


def parse(text: str) -> Overrides:
    """Parse the text of an override file.

    Raises:
        OverridesError: At least one line is wrong; it holds the faults of all lines before
            `MAX_FAULTS`.
    """
    rows: dict[Target, _Row] = {}
    faults: list[Fault] = []
    for number, line in enumerate(_lines(text), start=1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        complaints: list[str] = []
        target, row = _read(number, content, complaints)
        if target in rows:
            complaints.append(f"{target} is already on line {rows[target].line}; keep one of them")
        elif target is not None:
            rows[target] = row
        faults += [Fault(number, complaint) for complaint in complaints]
        if len(rows) > MAX_LINES:
            faults.append(Fault(number, f"a file may have up to {MAX_LINES:,} overrides"))
            break
        if len(faults) >= MAX_FAULTS:
            break
    if faults:
        raise OverridesError(faults)
    return Overrides({target: _override(target, row, rows) for target, row in rows.items()})


def _lines(text: str) -> Iterator[str]:
    """Yield one line after another: a list of millions would hold the interpreter and memory."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]


def _override(target: Target, row: _Row, rows: Mapping[Target, _Row]) -> Override:
    region = row.region
    if region is None and row.country is not None:
        own = rows.get(row.country)
        region = own.region if own else region_of(row.country)
    return Override(str(target), row.country, region, row.line)


def _read(line: int, content: str, complaints: list[str]) -> tuple[Target | None, _Row]:
    """Return a line's target and content; append its faults to `complaints`."""
    if len(content) > _MAX_CHARS:
        complaints.append(f"expected up to {_MAX_CHARS} characters; found: {len(content)}")
        return None, _Row(line, None, None)
    fields = [field.strip() for field in content.split(",")]
    if not 2 <= len(fields) <= 3:
        count = len(fields)
        complaints.append(f"expected cidr,country or cidr,country,region; fields found: {count}")
        return None, _Row(line, None, None)
    target: Target | None
    if _COUNTRY.fullmatch(fields[0]):
        target = _country(fields[0], complaints)
        if target is None:
            complaints.append("the first field may not be ZZ; write a country or a prefix")
        elif not any(fields[2:]):
            complaints.append(f"a line for a country must name the region: {target},{target},eu")
    else:
        target = _network(fields[0], complaints)
    return target, _Row(line, _country(fields[1], complaints), _region(fields[2:], complaints))


def _country(text: str, complaints: list[str]) -> str | None:
    code = text.upper()
    if code in ("", "ZZ"):
        return None
    if not _COUNTRY.fullmatch(text) or region_of(code) is None:
        complaints.append(
            f"country {text!r} is not an ISO 3166-1 alpha-2 code such as BR;"
            " leave it empty or write ZZ for unknown"
        )
    return code


def _region(texts: list[str], complaints: list[str]) -> str | None:
    text = texts[0] if texts else ""
    if text and not CODE.fullmatch(text):
        complaints.append(
            f"region {text!r} is not 1 to 16 lower-case letters, digits or hyphens"
            " starting with a letter or digit"
        )
    return text or None


def _network(text: str, complaints: list[str]) -> Network | None:
    try:
        prefix = network(text)
    except ValueError as error:
        complaints.append(str(error))
        return None
    if prefix is None:
        complaints.append(
            f"{text!r} is neither an IPv4 or IPv6 prefix such as 10.0.0.0/8, an address,"
            " nor a country code"
        )
    return prefix
