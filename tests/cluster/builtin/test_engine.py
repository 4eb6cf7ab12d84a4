"""The built-in engine before it has heard of others: what it takes for all there is."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from edgeproxy.cluster.builtin.engine import MAX_WAITING, BuiltinEngine
from edgeproxy.cluster.builtin.state_file import StateFile
from edgeproxy.cluster.settings import Peer, ReplicationSettings
from edgeproxy.core.cluster.messages import Pull, Wanted
from edgeproxy.core.cluster.vectors import Head
from edgeproxy.wire.replication import encode


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


class Sessions:
    """Stands in for the transport: notes who is held."""

    def __init__(self) -> None:
        self.held: set[str] = set()

    def hold(self, peer: str, is_held: bool) -> None:
        (self.held.add if is_held else self.held.discard)(peer)


def test_who_sends_more_than_the_replica_deals_with_is_held_also_on_a_new_session(
    tmp_path: Path,
) -> None:
    engine = BuiltinEngine(settings_of(tmp_path / "state.db"), "sa", 1, "sa")
    sessions = Sessions()
    engine._transport = sessions  # type: ignore[assignment]
    frame = encode(Pull(1, Wanted.UNSEEN, b"g" * 8, {}))
    for _ in range(MAX_WAITING):
        assert not sessions.held
        engine._heard("us", frame)
    assert sessions.held == {"us"}
    sessions.held.clear()  # the session has ended, and another one has begun
    engine._heard("us", frame)
    assert sessions.held == {"us"}
    for _ in range(MAX_WAITING):
        engine._dealt_with("us")
    assert not sessions.held
    engine._dealt_with("us")
    assert not engine._waiting
    engine._replica.close()
