"""Parsers of settings: each turns text into a value, or raises `BadValueError`.

The message of the error says what is wrong and what is allowed.
"""

from __future__ import annotations

import ipaddress
import math
import re
import shlex
from collections.abc import Callable
from typing import NamedTuple

from edgeproxy.core.backends.rows import MAX_NAME_CHARS
from edgeproxy.core.geo.prefix import Network, network
from edgeproxy.core.geo.regions import CODE

TRUE = ("true", "1", "yes", "on")
FALSE = ("false", "0", "no", "off")

_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")
_NETWORKS = (
    "allowed are IPv4 and IPv6 prefixes and addresses with commas between, such as "
    "10.0.0.0/8,2001:db8::/32"
)
_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")
_PROTOCOL = re.compile(r"[!-+\--~]{1,255}")  # no comma
_PROTOCOLS_BYTES = 65535


class BadValueError(ValueError):
    """The text is not allowed; the message says what is."""


class Secret:
    """Text that messages, logs and `config show` never print."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __str__(self) -> str:
        return "(hidden)" if self._text else ""

    __repr__ = __str__


class ListenAddress(NamedTuple):
    """An IP address and a port to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def boolean(text: str) -> bool:
    """Return a boolean: true/false, 1/0, yes/no, on/off, in any case."""
    word = text.strip().lower()
    if word not in TRUE + FALSE:
        raise BadValueError(f"allowed are {'/'.join(TRUE)} and {'/'.join(FALSE)}")
    return word in TRUE


def number(unit: str, least: float) -> Callable[[str], float]:
    """Return a parser of finite numbers that are not below `least`."""

    def parse(text: str) -> float:
        parsed = float(text) if _NUMBER.fullmatch(text.strip()) else math.nan
        if not math.isfinite(parsed) or parsed < least:
            raise BadValueError(f"allowed is a number of {unit}, {least:g} or more")
        return parsed

    return parse


seconds = number("seconds", least=0)
interval = number("seconds", least=0.05)


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a parser of whole numbers from `least` to `most`."""
    bounds = f"from {least} to {most}" if most is not None else f"{least} or more"

    def parse(text: str) -> int:
        parsed = int(text) if _WHOLE_NUMBER.fullmatch(text.strip()) else least - 1
        if parsed < least or (most is not None and parsed > most):
            raise BadValueError(f"allowed is a whole number, {bounds}")
        return parsed

    return parse


def one_of(*words: str) -> Callable[[str], str]:
    """Return a parser that accepts only these words."""

    def parse(text: str) -> str:
        if text not in words:
            raise BadValueError(f"allowed are {', '.join(words)}")
        return text

    return parse


def matching(pattern: str, allowed: str) -> Callable[[str], str]:
    """Return a parser of texts that match a pattern as a whole."""
    compiled = re.compile(pattern)

    def parse(text: str) -> str:
        if not compiled.fullmatch(text):
            raise BadValueError(allowed)
        return text

    return parse


region = matching(
    CODE.pattern,
    "allowed is a code of up to 16 lower-case letters, digits and hyphens, such as sa",
)
http_path = matching("/[!-~]*", "allowed is a path in ASCII without spaces, such as /health")
page_path = matching(
    r"/(?!/)[!\"$->@-~]*",  # a path with a query would never match a request
    "allowed is a path in ASCII with one / before it and without spaces, ? and #, such as /metrics",
)
host_header = matching(
    r"[A-Za-z0-9._:\[\]-]{1,255}",
    "allowed is a host name, with a port if need be, such as app.example",
)
on_remove = matching(
    r"keep|close|drain:[0-9]+(\.[0-9]+)?",
    "allowed are keep, close and drain:SECONDS, such as drain:30",
)
_token = matching(
    "[!-~]{1,4096}", "allowed are 1 to 4096 printable ASCII characters without spaces"
)


def secret(text: str) -> Secret:
    """Return a token that an HTTP header can carry."""
    return Secret(_token(text))


def text(text: str) -> str:
    """Return printable text."""
    if not text.isprintable():
        raise BadValueError("allowed is printable text")
    return text


def name(text: str) -> str:
    """Return a name: printable, and short enough for the database."""
    if not text.strip() or not text.isprintable() or len(text) > MAX_NAME_CHARS:
        raise BadValueError(f"allowed are 1 to {MAX_NAME_CHARS} printable characters")
    return text


def listen_address(text: str) -> ListenAddress:
    """Return an address to listen on, for instance `0.0.0.0:8080` or `[::]:8080`."""
    host, colon, port = text.rpartition(":")
    if host == "localhost":
        host = "127.0.0.1"
    try:
        if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError
        bracketed = host.startswith("[") and host.endswith("]")
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
        if bracketed != (address.version == 6):
            raise ValueError
    except ValueError:
        raise BadValueError(
            "allowed is ADDRESS:PORT with an IP address and a port from 0 to 65535, "
            "such as 0.0.0.0:8080 or [::]:8080"
        ) from None
    return ListenAddress(str(address), int(port))


def ip_address_text(text: str) -> str:
    """Return an IP address in its normal form."""
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        raise BadValueError("allowed is an IPv4 or IPv6 address, such as 10.50.0.1") from None


def networks(text: str) -> tuple[Network, ...]:
    """Return networks separated by commas, for instance `10.0.0.0/8,2001:db8::/32`.

    Text without a network, such as ",", is refused: an empty list would allow every client.
    """
    found: list[Network] = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        try:
            parsed = network(entry)
        except ValueError as error:
            raise BadValueError(str(error)) from None
        if parsed is None:
            raise BadValueError(f"{entry!r} is not a network; {_NETWORKS}")
        found.append(parsed)
    if text and not found:
        raise BadValueError(f"the list is empty; {_NETWORKS}; unset the setting for no list")
    return tuple(found)


def protocols(text: str) -> tuple[str, ...]:
    """Return names of ALPN protocols separated by commas, for instance `h2,http/1.1`."""
    names = tuple(filter(None, (part.strip() for part in text.split(","))))
    fits = sum(len(name) + 1 for name in names) <= _PROTOCOLS_BYTES
    if not fits or len(set(names)) < len(names) or not all(map(_PROTOCOL.fullmatch, names)):
        raise BadValueError(
            "allowed are names of protocols in ASCII, each once and of up to 255 characters, with "
            "commas between, such as h2,http/1.1"
        )
    return names


def command(text: str) -> str:
    """Return a command as a shell would split it."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise BadValueError(f"{error}; allowed is a command as a shell splits it") from None
    if not words:
        raise BadValueError("allowed is a command, such as /usr/local/bin/check --fast")
    return text
