"""Commands of exec probes get no secrets, and end with all that they have started."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from edgeproxy.control.children import RUNNING
from edgeproxy.control.health.command import environment
from edgeproxy.control.health.probe import probe
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.health import ProbeSettings
from tests.waiting import wait_until

BACKEND = Backend("a", "app", "sa", "192.0.2.10", 80)
SETTINGS = ProbeSettings(enabled=True, kind="exec", timeout_secs=60.0)


def found(command: str, timeout_secs: float = 60.0) -> str:
    settings = replace(SETTINGS, command=command, timeout_secs=timeout_secs)
    return asyncio.run(probe(BACKEND, settings))


def has_ended(file: Path) -> bool:
    """Return whether the process has ended whose id is in this file."""
    try:
        return Path(f"/proc/{file.read_text().strip()}/stat").read_text().split()[2] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("true", ""),
        ("false", "the command ended with 1"),
        ("sh -c 'exit 7'", "the command ended with 7"),
        ("sh -c 'kill -9 $$'", "the command ended with -9"),
        ("/no/such/command", "no such file or directory"),
    ],
)
def test_exit_code_0_is_wanted(command: str, fault: str) -> None:
    assert found(command) == fault
    assert not RUNNING


def test_a_command_gets_the_backend_and_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {
        "EDGEPROXY_API_TOKEN": "secret",
        "EDGEPROXY_POSTGRES_URL": "postgres://user:secret@host/db",
        "PGPASSWORD": "secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "NOTIFY_SOCKET": "/run/secret",
    }
    own = {"LANG": "C.UTF-8", "HOME": "/", "EDGEPROXY_CHECK_USER": "probe"}
    for name, text in {**secrets, **own}.items():
        monkeypatch.setenv(name, text)
    file = tmp_path / "environment"
    assert found(f"sh -c 'env > {file}'") == ""
    got = dict(line.split("=", 1) for line in file.read_text().splitlines())
    assert "secret" not in "".join(got.values())
    for name in ("PWD", "SHLVL", "_", "OLDPWD"):  # of the shell itself
        got.pop(name, None)
    assert got.keys() == {
        *("PATH", "HOME", "LANG", "EDGEPROXY_CHECK_USER"),
        *("EDGEPROXY_CHECK_ID", "EDGEPROXY_CHECK_ADDRESS", "EDGEPROXY_CHECK_PORT"),
    }
    assert got["EDGEPROXY_CHECK_ADDRESS"] == "192.0.2.10"


def test_what_is_not_set_is_not_made_up() -> None:
    assert environment({"EDGEPROXY_CHECK_ID": "other", "TERM": "x"}, BACKEND) == {
        "EDGEPROXY_CHECK_ID": "a",
        "EDGEPROXY_CHECK_ADDRESS": "192.0.2.10",
        "EDGEPROXY_CHECK_PORT": "80",
    }


@pytest.mark.parametrize(
    ("command", "timeout_secs", "fault"),
    [
        ("sleep 600 & echo $! > FILE; wait", 3.0, "no answer within 3 s"),
        ("sleep 600 & echo $! > FILE", 60.0, ""),
        ("sleep 600 & echo $! > FILE; exit 1", 60.0, "the command ended with 1"),
    ],
)
def test_a_command_ends_with_all_it_has_started(
    tmp_path: Path, command: str, timeout_secs: float, fault: str
) -> None:
    file = tmp_path / "pid"
    assert found(f"sh -c '{command.replace('FILE', str(file))}'", timeout_secs) == fault
    wait_until(lambda: has_ended(file), "the command's child has ended")
    assert not RUNNING


def test_a_probe_that_is_given_up_ends_its_command(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    async def give_up() -> None:
        settings = replace(SETTINGS, command=f"sh -c 'echo $$ > {file}; sleep 600'")
        task = asyncio.ensure_future(probe(BACKEND, settings))
        while not (file.exists() and file.read_text().strip()):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())
    assert has_ended(file)
    assert not RUNNING


def test_a_command_may_say_as_much_as_it_likes() -> None:
    assert found("sh -c 'head -c 50000000 /dev/zero | tee /dev/stderr'") == ""


def test_a_lost_exit_code_is_no_success() -> None:
    """A program that uses the library may ignore the ends of its children."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert found("true") == "the command ended with 255"
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert not RUNNING
