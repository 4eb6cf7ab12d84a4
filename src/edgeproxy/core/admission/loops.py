"""Finds clients that go round in circles: this proxy is, in the end, a client of itself.

Two proxies that name each other as backends, or a host that forwards a port to this proxy, make
each client the cause of the next one, until no descriptor is left. Nothing comes out of such a
circle, so only sessions whose backends have not sent a byte (*unanswered*) are looked at:

* A connection that this proxy made itself and accepts again, both ends of it in hand, is a circle.
* So are several sessions that have address and port of their client in common with another one, as
  a PROXY header tells them.
* If one address has more unanswered sessions than its `SHARE` of the descriptors, it is
  *suspected*: its clients are refused for a moment, the first few even if there is another
  backend. If its newest sessions then end by themselves, unanswered, it was a circle, in which all
  have one common end. If not, the address is only behind a slow backend, or a balancer: it is
  suspected again when it has twice as many.

What goes round is closed, and for `BARRED_SECS` the same address is not sent to the same backend.

A session costs one addition when it begins and one when it ends. Sessions are looked at when there
are more than before by a `STEP` of the descriptors, and once a second while there are many.
For the gate thread.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator

from edgeproxy.core.admission.ticket import Ticket

SHARE = 16
"""One of so many descriptors may be one address's unanswered session (it has two)."""
STEP = 64
"""So many looks are taken until all descriptors are used."""
LEAST_SHARE, LEAST_STEP = 16, 8
GROWTH = 4
"""With many sessions, a look is taken when there are more by one of so many."""
SAME_CLIENTS = 8
"""So many sessions of clients that have another one are a circle: a port may be used again soon."""
NEWEST = 64
"""How many sessions of the most frequent address are compared with this proxy's connections."""
NOTED, LEAST_NOTED = 8, 4
"""How many sessions show whether a suspicion is right."""
TURNED_AWAY = 4
"""How many of a suspected address get no backend at all: another one would answer, and hide the
circle."""
REFUSING_SECS = 1.0
"""How long clients are refused because of one suspicion: each may be another circle's next one."""
TRIAL_SECS = 5.0
"""How long the noted sessions may take to end: in a circle, one after another."""
BARRED_SECS = 30.0

Endpoint = tuple[str, int]
Unanswered = tuple[Ticket, int, bool, float]
"""A session: its ticket, the port of its client, whether one side has ended, its age in seconds."""
Ends = tuple[Ticket, Endpoint, Endpoint | None, Endpoint | None]
"""A session: its ticket, its client, and this host's ends towards the client and the backend."""
Pair = tuple[str, str]
"""The address of a client, and the id of a backend."""


class _Suspicion:
    """An address and a backend with too many unanswered sessions.

    Attributes:
        noted: Its newest sessions; the value tells whether a side of one had ended by then.
        refused: How many further ones were refused.
        refused_at: When the first of those was.
        ended: How many of the noted ones have ended unanswered.
    """

    __slots__ = ("ended", "noted", "refused", "refused_at")

    def __init__(self, noted: dict[Ticket, bool]) -> None:
        self.noted = noted
        self.refused = 0
        self.refused_at = 0.0
        self.ended = 0

    def is_confirmed(self, sessions: Iterable[Unanswered]) -> bool:
        """Return whether nearly all noted sessions end by themselves since one was refused."""
        ending = sum(
            is_half_closed and not self.noted.get(ticket, True)
            for ticket, _, is_half_closed, _ in sessions
        )
        return self.refused > 0 and 4 * (ending + self.ended) >= 3 * len(self.noted)

    def is_refuted(self, now: float) -> bool:
        """Return whether they have had the time to end."""
        return self.refused > 0 and now - self.refused_at >= TRIAL_SECS


class LoopGuard:
    """Watches the sessions of one proxy.

    Attributes:
        is_watching: Whether any address is suspected or barred.
    """

    def __init__(self) -> None:
        self.watch(lambda: sys.maxsize, tuple, lambda _: (), lambda _: None)
        self._open = 0
        self._step = LEAST_STEP
        self._look_at = LEAST_STEP
        self._suspected: dict[Pair, _Suspicion] = {}
        self._barred: dict[Pair, float] = {}
        self._allowances: dict[str, int] = {}  # of addresses that were wrongly suspected
        self.is_watching = False

    def watch(
        self,
        descriptors: Callable[[], int],
        unanswered: Callable[[], Iterable[Unanswered]],
        ends: Callable[[Collection[Ticket]], Iterable[Ends]],
        close: Callable[[Collection[Ticket]], object],
    ) -> None:
        """Watch the sessions that these functions tell of.

        `descriptors` returns how many the engine may use; `close` ends sessions soon.
        """
        self._descriptors = descriptors
        self._unanswered = unanswered
        self._ends = ends
        self._close = close

    def is_barred(self, client: str, backend_id: str) -> bool:
        """Return whether this client goes round if it is sent to this backend."""
        return (client, backend_id) in self._barred

    def is_suspected(self, client: str, backend_id: str, now: float) -> bool:
        """Return whether this client may go round with this backend; if so, it is refused."""
        suspicion = self._suspected.get((client, backend_id))
        if suspicion is None:
            return False
        if not suspicion.refused:
            suspicion.refused_at = now
        elif now - suspicion.refused_at >= REFUSING_SECS:
            return False
        suspicion.refused += 1
        return True

    def may_be_elsewhere(self, client: str, backend_id: str) -> bool:
        """Return whether this suspected client may be sent to another backend."""
        return self._suspected[client, backend_id].refused > TURNED_AWAY

    def begun(self, now: float) -> None:
        """A session has begun."""
        self._open += 1
        if self._open >= self._look_at:
            self._look(now)

    def ended(self, ticket: Ticket, *, unanswered: bool) -> None:
        """A session has ended."""
        self._open -= 1
        if self._open + 2 * self._step < self._look_at:
            self._plan_look()
        if self.is_watching and unanswered:
            for suspicion in self._suspected.values():
                suspicion.ended += ticket in suspicion.noted

    def tick(self, now: float) -> None:
        """Review suspicions; look at many sessions even if they do not become more."""
        if self.is_watching or self._open >= self._share():
            self._look(now)

    def _share(self) -> int:
        return max(LEAST_SHARE, self._descriptors() // SHARE)

    def _plan_look(self) -> None:
        self._step = max(LEAST_STEP, self._descriptors() // STEP, self._open // GROWTH)
        self._look_at = self._open + self._step

    def _look(self, now: float) -> None:
        self._plan_look()
        by_client: dict[str, list[Unanswered]] = defaultdict(list)
        for each in self._unanswered():
            by_client[each[0].client].append(each)
        circular = {
            *_of_same_clients(by_client),
            *self._of_own_ends(by_client),
            *self._of_barred(by_client),
        }
        share = self._share()
        for pair, suspicion in list(self._suspected.items()):
            found = [each for each in by_client.get(pair[0], ()) if _pair(each[0]) == pair]
            if suspicion.is_confirmed(found):
                circular |= {t for t, _, half, _ in found if half or t in suspicion.noted}
                self._barred[pair] = now + BARRED_SECS
            elif suspicion.is_refuted(now):
                self._allowances[pair[0]] = 2 * len(by_client.get(pair[0], ()))
            elif 2 * len(found) > share:
                continue
            del self._suspected[pair]
        for ticket in circular:
            self._barred[_pair(ticket)] = now + BARRED_SECS
        for client, sessions in by_client.items():
            others = [each for each in sessions if each[0] not in circular]
            if len(others) > self._allowances.get(client, share):
                self._suspect(client, others)
        self._barred = {pair: until for pair, until in self._barred.items() if until > now}
        for client, allowance in list(self._allowances.items()):
            if 4 * len(by_client.get(client, ())) < allowance:
                del self._allowances[client]
        self.is_watching = bool(self._suspected or self._barred)
        if circular:
            self._close(circular)

    def _suspect(self, client: str, sessions: list[Unanswered]) -> None:
        """Suspect this client with the backends that nearly all of these sessions are with."""
        by_backend: dict[str, list[Unanswered]] = defaultdict(list)
        for each in sessions:
            by_backend[each[0].backend.id].append(each)
        left = len(sessions)
        for backend_id, some in sorted(by_backend.items(), key=lambda item: -len(item[1])):
            if left * SHARE <= len(sessions) or len(some) < LEAST_NOTED:
                return
            left -= len(some)
            noted = {ticket: half for ticket, _, half, _ in _newest(some, NOTED)}
            self._suspected.setdefault((client, backend_id), _Suspicion(noted))

    def _of_barred(self, by_client: dict[str, list[Unanswered]]) -> Iterator[Ticket]:
        """Yield the sessions of barred clients that have begun to end, unanswered."""
        if self._barred:
            for sessions in by_client.values():
                for ticket, _, is_half_closed, _ in sessions:
                    if is_half_closed and _pair(ticket) in self._barred:
                        yield ticket

    def _of_own_ends(self, by_client: dict[str, list[Unanswered]]) -> Iterator[Ticket]:
        """Yield the sessions whose client, or whose backend, is a connection of this proxy."""
        sessions = max(by_client.values(), key=len, default=[])
        if len(sessions) < SAME_CLIENTS:
            return
        found = list(self._ends({ticket for ticket, *_ in _newest(sessions, NEWEST)}))
        dialed = {
            (dialed_from, (ticket.backend.wg_ip, ticket.backend.port)): ticket
            for ticket, _, _, dialed_from in found
        }
        for ticket, client, accepted_at, _ in found:
            cause = dialed.get((client, accepted_at or client))
            if cause is not None:
                yield ticket
                yield cause


def _of_same_clients(by_client: dict[str, list[Unanswered]]) -> Iterator[Ticket]:
    """Yield the sessions with one backend that have their client's address and port in common."""
    by_backend: dict[str, dict[Endpoint, list[Ticket]]] = defaultdict(lambda: defaultdict(list))
    for client, sessions in by_client.items():
        for ticket, port, *_ in sessions:
            if port:  # clients of Unix sockets have none
                by_backend[ticket.backend.id][client, port].append(ticket)
    for by_endpoint in by_backend.values():
        same = [tickets for tickets in by_endpoint.values() if len(tickets) > 1]
        if sum(map(len, same)) >= SAME_CLIENTS:
            for tickets in same:
                yield from tickets


def _newest(sessions: list[Unanswered], count: int) -> list[Unanswered]:
    return sorted(sessions, key=lambda each: each[3])[:count]


def _pair(ticket: Ticket) -> Pair:
    return ticket.client, ticket.backend.id
