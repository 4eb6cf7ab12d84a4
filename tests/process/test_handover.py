"""What is said of a successor that does not get ready."""

from __future__ import annotations

import subprocess

from edgeproxy.process.handover import _ended


def test_one_that_takes_too_long_is_ended() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        assert _ended(process, None) == "did not get ready within 30 s and was ended"
        assert process.returncode is not None


def test_one_that_ended_by_itself_is_known_by_its_exit_code() -> None:
    with subprocess.Popen(["sh", "-c", "exit 3"]) as process:
        assert _ended(process, b"") == "ended before it was ready, with exit code 3"
