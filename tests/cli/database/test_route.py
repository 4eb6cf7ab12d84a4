"""`edgeproxy route`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.commands import Commands
from tests.store.editing import documented


@pytest.fixture
def commands(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Commands:
    monkeypatch.setenv("EDGEPROXY_DB_PATH", str(documented(tmp_path / "routing.db")))
    return Commands(capsys)


def test_routes_are_set_listed_and_removed(commands: Commands) -> None:
    assert (
        commands.run("route", "set", "*.Example.com", "web").out == "*.example.com leads to web\n"
    )
    assert commands.run("route", "list").out.split() == ["name", "app", "*.example.com", "web"]
    listed = commands.run("route", "list", "--json").out
    assert json.loads(listed) == [{"name": "*.example.com", "app": "web"}]
    assert commands.run("route", "remove", "*.example.com").out == "removed *.example.com\n"
    assert commands.run("route", "remove", "*.example.com").code == 1


def test_a_bad_name_is_refused(commands: Commands) -> None:
    done = commands.run("route", "set", "a b", "web")
    assert done.code == 2
    assert "allowed is a host name" in done.err


def test_an_app_that_no_node_serves_is_a_warning(commands: Commands) -> None:
    done = commands.run("route", "set", "a.example.com", "wbe")
    assert (done.code, done.out) == (0, "a.example.com leads to wbe\n")
    assert done.err.startswith("edgeproxy: warning: no node serves app wbe")
    assert commands.run("route", "set", "a.example.com", "myapp").err == ""
