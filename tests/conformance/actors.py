"""Plays a script on one rig, and shows what came of it."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Sequence
from typing import Any

from edgeproxy.engine.contract import CloseReason, SessionInfo
from edgeproxy.engine.session_states import Outcome
from tests.conformance.gates import Address, ScriptedGate, Ticket
from tests.conformance.peers import Backend, Stream
from tests.conformance.prospects import SLOTS, Prospect
from tests.conformance.rig import SMALL_BUFFER, Rig
from tests.conformance.script import Step
from tests.conformance.storm import Side

View = dict[str, Any]
Routes = dict[str, Sequence[Address]]

BLOCKED_SECS = 0.1
"""Who could not write a byte for so long is blocked."""


class Actor:
    """One session as it really goes: both its sides, and what the gate was told of it."""

    def __init__(self, slot: str, client: Side, server: Side, tickets_before: int) -> None:
        self.slot = slot
        self._tickets_before = tickets_before
        self._has_all_tickets = False
        self.sides = {"client": client, "server": server}
        self.address = client.peer.sock.getsockname() if client.peer is not None else None
        self.tickets: list[Ticket] = []
        self.errors = dict.fromkeys(self.sides, 0)
        self.moved_at = dict.fromkeys(self.sides, 0.0)

    def find_tickets(self, gate: ScriptedGate) -> None:
        """Take the tickets of this client; those before and after it may have had its port."""
        if not self._has_all_tickets and (not self.tickets or self.tickets[-1].failure):
            self._has_all_tickets = bool(self.sides["client"].saw)
            later = gate.tickets[self._tickets_before :]
            mine = (self.address, self.slot)
            self.tickets = [each for each in later if (each.client, each.listener) == mine]

    def pump(self) -> bool:
        """Move what can be moved on both sides."""
        moved = False
        for name, side in self.sides.items():
            if side.pump():
                self.moved_at[name] = time.monotonic()
                moved = True
        return moved

    def missing(self, prospect: Prospect) -> str:
        """Return what has not come about yet, "" if everything has."""
        for name, expected in prospect.ends.items():
            side = self.sides[name]
            if side.peer is None:
                return f"{name} is not there"
            unread = side.peer.unread_bytes() if side.stalled else 0
            for what, is_now, to_be in (
                ("received", side.received, expected.received),
                ("unread", unread, expected.unread),
                ("saw", side.saw, expected.saw),
            ):
                if to_be is not None and is_now != to_be:
                    return f"{name}: {what} {is_now!r}, not {to_be!r}"
        if not prospect.reason and (not self.tickets or self.tickets[-1].ended_at is not None):
            return "it is not being served"
        for name in prospect.blocked:
            side = self.sides[name]
            if not side.unsent or time.monotonic() - self.moved_at[name] < BLOCKED_SECS:
                return f"{name} is not blocked"
        reason = self.reason()
        if reason != prospect.reason:
            return f"{reason!r}, not {prospect.reason!r}"
        if reason == CloseReason.BACKEND_RESET:
            return self._not_heard_out()
        return ""

    def _not_heard_out(self) -> str:
        """A reset of the backend comes after everything that the engine had handed over."""
        client, outcome = self.sides["client"], self.tickets[-1].outcome
        if client.gone or not client.saw or outcome is None:
            return ""
        if client.received == outcome.bytes_out:
            return ""
        return f"client received {client.received} of {outcome.bytes_out}"

    def reason(self) -> str:
        """Return how the session was closed, as a `Prospect` says it."""
        outcome = self.tickets[-1].outcome if self.tickets else None
        if outcome is not None:
            return str(outcome.reason)
        client = self.sides["client"]
        failed = all(ticket.failure for ticket in self.tickets)
        return "refused" if failed and client.saw == "end" else ""

    def view(self, prospect: Prospect, routes: Routes, listed: list[SessionInfo]) -> View:
        """Return what can be seen of this session; an amount nobody can know is None."""
        shown: View = {
            name: (
                None if name in prospect.inexact else side.received,
                side.gone,
                side.saw,
                self._error(name),
            )
            for name, side in self.sides.items()
        }
        shown["tickets"] = [
            (
                routes[self.slot].index(ticket.address),
                ticket.calls,
                ticket.failure,
                ticket.outcome and (ticket.outcome.reason, *_carried(prospect, ticket.outcome)),
            )
            for ticket in self.tickets
        ]
        shown["listed"] = [
            (info.state, *_carried(prospect, info))
            for info in listed
            if self.tickets and info.ticket is self.tickets[-1]
        ]
        return shown

    def _error(self, name: str) -> str:
        """Return the error that its kernel holds against this side after the end it saw.

        Not before: to ask for an error takes it away from whoever reads. Nor from a writer,
        whose sending takes it.
        """
        if self.sides[name].broken:
            return "broken"
        side = self.sides[name]
        if side.peer is not None and not side.gone and side.saw and not self.errors[name]:
            self.errors[name] = side.peer.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return errno.errorcode.get(self.errors[name], "")

    def __repr__(self) -> str:
        return "\n".join(map(str, [*self.sides.values(), *self.tickets]))


class Performance:
    """One rig on which a script is played step by step."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.actors: dict[int, Actor] = {}
        self.prospects: dict[int, Prospect] = {}
        self._backends: dict[str, Backend] = {}
        self._shut: list[str] = []
        rig.prepare(ScriptedGate(timeout_secs=60))
        for slot, kind in SLOTS.items():
            buffer = SMALL_BUFFER if kind == "small" else None
            rig.listen(slot, buffer=buffer)
            if kind == "refused":
                rig.gate.routes[slot] = [rig.refusing_address(), rig.refusing_address()]
                continue
            self._backends[slot] = backend = rig.add_backend(buffer=buffer)
            rig.gate.routes[slot] = [backend.address]
            if kind == "silent":
                backend.fall_silent()
        rig.gate.routes["second"] = [rig.refusing_address(), self._backends["second"].address]
        rig.gate.routes["closed"] = []
        rig.start()

    # -- playing ----------------------------------------------------------------------

    def play(self, step: Step) -> None:
        """Do what the step says, and do not wait."""
        self.prospects.update(step.prospects)
        if step.side:
            side = self.actors[step.session].sides[step.side]
            side.act("send" if step.act == "flood" else step.act, step.size)
        else:
            getattr(self, f"_{step.act}")(step)

    def _connect(self, step: Step) -> None:
        number = step.session
        is_small = SLOTS[step.slot] == "small"
        tickets_before = len(self.rig.gate.tickets)
        peer = self.rig.connect(step.slot, buffer=SMALL_BUFFER if is_small else None)
        peer.sock.setblocking(False)
        up, down = Stream(2 * number), Stream(2 * number + 1)
        client, server = Side("client", up, down, peer), Side("server", down, up)
        self.actors[number] = Actor(step.slot, client, server, tickets_before)

    def _relent(self, step: Step) -> None:
        self._backends[step.slot].relent()

    def _abort(self, step: Step) -> None:
        tickets = self.actors[step.session].tickets
        self.rig.engine.close_sessions(lambda ticket: any(ticket is each for each in tickets))

    def _remove(self, step: Step) -> None:
        address = self._backends[step.slot].address
        self.rig.engine.close_sessions(lambda ticket: ticket.address == address)

    def _stop_accepting(self, _step: Step) -> None:
        self.rig.engine.stop_accepting()
        for slot in SLOTS:
            try:
                self.rig.connect(slot)
            except ConnectionRefusedError:
                self._shut.append(slot)

    def _stop(self, _step: Step) -> None:
        self.rig.engine.stop()

    # -- waiting and looking ----------------------------------------------------------

    def pump(self) -> bool:
        """Move what can be moved, everywhere."""
        moved = False
        for actor in self.actors.values():
            actor.find_tickets(self.rig.gate)
            server = actor.sides["server"]
            backend = self._backends.get(actor.slot)
            if server.peer is None and backend is not None and backend.has_waiting():
                server.peer = self.rig.accept(backend)
                server.peer.sock.setblocking(False)
            moved = actor.pump() or moved
        return moved

    def missing(self, step: Step) -> str:
        """Return what has not come about yet of what this step leads to, "" if all has."""
        for number, prospect in step.prospects.items():
            if missing := self.actors[number].missing(prospect):
                return f"session {number}: {missing}"
        return ""

    def view(self) -> View:
        """Return everything that can be seen from outside and of what the gate was told."""
        rig = self.rig
        routes, listed = rig.gate.routes, rig.engine.sessions()
        return {
            "live": rig.engine.live(),
            "asked": len(rig.gate.clients),
            "shut": self._shut,
            "violations": rig.gate.violations,
            **{
                f"session {number} on {actor.slot}": actor.view(
                    self.prospects[number], routes, listed
                )
                for number, actor in self.actors.items()
            },
        }


def _carried(prospect: Prospect, counted: Outcome | SessionInfo) -> tuple[int | None, int | None]:
    return (
        None if "server" in prospect.inexact else counted.bytes_in,
        None if "client" in prospect.inexact else counted.bytes_out,
    )
