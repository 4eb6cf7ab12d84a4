"""A program: an engine that may open few descriptors. See test_descriptors.py.

    python -m tests.conformance.few_descriptors KIND BACKEND_PORT SPARE

Prints the port it listens on, and for each line read how busy it was during one second
and how many clients it has; at the end of its input what its gate was told.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from collections import Counter

from edgeproxy.engine.contract import EngineSettings
from edgeproxy.engine.sockets import open_listener
from tests.conformance.engines import ENGINES
from tests.conformance.gates import ScriptedGate
from tests.conformance.rig import open_descriptors
from tests.waiting import PAUSE


def main(kind: str, backend_port: int, spare: int) -> None:
    logging.basicConfig(level=logging.INFO)
    gate = ScriptedGate(("127.0.0.1", backend_port), timeout_secs=20)
    crashes: list[BaseException] = []
    engine = dict(ENGINES)[kind](EngineSettings(kind=kind), gate, crashes.append)
    listening = open_listener("127.0.0.1", 0)
    port = listening.getsockname()[1]
    engine.listen("main", listening)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_descriptors()) + 1 + spare, hard))
    engine.start()
    _say(port=port)
    for _ in sys.stdin:
        began = time.process_time()
        PAUSE.wait(1.0)
        _say(busy_secs=time.process_time() - began, live=engine.live())
    engine.stop()
    gate.check()
    _say(
        tickets=len(gate.tickets),
        failures=Counter(ticket.failure for ticket in gate.tickets if ticket.failure),
        crashes=[repr(crash) for crash in crashes],
    )


def _say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
