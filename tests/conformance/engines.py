"""The engines that have to pass this suite."""

from __future__ import annotations

from collections.abc import Callable

from edgeproxy.engine.contract import Engine, EngineSettings, Gate
from edgeproxy.engine.portable import PortableEngine

MakeEngine = Callable[[EngineSettings, Gate, Callable[[BaseException], object]], Engine]

ENGINES: list[tuple[str, MakeEngine]] = [
    ("portable", PortableEngine),
]
