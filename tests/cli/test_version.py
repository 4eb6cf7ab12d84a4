"""`--version` says which edgeProxy and which engine."""

from __future__ import annotations

import pytest

from edgeproxy.engine.choice import best_kind
from edgeproxy.version import VERSION
from tests.cli.commands import Commands


@pytest.mark.parametrize("words", [("--version",), ("serve", "--version")])
def test_it_is_one_line(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    done = Commands(capsys).run(*words)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"edgeproxy {VERSION} (engine: {best_kind()})\n"
