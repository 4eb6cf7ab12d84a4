"""The engines that have to pass this suite."""

from __future__ import annotations

from edgeproxy.engine.choice import MakeEngine, native_engine
from edgeproxy.engine.portable.engine import PortableEngine

__all__ = ["ENGINES", "MakeEngine"]

ENGINES: list[tuple[str, MakeEngine]] = [("portable", PortableEngine)]

if NATIVE := native_engine():
    ENGINES.append(("native", NATIVE))
