"""What stands at the door: where clients are accepted, how they are met, and whom they are led to.

    EDGEPROXY_LISTENERS=0.0.0.0:8080=myapp,[::]:443=sni,0.0.0.0:8443=tls:myapp,unix:/run/x.sock=db

Each listener is ADDRESS=MODE. A mode is the name of an app, `*` for all apps as one pool,
`tls:` before either to speak TLS, or `sni` to pass TLS through to the app of the server name
that the client asks for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from edgeproxy.core.geo.prefix import Network
from edgeproxy.core.routing.server_names import host_name, pattern
from edgeproxy.values import BadValueError, ListenAddress, listen_address

TCP, TLS, SNI = "tcp", "tls", "sni"
ALL_APPS_TEXT = "*"
VERSIONS = ("off", "v1", "v2")
UNIX = "unix:"
MOST_PATH_BYTES = 107
"""Of a Unix socket (unix(7))."""

_APP = re.compile(r"[^\s,:=*]{1,128}")


class UnixAddress(NamedTuple):
    """The path of a Unix socket to listen on."""

    path: str

    def __str__(self) -> str:
        return UNIX + self.path


class Listener(NamedTuple):
    """One place where clients are accepted.

    Attributes:
        address: Where.
        kind: `tcp`, `tls` or `sni`.
        app: Whose clients they are; "" for all apps as one pool, and for `sni`.
    """

    address: ListenAddress | UnixAddress
    kind: str
    app: str = ""

    def __str__(self) -> str:
        app = self.app or ALL_APPS_TEXT
        mode = {TCP: app, TLS: f"tls:{app}", SNI: SNI}[self.kind]
        return f"{self.address}={mode}"


class Route(NamedTuple):
    """Which app is meant by a server name; see `core/routing/server_names`."""

    pattern: str
    app: str

    def __str__(self) -> str:
        return f"{self.pattern}={self.app}"


class ProxyProtocolOut(NamedTuple):
    """Which version of the PROXY protocol the backends of an app are told; "" is all others."""

    app: str
    version: str

    def __str__(self) -> str:
        return f"{self.app}={self.version}" if self.app else self.version


class BackendTlsName(NamedTuple):
    """The name that the backends of an app have a certificate for; "" is all other apps."""

    app: str
    server_name: str

    def __str__(self) -> str:
        return f"{self.app}={self.server_name}" if self.app else self.server_name


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """Several listeners, and what they and the backends say before the first byte of a client.

    Attributes:
        listen: The listeners; empty: the single one of `ProxySettings`.
        routes: The app of each server name.
        proxy_protocol_in: Networks of load balancers, which must send a PROXY header first.
        proxy_protocol_out: The PROXY header that the backends of an app get.
        backend_tls: The name in the certificate of backends that speak TLS.
        backend_tls_ca: PEM file of authorities that sign their certificates; None: the system's.
        client_setup_timeout_secs: How long a client may take for its PROXY header and server
            name, and then for the TLS handshake.
    """

    listen: tuple[Listener, ...] = ()
    routes: tuple[Route, ...] = ()
    proxy_protocol_in: tuple[Network, ...] = ()
    proxy_protocol_out: tuple[ProxyProtocolOut, ...] = ()
    backend_tls: tuple[BackendTlsName, ...] = ()
    backend_tls_ca: Path | None = None
    client_setup_timeout_secs: float = 5.0


def listeners(given: str) -> tuple[Listener, ...]:
    """Return listeners with commas between. Raises BadValueError."""
    found = tuple(_listener(each) for each in _parts(given))
    addresses = [each.address for each in found if getattr(each.address, "port", None) != 0]
    if len(set(addresses)) < len(addresses):
        raise BadValueError("each address may stand once")
    return found


def routes(given: str) -> tuple[Route, ...]:
    """Return routes with commas between: `www.example.com=myapp,*=other`. Raises BadValueError."""
    found: dict[str, str] = {}
    for each in _parts(given):
        name, equals, target = each.partition("=")
        try:
            key = pattern(name.strip())
        except ValueError as error:
            raise BadValueError(f"{each!r}: {error}") from None
        if not equals or not _APP.fullmatch(target.strip()):
            raise BadValueError(f"{each!r} is not NAME=APP")
        if found.setdefault(key, target.strip()) != target.strip():
            raise BadValueError(f"{key} is given twice, with different apps")
    return tuple(Route(*each) for each in found.items())


def proxy_out(given: str) -> tuple[ProxyProtocolOut, ...]:
    """Return versions: `v2` for all, `myapp=v1,db=v2` for some. Raises BadValueError."""
    found: dict[str, str] = {}
    for each in _parts(given):
        name, equals, version = (part.strip() for part in each.rpartition("="))
        if version not in VERSIONS or (equals and not _APP.fullmatch(name)):
            raise BadValueError(
                f"{each!r}: allowed are {', '.join(VERSIONS)}, for one app as APP=VERSION"
            )
        if found.setdefault(name, version) != version:
            raise BadValueError(f"{name or 'the version for all'} is given twice")
    return tuple(ProxyProtocolOut(*each) for each in found.items())


def backend_tls(given: str) -> tuple[BackendTlsName, ...]:
    """Return names: `NAME` for all backends, `APP=NAME` for those of one app.

    Raises BadValueError.
    """
    found: dict[str, str] = {}
    for each in _parts(given):
        app, equals, name = (part.strip() for part in each.rpartition("="))
        key = host_name(name)
        if key is None or (equals and not _APP.fullmatch(app)):
            raise BadValueError(
                f"{each!r}: allowed is the host name in the certificate of the backends, for "
                "one app as APP=NAME"
            )
        if found.setdefault(app, key) != key:
            raise BadValueError(f"{app or 'the name for all'} is given twice")
    return tuple(BackendTlsName(*each) for each in found.items())


def _listener(text: str) -> Listener:
    where, equals, mode = (part.strip() for part in text.rpartition("="))
    if not equals:
        raise BadValueError(
            f"{text!r} is not ADDRESS=MODE, such as 0.0.0.0:8080=myapp or [::]:443=sni"
        )
    address = _address(where)
    if mode == SNI:
        return Listener(address, SNI)
    kind, colon, app = mode.rpartition(":")
    if (colon and kind not in (TCP, TLS)) or not (app == ALL_APPS_TEXT or _APP.fullmatch(app)):
        raise BadValueError(
            f"{text!r}: allowed are the name of an app, * for all of them, either with tls: "
            "before it, and sni"
        )
    return Listener(address, kind or TCP, "" if app == ALL_APPS_TEXT else app)


def _address(text: str) -> ListenAddress | UnixAddress:
    if not text.startswith(UNIX):
        return listen_address(text)
    path = text.removeprefix(UNIX)
    if not path.startswith("/") or len(path.encode()) > MOST_PATH_BYTES:
        raise BadValueError(
            f"{text!r}: allowed is unix:/PATH with up to {MOST_PATH_BYTES} bytes of path"
        )
    return UnixAddress(path)


def _parts(given: str) -> Iterator[str]:
    return filter(None, (part.strip() for part in given.split(",")))
