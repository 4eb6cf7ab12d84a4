"""Overrides of single backends from this POP's configuration file.

    [backends."sa-node-1"]
    weight = 3
    hard_limit = 50
    health_check_type = "http"
    health_check_path = "/up"

A value that the file leaves out stays as the database has it. An overlay for a backend that the
database lacks has no effect until the database has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from edgeproxy.core.backends.backend import Backend


@dataclass(frozen=True, slots=True)
class Overlay:
    """The overrides for one backend; None leaves a value as it is.

    Attributes:
        weight, soft_limit, hard_limit: As in the database.
        check_type, check_path: As in the settings of health checks.
    """

    weight: int | None = None
    soft_limit: int | None = None
    hard_limit: int | None = None
    check_type: str | None = None
    check_path: str | None = None

    def over(self, backend: Backend) -> Backend:
        """Return a backend with these overrides applied."""
        values = {
            name: getattr(self, name)
            for name in ("weight", "soft_limit", "hard_limit")
            if getattr(self, name) is not None
        }
        return replace(backend, **values) if values else backend


def overlaid(backends: tuple[Backend, ...], overlays: Mapping[str, Overlay]) -> tuple[Backend, ...]:
    """Return all backends with the overrides of this POP applied."""
    if not overlays:
        return backends
    return tuple(
        overlays[backend.id].over(backend) if backend.id in overlays else backend
        for backend in backends
    )
