"""Decides what happens to the sessions of backends that are no longer in the routing table.

They are kept, closed, or closed after a grace period, as `proxy.on_remove` says at the moment of
the removal. A backend that returns within its grace period keeps its sessions; each removal has a
grace period of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from edgeproxy.core.admission.ticket import Ticket
from edgeproxy.core.backends.backend import Backend
from edgeproxy.engine.contract import Engine
from edgeproxy.log import EventLog

log = EventLog("app")

KEEP = "keep"
MAX_NAMED = 10
"""How many backends of one removal have a line in the log, those with the most connections."""


class Removal:
    """The removed backends of one proxy whose sessions are still open."""

    def __init__(
        self,
        engine: Engine,
        on_remove: Callable[[], str],
        call_soon: Callable[[Callable[[], object]], object],
    ) -> None:
        """`on_remove` returns the setting in force; `call_soon` runs a function on the loop."""
        self._engine = engine
        self._on_remove = on_remove
        self._call_soon = call_soon
        self._leaving: list[set[str]] = []  # ids by removal, within their grace period

    def follow(self, before: tuple[Backend, ...], after: tuple[Backend, ...]) -> None:
        """Take note that one table has replaced another; on any thread."""
        kind, _, secs = self._on_remove().partition(":")
        if kind == KEEP:
            return
        present = {each.id for each in after if not each.deleted}
        gone = {each.id for each in before if not each.deleted} - present
        self._call_soon(lambda: self._schedule(present, gone, float(secs or 0)))

    def close_at(self, addresses: frozenset[str]) -> None:
        """Close the sessions with backends at these addresses; on any thread."""
        self._engine.close_sessions(lambda ticket: ticket.backend.address in addresses)

    def _schedule(self, present: set[str], gone: set[str], grace_secs: float) -> None:
        """Close the sessions of `gone` later; backends that are `present` again keep theirs."""
        import asyncio

        for each in self._leaving:
            each.difference_update(present)
        if gone:
            self._leaving.append(gone)
            asyncio.get_running_loop().call_later(grace_secs, self._close_sessions, gone)

    def _close_sessions(self, gone: set[str]) -> None:
        # By identity: two removals of the same backends are equal sets.
        self._leaving = [each for each in self._leaving if each is not gone]
        closed: Counter[str] = Counter()

        def is_wanted(ticket: Ticket) -> bool:
            backend_id = ticket.backend.id
            if backend_id not in gone:
                return False
            closed[backend_id] += 1
            return True

        def tell() -> None:
            for backend_id, sessions in closed.most_common(MAX_NAMED):
                log.info("removed_sessions_closed", backend=backend_id, connections=sessions)

        if gone:
            self._engine.close_sessions(is_wanted)
            self._engine.call(tell)  # commands keep their order
