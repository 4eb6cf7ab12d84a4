"""Publishes routing tables: the content of the database, with what the configuration adds.

A table is complete: backends, server names, and a scope for every app that a client can be led
to. So a client that is looked up in a table finds the backends of its app in it. Where the
database and the configuration both route a server name, the configuration counts.

Listeners stay in the scopes until the process ends, also when the configuration names them no
more: a client that they accepted may still be read, and one whose change failed is still open.

A row that leads to this proxy itself is skipped, for as long as it does: each client would be its
own next client, until no descriptor is left.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from edgeproxy.config.load import Config
from edgeproxy.control.cpu_yield import CpuYield
from edgeproxy.core.admission.admission import Admission
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.destination import NOTHING, Own
from edgeproxy.core.backends.local_overrides import Overlay, overlaid
from edgeproxy.core.metrics import Metrics
from edgeproxy.core.pacing import paced
from edgeproxy.core.routing.server_names import NO_SERVER_NAMES, ServerNames
from edgeproxy.listeners.spec import SNI
from edgeproxy.log import EventLog
from edgeproxy.process.removal import Removal
from edgeproxy.store.feed import Feed, Store
from edgeproxy.store.snapshot import SkippedRow, Snapshot

log = EventLog("store")


class Publisher:
    """Publishes routing tables, and knows which backends are in force.

    Attributes:
        backends: Those of the table.
        leading_here: The rows that are not in it because they lead to this proxy.
        own: The addresses of this proxy that the rows were judged by.
        published_at: When it was published (monotonic seconds); at first, when this was made.
    """

    def __init__(
        self,
        admission: Admission,
        removal: Removal,
        overlays: Callable[[], Mapping[str, Overlay]],
        config: Callable[[], Config],
        own: Callable[[], Own],
        metrics: Metrics,
    ) -> None:
        """`overlays` and `config` return those in force, `own` the addresses of this proxy."""
        self.own = NOTHING
        self._look = own
        self._metrics = metrics
        self.leading_here: frozenset[SkippedRow] = frozenset()
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

    def feed(self, store: Store, before_read: Callable[[], object] = int) -> Feed:
        """Return what reads this store and publishes its content."""
        return Feed(store, self.publish, self._metrics, before_read, lambda: self.leading_here)

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
        self.own = self._look()
        circular = self._leading_here(self.own)
        self._tell(circular)
        usable = snapshot.backends
        if circular:
            usable = tuple(each for each in usable if each not in circular)
        backends = overlaid(usable, self._overlays())
        self._admission.publish(backends, self._listener_scopes, names, self._rest)
        before, self.backends = self.backends, backends
        self._removal.follow(before, backends)
        self.published_at = time.monotonic()

    def follow_own(self) -> bool:
        """Judge the rows again if this proxy has other addresses; return whether that matters."""
        with self._publishing:
            own = self._look()
            if own == self.own:
                return False
            self.own = own
            if _skipped(self._leading_here(own)) == self.leading_here:
                return False
            self._publish(self._snapshot)
            return True

    def _leading_here(self, own: Own) -> dict[Backend, str]:
        """Return the rows that lead to this proxy, and to what of it."""
        return dict(own.circular(paced(self._snapshot.backends, self._rest)))

    def _tell(self, circular: dict[Backend, str]) -> None:
        """Name the rows that lead here as of now, and end their sessions."""
        before, self.leading_here = self.leading_here, _skipped(circular)
        new = self.leading_here - before
        self._metrics.rows_skipped += len(new)
        for row in new:
            log.warning("row_skipped", id=row.id, reason=row.reason)
        if new:
            ids = {row.id for row in new}
            self._removal.close_at(frozenset(each.address for each in circular if each.id in ids))


def _skipped(circular: Mapping[Backend, str]) -> frozenset[SkippedRow]:
    """Return the rows that lead to this proxy, and why they are skipped."""
    return frozenset(
        SkippedRow(
            each.id,
            f"wg_ip {each.wg_ip} with port {each.port} is {what} of this proxy: "
            "give the address of the backend itself",
        )
        for each, what in circular.items()
    )
