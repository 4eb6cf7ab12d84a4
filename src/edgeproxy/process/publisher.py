"""Publishes routing tables: what the database holds, with what the configuration file adds.

Order: the admission gets the new table, then clients are routed by the new server names, then
the sessions of removed backends are seen to.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

from edgeproxy.core.admission.admission import Admission
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.local_overrides import Overlay, overlaid
from edgeproxy.listeners.listeners import Listeners
from edgeproxy.process.removal import Removal


class Publisher:
    """Publishes routing tables, and knows which backends are in force.

    Attributes:
        backends: Those of the table.
        published_at: When it was published (monotonic seconds); at first, when this was made.
    """

    def __init__(
        self,
        admission: Admission,
        listeners: Listeners,
        removal: Removal,
        overlays: Callable[[], Mapping[str, Overlay]],
    ) -> None:
        """`overlays` returns what the configuration file in force says of single backends."""
        self.backends: tuple[Backend, ...] = ()
        self.published_at = time.monotonic()
        self._admission = admission
        self._listeners = listeners
        self._removal = removal
        self._overlays = overlays
        self._rows: tuple[Backend, ...] = ()

    def publish(self, rows: tuple[Backend, ...]) -> None:
        """Put into force what the database holds."""
        self._rows = rows
        backends = overlaid(rows, self._overlays())
        self._admission.publish(backends, self._listeners.scopes(), os.sched_yield)
        self._listeners.lead()
        before, self.backends = self.backends, backends
        self._removal.follow(before, backends)
        self.published_at = time.monotonic()

    def publish_again(self) -> None:
        """Put the same rows into force with other overlays or scopes."""
        self.publish(self._rows)
