"""Publishes routing tables: the content of the database, with what the configuration adds.

A table is complete: backends, server names, and a scope for every app that a client can be led
to. So a client that is looked up in a table finds the backends of its app in it. Where the
database and the configuration both route a server name, the configuration counts.

Listeners stay in the scopes until the process ends, also when the configuration names them no
more: a client that they accepted may still be read, and one whose change failed is still open.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from edgeproxy.config.load import Config
from edgeproxy.control.cpu_yield import CpuYield
from edgeproxy.core.admission.admission import Admission
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.local_overrides import Overlay, overlaid
from edgeproxy.core.routing.server_names import NO_SERVER_NAMES, ServerNames
from edgeproxy.listeners.spec import SNI
from edgeproxy.process.removal import Removal
from edgeproxy.store.snapshot import Snapshot


class Publisher:
    """Publishes routing tables, and knows which backends are in force.

    Attributes:
        backends: Those of the table.
        published_at: When it was published (monotonic seconds); at first, when this was made.
    """

    def __init__(
        self,
        admission: Admission,
        removal: Removal,
        overlays: Callable[[], Mapping[str, Overlay]],
        config: Callable[[], Config],
    ) -> None:
        """`overlays` and `config` return those in force."""
        self.backends: tuple[Backend, ...] = ()
        self.published_at = time.monotonic()
        self._admission = admission
        self._removal = removal
        self._overlays = overlays
        self._config = config
        self._snapshot = Snapshot()
        self._listener_scopes: set[str] = set()
        self._routes_by_sni = False
        self._rest = CpuYield()
        self._publishing = threading.Lock()

    def publish(self, snapshot: Snapshot) -> None:
        """Put into force what the database holds; from any thread."""
        with self._publishing:
            self._snapshot = snapshot
            self._publish(snapshot)

    def publish_again(self) -> None:
        """Put the same rows into force, with what another configuration adds; from any thread."""
        with self._publishing:
            self._publish(self._snapshot)

    def _publish(self, snapshot: Snapshot) -> None:
        settings = self._config().listen_settings()
        self._listener_scopes |= {each.app for each in settings.listen if each.kind != SNI}
        self._routes_by_sni |= any(each.kind == SNI for each in settings.listen)
        names = NO_SERVER_NAMES
        if self._routes_by_sni:
            names = ServerNames(snapshot.routes | dict(settings.routes))
        backends = overlaid(snapshot.backends, self._overlays())
        self._admission.publish(backends, self._listener_scopes, names, self._rest)
        before, self.backends = self.backends, backends
        self._removal.follow(before, backends)
        self.published_at = time.monotonic()
