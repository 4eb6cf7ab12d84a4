"""A gate that follows a script, writes everything down and watches how it is called."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from edgeproxy.engine.contract import (
    Answer,
    Client,
    CloseReason,
    Connect,
    DialFailure,
    Enter,
    FirstAnswer,
    HandshakeFailure,
    Identified,
    NeedMore,
    Preamble,
    Refuse,
    Wait,
)
from edgeproxy.engine.session_states import Outcome
from tests.conformance.peers import DEADLINE_SECS

Address = tuple[str, int]

STALE_SECS = 5.0
"""How old the `now` of a call may be; engines read the clock once per turn."""


ENDED_BY_NOBODY = (CloseReason.IDLE, CloseReason.ABORTED, CloseReason.FAULT)
"""Why a session ends that no peer has ended."""


class GateBugError(Exception):
    """Raised by a gate that was told to fail."""


@dataclass(eq=False)
class Ticket:
    """One `Connect` and everything the engine has told about it."""

    client: Address
    listener: str
    address: Address
    given_at: float
    preconnected_fd: int = -1
    dialed_at: float | None = None
    failure: str | None = None
    why: str = ""
    outcome: Outcome | None = None
    ended_at: float | None = None
    calls: list[str] = field(default_factory=list)


class ScriptedGate:
    """Dials the addresses of `route` in turn for every client, and then refuses it.

    Attributes:
        routes: Routes of listeners that have one of their own, by the listener's name.
        raising: Names of the methods that raise after they have written down the call.
        begin: Gives the descriptor of a connection to an address that is there already, or -1.
        read_preamble: Answers a preamble.
        let_in: Answers a client that arrives.
        arrived_clients: What was given to `arrived`, in order.
        entries: What was given out in `Enter` and has not ended.
        prefix: What every backend is told first.
        server_name: Whom every backend has to be, with TLS; "" for none.
        preambles, read_clients: What was given to `preamble_read`, in order.
        departures: What was given to `client_lost`, in order.
        opened_clients: What was given to `opened`, in order.
        after_opened: Called with every `opened`.
        slots: How many tickets there may be at once; who finds none free waits.
        slots_per_client: How many one address may have at once; it waits in a line of its own.
        site_of: Names the site of an address.
        askings: How often somebody who waits was asked about.
        asked_again_last: How many clients were asked about for the last time.
        standstills: What was given to `stood_still`.
        tickets: One for each `Connect`, in order.
        clients, abouts: The addresses given to `opened`, and what it was told about them.
        violations: Everything the engine did that the contract does not allow.
        thread_ids: Threads on which the gate was called.
    """

    def __init__(self, *route: Address, timeout_secs: float = 5.0) -> None:
        self.route: Sequence[Address] = route
        self.routes: dict[str, Sequence[Address]] = {}
        self.timeout_secs = timeout_secs
        self.raising: set[str] = set()
        self.tickets: list[Ticket] = []
        self.opened_clients: list[Client] = []
        self.violations: list[str] = []
        self.thread_ids: set[int] = set()
        self.begin: Callable[[Address], int] = lambda _address: -1
        self.read_preamble: Callable[[Preamble], NeedMore | Identified | Refuse] = (
            lambda _preamble: Identified()
        )
        self.let_in: Callable[[Client], Enter | Refuse] = lambda _client: Enter(object())
        self.arrived_clients: list[Client] = []
        self.entries: list[object] = []
        self.prefix = b""
        self.server_name = ""
        self.departures: list[tuple[Address, str, str]] = []
        self.preambles: list[Preamble] = []
        self.read_clients: list[Client] = []
        self.after_opened: Callable[[], object] | None = None
        self.ticks = 0
        self.slots: float = float("inf")
        self.slots_per_client: float = float("inf")
        self.site_of: Callable[[str], str] = lambda _address: ""
        self.askings = 0
        self.asked_again_last = 0
        self.standstills: list[float] = []
        self._attempts: dict[Ticket, int] = {}
        self._inside = threading.Lock()
        self._called = threading.Condition()
        self._latest = float("-inf")

    @property
    def clients(self) -> list[Address]:
        return [_address_of(client) for client in self.opened_clients]

    @property
    def abouts(self) -> list[object]:
        return [client.about for client in self.opened_clients]

    def arrived(self, client: Client, now: float) -> Enter | Refuse:
        with self._call("arrived", now):
            self.arrived_clients.append(client)
            self._perhaps_raise("arrived")
            answer = self.let_in(client)
            if isinstance(answer, Enter):
                self.entries.append(answer.entry)
            return answer

    def preamble_read(
        self, client: Client, preamble: Preamble, now: float
    ) -> NeedMore | Identified | Refuse:
        with self._call("preamble_read", now):
            self.preambles.append(preamble)
            self.read_clients.append(client)
            self._perhaps_raise("preamble_read")
            answer = self.read_preamble(preamble)
            if isinstance(answer, Refuse):
                self._leave(client)
            return answer

    def client_lost(self, client: Client, reason: str, now: float) -> None:
        with self._call("client_lost", now):
            self._leave(client)
            if reason not in [*HandshakeFailure, CloseReason.ABORTED]:
                self.violations.append(f"left for {reason!r}")
            self.departures.append((_address_of(client), client.listener, reason))
            self._perhaps_raise("client_lost")

    def opened(self, client: Client, now: float) -> FirstAnswer:
        with self._call("opened", now):
            if client.entry is not None:
                self._leave(client)
            self.opened_clients.append(client)
            if self.after_opened is not None:
                self.after_opened()
            self._perhaps_raise("opened")
            wait = self._wait(client)
            return wait or self._attempt(0, _address_of(client), client.listener, now)

    def asked_again(self, place: Client, now: float, *, is_last: bool) -> FirstAnswer:
        with self._call("asked_again", now):
            self.askings += 1
            self.asked_again_last += is_last
            self._perhaps_raise("asked_again")
            wait = self._wait(place)
            if wait is not None:
                return Refuse("full") if is_last else wait
            return self._attempt(0, _address_of(place), place.listener, now)

    def frees(self, ticket: Ticket) -> tuple[str, str]:
        self._perhaps_raise("frees")
        return "slots", ticket.client[0]

    def _wait(self, client: Client) -> Wait | None:
        """Return what a client has to wait for, if it has to."""
        hosts = [ticket.client[0] for ticket in self.unended()]
        if hosts.count(client.address) >= self.slots_per_client:
            line = client.address
        elif len(hosts) >= self.slots:
            line = "slots"
        else:
            return None
        return Wait(client, line, client.address, self.site_of(client.address))

    def dialed(self, ticket: Ticket, secs: float, now: float) -> None:
        with self._call("dialed", now, ticket):
            if ticket.dialed_at is not None:
                self.violations.append(f"dialed twice: {ticket}")
            least, most = (
                (0, 0) if ticket.preconnected_fd >= 0 else (1e-9, now - ticket.given_at + 0.001)
            )
            if not least <= secs <= most:
                self.violations.append(f"a dial of {secs} s does not fit: {ticket}")
            ticket.dialed_at = now
            self._perhaps_raise("dialed")

    def failed(self, ticket: Ticket, reason: str, now: float, why: str = "") -> Answer:
        with self._call("failed", now, ticket):
            if ticket.dialed_at is not None or reason not in list(DialFailure):
                self.violations.append(f"failed with {reason!r}: {ticket}")
            ticket.failure, ticket.why, ticket.ended_at = reason, why, now
            self._perhaps_raise("failed")
            attempt = self._attempts[ticket] + 1
            return self._attempt(attempt, ticket.client, ticket.listener, now)

    def closed(self, ticket: Ticket, outcome: Outcome, now: float) -> None:
        with self._call("closed", now, ticket):
            if outcome.reason not in list(CloseReason) or outcome.secs < 0:
                self.violations.append(f"{outcome}: {ticket}")
            if (outcome.first_byte_secs is not None) != (outcome.bytes_out > 0):
                self.violations.append(f"no time of the first byte, {outcome}: {ticket}")
            if outcome.bytes_out and not 0 <= (outcome.first_byte_secs or 0) <= outcome.secs:
                self.violations.append(f"a first byte at another time, {outcome}: {ticket}")
            if (outcome.ended_by is None) != (outcome.reason in ENDED_BY_NOBODY):
                self.violations.append(f"ended by somebody else, {outcome}: {ticket}")
            if ticket.dialed_at is None and (outcome.bytes_in or outcome.bytes_out):
                self.violations.append(f"bytes without a backend, {outcome}: {ticket}")
            ticket.outcome, ticket.ended_at = outcome, now
            self._perhaps_raise("closed")

    def stood_still(self, secs: float) -> None:
        self.standstills.append(secs)

    def tick(self, now: float) -> None:
        with self._call("tick", now):
            self.ticks += 1
            self._perhaps_raise("tick")

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Return as soon as a call has made `condition()` true; fail after DEADLINE_SECS."""
        with self._called:
            met = self._called.wait_for(condition, DEADLINE_SECS)
        assert met, f"not within {DEADLINE_SECS} s: {what}"

    def _leave(self, client: Client) -> None:
        """A client that was let in has ended, which it does exactly once."""
        if client.entry in self.entries:
            self.entries.remove(client.entry)
        else:
            self.violations.append(f"ended twice, or was never let in: {client}")

    def unended(self) -> list[Ticket]:
        """Return the tickets that have not ended yet."""
        return [ticket for ticket in self.tickets if ticket.ended_at is None]

    def check(self) -> None:
        """Fail if the rules of calling were broken or a ticket did not end exactly once."""
        for ticket in self.tickets:
            if sum(call in ("failed", "closed") for call in ticket.calls) != 1:
                self.violations.append(f"did not end exactly once: {ticket}")
        if self.entries:
            self.violations.append(f"{len(self.entries)} were let in and did not end")
        if len(self.thread_ids) > 1:
            self.violations.append(f"called on {len(self.thread_ids)} threads")
        assert not self.violations, "\n".join(self.violations)

    def _attempt(self, attempt: int, client: Address, listener: str, now: float) -> Answer:
        route = self.routes.get(listener, self.route)
        if attempt >= len(route):
            return Refuse("the route has ended")
        ticket = Ticket(client, listener, route[attempt], now, self.begin(route[attempt]))
        self._attempts[ticket] = attempt
        self.tickets.append(ticket)
        return Connect(
            ticket,
            route[attempt],
            self.timeout_secs,
            ticket.preconnected_fd,
            self.prefix,
            self.server_name,
        )

    @contextmanager
    def _call(self, method: str, now: float, ticket: Ticket | None = None) -> Iterator[None]:
        if not self._inside.acquire(blocking=False):
            self.violations.append(f"{method} was called during another call")
        self.thread_ids.add(threading.get_ident())
        clock = time.monotonic()
        if not max(self._latest, clock - STALE_SECS) <= now <= clock:
            self.violations.append(f"{method} came with now={now}, at {clock}")
        self._latest = now
        if ticket is not None:
            if ticket.ended_at is not None:
                self.violations.append(f"{method} came after the end: {ticket}")
            ticket.calls.append(method)
        try:
            yield
        finally:
            if self._inside.locked():
                self._inside.release()
            with self._called:
                self._called.notify_all()

    def _perhaps_raise(self, method: str) -> None:
        if method in self.raising:
            raise GateBugError(method)


def _address_of(client: Client) -> Address:
    return client.address, client.port
