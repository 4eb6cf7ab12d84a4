"""What counts as a fault: a proxy that has done something wrong, or lets someone wait."""

from __future__ import annotations

PATIENCE_SECS = 60.0
"""No client may take longer."""


class FaultError(Exception):
    """The proxy has done something wrong."""
