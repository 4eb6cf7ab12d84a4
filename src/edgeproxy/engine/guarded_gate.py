"""Stands between an engine and its gate, so that a bug in a decision ends one client.

A gate must not raise. If it does, the traceback is logged, the client concerned is closed
and all other clients are still served.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from edgeproxy.engine.contract import (
    Answer,
    Client,
    CloseReason,
    Enter,
    FirstAnswer,
    Gate,
    Identified,
    NeedMore,
    Preamble,
    Refuse,
    Wait,
)
from edgeproxy.engine.session_states import Outcome
from edgeproxy.log import EventLog

log = EventLog("engine")


class GuardedGate:
    """Calls a gate as `engine.contract.Gate` says, and never raises.

    Attributes:
        is_awaited: Whether anybody waits for a ticket to end.
        freed: The lines that tickets which ended meanwhile may help; the reader clears it.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.is_awaited = False
        self.freed: set[Hashable] = set()

    def arrived(self, client: Client, now: float) -> Enter | Refuse:
        """Ask whether a client may begin with its preamble; refused if the gate fails."""
        try:
            answer = self._gate.arrived(client, now)
            if not isinstance(answer, Enter | Refuse):
                raise TypeError(f"a gate answers Enter or Refuse, not {answer!r}")
        except Exception:  # noqa: BLE001
            log.bug("gate_failed", call="arrived")
            return Refuse(CloseReason.FAULT)
        return answer

    def preamble_read(
        self, client: Client, preamble: Preamble, now: float
    ) -> NeedMore | Identified | Refuse | None:
        """Ask whether a preamble is complete; None if the gate fails."""
        try:
            answer = self._gate.preamble_read(client, preamble, now)
            if not isinstance(answer, NeedMore | Identified | Refuse):
                raise TypeError(f"a gate answers NeedMore, Identified or Refuse, not {answer!r}")
        except Exception:  # noqa: BLE001
            log.bug("gate_failed", call="heard")
            return None
        return answer

    def _note_end(self, ticket: Any) -> None:
        """A ticket is about to end: note whom that may help."""
        if not self.is_awaited:
            return
        try:
            self.freed.update(self._gate.frees(ticket))
        except Exception:  # noqa: BLE001
            log.bug("gate_failed", call="frees")

    def client_lost(self, client: Client, reason: str, now: float) -> None:
        """Tell the gate that a client was lost before admission."""
        try:
            self._gate.client_lost(client, reason, now)
        except Exception:  # noqa: BLE001
            log.bug("gate_failed", call="left")

    def opened(self, client: Client, now: float) -> FirstAnswer:
        """Ask what to do with a new client; refused if the gate fails."""
        try:
            answer = self._gate.opened(client, now)
            return answer if isinstance(answer, Wait) else _checked(answer)
        except Exception:  # noqa: BLE001
            log.bug("gate_failed", call="opened")
            return Refuse(CloseReason.FAULT)

    def asked_again(self, place: Any, now: float, *, is_last: bool) -> FirstAnswer:
        """Ask again about a client that waits for a slot; refused if the gate fails."""
        try:
            answer = self._gate.asked_again(place, now, is_last=is_last)
            return answer if isinstance(answer, Wait) and not is_last else _checked(answer)
        except Exception:  # noqa: BLE001
            log.bug("gate_failed", call="asked_again")
            return Refuse(CloseReason.FAULT)

    def dialed(self, ticket: Any, secs: float, now: float) -> bool:
        """Tell the gate that a backend answered. Return False if the session has to end."""
        try:
            self._gate.dialed(ticket, secs, now)
        except Exception:  # noqa: BLE001
            log.bug("gate_failed", call="dialed")
            return False
        return True

    def failed(self, ticket: Any, reason: str, now: float, why: str = "") -> Answer:
        """Ask what to do after a failed dial; refused if the gate fails."""
        self._note_end(ticket)
        try:
            return _checked(self._gate.failed(ticket, reason, now, why))
        except Exception:  # noqa: BLE001
            log.bug("gate_failed", call="failed")
            return Refuse(CloseReason.FAULT)

    def closed(self, ticket: Any, outcome: Outcome, now: float) -> None:
        """Tell the gate that a session has ended."""
        self._note_end(ticket)
        try:
            self._gate.closed(ticket, outcome, now)
        except Exception:  # noqa: BLE001
            log.bug("gate_failed", call="closed")

    def stood_still(self, secs: float) -> None:
        """Tell the gate that this process heard nobody for a while."""
        try:
            self._gate.stood_still(secs)
        except Exception:  # noqa: BLE001
            log.bug("gate_failed", call="stood_still")

    def tick(self, now: float) -> None:
        """Let the gate do its housekeeping."""
        try:
            self._gate.tick(now)
        except Exception:  # noqa: BLE001
            log.bug("gate_failed", call="tick")


def _checked(answer: FirstAnswer) -> Answer:
    if isinstance(answer, Answer):
        return answer
    raise TypeError(f"a gate answers Connect or Refuse, not {answer!r}")
