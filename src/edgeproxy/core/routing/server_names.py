"""Which app a client means by the server name it asks for, and which names are valid.

A pattern is a name, `*.` before a name, or `*`. An exact name wins; then a wildcard, which
stands for exactly one label, as it does in certificates (RFC 9525 section 6.3): `*.example.com`
is neither `example.com` nor `a.b.example.com`. `*` is the default, for every other name and for
clients that name none. Without a default these have no app.

A lookup costs two dictionary accesses, however many patterns there are.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgeproxy.host_name import name_or_wildcard

DEFAULT = "*"


def pattern(text: str) -> str:
    """Return a pattern in its normal form. Raises ValueError, which says what is allowed."""
    if text == DEFAULT:
        return text
    name = name_or_wildcard(text)
    if name is None:
        raise ValueError(
            "allowed is a host name such as www.example.com, *.example.com for any one label "
            "before it, or * for every other client"
        )
    return name


class ServerNames:
    """The app of each server name. Immutable.

    Attributes:
        apps: The apps that names lead to.
    """

    __slots__ = ("_by_pattern", "_default", "apps")

    def __init__(self, apps: Mapping[str, str]) -> None:
        """Take apps by pattern.

        Raises ValueError for what is no pattern, and for two spellings of one pattern with
        different apps.
        """
        self._by_pattern: dict[str, str] = {}
        for text, app in apps.items():
            key = pattern(text)
            if self._by_pattern.setdefault(key, app) != app:
                raise ValueError(f"{key} is given twice, with different apps; keep one of them")
        self.apps = frozenset(self._by_pattern.values())
        self._default = self._by_pattern.pop(DEFAULT, None)

    def find(self, name: str | None) -> str | None:
        """Return the app that a name belongs to; None means that the client is refused.

        `name` is in normal form (`edgeproxy.host_name`), or None for a client that names none.
        """
        if name is None:
            return self._default
        app = self._by_pattern.get(name)
        if app is None:
            _, dot, parent = name.partition(".")
            app = self._by_pattern.get(f"*.{parent}") if dot else None
        return self._default if app is None else app


NO_SERVER_NAMES = ServerNames({})
