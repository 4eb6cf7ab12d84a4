"""Where a node is to be reached: the proxy itself is refused, what is most likely wrong is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeproxy.engine.host_addresses import host_addresses
from tests.cli.commands import Commands
from tests.store.editing import documented, execute

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database with the documented rows, named by the environment."""
    path = documented(tmp_path / "routing.db")
    monkeypatch.setenv("EDGEPROXY_DB_PATH", str(path))
    return path


@pytest.fixture
def commands(path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    assert path.exists()
    return Commands(capsys)


def rows(commands: Commands) -> str:
    return commands.run("db", "show", "--json").out


@pytest.mark.parametrize("ip", ["127.0.0.1", "127.3.2.1", "::ffff:127.0.0.1", "::7f00:1"])
def test_add_refuses_the_proxy_itself(
    commands: Commands, ip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows(commands)
    done = commands.run("node", "add", "sa-node-2", "sa", ip)
    assert done.code == 2
    assert "the listener 0.0.0.0:8080=* of the proxy itself" in done.err
    monkeypatch.setenv("EDGEPROXY_API_ENABLED", "true")
    done = commands.run("node", "add", "sa-node-2", "sa", ip, "8081")
    assert (done.code, "the API of the proxy itself" in done.err) == (2, True)
    monkeypatch.setenv("EDGEPROXY_METRICS_ENABLED", "true")
    done = commands.run("node", "add", "sa-node-2", "sa", ip, "9090")
    assert (done.code, "the metrics page of the proxy itself" in done.err) == (2, True)
    assert rows(commands) == before
    monkeypatch.setenv("EDGEPROXY_LISTENERS", "127.0.0.9:8080=*,unix:/run/x.sock=*")
    assert commands.run("node", "add", "sa-node-2", "sa", ip).code == 0


def test_add_refuses_the_proxy_at_every_address_of_this_host(commands: Commands) -> None:
    for ip in host_addresses() or ():
        if "." in ip:
            assert commands.run("node", "add", "sa-node-2", "sa", ip).code == 2


@pytest.mark.parametrize(
    ("ip", "kind"),
    [
        ("169.254.1.1", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("64:ff9b::169.254.169.254", "stands for 169.254.169.254"),
    ],
)
def test_add_warns_of_what_is_most_likely_no_backend(
    commands: Commands, ip: str, kind: str
) -> None:
    done = commands.run("node", "add", "sa-node-2", "sa", ip)
    assert done.code == 0
    assert "warning" in done.err
    assert kind in done.err


@pytest.mark.parametrize(
    "words",
    [
        "set sa-node-1 --address 127.0.9.9",
        "set sa-node-1 --address ::ffff:127.0.9.9 --port 8080",
        "set us-node-1 sa-node-1 --address 127.0.9.9",
        "set here --port 8080",
        "enable here-too",
        "enable us-node-1 here-too",
    ],
)
def test_set_and_enable_refuse_the_proxy_itself(commands: Commands, path: Path, words: str) -> None:
    row = "INSERT INTO backends VALUES ('{}', 'a', 'sa', '127.0.9.9', {}, 0, 1, 1, 1, 1)"
    execute(path, row.format("here", 80))
    execute(path, row.format("here-too", 8080))
    before = rows(commands)
    done = commands.run("node", *words.split())
    assert (done.code, done.out) == (2, "")
    assert "wg_ip 127.0.9.9 with port 8080 is the listener 0.0.0.0:8080=* of the proxy" in done.err
    assert rows(commands) == before
    for other in ("set here-too --port 81", "set here-too --weight 3", "disable here-too"):
        assert commands.run("node", *other.split()).code == 0


def test_set_and_enable_warn_of_what_is_most_likely_no_backend(commands: Commands) -> None:
    done = commands.run("node", "set", "sa-node-1", "--address", "169.254.169.254")
    assert (done.code, done.out) == (0, "changed sa-node-1: address 169.254.169.254\n")
    assert done.err.startswith("edgeproxy: warning: wg_ip 169.254.169.254 is ")
    done = commands.run("node", "enable", "us-node-1", "sa-node-1")
    assert done.code == 0
    assert done.err.startswith("edgeproxy: warning: sa-node-1: wg_ip 169.254.169.254 is ")
    assert commands.run("node", "set", "sa-node-1", "--weight", "3").err == ""


def test_a_row_that_has_no_address_is_not_judged(commands: Commands, path: Path) -> None:
    execute(path, "UPDATE backends SET wg_ip = 'x' WHERE id = 'sa-node-1'")
    done = commands.run("node", "set", "sa-node-1", "--port", "8080")
    assert done.code == 0
    assert "proxies skip this node: wg_ip 'x' is not allowed" in done.err
