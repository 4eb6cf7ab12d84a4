"""Publishes the first routing table of a proxy: no listener opens before there is one.

A file that cannot be read ends the start, since nothing will change by itself. A database server
may come back: the start waits for it, with a back-off, and the log says why. A successor makes no
empty table: it is better that its predecessor goes on serving.
"""

from __future__ import annotations

import gc
import os
import shlex
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgeproxy.errors import StoreError
from edgeproxy.log import EventLog

if TYPE_CHECKING:
    from edgeproxy.config.load import Config
    from edgeproxy.core.backends.backend import Backend
    from edgeproxy.store.feed import Feed, Store

log = EventLog("app")

FIRST_PAUSE_SECS = 0.25
LONGEST_PAUSE_SECS = 5.0
POLL_SECS = 0.05

_NEVER = threading.Event()


def publish_first(
    feed: Feed,
    store: Store,
    is_stopped: Callable[[], bool],
    *,
    may_come_back: bool,
    is_successor: bool,
) -> bool:
    """Publish the first table; return whether there is one, False if it was stopped before.

    Raises StoreError for a database that will not come back by itself.
    """
    if not may_come_back:
        if not is_successor and store.ensure():
            log.info("database_created", path=store.path)
        try:
            _first(feed, needs_table=is_successor)
        except StoreError:
            if is_stopped():
                return False
            raise
        return True
    pause_secs = FIRST_PAUSE_SECS
    told = ""
    while not is_stopped():
        try:
            _first(feed)
            return True
        except StoreError as error:
            reason = error.reason
        if reason != told:
            told = reason
            log.warning("database_awaited", path=store.path, reason=reason)
        until = time.monotonic() + pause_secs
        while time.monotonic() < until and not is_stopped():
            _NEVER.wait(POLL_SECS)
        pause_secs = min(pause_secs * 2, LONGEST_PAUSE_SECS)
    return False


def warn_without_backends(config: Config, store_path: object, backends: Sequence[Backend]) -> None:
    """Say what to do next where every client would be refused, and nobody can register."""
    app = "" if config.listeners.listen else config.admission.app
    if config.api.enabled or any(app in ("", each.app) for each in backends):
        return
    command = "edgeproxy node add ID REGION ADDRESS PORT"
    if app:
        command += f" --app {shlex.quote(app)}"
    if not config.postgres.enabled:
        command += f" --db {shlex.quote(os.path.abspath(str(store_path)))}"
    hint = f"every client is refused; add a backend: {command}"
    log.warning("no_backends", db=store_path, app=app or "*", hint=hint)


def _first(feed: Feed, *, needs_table: bool = False) -> None:
    """Read and publish. The garbage collector does not walk the table, now or later."""
    gc.disable()
    try:
        feed.first(needs_table=needs_table)
    finally:
        gc.freeze()
        gc.enable()
