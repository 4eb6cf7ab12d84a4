"""The URL of a PostgreSQL server, and the settings of a store on one.

A URL may hold a password. Its text form masks it; `reveal` returns it. This module imports no
driver.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

from edgeproxy.values import BadValueError

DEFAULT_PORT = 5432
MASK = "***"
LEAST_SECRET_CHARS = 3
"""A shorter password would mask half of every message."""

_URL = re.compile(
    r"postgres(?:ql)?://(?P<authority>[^/?#]*)(?:/[^?#]*)?(?:\?(?P<query>[^#]*))?(?P<fragment>#.*)?"
)
_PASSWORD = re.compile(r"(?<=://)([^:@/?#]*):.*@")  # to the last @: rather too much than too little
_SECRET_PARAMETER = re.compile(r"([?&][a-z]*password=)[^&#]*", re.IGNORECASE)
_OF_LIBPQ = {
    *("channel_binding", "client_encoding", "connect_timeout", "fallback_application_name"),
    *("gssdelegation", "gssencmode", "load_balance_hosts", "sslcompression", "sslsni"),
    *("keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval"),
    "tcp_user_timeout",
}
"""Parameters for libpq alone: accepted, without an effect here."""
_UNKEPT = {"hostaddr", "replication", "require_auth", "requirepeer", "requiressl", "sslcrldir"}
"""Parameters of libpq that promise something that edgeProxy does not do: refused."""
_ALLOWED = (
    "allowed is a URL such as postgres://user:password@host:5432/database, with commas between "
    "several hosts; special characters of a password are written like %40"
)


class Host(NamedTuple):
    """One server of a URL; a name that begins with / is the folder of a Unix socket."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


class PostgresUrl:
    """A connection URL. Its text form has `***` in the place of passwords.

    Attributes:
        hosts: The hosts before the path, in their order; none if a parameter names them.
        parameters: The query parameters.
    """

    __slots__ = ("_text", "hosts", "parameters")

    def __init__(self, text: str) -> None:
        """Raises ValueError, which says what is wrong and does not repeat the text."""
        parts = _URL.fullmatch(text)  # urlsplit takes no list of hosts, in some versions
        if not text.isprintable() or parts is None:
            raise ValueError(_ALLOWED)
        self._text = text
        self.parameters = dict(parse_qsl(parts["query"] or "", keep_blank_values=True))
        authority = parts["authority"].rpartition("@")
        if "@" in authority[0]:
            raise ValueError(f"there is more than one @ before the database; {_ALLOWED}")
        names = [part.partition("=")[0] for part in (parts["query"] or "").split("&") if part]
        for name in names:
            is_kept = name in _OF_LIBPQ and self.parameters.get(name) != "require"
            if not is_kept and name in _OF_LIBPQ | _UNKEPT:
                raise ValueError(f"the parameter {name} is not supported: remove it; {_ALLOWED}")
            if not re.fullmatch(r"[\w.]+", name):  # masks would not know %70assword
                raise ValueError(f"a parameter has an invalid name; {_ALLOWED}")
        if parts["fragment"] or authority[0].partition(":")[2] == MASK:
            raise ValueError(f"the password is {MASK} or contains a # (write %23); {_ALLOWED}")
        self.hosts = tuple(map(_host, authority[2].split(","))) if authority[2] else ()

    def reveal(self) -> str:
        """Return the URL with its secrets, only for connecting.

        It leaves out the parameters of libpq alone, which the driver would send to the server.
        """
        rest, _, query = self._text.partition("?")
        kept = [part for part in query.split("&") if part.partition("=")[0] not in _OF_LIBPQ]
        return f"{rest}?{'&'.join(kept)}" if query and kept else rest

    def without_secrets(self, text: str) -> str:
        """Return a text, such as a message of the driver, without the passwords of this URL."""
        parts = _URL.fullmatch(self._text)
        assert parts is not None
        password = parts["authority"].rpartition("@")[0].partition(":")[2]
        for secret in (password, self.parameters.get("password", "")):
            for spelled in {secret, unquote(secret)}:
                if len(spelled) >= LEAST_SECRET_CHARS:
                    text = text.replace(spelled, MASK)
        return text

    def __str__(self) -> str:
        masked = _PASSWORD.sub(rf"\1:{MASK}@", self._text)
        return _SECRET_PARAMETER.sub(rf"\1{MASK}", masked)

    def __repr__(self) -> str:
        return f"PostgresUrl({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PostgresUrl) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """The PostgreSQL server with the routing database.

    Attributes:
        enabled: Whether backends come from the server instead of from a file.
        url: The URL of the server.
        max_connections: Maximum number of connections; one of them listens for changes.
        min_connections: How many connections stay open.
        connect_timeout_secs: How long one host may take to answer.
        query_timeout_secs: How long a read or an edit may take.
        reload_secs: Seconds between two checks for changes without a notification.
        snapshot: A local file that keeps the last good table for starts without the server.
    """

    enabled: bool = False
    url: PostgresUrl | None = None
    max_connections: int = 10
    min_connections: int = 2
    connect_timeout_secs: float = 5.0
    query_timeout_secs: float = 10.0
    reload_secs: float = 5.0
    snapshot: Path | None = None


def postgres_url(text: str) -> PostgresUrl:
    """Return a connection URL. Raises BadValueError, which does not repeat it."""
    try:
        return PostgresUrl(text)
    except ValueError as error:
        message = str(error)
        raise BadValueError(message if _ALLOWED in message else _ALLOWED) from None


def _host(text: str) -> Host:
    bracketed = re.fullmatch(r"\[([0-9a-fA-F:.%]+)\](?::([0-9]{1,5}))?", text)
    plain = re.fullmatch(r"([^:\[\]]*)(?::([0-9]{1,5}))?", text)
    match = bracketed or plain
    if match is None or not match[1]:
        raise ValueError(f"one of the hosts is not valid; {_ALLOWED}")
    port = int(match[2] or DEFAULT_PORT)
    if not 0 < port < 65536:
        raise ValueError(f"a port is from 1 to 65535; {_ALLOWED}")
    return Host(unquote(match[1]), port)
