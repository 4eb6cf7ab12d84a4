"""Checks the health of a backend by a command of the operator; exit code 0 means healthy.

A command gets no secrets: of the proxy's environment it has `PASSED_ON` and what the operator has
named `EDGEPROXY_CHECK_…`. It finds the backend in EDGEPROXY_CHECK_ID, EDGEPROXY_CHECK_ADDRESS and
EDGEPROXY_CHECK_PORT. Its input is empty, its output is dropped.

A command is the leader of a process group of its own. The group ends with it, or at the timeout.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress

from edgeproxy.control.children import RUNNING, has_ended
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.health import COMMAND_PREFIX

PASSED_ON = ("PATH", "HOME", "LANG")
UNKNOWN_CODE = 255
LOOK_SECS = 0.02
"""Time between two looks whether a command has ended."""
MOST_LOOKS = 50
"""How often to look for the end of a group that was killed; the kernel may hold it up."""

_held: dict[str, _Group] = {}
"""Killed groups that have not ended yet, by backend: no other command is started meanwhile."""


async def check(backend: Backend, command: str) -> str:
    """Return what is wrong with a backend, or "". Raises OSError if the command cannot start."""
    held = _held.get(backend.id)
    if held is not None:
        if held.look() is None:
            return "the command of an earlier probe was killed and has not ended"
        del _held[backend.id]
    group = _Group(command, environment(os.environ, backend))
    try:
        while (code := group.look()) is None:
            await asyncio.sleep(LOOK_SECS)
    finally:
        group.kill()
        for _ in range(MOST_LOOKS):
            if group.look() is not None:
                break
            await asyncio.sleep(LOOK_SECS)
        else:
            _held[backend.id] = group
    return "" if code == 0 else f"the command ended with {code}"


def environment(own: Mapping[str, str], backend: Backend) -> dict[str, str]:
    """Return the environment of a command, from that of this process."""
    passed_on = {
        name: text
        for name, text in own.items()
        if name in PASSED_ON or name.startswith(COMMAND_PREFIX)
    }
    return {
        **passed_on,
        f"{COMMAND_PREFIX}ID": backend.id,
        f"{COMMAND_PREFIX}ADDRESS": backend.wg_ip,
        f"{COMMAND_PREFIX}PORT": str(backend.port),
    }


class _Group:
    """A command and all processes that it has started, as far as they stay in its group."""

    def __init__(self, command: str, environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 — the operator's own
            shlex.split(command),
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        RUNNING[self._process.pid] = self.look

    def look(self) -> int | None:
        """Return the exit code of the command if it has ended; then the group has, too."""
        process = self._process
        if process.returncode is not None:
            return process.returncode
        try:
            if not has_ended(process.pid):
                return None
        except ChildProcessError:  # the program around us takes or ignores all exit statuses
            process.returncode = UNKNOWN_CODE
        else:
            self.kill()  # before its exit status is taken: until then no other has its id
            process.wait()
        del RUNNING[process.pid]
        return process.returncode

    def kill(self) -> None:
        """Kill the group, unless it has ended."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
