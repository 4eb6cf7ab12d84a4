"""Keeps an agent running beside the proxy, and knows how it is.

An agent that ends is started again, after a pause that grows while it ends soon. One that does not
answer for `WEDGED_SECS` is killed. The proxy needs neither to route.

For the control plane's event loop.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeproxy.cluster.agent_socket import AgentError, ask
from edgeproxy.control.children import RUNNING
from edgeproxy.log import EventLog

log = EventLog("cluster")

LOOK_SECS = 0.1
ASK_SECS = 1.0
ANSWER_SECS = 5.0
WEDGED_SECS = 30.0
FIRST_PAUSE_SECS = 0.5
LONGEST_PAUSE_SECS = 30.0
STEADY_SECS = 60.0
"""An agent that has lived for so long is started again at once."""


class Supervisor:
    """Starts and watches the agent of one proxy.

    Attributes:
        status: What the agent said of itself last; None while there is none that answers.
        restarts_total: How often an agent was started after one had ended.
    """

    def __init__(self, db_path: Path) -> None:
        self._db_path = db_path
        self._process: subprocess.Popen[bytes] | None = None
        self.status: Mapping[str, Any] | None = None
        self.restarts_total = 0

    def state(self) -> Mapping[str, Any]:
        """Return what is known of the agent and of the cluster, for JSON."""
        return {"agent_restarts": self.restarts_total, **(self.status or {"ready": False})}

    async def run(self) -> None:
        """Keep an agent running until this is cancelled."""
        pause_secs = FIRST_PAUSE_SECS
        try:
            while True:
                began_at = time.monotonic()
                self._start()
                await self._watch()
                lived_secs = time.monotonic() - began_at
                pause_secs = FIRST_PAUSE_SECS if lived_secs > STEADY_SECS else pause_secs * 2
                await asyncio.sleep(min(pause_secs, LONGEST_PAUSE_SECS))
                self.restarts_total += 1
        finally:
            self._end()

    def _start(self) -> None:
        command = [sys.executable, "-P", "-m", "edgeproxy", "cluster", "agent"]
        self._process = process = subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: S603
        RUNNING[process.pid] = process.poll
        log.info("agent_started", pid=process.pid)

    async def _watch(self) -> None:
        """Return when the agent has ended."""
        process = self._process
        assert process is not None
        heard_at = asked_at = time.monotonic()
        while process.poll() is None:
            await asyncio.sleep(LOOK_SECS)
            now = time.monotonic()
            if now - asked_at < ASK_SECS:
                continue
            asked_at = now
            if await self._ask():
                heard_at = time.monotonic()
            elif now - heard_at > WEDGED_SECS:
                log.error("agent_wedged", pid=process.pid, secs=round(now - heard_at))
                process.kill()
        RUNNING.pop(process.pid, None)
        self.status = None
        log.warning("agent_ended", pid=process.pid, code=process.returncode)

    async def _ask(self) -> bool:
        """Ask the agent how it is; return whether it answered."""
        try:
            self.status = await asyncio.to_thread(ask, self._db_path, "status", ANSWER_SECS)
        except AgentError:
            self.status = None
            return False
        return True

    def _end(self) -> None:
        """Ask the agent to end: it leaves the cluster for now, and others take that for no failure.

        Its standard input ends with this process, so it is not waited for.
        """
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
