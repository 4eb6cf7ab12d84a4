"""The built-in engine before it has heard of others: what it takes for all there is."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from edgeproxy.cluster.builtin.engine import BuiltinEngine
from edgeproxy.cluster.builtin.state_file import StateFile
from edgeproxy.cluster.settings import Peer, ReplicationSettings
from edgeproxy.core.cluster.vectors import Head


def settings_of(path: Path) -> ReplicationSettings:
    return ReplicationSettings(
        enabled=True, db_path=path, bootstrap_peers=(Peer("127.0.0.1", 4001),), insecure=True
    )


def test_a_part_of_what_others_have_is_not_enough_after_a_death(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(StateFile(path)) as state, state.transaction():
        state.set_heads({b"o" * 16: Head(1, b"c" * 16)})
    engine = BuiltinEngine(settings_of(path), "sa", 1, "sa")
    assert not engine.is_ready()
    engine._replica.close()
