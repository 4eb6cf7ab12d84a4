"""`--version` says which edgeProxy and which engine."""

from __future__ import annotations

import pytest

from edgeproxy.engine.choice import best_kind
from edgeproxy.version import VERSION
from tests.cli.commands import Commands


@pytest.mark.parametrize(
    "words", [("--version",), ("-V",), ("serve", "--version"), ("serve", "-V")]
)
def test_it_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.delenv("EDGEPROXY_ENGINE", raising=False)
    done = Commands(capsys).run(*words)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"edgeproxy {VERSION} (engine: {best_kind()})\n"


@pytest.mark.parametrize(
    ("wanted", "engine"),
    [
        ("auto", best_kind()),
        ("portable", "portable"),
        ("steam", "none: EDGEPROXY_ENGINE='steam' is none of auto, native, portable"),
    ],
)
def test_it_names_the_engine_that_a_proxy_would_have(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, wanted: str, engine: str
) -> None:
    monkeypatch.setenv("EDGEPROXY_ENGINE", wanted)
    assert Commands(capsys).run("-V").out == f"edgeproxy {VERSION} (engine: {engine})\n"
