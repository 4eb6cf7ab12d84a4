"""The health checks of a proxy. They begin when the settings first enable them.

The checker is imported only then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.health import HealthSettings, Opening, ProbeSettings, Verdict
from edgeproxy.core.backends.local_overrides import Overlay

if TYPE_CHECKING:
    from edgeproxy.control.health.checker import Checker, Judged


class HealthChecks:
    """The health checks of one proxy. For one event loop, but for `verdicts`."""

    def __init__(self, judged: Judged, opening_of: Callable[[str], Opening]) -> None:
        """`judged` is called when a backend goes up or down.

        `opening_of` says what connections to the backends of an app begin with now.
        """
        self._judged = judged
        self._opening_of = opening_of
        self._checker: Checker | None = None
        self._overlays: Mapping[str, Overlay] = {}

    def verdicts(self) -> dict[str, Verdict]:
        """Return the verdict on each backend, by id; empty without probes."""
        return {} if self._checker is None else dict(self._checker.verdicts)

    def follow(
        self,
        backends: Sequence[Backend],
        settings: ProbeSettings,
        health: HealthSettings,
        overlays: Mapping[str, Overlay],
    ) -> None:
        """Probe these backends from now on, with these settings."""
        self._overlays = overlays
        if self._checker is None:
            if not settings.enabled:
                return
            from edgeproxy.control.health.checker import Checker

            self._checker = Checker(self._judged, self._settings_of, self._opening_of)
        self._checker.use(settings, health, overlays)
        self._checker.follow(backends)

    def stop(self) -> None:
        """End all probes."""
        if self._checker is not None:
            self._checker.stop()

    def _settings_of(self, backend: Backend, settings: ProbeSettings) -> ProbeSettings:
        """Return the settings of the probes of one backend."""
        overlay = self._overlays.get(backend.id)
        if overlay is None:
            return settings
        return settings.over(overlay.check_type, overlay.check_path)
