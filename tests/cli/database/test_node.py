"""`edgeproxy node`: each command does what its name says, or changes nothing and says why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from edgeproxy.core.backends.rows import COLUMNS
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


def rows(commands: Commands) -> dict[str, dict[str, object]]:
    return {row["id"]: row for row in json.loads(commands.run("db", "show", "--json").out)}


def test_add_fills_in_the_documented_defaults(commands: Commands) -> None:
    done = commands.run("node", "add", "sa-node-2", "sa", "10.50.1.2")
    assert (done.code, done.err) == (0, "")
    assert done.out == "added sa-node-2: sa 10.50.1.2:8080 weight 1\n"
    assert list(rows(commands)["sa-node-2"].values()) == [
        *("sa-node-2", "myapp", "sa", "10.50.1.2", 8080, 1, 1, 100, 200, 0)
    ]


def test_add_takes_port_weight_app_and_limits(commands: Commands) -> None:
    words = "node add us-node-2 us fd00:0::2 9000 3 --app shop --soft-limit 5 --hard-limit 0"
    done = commands.run(*words.split())
    assert done.out == "added us-node-2: us [fd00::2]:9000 weight 3\n"
    assert list(rows(commands)["us-node-2"].values()) == [
        *("us-node-2", "shop", "us", "fd00::2", 9000, 1, 3, 5, 0, 0)
    ]


def test_add_makes_a_missing_database_and_says_so(commands: Commands, path: Path) -> None:
    path.unlink()
    done = commands.run("node", "add", "sa-node-2", "sa", "10.50.1.2")
    assert done.code == 0
    assert done.err == f"edgeproxy: created {path}\n"
    assert list(rows(commands)) == ["sa-node-2"]


def test_add_makes_no_database_for_a_bad_value(commands: Commands, path: Path) -> None:
    path.unlink()
    assert commands.run("node", "add", "sa-node-2", "sa", "10.50.1.2", "70000").code == 2
    assert not path.exists()


def test_add_refuses_an_id_that_exists(commands: Commands) -> None:
    done = commands.run("node", "add", "sa-node-1", "sa", "10.50.1.2")
    assert (done.code, done.out) == (1, "")
    assert "node 'sa-node-1' exists already" in done.err
    assert commands.run("node", "remove", "sa-node-1").code == 0
    done = commands.run("node", "add", "sa-node-1", "sa", "10.50.1.2")
    assert done.code == 1
    assert "`edgeproxy node enable` restores it" in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("'' sa 10.0.0.1", "id '' is not allowed: 1 to 128 printable characters"),
        ("x SA 10.0.0.1", "region 'SA' is not allowed: a short code like sa, us, eu or ap"),
        ("x sa 10.0.0.300", "wg_ip '10.0.0.300' is not allowed: the IPv4 or IPv6 address"),
        ("x sa backend.internal", "wg_ip 'backend.internal' is not allowed"),
        ("x sa 10.0.0.1 0", "port 0 is not allowed: 1 to 65535"),
        ("x sa 10.0.0.1 -5", "port -5 is not allowed: 1 to 65535"),
        ("x sa 10.0.0.1 70000", "port 70000 is not allowed: 1 to 65535"),
        ("x sa 10.0.0.1 8_0", "port '8_0' is not allowed: a whole number, 1 to 65535"),
        ("x sa 10.0.0.1 80.5", "port '80.5' is not allowed: a whole number, 1 to 65535"),
        ("x sa 10.0.0.1 80 -5", "weight -5 is not allowed: 0 to 1000"),
        ("x sa 10.0.0.1 80 -0.5", "weight '-0.5' is not allowed: a whole number, 0 to 1000"),
        ("x sa 10.0.0.1 80 1001", "weight 1001 is not allowed: 0 to 1000"),
        ("x sa 10.0.0.1 80 " + "9" * 5000, "weight '9999"),
        ("x sa 10.0.0.1 --soft-limit -5", "soft_limit -5 is not allowed: 0 to 1000000000"),
        ("x sa 10.0.0.1 --hard-limit ten", "hard_limit 'ten' is not allowed: a whole number"),
        ("x sa 10.0.0.1 --soft-limit 201", "soft_limit 201 is not allowed: at most the hard_limit"),
        ("x sa 10.0.0.1 --app ''", "app '' is not allowed"),
    ],
)
def test_add_refuses_bad_values_and_changes_nothing(
    commands: Commands, path: Path, words: str, message: str
) -> None:
    before = path.read_bytes()
    done = commands.run("node", "add", *(word.strip("'") for word in words.split()))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"edgeproxy: {message}")
    assert path.read_bytes() == before


def test_add_warns_of_a_region_that_nobody_else_uses(commands: Commands) -> None:
    done = commands.run("node", "add", "m-1", "mars", "10.0.0.1")
    assert done.code == 0
    assert done.err == (
        "edgeproxy: warning: region mars is none of sa, us, eu, ap and no other node is in it\n"
    )
    assert commands.run("node", "add", "m-2", "mars", "10.0.0.2").err == ""
    assert commands.run("node", "add", "ap-1", "ap", "10.0.0.2").err == ""


def test_remove_and_enable_are_each_others_opposite(commands: Commands) -> None:
    before = rows(commands)
    done = commands.run("node", "remove", "sa-node-1")
    assert done.out == "removed sa-node-1: marked as deleted, enable restores it\n"
    assert rows(commands)["sa-node-1"]["deleted"] == 1
    done = commands.run("node", "enable", "sa-node-1")
    assert done.out == "enabled sa-node-1: healthy, not deleted\n"
    assert rows(commands) == before


def test_delete_takes_the_row_away(commands: Commands) -> None:
    done = commands.run("node", "delete", "sa-node-1")
    assert done.out == "deleted sa-node-1: no longer in the database\n"
    assert list(rows(commands)) == ["us-node-1", "eu-node-1"]


def test_disable_keeps_clients_away(commands: Commands) -> None:
    done = commands.run("node", "disable", "sa-node-1")
    assert done.out == "disabled sa-node-1: not healthy, takes no new clients\n"
    assert rows(commands)["sa-node-1"]["healthy"] == 0


def test_weight_and_limits_are_set(commands: Commands) -> None:
    done = commands.run("node", "weight", "sa-node-1", "3")
    assert done.out == "changed sa-node-1: weight 3\n"
    done = commands.run("node", "limits", "sa-node-1", "200", "500")
    assert done.out == "changed sa-node-1: soft limit 200, hard limit 500\n"
    row = rows(commands)["sa-node-1"]
    assert (row["weight"], row["soft_limit"], row["hard_limit"]) == (3, 200, 500)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("weight sa-node-1 -5", "weight -5 is not allowed: 0 to 1000"),
        ("weight sa-node-1 1001", "weight 1001 is not allowed: 0 to 1000"),
        ("weight sa-node-1 three", "weight 'three' is not allowed: a whole number, 0 to 1000"),
        ("limits sa-node-1 -1 5", "soft_limit -1 is not allowed: 0 to 1000000000"),
        ("limits sa-node-1 5 -1", "hard_limit -1 is not allowed: 0 to 1000000000"),
        ("limits sa-node-1 500 200", "soft_limit 500 is not allowed: at most the hard_limit, 200"),
    ],
)
def test_a_bad_weight_or_limit_changes_nothing(
    commands: Commands, path: Path, words: str, message: str
) -> None:
    before = path.read_bytes()
    done = commands.run("node", *words.split())
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"edgeproxy: {message}")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        "remove sa-node-9",
        "delete sa-node-9",
        "enable sa-node-9",
        "disable sa-node-9",
        "weight sa-node-9 3",
        "limits sa-node-9 1 2",
        "set sa-node-9 --port 80",
        "show sa-node-9",
        "disable us-node-1 sa-node-9",
        "set us-node-1 sa-node-9 --weight 1",
    ],
)
def test_an_unknown_id_is_exit_code_1(commands: Commands, path: Path, words: str) -> None:
    before = path.read_bytes()
    done = commands.run("node", *words.split())
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(
        f"edgeproxy: no node 'sa-node-9' in {path}: did you mean 'sa-node-1'"
    )
    assert path.read_bytes() == before
    path.unlink()
    done = commands.run("node", *words.split())
    assert done.code == 1
    assert f"make an empty one with `edgeproxy db init --db {path}`" in done.err
    assert not path.exists()


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("add sa-node-2 sa 10.50.1.2", {"id": "sa-node-2", "weight": 1, "deleted": 0}),
        ("remove sa-node-1", {"id": "sa-node-1", "deleted": 1}),
        ("delete sa-node-1", {"id": "sa-node-1", "wg_ip": "10.50.1.1"}),
        ("enable sa-node-1", {"id": "sa-node-1", "healthy": 1, "deleted": 0}),
        ("disable sa-node-1", {"id": "sa-node-1", "healthy": 0}),
        ("weight sa-node-1 7", {"id": "sa-node-1", "weight": 7}),
        ("limits sa-node-1 1 2", {"id": "sa-node-1", "soft_limit": 1, "hard_limit": 2}),
        ("set sa-node-1 --port 81 --app shop", {"id": "sa-node-1", "port": 81, "app": "shop"}),
        ("show sa-node-1", {"id": "sa-node-1", "port": 8080}),
    ],
)
def test_json_is_the_row_after_the_edit_or_what_was_deleted(
    commands: Commands, words: str, changes: dict[str, object]
) -> None:
    done = commands.run("node", *words.split(), "--json")
    row = json.loads(done.out)
    assert list(row) == list(COLUMNS)
    assert {name: row[name] for name in changes} == changes


def test_an_edit_of_a_row_that_proxies_skip_says_so(commands: Commands, path: Path) -> None:
    execute(path, "UPDATE backends SET port = 70000 WHERE id = 'sa-node-1'")
    done = commands.run("node", "enable", "sa-node-1")
    assert done.code == 0
    assert done.err == (
        "edgeproxy: warning: proxies skip this node: port 70000 is not allowed: 1 to 65535\n"
    )
    assert commands.run("node", "delete", "sa-node-1").err == ""


def test_what_is_printed_stays_on_one_line(commands: Commands, path: Path) -> None:
    execute(path, "UPDATE backends SET id = 'a' || char(10) || 'b' WHERE id = 'sa-node-1'")
    assert commands.run("node", "delete", "a\nb").out.startswith(r"deleted a\nb: ")


def test_wrong_usage_is_exit_code_2_and_changes_nothing(commands: Commands, path: Path) -> None:
    before = path.read_bytes()
    for words in (
        ["node"],
        ["node", "move", "sa-node-1"],
        ["node", "add", "x", "sa"],
        ["node", "add", "x", "sa", "10.0.0.1", "80", "1", "more"],
        ["node", "weight", "sa-node-1"],
        ["node", "weight", "sa-node-1", "-5x"],
        ["node", "limits", "sa-node-1", "5"],
        ["node", "remove", "sa-node-1", "--hard"],
        ["node", "set"],
        ["node", "show"],
    ):
        done = commands.run(*words)
        assert (done.code, done.out) == (2, "")
        assert "usage: edgeproxy" in done.err
    assert path.read_bytes() == before


def test_set_changes_every_field_that_is_named_and_no_other(commands: Commands) -> None:
    before = rows(commands)
    words = "set sa-node-1 --app shop --region us --address fd00:0::9 --port 81 --weight 9"
    done = commands.run("node", *words.split(), "--soft-limit", "7", "--hard-limit", "0")
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "changed sa-node-1: app shop, region us, address fd00::9, port 81, weight 9, soft limit 7, "
        "hard limit 0\n"
    )
    assert list(rows(commands)["sa-node-1"].values()) == [
        *("sa-node-1", "shop", "us", "fd00::9", 81, 1, 9, 7, 0, 0)
    ]
    assert commands.run("node", "set", "sa-node-1", "--port", "82").code == 0
    after = rows(commands)
    assert after.pop("sa-node-1")["port"] == 82
    before.pop("sa-node-1")
    assert after == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--port 0", "port 0 is not allowed"),
        ("--region SA", "region 'SA' is not allowed"),
        ("--address backend.internal", "wg_ip 'backend.internal' is not allowed"),
        ("--weight x", "weight 'x' is not allowed"),
        ("--soft-limit 5000", "soft_limit 5000 is not allowed: at most the hard_limit"),
        ("--hard-limit 1", "is not allowed: at most the hard_limit, 1"),
        ("--country BRA", "country 'BRA' is not allowed"),
        ("", "node set: name at least one field to change: --app, --region"),
        ("weight 3", "--hard-limit; did you mean --weight?"),
        ("soft_limit=3", "--hard-limit; did you mean --soft-limit?"),
    ],
)
@pytest.mark.parametrize("ids", ["sa-node-1", "us-node-1 sa-node-1"])
def test_set_refuses_bad_values_and_changes_nothing(
    commands: Commands, path: Path, ids: str, words: str, message: str
) -> None:
    execute(path, "UPDATE backends SET soft_limit = 0, hard_limit = 0 WHERE id = 'us-node-1'")
    before = path.read_bytes()
    done = commands.run("node", "set", *ids.split(), *words.split())
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert path.read_bytes() == before


def test_a_country_is_set_where_there_is_a_column_for_it(commands: Commands, path: Path) -> None:
    done = commands.run("node", "set", "sa-node-1", "--country", "br")
    assert done.code == 1
    assert "ALTER TABLE backends ADD COLUMN country TEXT" in done.err
    execute(path, "ALTER TABLE backends ADD COLUMN country TEXT")
    assert commands.run("node", "set", "sa-node-1", "--country", "br").code == 0
    assert rows(commands)["sa-node-1"]["country"] == "BR"
    assert commands.run("node", "set", "sa-node-1", "--country", "").code == 0
    assert rows(commands)["sa-node-1"]["country"] == ""


def test_set_warns_of_a_region_that_nobody_else_uses(commands: Commands) -> None:
    done = commands.run("node", "set", "sa-node-1", "us-node-1", "--region", "mars")
    assert (done.code, done.err.count("warning: region mars")) == (0, 1)
    assert commands.run("node", "set", "eu-node-1", "--region", "mars").err == ""


@pytest.mark.parametrize(
    "words", ["remove", "delete", "enable", "disable", "weight 3", "limits 3 4", "set --port 9"]
)
def test_every_edit_takes_several_ids_at_once(commands: Commands, words: str) -> None:
    action, *more = words.split()
    ids = ["sa-node-1", "us-node-1", "sa-node-1"]
    done = commands.run("node", action, *ids, *more)
    assert (done.code, done.err, done.out.count("\n")) == (0, "", 2)
    ids = ["eu-node-1", "us-node-1" if action != "delete" else "eu-node-1"]
    told = json.loads(commands.run("node", action, *ids, *more, "--json").out)
    told = told if isinstance(told, list) else [told]
    assert [row["id"] for row in told] == list(dict.fromkeys(ids))


def test_an_id_that_was_given_is_not_suggested(commands: Commands) -> None:
    for words in ("set sa-node-1 sa-node-9 --weight 1", "show sa-node-1 sa-node-9"):
        done = commands.run("node", *words.split())
        assert done.code == 1
        assert "'sa-node-1'" not in done.err
        assert "`edgeproxy db show` lists all" in done.err


def test_show_prints_every_field_and_the_fault(commands: Commands, path: Path) -> None:
    execute(path, "UPDATE backends SET port = 70000 WHERE id = 'sa-node-1'")
    done = commands.run("node", "show", "sa-node-1", "us-node-1")
    assert (done.code, done.err) == (0, "")
    first, second = done.out.split("\n\n")
    assert [line.split()[0] for line in first.splitlines()] == [*COLUMNS, "fault"]
    assert [line.split()[0] for line in second.splitlines()] == [*COLUMNS]
    assert "port 70000 is not allowed" in first


def test_show_names_every_fault_of_a_row(commands: Commands, path: Path) -> None:
    execute(path, "UPDATE backends SET port = 70000, healthy = 7 WHERE id = 'sa-node-1'")
    fault = "port 70000 is not allowed: 1 to 65535; healthy 7 is not allowed: 0 or 1"
    assert commands.run("node", "show", "sa-node-1").out.endswith(f"fault       {fault}\n")
    assert json.loads(commands.run("node", "show", "sa-node-1", "--json").out)["fault"] == fault


def test_add_says_how_a_country_is_kept(commands: Commands) -> None:
    done = commands.run("node", "add", "sa-node-2", "sa", "10.50.1.2", "--country", "br")
    assert done.code == 0
    assert "ALTER TABLE backends ADD COLUMN country TEXT" in done.err
