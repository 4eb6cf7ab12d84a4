"""Runs `edgeproxy` commands in this process and keeps what they wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeproxy.cli import main

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True)
class Done:
    """What a finished command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str


class Commands:
    """The command line; each command starts with nothing written."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def run(self, *words: str) -> Done:
        """Run one command, given as the words after `edgeproxy`."""
        self._capsys.readouterr()
        try:
            code = main(words)
        except SystemExit as end:  # argparse met wrong usage
            code = int(end.code or 0)
        return Done(code, *self._capsys.readouterr())
