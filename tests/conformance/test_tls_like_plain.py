"""What holds for plain connections holds for those that speak TLS: the same tests, over TLS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance import (
    test_back_pressure,
    test_dial,
    test_early_answers,
    test_faulty_gate,
    test_half_close,
    test_random_actions,
    test_relay,
    test_resets,
    test_sessions,
    test_stop,
    test_timeouts,
)
from tests.conformance.engines import MakeEngine
from tests.conformance.test_early_answers import one_cpu as one_cpu  # noqa: PLC0414 - a fixture
from tests.conformance.tls_rig import TlsRig, running

MODULES = (
    test_back_pressure,
    test_dial,
    test_early_answers,
    test_faulty_gate,
    test_half_close,
    test_random_actions,
    test_relay,
    test_resets,
    test_sessions,
    test_stop,
    test_timeouts,
)

NOT_OVER_TLS = {
    # clients who have connected to an engine that does not shake hands yet, or no more
    "test_clients_that_reset_while_they_wait_to_be_accepted_harm_nobody",
    "test_stop_ends_sessions_in_every_state",
    # of a program that speaks no TLS
    "test_stop_ends_five_thousand_sessions_within_its_time",
}

for module in MODULES:
    for name, function in vars(module).items():
        if name.startswith("test_") and callable(function) and name not in NOT_OVER_TLS:
            globals()[name] = function


@pytest.fixture
def rig(engine: tuple[str, MakeEngine]) -> Iterator[TlsRig]:
    yield from running(engine)
