"""The engine is the one that was asked for, or the reason why not."""

from __future__ import annotations

import sys

import pytest

from edgeproxy.engine import choice
from edgeproxy.engine.contract import EngineSettings
from edgeproxy.errors import UsageError
from tests.conformance.gates import ScriptedGate


def kind_made(wanted: str) -> str:
    """Return the kind of the engine that is made when `wanted` is asked for."""
    engine = choice.make_engine(EngineSettings(kind=wanted), ScriptedGate(), print)
    engine.stop()
    return engine.kind


@pytest.fixture
def not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the native engine unimportable, as where it was not built."""
    monkeypatch.setitem(sys.modules, "edgeproxy.engine.native.engine", None)


def test_the_portable_engine_is_always_there() -> None:
    assert kind_made("portable") == "portable"


def test_auto_is_the_best_there_is() -> None:
    assert kind_made("auto") == choice.best_kind()


@pytest.mark.usefixtures("not_built")
def test_auto_is_portable_where_the_native_engine_is_not_built() -> None:
    assert kind_made("auto") == choice.best_kind() == "portable"


@pytest.mark.usefixtures("not_built")
def test_a_native_engine_that_is_not_built_is_refused() -> None:
    with pytest.raises(UsageError, match="no native engine"):
        kind_made("native")
