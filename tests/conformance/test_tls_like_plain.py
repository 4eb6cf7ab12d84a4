"""What holds for plain connections holds for those that speak TLS: the same tests, over TLS."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import pytest

from tests.conformance.engines import MakeEngine
from tests.conformance.test_early_answers import one_cpu as one_cpu  # noqa: PLC0414 - a fixture
from tests.conformance.tls_rig import TlsRig, running

MODULES = [
    import_module(f"tests.conformance.test_{subject}")
    for subject in (
        "back_pressure",
        "dial",
        "early_answers",
        "faulty_gate",
        "half_close",
        "random_actions",
        "relay",
        "resets",
        "sessions",
        "stop",
        "timeouts",
    )
]

NOT_OVER_TLS = {
    # clients that have connected to an engine that does not shake hands yet, or no more
    "test_clients_that_reset_while_they_wait_to_be_accepted_harm_nobody",
    "test_stop_ends_sessions_in_every_state",
    # the gate thread is held, without which no handshake comes to its end
    "test_a_backend_may_reset_before_the_engine_hears_of_it",
    "test_a_backend_may_speak_and_end_before_the_engine_hears_of_it",
    "test_a_client_may_reset_before_the_engine_hears_of_its_backend",
    "test_a_client_may_speak_and_end_before_the_engine_hears_of_its_backend",
    "test_both_sides_may_reset_before_the_engine_hears_of_it",
    "test_clients_are_served_between_calls_that_wait",
    "test_clients_that_have_connected_are_served_and_new_ones_are_not",
    "test_what_a_backend_says_before_the_engine_hears_of_it_arrives",
    # of a program that speaks no TLS
    "test_stop_ends_five_thousand_sessions",
}

assert all(any(hasattr(each, name) for each in MODULES) for name in NOT_OVER_TLS)

for module in MODULES:
    for name, function in vars(module).items():
        if name.startswith("test_") and callable(function) and name not in NOT_OVER_TLS:
            globals()[name] = function


@pytest.fixture
def rig(engine: tuple[str, MakeEngine]) -> Iterator[TlsRig]:
    yield from running(engine)
