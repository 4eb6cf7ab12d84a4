"""POPs with a real Corrosion each, on loopback: where `EDGEPROXY_TEST_CORROSION` names the program.

Nothing that can be installed here brings the program, so without it the tests are skipped, also
where nothing else may be.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.cluster.corrosion.engine import CorrosionEngine
from edgeproxy.cluster.engine import Changes
from edgeproxy.cluster.settings import Peer, ReplicationSettings
from edgeproxy.core.cluster.rows import Edit, Key, Values
from edgeproxy.values import ListenAddress
from tests.ports import free_port
from tests.waiting import wait_until

PROGRAM = os.environ.get("EDGEPROXY_TEST_CORROSION", "")
NO_CORROSION = "EDGEPROXY_TEST_CORROSION names no Corrosion"
needs_corrosion = pytest.mark.skipif(not PROGRAM, reason=NO_CORROSION)
HEAL_SECS = 90.0


class Corrosion:
    """An engine whose loop runs on a thread of its own."""

    def __init__(self, settings: ReplicationSettings, node_id: str) -> None:
        self.settings = settings
        self.node_id = node_id
        self.commits: list[Sequence[Edit]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.engine = CorrosionEngine(settings, node_id, 1, "sa")
        self.woken = threading.Event()

    def start(self) -> None:
        self._run(self.engine.start(self.woken.set))

    @property
    def is_up(self) -> bool:
        return self.engine._program.place is not None and bool(self.engine._facts.actor)

    def begin_stop(self) -> None:
        self._stopping = asyncio.run_coroutine_threadsafe(self.engine.stop(), self._loop)

    def end_stop(self) -> None:
        self._stopping.result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, object]) -> object:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def ask(self, name: str, **arguments: object) -> object:
        return self._run(self.engine.command(name, arguments))

    # -- an engine, for a bridge -------------------------------------------------------

    def commit(self, edits: Sequence[Edit], token: str, after: str, at_ms: int) -> None:
        self.engine.commit(edits, token, after, at_ms)
        if edits:
            self.commits.append(edits)

    def last_token(self) -> str:
        return self.engine.last_token()

    def changes(self, after: str) -> Changes:
        return self.engine.changes(after)

    def is_ready(self) -> bool:
        return self.engine.is_ready()

    def rows(self) -> Mapping[Key, Values]:
        changes = self.engine.changes("")
        return {key: values for key, values in changes.rows.items() if values is not None}

    def hear(self, other: Corrosion) -> None:
        """Wait until this one has what the other one has."""
        wait_until(lambda: self.rows() == other.rows(), "equal rows", HEAL_SECS)


def corrosions(folder: Path, names: Sequence[str]) -> list[Corrosion]:
    """Return a Corrosion for each name, started, of one cluster."""
    ports = {name: free_port() for name in names}
    found = []
    for name in names:
        others = [Peer("127.0.0.1", port) for each, port in ports.items() if each != name]
        settings = replace(
            ReplicationSettings(enabled=True, engine="corrosion", sync_interval_ms=1000),
            insecure=True,
            gossip_addr=ListenAddress("127.0.0.1", ports[name]),
            bootstrap_peers=tuple(others),
            db_path=folder / f"{name}-state.db",
            corrosion_bin=Path(PROGRAM),
        )
        found.append(Corrosion(settings, name))
    try:
        for each in found:
            each.start()
        others_of = len(names) - 1
        wait_until(lambda: all(len(each.engine._members) == others_of for each in found), "all", 60)
        wait_until(lambda: all(each.is_ready() for each in found), "all are ready", 60)
    except BaseException:
        stop(found)
        raise
    return found


def stop(engines: Sequence[Corrosion]) -> None:
    """Stop them at once: each takes five seconds to leave."""
    for each in engines:
        each.begin_stop()
    for each in engines:
        each.end_stop()
