"""A setting is declared once, by its key. Everything else about it follows from its section.

In the section `rate_limit` the key `burst` is `rate_limit.burst` in the file, `burst` in the part
`Config.rate_limit` and `EDGEPROXY_RATE_LIMIT_BURST` in the environment. A row of the table names
what differs from that, and nothing else. Its default is the one of the field: see `config.Config`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

PREFIX = "EDGEPROXY_"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        key: Its name within its section of the file.
        parse: Turns text into the value. Raises BadValueError.
        meaning: One line for the user; `config show` and the README print it.
        section: Its section in the file.
        part: The attribute of `Config` that holds it.
        field: Its field in that part.
        variable: Its environment variable.
        is_live: A change takes effect while the proxy runs.
        is_secret: Messages and files never show its text.
    """

    key: str
    parse: Callable[[str], object]
    meaning: str
    section: str
    part: str
    field: str
    variable: str
    is_live: bool
    is_secret: bool

    @property
    def file_key(self) -> str:
        """Return its section and key in the file, for instance `database.path`."""
        return f"{self.section}.{self.key}"


def setting(
    key: str,
    parse: Callable[[str], object],
    meaning: str,
    *,
    field: str = "",
    variable: str = "",
    live: bool = False,
    secret: bool = False,
) -> Setting:
    """Return a row for `section`, which fills in its section, its part and its variable."""
    return Setting(key, parse, meaning, "", "", field or key, variable, live, secret)


def section(
    name: str,
    *,
    rows: tuple[Setting, ...],
    part: str = "",
    variables: str | None = None,
    live: bool = False,
) -> tuple[Setting, ...]:
    """Return the settings of a section, or of one run of it: a section may be opened again.

    `part` is the attribute of `Config` for all rows, if it is not the name of the section.
    `variables` replaces the name of the section in the variables; "" leaves it out.
    """
    stem = name if variables is None else variables
    prefix = PREFIX + (f"{stem}_".upper() if stem else "")
    return tuple(
        replace(
            row,
            section=name,
            part=part or name,
            variable=row.variable or prefix + row.key.upper(),
            is_live=row.is_live or live,
        )
        for row in rows
    )
