"""Orphans are reaped by process 1, and nobody else loses an exit status."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeproxy.control import children
from tests.waiting import wait_until

SOURCE = Path(children.__file__).parent.parent
STARTS_PROCESSES = {
    "control/health/command.py",  # enters them in RUNNING, with an environment of their own
    "cluster/supervisor.py",  # enters them in RUNNING; the agent has the settings of the proxy
    "cluster/corrosion/program.py",  # of the agent, which is no process 1
    "cli/register.py",  # the same, without the token
    "process/handover.py",  # a successor, which gets all; process 1 starts none
    "cli/demo/environment.py",  # a demo is no process 1
    "cli/demo/proxy.py",  # as above
}
AS_PROCESS_1 = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def in_namespace() -> tuple[str, ...]:
    """Return how to run a command as process 1."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and the `unshare` command to make a PID namespace")
    tried = subprocess.run([*AS_PROCESS_1, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no PID namespace can be made here: {tried.stderr.strip()}")
    return AS_PROCESS_1


CHECK = """
(setsid sh -c 'echo >> begun; sleep 0.05; echo >> ended' &)
sleep 0.05
exit $1
"""
"""A check that leaves a process behind, in a session of its own, and ends."""

ORPHANS = """
import asyncio, os
from pathlib import Path
from edgeproxy.control import children
from edgeproxy.control.health.probe import probe
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.health import ProbeSettings

children.LOOK_SECS = 0.001

def zombies():
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if (state, parent) == ("Z", "1"):
            found.append(path.parent.name)
    return found

async def one(number):
    settings = ProbeSettings(True, timeout_secs=100, kind="exec", command=f"sh check {number}")
    return await probe(Backend(str(number), "", "", "192.0.2.1", 80), settings)

async def main():
    assert os.getpid() == 1
    reaping = asyncio.ensure_future(children.reap_always())
    for _ in range(3):
        faults = await asyncio.gather(*map(one, range(20)))
        wanted = ["", *(f"the command ended with {code}" for code in range(1, 20))]
        assert faults == wanted, faults
    begun = lambda: len(Path("begun").read_text())
    ended = lambda: len(Path("ended").read_text())
    assert begun() >= 20, begun()
    async with asyncio.timeout(100):
        while zombies() or ended() < begun():
            await asyncio.sleep(0.01)
    reaping.cancel()

asyncio.run(main())
"""


def test_orphans_are_reaped_and_commands_keep_their_exit_codes(tmp_path: Path) -> None:
    (tmp_path / "check").write_text(CHECK)
    ran = subprocess.run(
        [*in_namespace(), sys.executable, "-c", ORPHANS],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_wrapper_that_is_process_1_reaps_too_and_keeps_its_token(tmp_path: Path) -> None:
    """`edgeproxy register -- COMMAND` is process 1 of the container of many a backend."""
    script = (
        "env > environment; for n in 1 2 3; do (setsid sh -c 'echo $$ >> orphans' &); done;"
        " trap 'exit 7' TERM; while :; do sleep 0.05; done"
    )
    words = "register --api http://127.0.0.1:9 --id a --app a --region sa --ip 127.0.0.1 --port 9"
    command = [sys.executable, "-m", "edgeproxy", *words.split(), "--", "sh", "-c", script]
    process = subprocess.Popen(
        [*in_namespace(), *command],
        cwd=tmp_path,
        env={**os.environ, "EDGEPROXY_API_TOKEN": "secret"},
        stderr=subprocess.DEVNULL,
    )
    try:
        orphans = tmp_path / "orphans"
        wait_until(lambda: orphans.exists() and len(orphans.read_text().split()) == 3, "orphans")
        inner = child_of(process.pid)
        proc = Path(f"/proc/{inner}/root/proc")
        wait_until(
            lambda: not any((proc / each).exists() for each in orphans.read_text().split()),
            "the orphans to be reaped",
        )
        assert "secret" not in (tmp_path / "environment").read_text()
        os.kill(inner, signal.SIGTERM)
        assert process.wait(60) == 7
    finally:
        process.kill()
        process.wait()


def child_of(pid: int) -> int:
    """Return the only child of a process."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def test_whoever_starts_a_process_is_known_here() -> None:
    """One that process 1 does not know of could lose its exit status, or give away secrets."""
    starts = re.compile(r"\b(Popen\(|subprocess\.run\(|create_subprocess_|posix_spawn|os\.fork\()")
    found = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if starts.search(path.read_text(encoding="utf-8"))
    }
    assert found == STARTS_PROCESSES
