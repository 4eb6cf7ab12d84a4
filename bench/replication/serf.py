"""How soon Debian's `serf` knows of a crash, on the same links: a peer for section `crash`."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from bench.replication.edits import LEAST_MS, MOST_MS, SETTLE_SECS
from bench.replication.figures import Bench, show, show_times
from tests.underlay import Underlay
from tests.waiting import PAUSE, wait_until

PROFILES = {"lan": 10, "wan": 5}
"""How many crashes are watched with each set of timings that serf has."""
PORT = 7946
FAILED = "serf: EventMemberFailed: "
JOINED = "serf: EventMemberJoin: "
PATIENCE_SECS = 120.0


class SerfAgent:
    """One agent of serf, in a network of its own."""

    def __init__(self, underlay: Underlay, name: str, folder: Path, profile: str) -> None:
        self.name = name
        self._underlay = underlay
        self._log = folder / f"{name}.log"
        self._command = [
            "serf",
            "agent",
            f"-node={name}",
            f"-bind={underlay.address(name)}:{PORT}",
            "-rpc-addr=127.0.0.1:7373",
            f"-profile={profile}",
        ]

    def start(self, *others: str) -> None:
        """Start it, and let it join the cluster that the others are in."""
        joins = [f"-retry-join={self._underlay.address(other)}:{PORT}" for other in others]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._underlay.hosts[self.name].command([*self._command, *joins]),
                stdout=log,
                stderr=log,
            )

    def crash(self) -> None:
        """End it without a word."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def told(self, event: str) -> list[str]:
        """Return the names of the members in the lines about this event."""
        lines = self._log.read_text().splitlines()
        return [line.split(event)[1].split(" ")[0] for line in lines if event in line]


def measure_serf(bench: Bench) -> None:
    """Section `serf`."""
    if shutil.which("serf") is None:
        print("  skipped: there is no serf here; Debian has it as the package serf", flush=True)
        return
    for profile, crashes in PROFILES.items():
        folder = bench.folder / profile
        folder.mkdir()
        with Underlay(bench.names) as underlay:
            underlay.spread(LEAST_MS, MOST_MS)
            agents = [SerfAgent(underlay, name, folder, profile) for name in bench.names]
            try:
                _measure(agents, profile, bench.many(crashes))
            finally:
                for agent in agents:
                    agent.crash()


def _measure(agents: Sequence[SerfAgent], profile: str, crashes: int) -> None:
    rng = random.Random(1)
    names = [agent.name for agent in agents]
    for agent in agents:
        agent.start(*(name for name in names if name != agent.name))
    for agent in agents:
        wait_until(lambda: set(agent.told(JOINED)) >= set(names), "all joined", PATIENCE_SECS)  # noqa: B023
    PAUSE.wait(SETTLE_SECS)
    last, wrong = [], 0
    for _ in range(crashes):
        victim = rng.choice(agents)
        others = [agent for agent in agents if agent is not victim]
        known = {agent.name: len(agent.told(FAILED)) for agent in others}
        began_at = time.monotonic()
        victim.crash()

        def is_known() -> bool:
            return all(victim.name in agent.told(FAILED)[known[agent.name] :] for agent in others)  # noqa: B023

        wait_until(is_known, "the crash known", PATIENCE_SECS)
        last.append(time.monotonic() - began_at)
        wrong += sum(
            name != victim.name for a in others for name in a.told(FAILED)[known[a.name] :]
        )
        back = {agent.name: len(agent.told(JOINED)) for agent in others}
        victim.start(*(agent.name for agent in others))
        wait_until(
            lambda: all(victim.name in a.told(JOINED)[back[a.name] :] for a in others),  # noqa: B023
            "it is back",
            PATIENCE_SECS,
        )
        PAUSE.wait(SETTLE_SECS)
    show_times(f"serf, profile {profile}: crash known everywhere", last)
    show("others that it called failed meanwhile", wrong, "")
