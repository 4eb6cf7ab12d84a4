"""A client for which the system has no room is closed, and the next ones are served."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from edgeproxy.engine.contract import ListenerSettings, Refuse
from edgeproxy.engine.portable.engine import PortableEngine
from edgeproxy.engine.tls import TlsSettings
from tests.conformance.peers import Pause, Peer
from tests.conformance.tls_rig import TlsRig, own
from tests.engine.portable.full_epoll import FullEpoll
from tests.waiting import wait_until


@pytest.mark.parametrize("stage", ["preread", "handshakes"])
def test_a_client_that_cannot_be_watched_is_closed_and_accepting_pauses(
    stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {
        "preread": ListenerSettings(preamble_secs=20.0),
        "handshakes": ListenerSettings(tls=TlsSettings((own(),))),
    }[stage]
    with closing(TlsRig("portable", PortableEngine)) as rig:
        rig.prepare()
        rig.gate.read_preamble = lambda _preamble: Refuse("")
        rig.listen(settings=settings)
        engine: Any = rig.engine
        stage_in_use = getattr(engine._ingress, f"_{stage}")
        real, stage_in_use._epoll = stage_in_use._epoll, FullEpoll(stage_in_use._epoll)
        rig.start()
        assert Peer(rig.tcp()).rest() == Pause(b"", reset=False)
        (line,) = [record for record in caplog.records if record.message == "accept_paused"]
        assert "No space left on device" in str(vars(line))
        assert rig.gate.opened_clients == []
        stage_in_use._epoll = real
        later = Peer(rig.tcp())
        wait_until(lambda: len(stage_in_use) == 1, "the next client is in the stage")
        later.close()
        wait_until(lambda: rig.engine.live() == 0, "it is gone")
