"""The endpoints for operators and machines: control socket, metrics page, API.

Each endpoint is opened or inherited from a predecessor, served, handed to a successor, closed. They
are one list. An endpoint that the settings do not enable is not in the list, and its server is not
imported.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from heapq import nsmallest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeproxy.api.settings import NO_TOKEN, token_of
from edgeproxy.config.load import FILE_VARIABLE, Config
from edgeproxy.control.admin.socket_path import OFF, VARIABLE, make_folder, writable_default
from edgeproxy.control.admin.unix_socket import file_of, open_socket, remove
from edgeproxy.control.observe.access_log import STDOUT
from edgeproxy.control.observe.status import Status
from edgeproxy.engine.descriptors import CONTROL_SHARE, METRICS_SHARE, ceiling_of
from edgeproxy.engine.sockets import open_listener
from edgeproxy.errors import EdgeProxyError
from edgeproxy.listeners.opening import cannot_listen
from edgeproxy.log import EventLog
from edgeproxy.values import ListenAddress, Secret

if TYPE_CHECKING:
    import socket

    from edgeproxy.api.api import Api
    from edgeproxy.control.admin.pages import HttpPages
    from edgeproxy.control.observe.status_snapshot import Surroundings
    from edgeproxy.listeners.listeners import Listeners
    from edgeproxy.store.feed import Feed

log = EventLog("app")

API = "api"
METRICS = "metrics"
CONTROL_SOCKET = "console"
"""Names under which a successor finds the sockets: other versions know them, too."""

_DESCRIPTIONS = {
    API: "the API",
    METRICS: "the metrics page",
    CONTROL_SOCKET: "the control socket",
}


class _Endpoint(NamedTuple):
    """One endpoint; `open` returns the socket that was inherited, else a new one, None for none."""

    name: str
    open: Callable[[socket.socket | None], socket.socket | None]
    serve: Callable[[socket.socket], Awaitable[HttpPages | Api]]


class Endpoints:
    """The endpoints of one proxy."""

    def __init__(
        self,
        config: Config,
        status: Status,
        start_api: Callable[[socket.socket, Secret], Awaitable[Api]],
        upgrade: Callable[[], Awaitable[int]],
    ) -> None:
        """`upgrade` starts a successor and returns its process id."""
        self._control_socket = config.proxy.control_socket
        self._control_path: Path | None = None  # of the socket that is open
        self._control_file: tuple[int, int] | None = None
        self._proxy = config.proxy
        self._metrics = config.metrics
        self._api_settings = config.api
        self._status = status
        self._start_api = start_api
        self._upgrade = upgrade
        self._sockets: dict[str, socket.socket] = {}
        self._served: list[HttpPages | Api] = []
        self._api: Api | None = None
        self._token = NO_TOKEN
        self._endpoints = list(self._wanted())

    def open(self, inherited: dict[str, socket.socket]) -> None:
        """Open every endpoint, or take its socket out of `inherited`. Raises EdgeProxyError."""
        for each in self._endpoints:
            opened = each.open(inherited.pop(each.name, None))
            if opened is not None:
                self._sockets[each.name] = opened

    def surroundings(
        self, feed: Feed, listeners: Listeners, cluster: Mapping[str, Any] | None
    ) -> Surroundings:
        """Return where everything is that the proxy stands on, and whether it can be used."""
        from edgeproxy.control.observe.status_snapshot import MAX_SKIPPED, Surroundings

        skipped, database = feed.skipped, feed.path
        access_log = self._proxy.access_log
        config_file = os.environ.get(FILE_VARIABLE)
        return Surroundings(
            _whole(database) if isinstance(database, Path) else str(database),
            feed.fault,
            tuple(row.id for row in nsmallest(MAX_SKIPPED, skipped)),
            len(skipped),
            listeners.snapshots(),
            _whole(config_file) if config_file else None,
            None if self._control_path is None else _whole(self._control_path),
            None if access_log == OFF else _whole(access_log),
            self._address_of(METRICS),
            self._address_of(API),
            cluster,
        )

    def _address_of(self, name: str) -> str | None:
        """Return where an endpoint listens; None if it does not."""
        listening = self._sockets.get(name)
        if listening is None or listening.fileno() < 0:
            return None
        return str(ListenAddress(*listening.getsockname()[:2]))

    def sockets(self) -> dict[str, socket.socket]:
        """Return the open sockets by name, for a successor."""
        return dict(self._sockets)

    def by_description(self) -> dict[str, socket.socket]:
        """Return the open sockets by what each is to people."""
        return {_DESCRIPTIONS[name]: each for name, each in self._sockets.items()}

    async def serve(self) -> None:
        """Serve every endpoint that is open."""
        for each in self._endpoints:
            if each.name in self._sockets:
                self._served.append(await each.serve(self._sockets[each.name]))

    def refresh(self) -> bool:
        """Read the token of the API again, if the API is served."""
        return self._api is not None and self._api.refresh()

    def begin_drain(self) -> None:
        """Keep answering, but let no lease expire any more."""
        if self._api is not None:
            self._api.stop()

    def stop_listening(self) -> None:
        """Leave new connections to a successor."""
        for each in self._served:
            each.stop_listening()

    async def close(self) -> None:
        """Stop answering."""
        for each in self._served:
            await each.close()
        for listening in self._sockets.values():
            listening.close()  # some may not have been served yet

    def remove_files(self) -> None:
        """Remove the file of the control socket, unless another one is in its place now."""
        if self._control_path is not None:
            remove(self._control_path, self._control_file)

    def _wanted(self) -> list[_Endpoint]:
        wanted = []
        if self._control_socket != OFF:
            wanted.append(
                _Endpoint(CONTROL_SOCKET, self._open_control_socket, self._serve_control_socket)
            )
        if self._metrics.enabled:
            wanted.append(_Endpoint(METRICS, self._open_metrics, self._serve_metrics))
        if self._api_settings.enabled:
            wanted.append(_Endpoint(API, self._open_api, self._serve_api))
        return wanted

    def _open_control_socket(self, inherited: socket.socket | None) -> socket.socket | None:
        """Return the control socket. That of the default path may be missing, which is a warning.

        Another proxy of this machine may have it. Raises EdgeProxyError for a path that was set.
        """
        opened = inherited or self._new_control_socket()
        if opened is not None:
            self._control_path = Path(os.fsdecode(opened.getsockname()))
            self._control_file = file_of(self._control_path)
            log.info("control_socket", path=str(self._control_path))
        return opened

    def _new_control_socket(self) -> socket.socket | None:
        if self._control_socket:
            return _open_socket_in_folder(Path(self._control_socket))
        path = writable_default(os.environ)
        try:
            if path is not None:
                return open_socket(path)
            reason = "this user may write neither to /run/edgeproxy nor to XDG_RUNTIME_DIR"
        except EdgeProxyError as error:
            reason = str(error)
        log.warning(
            "control_socket_missing",
            reason=reason,
            hint=f"`edgeproxy status` and `drain` need one: set {VARIABLE} to a path of its own, "
            f"or to {OFF}",
        )
        return None

    async def _serve_control_socket(self, listening: socket.socket) -> HttpPages:
        from edgeproxy.control.admin.acceptor import CallerLimits
        from edgeproxy.control.admin.control_socket import control_pages

        limits = CallerLimits(ceiling=ceiling_of(CONTROL_SHARE), setting="EDGEPROXY_CONTROL_SOCKET")
        pages = control_pages(self._status, self._upgrade, limits)
        await pages.serve(listening)
        return pages

    def _open_metrics(self, inherited: socket.socket | None) -> socket.socket:
        return inherited or _open(self._metrics.listen_addr, "EDGEPROXY_METRICS_LISTEN_ADDR")

    async def _serve_metrics(self, listening: socket.socket) -> HttpPages:
        from edgeproxy.control.admin.acceptor import CallerLimits
        from edgeproxy.control.observe.metrics_page import metrics_page

        path = self._metrics.path
        limits = CallerLimits(
            self._metrics.allow, ceiling_of(METRICS_SHARE), "EDGEPROXY_METRICS_ALLOW"
        )
        pages = metrics_page(self._status.read, path, self._status.renderer, limits)
        address = ListenAddress(*listening.getsockname()[:2])
        await pages.serve(listening)
        log.info("metrics", listen=str(address), path=path)
        return pages

    def _open_api(self, inherited: socket.socket | None) -> socket.socket:
        self._token = token_of(self._api_settings)  # its fault is reported before clients come
        return inherited or _open(self._api_settings.listen_addr, "EDGEPROXY_API_LISTEN_ADDR")

    async def _serve_api(self, listening: socket.socket) -> Api:
        self._api = await self._start_api(listening, self._token)
        return self._api


def _whole(path: Path | str) -> str:
    """Return a path from the root, whoever asks for it from wherever; `-` is none."""
    return str(path) if path == STDOUT else str(Path(path).absolute())


def _open_socket_in_folder(path: Path) -> socket.socket:
    """Return a socket at a path that was set; make its folder. Raises EdgeProxyError."""
    try:
        make_folder(path)
    except OSError as error:
        raise EdgeProxyError(
            f"{VARIABLE}={str(path)!r}: its folder cannot be made: {error.strerror}"
        ) from None
    return open_socket(path)


def _open(wanted: ListenAddress, variable: str) -> socket.socket:
    """Return a listening socket. Raises EdgeProxyError, which names the variable."""
    try:
        return open_listener(wanted.host, wanted.port)
    except OSError as error:
        raise cannot_listen(wanted, error, variable) from None
