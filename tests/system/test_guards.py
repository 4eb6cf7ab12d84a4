"""Lists, limits per client, rates and breakers, tried on a running proxy."""

from __future__ import annotations

import json
import time
from contextlib import suppress

import pytest

from edgeproxy.wire import proxy_v1, proxy_v2
from edgeproxy.wire.proxy_header import Endpoint
from tests.authority import authority_pem, issued
from tests.conformance.peers import Pause
from tests.system import clients
from tests.system.pop import BRAZIL, GERMANY, Pop
from tests.system.proxy import SERVE, run_edgeproxy
from tests.system.tls import LISTEN, NAME, tls_client
from tests.system.tls import serve as serve_tls
from tests.waiting import wait_until

pytestmark = pytest.mark.system


def test_only_allowed_and_not_denied_clients_may_enter(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy = pop.serve(EDGEPROXY_ALLOW="127.10.0.0/16, 127.30.0.0/16", EDGEPROXY_DENY=GERMANY)
    assert pop.reached(BRAZIL) == "sa-1"
    assert pop.reached(GERMANY) == ""
    assert pop.reached("127.99.0.1") == ""
    refused = proxy.wait_for("client_refused")
    assert refused["reason"] == "denied"
    assert "EDGEPROXY_ALLOW" in refused["hint"]


def test_explain_knows_who_is_barred_and_what_is_laid_over(pop: Pop) -> None:
    pop.backend("sa-1")
    pop.backend("us-1", "us")
    config = pop.folder / "edgeproxy.toml"
    config.write_text('[entrance]\ndeny = ["192.0.2.1"]\n[backends."sa-1"]\nweight = 0\n')

    def explained(client: str) -> tuple[int, dict[str, object]]:
        ran = run_edgeproxy(
            "explain", client, "--json", folder=pop.folder, EDGEPROXY_CONFIG=str(config)
        )
        return ran.returncode, json.loads(ran.stdout)

    code, denied = explained("192.0.2.1")
    assert (code, denied["backend"], denied["how"]) == (1, None, "denied")
    code, served = explained("192.0.2.2")
    assert (code, served["backend"]) == (0, "us-1")


def test_a_client_has_no_more_connections_than_it_may(pop: Pop) -> None:
    pop.backend("sa-1")
    pop.serve(EDGEPROXY_MAX_CONNS_PER_CLIENT="2")
    first, _ = pop.holder(BRAZIL)
    pop.holder(BRAZIL)
    assert pop.reached(BRAZIL) == ""
    assert pop.reached(GERMANY) == "sa-1"
    first.end()
    first.rest()
    wait_until(lambda: pop.reached(BRAZIL) == "sa-1", "a place for the client")


def test_a_client_whose_backends_all_fail_gets_its_place_back(pop: Pop) -> None:
    pop.dead_backend("sa-1")
    pop.serve(EDGEPROXY_MAX_CONNS_PER_CLIENT="1")
    for _ in range(3):
        assert pop.reached(BRAZIL) == ""
    backend = pop.backend("sa-2")
    wait_until(lambda: pop.reached(BRAZIL) == "sa-2", "a backend that answers")
    assert backend.total


def test_a_client_gets_its_burst_and_then_its_rate(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy = pop.serve(
        EDGEPROXY_RATE_LIMIT_ENABLED="true",
        EDGEPROXY_RATE_LIMIT_MAX_REQUESTS="1",
        EDGEPROXY_RATE_LIMIT_WINDOW_SECS="2",
        EDGEPROXY_RATE_LIMIT_BURST="3",
    )
    began = time.monotonic()
    served = 0
    while pop.reached(BRAZIL) == "sa-1":
        served += 1
    assert 3 <= served <= 3 + (time.monotonic() - began) / 2
    assert pop.reached(GERMANY) == "sa-1"
    wait_until(lambda: pop.reached(BRAZIL) == "sa-1", "the next token")
    refused = proxy.wait_for("client_refused")
    assert refused["reason"] == "rate_limited"


PATIENT = {"EDGEPROXY_CLIENT_SETUP_TIMEOUT_SECS": "300"}
"""Nobody who waits is closed for waiting too long."""


@pytest.mark.parametrize("mode", ["tls:*", "sni"])
def test_a_denied_client_is_closed_before_it_says_anything(pop: Pop, mode: str) -> None:
    pop.backend("sa-1")
    listen = {"EDGEPROXY_LISTENERS": f"127.0.0.1:0={mode}", "EDGEPROXY_ROUTES": "*=myapp"}
    proxy = serve_tls(pop, **listen, **PATIENT, EDGEPROXY_DENY=GERMANY)
    assert pop.client(GERMANY).rest() == Pause(b"", reset=False)
    assert proxy.wait_for("client_refused")["reason"] == "denied"


def test_silent_clients_count_against_the_limit_of_their_address(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy = serve_tls(pop, **PATIENT, EDGEPROXY_MAX_CONNS_PER_CLIENT="3")
    silent = [pop.client(BRAZIL) for _ in range(3)]
    assert pop.client(BRAZIL).rest() == Pause(b"", reset=False)
    assert proxy.wait_for("client_refused")["reason"] == "client_full"
    assert clients.greeting(tls_client(pop, source=GERMANY)) == "sa-1"
    silent[0].close()

    def reached() -> bool:
        try:
            return clients.greeting(tls_client(pop, source=BRAZIL)) == "sa-1"
        except (OSError, AssertionError):
            return False

    wait_until(reached, "a place for the client")


def test_silent_clients_leave_room_for_others(pop: Pop) -> None:
    """One address opens more than there are descriptors, and says nothing."""
    pop.backend("sa-1")
    cert, key = issued(NAME).put(pop.folder / "pair", "edge")
    (pop.folder / "ca.pem").write_bytes(authority_pem())
    pair = {"EDGEPROXY_TLS_CERT": str(cert), "EDGEPROXY_TLS_KEY": str(key)}
    proxy = pop.serve_with(SERVE, 256, **LISTEN, **pair, **PATIENT)
    for _ in range(300):
        pop.client(BRAZIL)
    refused = proxy.wait_for("client_refused")
    assert refused["reason"] == "client_setup_full"
    for number in range(20):
        source = f"127.30.0.{number + 1}"
        assert clients.greeting(tls_client(pop, source=source)) == "sa-1"
    assert not proxy.seen("accept_paused")


def test_a_client_of_a_balancer_is_refused_right_after_its_header(pop: Pop) -> None:
    """It has not said which server it wants, and need not."""
    pop.backend("sa-1")
    proxy = pop.serve(
        **PATIENT,
        EDGEPROXY_LISTENERS="127.0.0.1:0=sni",
        EDGEPROXY_ROUTES="*=myapp",
        EDGEPROXY_PROXY_PROTOCOL_IN="127.0.0.0/16",
        EDGEPROXY_DENY="192.0.2.66",
    )
    here = Endpoint("192.0.2.9", 443)
    client = pop.client("127.0.0.1")
    client.send(proxy_v1.encode(Endpoint("192.0.2.66", 1000), here))
    assert client.rest() == Pause(b"", reset=False)
    refused = proxy.wait_for("client_refused")
    assert (refused["reason"], refused["client"]) == ("denied", "192.0.2.66")
    assert pop.client(BRAZIL).rest() == Pause(b"", reset=False)
    proxy.wait_for("client_refused", reason="proxy_untrusted")


def test_a_limit_is_not_passed_with_another_64_of_the_same_48(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy = pop.serve(
        EDGEPROXY_PROXY_PROTOCOL_IN="127.0.0.0/16",
        EDGEPROXY_MAX_CONNS_PER_CLIENT="1",
        EDGEPROXY_CLIENTS_PER_SITE="3",
    )

    def greeted(address: str) -> str:
        client = pop.client("127.0.0.1")
        client.send(proxy_v2.encode(Endpoint(address, 1000), Endpoint("2001:db8::9", 443)))
        return clients.greeting(client)

    assert [greeted(f"2001:db8:1:{number}::1") for number in range(5)] == ["sa-1"] * 3 + [""] * 2
    assert greeted("2001:db8:2:1::1") == "sa-1"
    assert proxy.wait_for("client_refused")["reason"] == "client_full"


def test_a_failing_backend_is_cut_off_and_comes_back(pop: Pop) -> None:
    backend = pop.dead_backend("sa-1")
    proxy = pop.serve(
        EDGEPROXY_CIRCUIT_BREAKER_ENABLED="true",
        EDGEPROXY_CIRCUIT_FAILURE_THRESHOLD="3",
        EDGEPROXY_CIRCUIT_SUCCESS_THRESHOLD="2",
        EDGEPROXY_CIRCUIT_TIMEOUT_SECS="1",
    )
    for _ in range(3):
        assert pop.reached() == ""
    opened = proxy.wait_for("circuit", state="open")
    assert opened["backend"] == "sa-1"
    cut_off_at = time.monotonic()
    backend.start()
    assert pop.reached() == ""
    assert backend.total == 0
    wait_until(lambda: pop.reached() == "sa-1", "a trial")
    assert time.monotonic() - cut_off_at >= 0.9
    proxy.wait_for("circuit", state="half_open")
    assert pop.reached() == "sa-1"
    proxy.wait_for("circuit", state="closed")
    for reason in ("unreachable", "down"):
        proxy.wait_for("client_refused", reason=reason)


def test_clients_of_a_failing_backend_get_the_next_one_before_and_after(pop: Pop) -> None:
    pop.dead_backend("sa-1")
    pop.backend("us-1", "us")
    proxy = pop.serve(
        EDGEPROXY_CIRCUIT_BREAKER_ENABLED="true", EDGEPROXY_CIRCUIT_FAILURE_THRESHOLD="3"
    )
    assert [pop.reached() for _ in range(10)] == ["us-1"] * 10
    proxy.wait_for("circuit", state="open")
    assert proxy.stop()["failovers"] == "3"


def test_a_backend_that_closes_every_connection_early_is_cut_off_if_configured(pop: Pop) -> None:
    pop.resetting_backend("sa-1")
    pop.backend("us-1", "us")
    proxy = pop.serve(
        EDGEPROXY_CIRCUIT_BREAKER_ENABLED="true",
        EDGEPROXY_CIRCUIT_FAILURE_THRESHOLD="2",
        EDGEPROXY_CIRCUIT_EARLY_CLOSE_SECS="5",
        EDGEPROXY_BINDING_TTL_SECS="0",
    )

    def is_cut_off() -> bool:
        with suppress(ConnectionError):
            pop.reached()
        return bool(proxy.seen("circuit", backend="sa-1", state="open"))

    wait_until(is_cut_off, "the breaker to open")
    assert pop.reached() == "us-1"
