"""Picks the engine. `auto` is the best one this installation has."""

from __future__ import annotations

from collections.abc import Callable

from edgeproxy.engine.contract import Engine, EngineSettings, Gate
from edgeproxy.engine.portable import PortableEngine
from edgeproxy.errors import UsageError

KINDS = ("auto", "native", "portable")


def make_engine(
    settings: EngineSettings, gate: Gate, on_crash: Callable[[BaseException], object]
) -> Engine:
    """Return the engine that the settings ask for, not started yet. Raises UsageError."""
    if settings.kind == "native":
        raise UsageError(
            "EDGEPROXY_ENGINE=native: this installation has no native engine; "
            "use `portable`, or `auto` for the best one there is"
        )
    return PortableEngine(settings, gate, on_crash)
