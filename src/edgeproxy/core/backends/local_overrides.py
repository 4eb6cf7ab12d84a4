"""What the configuration file of this POP says about single backends, over the database.

    [backends."sa-node-1"]
    weight = 3
    hard_limit = 50
    health_check_type = "http"
    health_check_path = "/up"

What it leaves out stays as the database has it. A backend that the database does not have is
none: an overlay waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from edgeproxy.core.backends.backend import Backend


@dataclass(frozen=True, slots=True)
class Overlay:
    """What is said about one backend; None: nothing.

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
        """Return a backend as this POP is to see it."""
        said = {
            name: getattr(self, name)
            for name in ("weight", "soft_limit", "hard_limit")
            if getattr(self, name) is not None
        }
        return replace(backend, **said) if said else backend


def overlaid(backends: tuple[Backend, ...], overlays: Mapping[str, Overlay]) -> tuple[Backend, ...]:
    """Return all backends as this POP is to see them."""
    if not overlays:
        return backends
    return tuple(overlays[each.id].over(each) if each.id in overlays else each for each in backends)
