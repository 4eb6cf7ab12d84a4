"""The one form in which names of servers are written, compared and shown.

That form is in lower case, without a trailing dot, and in ASCII: names in other scripts are in the
form that DNS and TLS carry (`xn--…`, RFC 5890). Every name goes through here: those that clients
ask for, those of certificates, routes, backends and settings. So no two parts can differ about
which names are the same.
"""

from __future__ import annotations

import re

MAX_CHARACTERS = 253
"""Maximum length of a host name without its trailing dot (RFC 1035 section 3.1)."""

_HOST_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_DOTTED_QUAD = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}")
_WILDCARD = "*."
_AMBIGUOUS = frozenset("ßẞς\u200c\u200d")
"""What the two editions of the standard (2003, 2008) write in different ways."""


def host_name(text: str) -> str | None:
    """Return a host name in normal form, None if it is not valid.

    Labels are of ASCII letters, digits, hyphens and, as many private names have them, underscores.
    An IPv4 address is no host name. Names in other scripts that could mean two names have to be
    given as `xn--…`.
    """
    if len(text) > MAX_CHARACTERS + 1:
        return None
    if not text.isascii():
        text = _in_ascii(text)
    name = text.removesuffix(".").lower()
    if len(name) > MAX_CHARACTERS:
        return None
    if not _HOST_NAME.fullmatch(name) or _DOTTED_QUAD.fullmatch(name):
        return None
    return name


def name_or_wildcard(text: str) -> str | None:
    """Return a host name, or one with `*.` before it, in normal form; None if it is not valid."""
    if not text.startswith(_WILDCARD):
        return host_name(text)
    name = host_name(text[len(_WILDCARD) :])
    return None if name is None else _WILDCARD + name


def _in_ascii(text: str) -> str:
    """Return a name in the form of DNS; "" if it has none."""
    if not _AMBIGUOUS.isdisjoint(text):
        return ""
    try:
        return text.encode("idna").decode("ascii")
    except UnicodeError:
        return ""
