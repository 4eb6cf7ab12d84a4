"""Sends to the log what Python and its libraries would print by themselves.

That is: faults of the event loop and its servers (out of descriptors, an accept that failed),
warnings, exceptions that end a thread or that nobody can catch. Of one kind there is one line a
minute, which says how many were left out; a stranger can cause them as fast as connections.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgeproxy.log import EventLog, Throttle

if TYPE_CHECKING:
    import asyncio

log = EventLog("app")

QUIET_SECS = 60.0
MAX_KINDS = 64
"""Kinds that are told apart; others share one line a minute."""
OTHERS = "others"


class StrayOutput(logging.Handler):
    """Where stray output goes from `adopt` on; `loop_fault` handles exceptions of a loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._throttles: dict[str, Throttle] = {}

    def adopt(self) -> None:
        """Take over the output of this process."""
        for name in ("asyncio", "concurrent.futures", "py.warnings"):
            logger = logging.getLogger(name)
            logger.handlers[:] = [self]
            logger.propagate = False
        logging.captureWarnings(True)
        warnings.simplefilter("ignore", ResourceWarning)
        threading.excepthook = self._thread_fault
        sys.unraisablehook = self._unraisable

    def emit(self, record: logging.LogRecord) -> None:
        """Report a record of another library's logger."""
        error = record.exc_info[1] if record.exc_info else None
        self._tell(record.getMessage().partition("\n")[0], error, record.msg)

    def loop_fault(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Report a fault of an event loop, as its exception handler."""
        self._tell(str(context.get("message", "")), context.get("exception"))

    def _thread_fault(self, fault: threading.ExceptHookArgs) -> None:
        name = fault.thread.name if fault.thread else "?"
        self._tell(f"thread {name} has ended", fault.exc_value)

    def _unraisable(self, fault: Any) -> None:
        self._tell(fault.err_msg or "exception ignored", fault.exc_value)

    def _tell(self, message: str, error: BaseException | None, kind: str = "") -> None:
        kind = f"{kind or message} {type(error).__name__}"
        if kind not in self._throttles and len(self._throttles) >= MAX_KINDS:
            kind = OTHERS
        suppressed = self._throttles.setdefault(kind, Throttle(QUIET_SECS)).admit(self._clock())
        if suppressed is None:
            return
        fields: dict[str, object] = {"message": message}
        if error is not None:
            fields["error"] = repr(error)
        if suppressed:
            fields["suppressed"] = suppressed
        log.warning("internal_fault", **fields)
