"""What readers ask for is made off the gate thread, but for the decision itself."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from edgeproxy.control.observe.status import Status
from edgeproxy.control.observe.status_snapshot import Surroundings
from edgeproxy.core.admission import explanation
from edgeproxy.core.admission.admission import Admission, AdmissionSettings
from edgeproxy.core.admission.affinity import AffinitySettings
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.ejection import EjectionSettings
from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.metrics import Metrics
from edgeproxy.core.routing import backend_snapshot
from edgeproxy.engine.contract import EngineSettings
from edgeproxy.engine.portable.engine import PortableEngine
from edgeproxy.gate.gate import AdmissionGate
from edgeproxy.gate.preamble import PreambleParser

BACKENDS = 300


@pytest.fixture
def status() -> Iterator[Status]:
    """Return the status of a proxy that runs."""
    admission = Admission(AdmissionSettings(), AffinitySettings(), EjectionSettings(), Origin)
    admission.publish([Backend(str(n), "app", "sa", "192.0.2.1", 80) for n in range(BACKENDS)])
    metrics = Metrics()
    gate = AdmissionGate(admission, metrics, PreambleParser({}, admission.server_names), 1.0)
    engine = PortableEngine(EngineSettings(), gate, lambda _error: None)
    engine.start()
    yield Status(
        "",
        "sa",
        admission,
        metrics,
        engine,
        published_at=lambda: 0.0,
        loop_lag_secs=lambda: 0.0,
        verdicts=dict,
        pool_waiting=dict,
        certificates=lambda: None,
        access_lines_dropped=int,
        surroundings=Surroundings,
    )
    engine.stop()


def test_only_the_decision_of_an_explanation_is_made_on_the_gate_thread(
    status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    real = backend_snapshot.backend_snapshot

    def watched(*arguments: Any, **named: Any) -> backend_snapshot.BackendSnapshot:
        threads.append(threading.current_thread().name)
        return real(*arguments, **named)

    monkeypatch.setattr(explanation, "backend_snapshot", watched)
    monkeypatch.setattr(backend_snapshot, "backend_snapshot", watched)

    async def ask() -> tuple[dict[str, Any], dict[str, Any], list[object]]:
        answers = (
            await status.explanation("192.0.2.1", None),
            await status.state(),
            await status.sessions(),
        )
        told = tuple(json.loads(b"".join(pieces)) for pieces in answers)
        return told[0], told[1], told[2]

    told, state, sessions = asyncio.run(ask())
    assert told["how"] == "scored"
    assert told["candidates"][0]["id"] == told["backend"]
    assert len(told["candidates"]) == len(state["backends"]) == BACKENDS
    assert sessions == []
    assert len(threads) == 2 * BACKENDS
    assert set(threads) == {"render_0"}


def test_what_is_no_address_is_refused_before_the_gate_is_asked(status: Status) -> None:
    with pytest.raises(ValueError, match="nobody"):
        asyncio.run(status.explanation("nobody", None))
