"""The gate turns admissions into answers, counts, and keeps quiet about repetition."""

from __future__ import annotations

import io
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from edgeproxy import log
from edgeproxy.core.admission.access import Denied
from edgeproxy.core.admission.admission import Admission, AdmissionSettings
from edgeproxy.core.admission.affinity import AffinitySettings
from edgeproxy.core.admission.record import ConnectionRecord
from edgeproxy.core.admission.ticket import Arrival, Ticket, TicketDetails
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.ejection import EjectionSettings
from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.metrics import MAX_DECISION_KINDS, Metrics
from edgeproxy.core.routing.choice import How, Reason
from edgeproxy.engine.contract import (
    Client,
    CloseReason,
    Connect,
    DialFailure,
    HandshakeFailure,
    Outcome,
    Preamble,
    Refuse,
    Side,
)
from edgeproxy.engine.listener import client_at
from edgeproxy.engine.tls import TlsInfo
from edgeproxy.gate.gate import HINTS, AdmissionGate
from edgeproxy.gate.preamble import ListenerPolicy, PreambleFault, PreambleParser
from edgeproxy.gate.proxy_header_writer import ProxyHeaderWriter
from edgeproxy.log import LogSettings
from edgeproxy.wire import proxy_protocol
from edgeproxy.wire.proxy_header import Endpoint


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Collect what is logged."""
    stream = io.StringIO()
    log.start(LogSettings(), stream)
    yield stream
    log.stop()


def gate(*backends: Backend) -> tuple[AdmissionGate, Metrics, Admission]:
    """Return a gate with these backends behind it."""
    admission = Admission(AdmissionSettings(), AffinitySettings(), EjectionSettings(), Origin)
    admission.publish(backends)
    metrics = Metrics()
    preamble_parser = PreambleParser({"web": ListenerPolicy()}, admission.server_names)
    return AdmissionGate(admission, metrics, preamble_parser, 2.5), metrics, admission


def backend(backend_id: str, **values: object) -> Backend:
    """Return a backend."""
    return Backend(backend_id, "myapp", "sa", "10.0.0.1", 8080, **values)  # type: ignore[arg-type]


def connect(answer: Connect | Refuse) -> Connect:
    """Return the answer, which must be a Connect."""
    assert isinstance(answer, Connect), answer
    return answer


def test_a_client_is_given_an_address_and_a_timeout() -> None:
    made, metrics, _ = gate(backend("a"))
    answer = connect(made.opened(Client("192.0.2.1", 4711, "web"), 0.0))
    assert (answer.address, answer.timeout_secs) == (("10.0.0.1", 8080), 2.5)
    assert metrics.accepted == 1


def test_one_client_is_the_same_over_ipv4_and_mapped_ipv6() -> None:
    made, _, admission = gate(backend("a"), backend("b"))
    made.opened(Client("192.0.2.1", 1, "web"), 0.0)
    made.opened(client_at(("::ffff:192.0.2.1", 2, 0, 0), "web"), 0.0)
    assert len(admission.affinity) == 1


def test_what_ended_is_counted() -> None:
    made, metrics, admission = gate(backend("a"))
    answer = connect(made.opened(Client("192.0.2.1", 1, "web"), 0.0))
    made.dialed(answer.ticket, 0.01, 0.0)  # type: ignore[arg-type]
    made.closed(answer.ticket, Outcome(CloseReason.FINISHED, 10, 20, 1.0), 1.0)  # type: ignore[arg-type]
    assert (metrics.bytes_in, metrics.bytes_out) == (10, 20)
    assert metrics.closed == {CloseReason.FINISHED: 1}
    assert admission.load.active() == {}


def test_a_failed_dial_goes_to_the_next_backend() -> None:
    made, metrics, _ = gate(backend("a"), backend("b"))
    first = connect(made.opened(Client("192.0.2.1", 1, "web"), 0.0))
    made.failed(first.ticket, DialFailure.REFUSED, 0.0)  # type: ignore[arg-type]
    assert metrics.failovers == 1
    assert metrics.dial_failures == {DialFailure.REFUSED: 1}


def test_a_local_fault_refuses_and_blames_no_backend() -> None:
    made, metrics, admission = gate(backend("a"), backend("b"))
    first = connect(made.opened(Client("192.0.2.1", 1, "web"), 0.0))
    answer = made.failed(first.ticket, DialFailure.LOCAL, 0.0)  # type: ignore[arg-type]
    assert answer == Refuse("no_resources")
    assert metrics.refused == {"no_resources": 1}
    assert admission.load.of("a").failures == admission.load.of("b").failures == 0


def test_a_hundred_refusals_are_one_line_with_the_reason(lines: io.StringIO) -> None:
    made, metrics, _ = gate()
    for port in range(100):
        assert made.opened(Client("192.0.2.1", port, "web"), 0.0) == Refuse("no_backend")
    made.opened(Client("192.0.2.1", 1, "web"), 11.0)
    log.stop()
    first, second = lines.getvalue().splitlines()
    assert "client_refused reason=no_backend client=192.0.2.1 suppressed=0" in first
    assert "suppressed=99" in second
    assert metrics.refused == {"no_backend": 101}


def test_every_reason_to_refuse_a_client_has_a_hint() -> None:
    reasons = {*Reason, *Denied, *PreambleFault, *HandshakeFailure}
    assert set(HINTS) == reasons


@pytest.mark.parametrize(("port", "source"), [(0, None), (4711, Endpoint("192.0.2.1", 4711))])
def test_a_backend_is_told_no_source_of_a_client_of_a_unix_socket(
    port: int, source: Endpoint | None
) -> None:
    admission = Admission(AdmissionSettings(), AffinitySettings(), EjectionSettings(), Origin)
    admission.publish([backend("a")])
    made = AdmissionGate(
        admission,
        Metrics(),
        PreambleParser({"web": ListenerPolicy()}, admission.server_names),
        2.5,
        header_writer=ProxyHeaderWriter([("", "v2")], "pop"),
    )
    answer = connect(made.opened(Client("192.0.2.1", port, "web", local=("192.0.2.9", 80)), 0.0))
    header = proxy_protocol.decode(answer.prefix)
    assert header is not None
    assert header.source == source


def logged(
    *backends: Backend, is_logged: bool = True
) -> tuple[AdmissionGate, Metrics, list[ConnectionRecord]]:
    """Return a gate with an access log, and what was written to it."""
    records: list[ConnectionRecord] = []
    admission = Admission(
        AdmissionSettings(),
        AffinitySettings(),
        EjectionSettings(),
        lambda ip: Origin(ip, "BR", "sa"),
        is_logged=is_logged,
    )
    admission.publish(backends)
    metrics = Metrics()
    policy = ListenerPolicy(address="0.0.0.0:443", expects_proxy_header=True)
    trusted = (ip_network("192.0.2.0/24"),)
    parser = PreambleParser({"web 1": policy}, admission.server_names, trusted)
    return AdmissionGate(admission, metrics, parser, 2.5, records.append), metrics, records


def test_the_record_of_a_session_says_how_its_client_came_in_and_who_ended_it() -> None:
    made, _, records = logged(backend("a"))
    info = TlsInfo("Shop.Example.", "h2", "TLSv1.3", False)
    answer = connect(made.opened(Client("192.0.2.1", 4711, "web 1", info), 0.0))
    assert isinstance(answer.ticket, Ticket)
    made.dialed(answer.ticket, 0.01, 0.0)
    made.closed(answer.ticket, Outcome("finished", 1, 2, 1.0, 0.25, Side.BACKEND), 1.0)
    (record,) = records
    assert record.arrival == Arrival(4711, "0.0.0.0:443", "shop.example", "h2", "TLSv1.3")
    assert (record.backend_app, record.backend_region) == ("myapp", "sa")
    assert (record.first_byte_secs, record.ended_by) == (0.25, "backend")


def test_the_record_of_a_refusal_says_how_its_client_came_in_and_whose_doing_it_was() -> None:
    made, _, records = logged(backend("a", hard_limit=1))
    client = Client("192.0.2.1", 4711, "web 1")
    connect(made.opened(client, 0.0))
    made.opened(client, 0.0)
    made.client_lost(client, HandshakeFailure.CLIENT_GONE, 0.0)
    made.client_lost(client, HandshakeFailure.HANDSHAKE_TIMEOUT, 0.0)
    assert [(each.end, each.ended_by) for each in records] == [
        ("full", "proxy"),
        ("client_gone", "client"),
        ("handshake_timeout", "proxy"),
    ]
    assert {each.arrival for each in records} == {Arrival(4711, "0.0.0.0:443", None, None, None)}


def test_a_client_that_no_backend_answers_is_not_turned_away_by_the_proxy() -> None:
    made, _, records = logged(backend("a"))
    answer = connect(made.opened(Client("192.0.2.1", 4711, "web 1"), 0.0))
    assert isinstance(answer.ticket, Ticket)
    made.failed(answer.ticket, DialFailure.REFUSED, 0.0)
    (record,) = records
    assert (record.end, record.ended_by, record.backend) == ("unreachable", "backend", "a")
    assert record.arrival is not None


def test_without_an_access_log_a_ticket_holds_nothing_of_it() -> None:
    made, _, _ = logged(backend("a"), is_logged=False)
    answer = connect(made.opened(Client("192.0.2.1", 4711, "web 1"), 0.0))
    assert isinstance(answer.ticket, Ticket)
    assert answer.ticket.details is None
    assert not hasattr(TicketDetails(None), "arrival")


def test_decisions_are_counted_by_both_regions_and_how_they_came_about() -> None:
    made, metrics, _ = logged(backend("a"), backend("b"))
    client = Client("192.0.2.1", 4711, "web 1")
    first = connect(made.opened(client, 0.0))
    connect(made.opened(client, 0.0))
    assert isinstance(first.ticket, Ticket)
    made.failed(first.ticket, DialFailure.REFUSED, 0.0)
    assert metrics.decisions == {
        ("scored", "sa", "sa"): 1,
        ("bound", "unknown", "sa"): 1,
        ("failover", "sa", "sa"): 1,
    }


def test_sessions_and_first_bytes_are_counted_at_the_end() -> None:
    made, metrics, _ = logged(backend("a"))
    for first_secs in (0.02, None):
        answer = connect(made.opened(Client("192.0.2.1", 4711, "web 1"), 0.0))
        assert isinstance(answer.ticket, Ticket)
        made.closed(answer.ticket, Outcome("finished", 1, 2, 1.5, first_secs, Side.CLIENT), 1.0)
    assert (sum(metrics.session_secs.counts), metrics.session_secs.total) == (2, 3.0)
    assert (sum(metrics.first_byte_secs.counts), metrics.first_byte_secs.total) == (1, 0.02)


@pytest.mark.parametrize("said", [b"", b"PROXY TCP4 192.0"])
def test_a_client_that_leaves_by_itself_is_not_told_to_be_slow(
    lines: io.StringIO, said: bytes
) -> None:
    made, metrics, _ = logged()
    client = Client("192.0.2.1", 4711, "web 1")
    left = Preamble(said, is_all=True, has_ended=True)
    late = Preamble(said, is_all=True)
    assert made.preamble_read(client, left, 0.0) == Refuse("client_gone")
    assert made.preamble_read(client, late, 0.0) == Refuse("preamble_incomplete")
    log.stop()
    first, second = lines.getvalue().splitlines()
    assert first.startswith("client_left client=192.0.2.1")
    assert "TIMEOUT" not in first
    assert "EDGEPROXY_CLIENT_SETUP_TIMEOUT_SECS" in second
    assert metrics.refused == {"client_gone": 1, "preamble_incomplete": 1}


def test_kinds_of_decisions_are_bounded_whatever_regions_are_called() -> None:
    backends = [Backend(f"b{n}", "myapp", f"r{n}", "10.0.0.1", 80, hard_limit=1) for n in range(30)]
    made, metrics, _ = logged(*backends)
    for number in range(MAX_DECISION_KINDS - 20):
        metrics.decisions["scored", "sa", f"gone-{number}"] = 1
    for number in range(30):
        connect(made.opened(Client(f"192.0.2.{number}", 4711, "web 1"), 0.0))
    assert len(metrics.decisions) <= MAX_DECISION_KINDS + len(How)
    assert sum(metrics.decisions.values()) == MAX_DECISION_KINDS - 20 + 30


@pytest.mark.parametrize(
    ("reason", "why", "noted", "errors"),
    [
        (DialFailure.REFUSED, "", "refused", 1),
        (DialFailure.HANDSHAKE, "self-signed", "handshake: self-signed", 1),
        (DialFailure.NO_PORT, "", "no_port", 0),
        (DialFailure.LOCAL, "", "", 0),
    ],
)
def test_the_last_failed_dial_of_a_backend_is_noted_unless_the_host_is_to_blame(
    reason: DialFailure, why: str, noted: str, errors: int
) -> None:
    made, _, admission = gate(backend("a"))
    first = connect(made.opened(Client("192.0.2.1", 1, "web"), 0.0))
    assert isinstance(first.ticket, Ticket)
    made.failed(first.ticket, reason, 7.0, why)
    counters = admission.load.of("a").counters
    assert (counters.last_error, counters.errors) == (noted, errors)
    assert counters.last_error_at == (7.0 if noted else 0.0)
