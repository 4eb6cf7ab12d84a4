"""Chooses the engine that carries changes between POPs. The one not chosen is not imported."""

from __future__ import annotations

from edgeproxy.cluster.engine import RunningEngine
from edgeproxy.cluster.settings import BUILTIN, ReplicationSettings


def make_engine(
    settings: ReplicationSettings, node_id: str, life: int, region: str
) -> RunningEngine:
    """Return the engine that the settings name, with its state, not started. Raises EngineError."""
    if settings.engine == BUILTIN:
        from edgeproxy.cluster.builtin.engine import BuiltinEngine

        return BuiltinEngine(settings, node_id, life, region)
    from edgeproxy.cluster.corrosion.engine import CorrosionEngine

    return CorrosionEngine(settings, node_id, life, region)
