"""The engine is the one that was asked for, or the reason why not."""

from __future__ import annotations

import pytest
from tests.conformance.gates import ScriptedGate

from edgeproxy.engine.choice import make_engine
from edgeproxy.engine.contract import EngineSettings
from edgeproxy.errors import UsageError


@pytest.mark.parametrize("kind", ["auto", "portable"])
def test_the_portable_engine_is_always_there(kind: str) -> None:
    engine = make_engine(EngineSettings(kind=kind), ScriptedGate(), print)
    assert engine.kind == "portable"
    engine.stop()


def test_a_native_engine_that_is_not_built_is_refused() -> None:
    with pytest.raises(UsageError, match="no native engine"):
        make_engine(EngineSettings(kind="native"), ScriptedGate(), print)
