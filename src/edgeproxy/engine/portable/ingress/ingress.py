"""Takes clients of the portable engine from accept to admission.

Accepted → preread, if its listener wants a preamble → handshake, if it speaks TLS → admitted. If
there is either, the gate says first whether the client may begin. A client in here holds a
descriptor and nothing else of the engine.
"""

from __future__ import annotations

import select
from collections.abc import Iterator

from edgeproxy.engine.contract import Refuse
from edgeproxy.engine.guarded_gate import GuardedGate
from edgeproxy.engine.portable.acceptor import Acceptor
from edgeproxy.engine.portable.ingress.accepted import Accepted, AcceptedClients, Next
from edgeproxy.engine.portable.ingress.handshake import Handshakes
from edgeproxy.engine.portable.ingress.preread import Preread


class Ingress:
    """All clients that the gate has not been asked about. Used on the gate thread only.

    Its methods return what comes next for a client. That is never `HANDSHAKE`, which begins in
    here. Where the system has no room for a client, accepting pauses.
    """

    def __init__(self, epoll: select.epoll, gate: GuardedGate, acceptor: Acceptor) -> None:
        self._acceptor = acceptor
        self._gate = gate
        self._preread = Preread(epoll, gate)
        self._handshakes = Handshakes(epoll, gate)

    def __len__(self) -> int:
        return len(self._preread) + len(self._handshakes)

    def __contains__(self, descriptor: object) -> bool:
        return descriptor in self._preread or descriptor in self._handshakes

    def receive(self, accepted: Accepted, now: float) -> Next:
        """A client has connected."""
        settings = accepted.listener.settings
        if not settings.preamble_secs and settings.tls is None:
            return Next.ADMIT
        answer = self._gate.arrived(accepted.client, now)
        if isinstance(answer, Refuse):
            return Next.TURN_AWAY
        accepted.client = accepted.client._replace(entry=answer.entry)
        if settings.preamble_secs:
            return self._enter(self._preread, accepted, now, settings.preamble_secs)
        return self._begin_handshake(accepted, now)

    def happened(self, descriptor: int, mask: int, now: float) -> tuple[Accepted, Next]:
        """Something happened to a client in here."""
        if descriptor in self._handshakes:
            accepted = self._handshakes[descriptor]
            return accepted, self._handshakes.happened(accepted, now)
        accepted = self._preread[descriptor]
        step = self._preread.happened(accepted, mask, now)
        return accepted, self._after_preread(accepted, step, now)

    def excuse(self, secs: float) -> None:
        """Let all clients take longer by the seconds in which this process stood still."""
        self._preread.excuse(secs)
        self._handshakes.excuse(secs)

    def expire(self, judged_at: float, now: float) -> Iterator[tuple[Accepted, Next]]:
        """Return the clients that were not through at their deadlines, up to `judged_at`."""
        for accepted in self._preread.late(judged_at):
            step = self._preread.expire(accepted, now)
            yield accepted, self._after_preread(accepted, step, now)
        for accepted in self._handshakes.late(judged_at):
            yield accepted, self._handshakes.expire(accepted, now)

    def close(self, now: float) -> list[tuple[Accepted, Next]]:
        """Return all clients: they are given up."""
        return self._preread.give_up_all(now) + self._handshakes.give_up_all(now)

    def _after_preread(self, accepted: Accepted, step: Next, now: float) -> Next:
        return self._begin_handshake(accepted, now) if step is Next.HANDSHAKE else step

    def _begin_handshake(self, accepted: Accepted, now: float) -> Next:
        """Begin the handshake with an identified client, if its listener speaks TLS."""
        context, settings = accepted.listener.tls, accepted.listener.settings.tls
        if context is None or settings is None:
            return Next.ADMIT
        accepted.connection = context.wrap(accepted.connection)
        return self._enter(self._handshakes, accepted, now, settings.handshake_secs)

    def _enter(self, stage: AcceptedClients, accepted: Accepted, now: float, secs: float) -> Next:
        try:
            stage.add(accepted, now + secs)
        except OSError as error:
            self._acceptor.pause(str(error.strerror))
            return stage.give_up(accepted, now)
        return Next.WAIT
