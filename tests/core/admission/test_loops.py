"""Who goes round is found by what comes of it; who only waits is not."""

from __future__ import annotations

import itertools
from collections.abc import Collection

import pytest

from edgeproxy.core.admission.admission import Admission, AdmissionSettings
from edgeproxy.core.admission.affinity import AffinitySettings
from edgeproxy.core.admission.loops import (
    BARRED_SECS,
    NOTED,
    SAME_CLIENTS,
    SHARE,
    TRIAL_SECS,
    TURNED_AWAY,
    Ends,
    LoopGuard,
)
from edgeproxy.core.admission.ticket import Ticket
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.ejection import EjectionSettings
from edgeproxy.core.geo.origin import Origin

DESCRIPTORS = 1600
BACKENDS = [
    Backend(each, each, "sa", f"10.0.0.{n}", 80, hard_limit=0) for n, each in enumerate("abcd")
]
PEER, CLIENT = "10.0.0.66", "192.0.2.1"
HERE = ("10.0.0.1", 8080)


class Sessions:
    """The sessions of a proxy: whose backend has not spoken, and what the guard has closed.

    Attributes:
        looks: How often the guard has looked.
    """

    def __init__(self) -> None:
        self.guard = LoopGuard()
        self.guard.watch(lambda: DESCRIPTORS, self._unanswered, self._ends, self._close)
        self.open: dict[Ticket, tuple[int, bool]] = {}
        self.ends: dict[Ticket, Ends] = {}
        self.looks = 0
        self.closed: set[Ticket] = set()
        self.now = 0.0
        self._admission = Admission(
            AdmissionSettings(), AffinitySettings(), EjectionSettings(), Origin
        )
        self._admission.publish(BACKENDS, [each.app for each in BACKENDS])
        self._port = 1024

    def begin(self, client: str = CLIENT, app: str = "a", port: int | None = None) -> Ticket | None:
        """Begin a session; None if the guard refuses the client."""
        if self.guard.is_barred(client, app) or self.guard.is_suspected(client, app, self.now):
            return None
        ticket = self._admission.admit(client, app, 0.0)
        assert isinstance(ticket, Ticket)
        self._port += 1
        self.guard.begun(0.0)
        self.open[ticket] = (self._port if port is None else port, False)
        return ticket

    def begin_until_refused(self, client: str) -> list[Ticket]:
        """Begin sessions until the guard refuses the client."""
        begun = []
        while (ticket := self.begin(client)) is not None:
            begun.append(ticket)
        return begun

    def tick(self, now: float) -> None:
        """The time goes on."""
        self.now = now
        self.guard.tick(now)

    def begin_many(self, count: int, client: str = CLIENT, app: str = "a") -> list[Ticket]:
        """Begin sessions, as many of them as the guard allows."""
        return [ticket for _ in range(count) if (ticket := self.begin(client, app)) is not None]

    def half_close(self, *tickets: Ticket) -> None:
        """A side of these has ended."""
        for ticket in tickets:
            self.open[ticket] = (self.open[ticket][0], True)

    def end(self, *tickets: Ticket, unanswered: bool = True) -> None:
        """These have ended."""
        for ticket in tickets:
            del self.open[ticket]
            self.guard.ended(ticket, unanswered=unanswered)

    def answer(self, *tickets: Ticket) -> None:
        """The backends of these have spoken; the sessions go on."""
        for ticket in tickets:
            del self.open[ticket]

    def _unanswered(self) -> list[tuple[Ticket, int, bool, float]]:
        self.looks += 1
        return [
            (ticket, port, is_half_closed, float(len(self.open) - number))
            for number, (ticket, (port, is_half_closed)) in enumerate(self.open.items())
        ]

    def _ends(self, wanted: Collection[Ticket]) -> list[Ends]:
        return [self.ends[ticket] for ticket in wanted if ticket in self.ends]

    def _close(self, tickets: Collection[Ticket]) -> None:
        self.closed |= set(tickets)


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


def test_a_circle_takes_no_more_than_its_share_and_comes_apart(sessions: Sessions) -> None:
    begun = sessions.begin_until_refused(PEER)
    assert DESCRIPTORS // SHARE <= len(begun) < DESCRIPTORS // 8
    assert sessions.begin(CLIENT) is not None
    assert sessions.begin(PEER, "b") is not None
    sessions.half_close(*begun)
    sessions.tick(1.0)
    assert sessions.closed == set(begun)
    sessions.end(*begun)
    for now in range(2, 30):
        sessions.tick(float(now))
        assert sessions.begin(PEER) is None
    sessions.tick(1.0 + BARRED_SECS)
    assert sessions.begin(PEER) is not None
    assert not sessions.guard.is_watching


def test_a_few_of_a_suspected_address_get_no_other_backend_either(sessions: Sessions) -> None:
    """It would answer all who go round, and each further client could go round again."""
    sessions.begin_until_refused(PEER)  # the first
    for _ in range(TURNED_AWAY):
        assert not sessions.guard.may_be_elsewhere(PEER, "a")
        assert sessions.begin(PEER) is None
    assert sessions.guard.may_be_elsewhere(PEER, "a")


def test_a_circle_whose_first_client_has_already_ended_its_side_is_one_too(
    sessions: Sessions,
) -> None:
    begun: list[Ticket] = []
    while (ticket := sessions.begin(PEER)) is not None:
        sessions.half_close(*begun[-2:])
        begun.append(ticket)
    sessions.half_close(*begun)
    sessions.tick(0.1)
    assert not sessions.guard.is_barred(PEER, "a")
    sessions.end(*begun)
    sessions.tick(1.0)
    assert sessions.guard.is_barred(PEER, "a")


def test_a_circle_of_many_clients_comes_apart_at_its_newest_ends(sessions: Sessions) -> None:
    begun = sessions.begin_until_refused(PEER)
    sessions.end(*begun[-NOTED - 1 : -2])
    sessions.tick(0.1)
    assert sessions.guard.is_barred(PEER, "a")
    rest = [each for each in begun if each in sessions.open]
    sessions.half_close(*rest)
    sessions.tick(0.2)
    assert sessions.closed == set(rest)


def test_many_clients_of_one_address_at_a_slow_backend_are_served_but_for_a_few(
    sessions: Sessions,
) -> None:
    refused = 0
    for number in range(700):
        refused += sessions.begin() is None
        sessions.tick(number / 10)
    assert not sessions.closed
    assert not sessions.guard.is_barred(CLIENT, "a")
    assert 0 < refused <= 3 * 10  # three times a second
    sessions.tick(80.0)
    old = list(sessions.open)
    sessions.end(*old[:-10])  # they leave at last, without an answer
    sessions.tick(81.0)
    assert not sessions.guard.is_watching
    assert not sessions.closed


def test_sessions_that_were_answered_are_no_circle_however_many(sessions: Sessions) -> None:
    for _ in range(DESCRIPTORS // 2):
        ticket = sessions.begin()
        assert ticket is not None
        sessions.answer(ticket)
    sessions.guard.tick(1.0)
    assert not sessions.guard.is_watching


def test_several_backends_that_lead_back_share_one_share(sessions: Sessions) -> None:
    apps = itertools.cycle("abcd")
    begun: list[Ticket] = []
    while (ticket := sessions.begin(PEER, next(apps))) is not None:
        begun.append(ticket)
    assert len(begun) < DESCRIPTORS // 8
    assert all(sessions.begin(PEER, app) is None for app in "abcd")


def test_a_client_that_comes_again_and_again_under_one_port_goes_round(sessions: Sessions) -> None:
    """As a PROXY header tells of it."""
    begun = [sessions.begin(f"192.0.2.{number % 20}", port=4711) for number in range(60)]
    circular = {each for each in begun if each is not None}
    assert sessions.closed
    assert sessions.closed <= circular
    assert len(circular) < 60
    assert sessions.guard.is_watching
    assert sessions.begin("192.0.2.99", port=4711) is not None


def test_a_few_ports_that_were_used_again_soon_are_no_circle(sessions: Sessions) -> None:
    for number in range(SAME_CLIENTS // 2 - 1):
        sessions.begin(port=4711 + number)
        sessions.begin(port=4711 + number)
    sessions.begin_many(50, "192.0.2.9")
    for _ in range(50):
        sessions.begin("127.0.0.1", port=0)  # clients of a Unix socket
    sessions.guard.tick(1.0)
    assert not sessions.closed


def test_a_connection_of_our_own_that_is_accepted_again_goes_round(sessions: Sessions) -> None:
    """The backend of each is the client of the next one."""
    before = (CLIENT, 1)
    begun: list[Ticket] = []
    while (ticket := sessions.begin("10.0.0.1")) is not None:
        begun.append(ticket)
        here = (ticket.backend.wg_ip, ticket.backend.port)
        dialed_from = ("10.0.0.1", 40_000 + len(begun))
        sessions.ends[ticket] = (ticket, before, here, dialed_from)
        before = dialed_from
        assert len(begun) < DESCRIPTORS // SHARE
    assert sessions.closed >= set(begun[1:-2])


def test_a_local_client_whose_port_this_proxy_uses_elsewhere_does_not(sessions: Sessions) -> None:
    """On one host, two connections may have the same near end and different far ends."""
    for number in range(60):
        ticket = sessions.begin("10.0.0.1")
        assert ticket is not None
        same = ("10.0.0.1", 40_000 + number)
        sessions.ends[ticket] = (ticket, same, HERE, same)
    sessions.guard.tick(1.0)
    assert not sessions.closed


def test_nothing_is_looked_at_while_there_are_few(sessions: Sessions) -> None:
    for number in range(2000):
        begun = sessions.begin_many(number % 20)
        sessions.end(*begun, unanswered=False)
        sessions.guard.tick(float(number))
    assert sessions.looks <= 1


def test_the_more_sessions_there_are_the_rarer_are_looks(sessions: Sessions) -> None:
    for number in range(50_000):
        ticket = sessions.begin(f"192.0.{number // 250}.{number % 250}")
        assert ticket is not None
        sessions.answer(ticket)
    assert sessions.looks < 60


def test_a_circle_is_found_as_soon_after_many_sessions_have_ended(sessions: Sessions) -> None:
    many = [sessions.begin(f"198.51.{number >> 8}.{number & 255}") for number in range(1000)]
    sessions.end(*(each for each in many if each is not None))
    begun = sessions.begin_until_refused(PEER)
    assert len(begun) < DESCRIPTORS // 8


def test_an_address_that_was_suspected_wrongly_is_an_ordinary_one_once_it_has_few(
    sessions: Sessions,
) -> None:
    begun = sessions.begin_until_refused(CLIENT)
    sessions.tick(TRIAL_SECS)  # nothing has ended: it was no circle
    begun += sessions.begin_many(len(begun) // 2)
    assert not sessions.guard.is_watching
    sessions.end(*begun, unanswered=False)
    assert len(sessions.begin_until_refused(CLIENT)) < len(begun)
