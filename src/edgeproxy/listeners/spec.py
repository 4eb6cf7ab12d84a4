"""Listeners and routes as the user writes them, and their parsers.

    EDGEPROXY_LISTENERS=0.0.0.0:8080=myapp,[::]:443=sni,0.0.0.0:8443=tls:myapp,unix:/run/x.sock=db

Each listener is ADDRESS=MODE. A mode is the name of an app, `*` for all apps as one pool,
`tls:` before either to speak TLS, or `sni` to pass TLS through to the app of the server name
that the client asks for.

`str` of each value is the text that it was parsed from, in its normal form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, ItemsView, Iterator
from typing import NamedTuple

from edgeproxy.core.routing.server_names import pattern
from edgeproxy.host_name import host_name
from edgeproxy.values import BadValueError, ListenAddress, listen_address

TCP, TLS, SNI = "tcp", "tls", "sni"
ALL_APPS_TEXT = "*"
VERSIONS = ("off", "v1", "v2")
UNIX = "unix:"
MAX_PATH_BYTES = 107
"""Maximum length of the path of a Unix socket, in bytes (unix(7))."""

_APP = re.compile(r"[^\s,:=*]{1,128}")


class UnixAddress(NamedTuple):
    """The path of a Unix socket to listen on."""

    path: str

    def __str__(self) -> str:
        return UNIX + self.path


class Listener(NamedTuple):
    """One address where clients are accepted.

    Attributes:
        address: The address to listen on.
        kind: `tcp`, `tls` or `sni`.
        app: The app whose backends its clients get; "" for all apps as one pool, and for `sni`.
    """

    address: ListenAddress | UnixAddress
    kind: str
    app: str = ""

    @property
    def mode(self) -> str:
        """What it does with its clients, as it is configured."""
        app = self.app or ALL_APPS_TEXT
        plain = f"{TCP}:{app}" if app in (TLS, SNI) else app
        return {TCP: plain, TLS: f"{TLS}:{app}", SNI: SNI}[self.kind]

    def __str__(self) -> str:
        return f"{self.address}={self.mode}"


class Route(NamedTuple):
    """The app that a server name leads to; see `core/routing/server_names`."""

    pattern: str
    app: str

    def __str__(self) -> str:
        return f"{self.pattern}={self.app}"


class ProxyProtocolOut(NamedTuple):
    """The version of the PROXY header that the backends of an app get; "" is all other apps."""

    app: str
    version: str

    def __str__(self) -> str:
        return f"{self.app}={self.version}" if self.app else self.version


class BackendTlsName(NamedTuple):
    """The name in the certificate of the backends of an app; "" is all other apps."""

    app: str
    server_name: str

    def __str__(self) -> str:
        return f"{self.app}={self.server_name}" if self.app else self.server_name


def listeners(text: str) -> tuple[Listener, ...]:
    """Return listeners with commas between. Raises BadValueError."""
    parsed = tuple(_listener(part) for part in _parts(text))
    addresses = [each.address for each in parsed if getattr(each.address, "port", None) != 0]
    if len(set(addresses)) < len(addresses):
        raise BadValueError("each address may occur only once")
    return parsed


def routes(text: str) -> tuple[Route, ...]:
    """Return routes with commas between: `www.example.com=myapp,*=other`. Raises BadValueError."""
    return tuple(Route(*each) for each in _pairs(text, _route))


def proxy_protocol_out(text: str) -> tuple[ProxyProtocolOut, ...]:
    """Return versions: `v2` for all, `myapp=v1,db=v2` for some. Raises BadValueError."""
    allowed = f"are {', '.join(VERSIONS)}, for one app as APP=VERSION"
    pairs = _by_app(text, lambda version: version if version in VERSIONS else None, allowed)
    return tuple(ProxyProtocolOut(*each) for each in pairs)


def backend_tls(text: str) -> tuple[BackendTlsName, ...]:
    """Return names: `NAME` for all backends, `APP=NAME` for some. Raises BadValueError."""
    allowed = "is the host name in the certificate of the backends, for one app as APP=NAME"
    return tuple(BackendTlsName(*each) for each in _by_app(text, host_name, allowed))


def _listener(part: str) -> Listener:
    where, equals, mode = (piece.strip() for piece in part.rpartition("="))
    if not equals:
        raise BadValueError(
            f"{part!r} is not ADDRESS=MODE, such as 0.0.0.0:8080=myapp or [::]:443=sni"
        )
    address = _address(where)
    if mode == SNI:
        return Listener(address, SNI)
    if mode == TLS:  # taken for an app, it would serve in the clear
        raise BadValueError(f"{part!r}: say for which app: tls:APP, or tls:* for all apps")
    kind, colon, app = mode.rpartition(":")
    if (colon and kind not in (TCP, TLS)) or not (app == ALL_APPS_TEXT or _APP.fullmatch(app)):
        raise BadValueError(
            f"{part!r}: allowed is the name of an app or * for all apps, each also with tls: "
            "before it, or sni"
        )
    return Listener(address, kind or TCP, "" if app == ALL_APPS_TEXT else app)


def _address(text: str) -> ListenAddress | UnixAddress:
    if not text.startswith(UNIX):
        return listen_address(text)
    path = text.removeprefix(UNIX)
    if not path.startswith("/") or len(path.encode()) > MAX_PATH_BYTES:
        raise BadValueError(
            f"{text!r}: allowed is unix:/PATH with up to {MAX_PATH_BYTES} bytes of path"
        )
    return UnixAddress(path)


def _route(part: str) -> tuple[str, str]:
    """Return the pattern and the app of `NAME=APP`. Raises BadValueError."""
    name, equals, app = (piece.strip() for piece in part.partition("="))
    try:
        key = pattern(name)
    except ValueError as error:
        raise BadValueError(f"{part!r}: {error}") from None
    if not equals or not _APP.fullmatch(app):
        raise BadValueError(f"{part!r} is not NAME=APP")
    return key, app


def _by_app(text: str, normalise: Callable[[str], str | None], allowed: str) -> ItemsView[str, str]:
    """Return app and value of each `APP=VALUE`, or "" and the value. Raises BadValueError."""

    def parse(part: str) -> tuple[str, str]:
        app, equals, written = (piece.strip() for piece in part.rpartition("="))
        value = normalise(written)
        if value is None or (equals and not _APP.fullmatch(app)):
            raise BadValueError(f"{part!r}: allowed {allowed}")
        return app, value

    return _pairs(text, parse)


def _pairs(text: str, parse: Callable[[str], tuple[str, str]]) -> ItemsView[str, str]:
    """Return key and value of each part; a key may be repeated only with the same value."""
    pairs: dict[str, str] = {}
    for part in _parts(text):
        key, value = parse(part)
        if pairs.setdefault(key, value) != value:
            raise BadValueError(
                f"{key or 'the value for all apps'} is given twice, with different values"
            )
    return pairs.items()


def _parts(text: str) -> Iterator[str]:
    return filter(None, (part.strip() for part in text.split(",")))
