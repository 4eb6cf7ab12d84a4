"""Random sessions: each side receives what the other sent, and every end is the right one.

`EDGEPROXY_STORM_SEEDS=500` runs more seeds, `EDGEPROXY_STORM_SEED=7` only that one.
"""

from __future__ import annotations

import pytest

from tests.conformance.rig import SMALL_BUFFER, Rig
from tests.conformance.storm import Storm, seeds

SLOTS = 6
ROUNDS = 3
ACTIONS = 150


@pytest.mark.parametrize("seed", seeds(20))
def test_random_sessions_receive_what_was_sent(rig: Rig, seed: int) -> None:
    rig.prepare()
    backends = {}
    for index in range(SLOTS):
        slot, buffer = f"slot {index}", SMALL_BUFFER if index % 2 else None
        backends[slot] = backend = rig.add_backend(buffer=buffer)
        refusing = [rig.refusing_address()] * (index % 3)
        rig.gate.routes[slot] = [*refusing, backend.address]
        rig.listen(slot, buffer=buffer)
    rig.start()
    storm = Storm(rig, backends, seed)
    for _ in range(ROUNDS):
        storm.round(ACTIONS)
    assert storm.settled == ROUNDS * SLOTS
