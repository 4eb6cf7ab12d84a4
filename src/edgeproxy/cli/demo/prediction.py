"""Predicts the proxy's decisions by running the same decision code on the same clients in order.

It is built from the same environment as the proxy, as `edgeproxy explain` does it. It opens no
connection. The demo compares its decisions with the backends that really answered.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from edgeproxy.config import load as config
from edgeproxy.control.geoip import Geo
from edgeproxy.core.admission.admission import Admission
from edgeproxy.core.admission.explanation import Decision, explain
from edgeproxy.core.admission.ticket import Refusal
from edgeproxy.store.sqlite.store import SqliteStore


class Predictor:
    """Decides as the proxy does. It counts every connection as open for good."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        settings = config.load(environ).config
        self._database = settings.database.path
        self._scope = settings.admission.app
        geo = Geo(settings.geo)
        self._admission = Admission(
            settings.admission, settings.affinity, settings.ejection, geo.locate
        )
        self.reload()

    def reload(self) -> None:
        """Read the routing database again."""
        store = SqliteStore(self._database)
        try:
            backends = store.read().backends
        finally:
            store.close()
        self._admission.publish(backends, (self._scope,))

    def connect(self, client_ip: str) -> Decision:
        """Return the decision for a client that connects now, and count its connection."""
        now = time.monotonic()
        decision = explain(self._admission, client_ip, self._scope, now)
        self._admission.admit(client_ip, self._scope, now)
        return decision

    def connect_to_dead(self, client_ip: str) -> Decision:
        """Count a failed dial to the client's backend; return the decision that follows."""
        now = time.monotonic()
        ticket = self._admission.admit(client_ip, self._scope, now)
        if not isinstance(ticket, Refusal):
            self._admission.failed(ticket, now)
        return explain(self._admission, client_ip, self._scope, now)


def why(decision: Decision) -> str:
    """Return a short text that says why this backend was chosen."""
    if decision.backend is None:
        return f"refused: {decision.how}"
    chosen = decision.candidates[0]
    place = f"{chosen.tier} {chosen.region}"
    region = decision.origin.region
    if region is None:
        place = f"region unknown: {place}"
    elif all(candidate.region != region for candidate in decision.candidates):
        place = f"none in {region}: {place}"
    return place if decision.how == "scored" else f"{decision.how}, {place}"


def why_not(decision: Decision, backend_id: str) -> str:
    """Return why this backend was not chosen, or how the chosen one was."""
    for candidate in decision.candidates:
        if candidate.id == backend_id and candidate.excluded:
            return f"{candidate.id} {candidate.excluded}"
    return decision.how
