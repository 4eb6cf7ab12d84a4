"""Every test runs once for each engine, on a rig that checks the bookkeeping afterwards."""

from __future__ import annotations

import importlib
import resource
from collections.abc import Iterator

import pytest

from edgeproxy.engine.portable.ingress import slot_queue
from tests.conformance.engines import ENGINES, MakeEngine
from tests.conformance.rig import Rig

DESCRIPTORS = 4096
PATIENT_SECS = 600.0


@pytest.fixture(scope="session", autouse=True)
def enough_descriptors() -> None:
    """Raise the soft limit of open files, which is 1024 in many places."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < DESCRIPTORS:
        wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@pytest.fixture(params=ENGINES, ids=[kind for kind, _ in ENGINES])
def engine(request: pytest.FixtureRequest) -> tuple[str, MakeEngine]:
    kind_and_make: tuple[str, MakeEngine] = request.param
    return kind_and_make


@pytest.fixture
def patient(engine: tuple[str, MakeEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients wait for a slot as long as it takes, however slow the machine is."""
    native = "edgeproxy.engine.native.gate_thread.slot_queue"
    queue = slot_queue if engine[0] == "portable" else importlib.import_module(native)
    for name in ("ENDING_SECS", "LONGEST_SECS"):
        monkeypatch.setattr(queue, name, PATIENT_SECS)


@pytest.fixture
def rig(engine: tuple[str, MakeEngine]) -> Iterator[Rig]:
    """A rig whose bookkeeping is checked when the test is over."""
    rig = Rig(*engine)
    yield rig
    rig.close()
