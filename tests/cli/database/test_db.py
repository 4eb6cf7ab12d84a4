"""`edgeproxy db`: the database is made once, kept, and shown as it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgeproxy.core.backends.rows import COLUMNS
from tests.cli.commands import Commands
from tests.store.editing import documented, execute

BAD_ROW = (
    "INSERT INTO backends VALUES ('bad' || char(10) || char(27) || '[31m', 'myapp', 'sa',"
    " '10.50.1.9', 70000, 1, 2, NULL, x'00ff', 0)"
)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default database, in a working directory of its own."""
    monkeypatch.delenv("EDGEPROXY_DB_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "routing.db"


@pytest.fixture
def commands(path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    del path  # but be in its directory
    return Commands(capsys)


def test_init_makes_an_empty_database(commands: Commands, path: Path) -> None:
    done = commands.run("db", "init")
    assert (done.code, done.out, done.err) == (0, "created routing.db\n", "")
    assert path.exists()
    assert commands.run("db", "show").out.split() == list(COLUMNS)


def test_init_leaves_an_existing_file_alone_even_an_empty_one(
    commands: Commands, path: Path
) -> None:
    for content in (b"", b"precious"):
        path.write_bytes(content)
        done = commands.run("db", "init")
        assert (done.code, done.out) == (1, "")
        assert "routing.db exists already: nothing was changed; --force replaces it" in done.err
        assert path.read_bytes() == content


def test_init_with_force_replaces_what_is_there(commands: Commands, path: Path) -> None:
    documented(path)
    path.with_name("routing.db-wal").write_bytes(b"left over")
    assert commands.run("db", "init", "--force").code == 0
    assert json.loads(commands.run("db", "show", "--json").out) == []
    assert list(path.parent.iterdir()) == [path]


def test_init_needs_the_folder(commands: Commands, path: Path) -> None:
    done = commands.run("db", "init", "--db", "missing/other.db")
    assert done.code == 1
    assert done.err.startswith("edgeproxy: missing/other.db cannot be made in ")
    assert list(path.parent.iterdir()) == []


def test_the_database_is_the_option_or_the_variable_or_the_default(
    commands: Commands, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPROXY_DB_PATH", "by-variable.db")
    assert commands.run("db", "init").out == "created by-variable.db\n"
    assert commands.run("db", "init", "--db", "by-option.db").out == "created by-option.db\n"
    monkeypatch.setenv("EDGEPROXY_DB_PATH", "")
    assert commands.run("db", "init").out == "created routing.db\n"
    assert {file.name for file in path.parent.iterdir()} == {
        "by-variable.db",
        "by-option.db",
        "routing.db",
    }


def test_show_is_an_aligned_table_of_the_documented_columns(commands: Commands, path: Path) -> None:
    documented(path)
    done = commands.run("db", "show")
    assert (done.code, done.err) == (0, "")
    header, *lines = done.out.splitlines()
    assert header.split() == list(COLUMNS)
    assert " ".join(lines[0].split()) == "sa-node-1 myapp sa 10.50.1.1 8080 1 2 50 100 0"
    assert [line.index("myapp") for line in lines] == [header.index("app")] * 3


def test_show_marks_faulty_rows_and_escapes_what_they_hold(commands: Commands, path: Path) -> None:
    documented(path)
    execute(path, BAD_ROW)
    done = commands.run("db", "show")
    header, *lines = done.out.splitlines()
    assert header.split() == [*COLUMNS, "fault"]
    assert len(lines) == 4
    assert lines[0].endswith(" 0")
    assert lines[3].startswith(r"bad\n\x1b[31m ")
    assert "NULL" in lines[3]
    assert "x'00ff'" in lines[3]
    assert r"id 'bad\n\x1b[31m' is not allowed" in lines[3]


def test_show_has_a_country_where_the_table_has_one(commands: Commands, path: Path) -> None:
    documented(path)
    execute(path, "ALTER TABLE backends ADD COLUMN note; ALTER TABLE backends ADD COLUMN country")
    execute(path, "UPDATE backends SET country = 'BR' WHERE region = 'sa'")
    header, first, second, _ = commands.run("db", "show").out.splitlines()
    assert header.split() == [*COLUMNS, "country"]
    assert (first.split()[-1], second.split()[-1]) == ("BR", "NULL")


def test_json_has_every_value_as_it_is_stored(commands: Commands, path: Path) -> None:
    documented(path)
    execute(path, BAD_ROW)
    execute(path, "UPDATE backends SET weight = 9e999, soft_limit = 0.5 WHERE id = 'us-node-1'")
    done = commands.run("db", "show", "--json")
    first, second, third, bad = json.loads(done.out, parse_constant=pytest.fail)
    assert list(first) == list(COLUMNS)
    assert first["id"] == "sa-node-1"
    assert first["port"] == 8080
    assert (second["weight"], second["soft_limit"]) == ("inf", 0.5)
    assert "fault" not in third
    assert (bad["id"], bad["soft_limit"], bad["hard_limit"]) == ("bad\n\x1b[31m", None, "x'00ff'")
    assert bad["fault"].startswith("id ")


def test_healthy_lists_what_is_healthy_and_not_deleted(commands: Commands, path: Path) -> None:
    documented(path)
    execute(path, "UPDATE backends SET healthy = 0 WHERE id = 'us-node-1'")
    execute(path, "UPDATE backends SET deleted = 1 WHERE id = 'eu-node-1'")
    _, *lines = commands.run("db", "healthy").out.splitlines()
    assert [line.split()[0] for line in lines] == ["sa-node-1"]
    rows = json.loads(commands.run("db", "healthy", "--json").out)
    assert [row["id"] for row in rows] == ["sa-node-1"]


def test_an_empty_list_says_why_it_is_empty(commands: Commands, path: Path) -> None:
    documented(path)
    for words in ("show --region zz", "show --state deleted", "healthy --app x"):
        done = commands.run("db", *words.split())
        assert (done.code, done.err) == (0, "edgeproxy: none of 3 nodes is selected\n")
    assert commands.run("db", "show").err == ""
    execute(path, "DELETE FROM backends")
    done = commands.run("db", "show")
    assert (done.code, done.out.split()) == (0, [*COLUMNS])
    assert done.err.startswith("edgeproxy: there are no nodes yet: ")


def test_a_filter_on_a_column_that_is_missing_says_so(commands: Commands, path: Path) -> None:
    documented(path)
    for command in ("show", "healthy"):
        done = commands.run("db", command, "--country", "BR")
        assert done.code == 0
        assert done.err == (
            "edgeproxy: the table has no column country: add it with "
            "ALTER TABLE backends ADD COLUMN country TEXT\n"
        )
    assert "none of 3" in commands.run("db", "show", "--region", "zz").err


@pytest.mark.parametrize("command", ["show", "healthy"])
def test_what_cannot_be_read_is_an_error_that_says_what_to_do(
    commands: Commands, path: Path, command: str
) -> None:
    done = commands.run("db", command)
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"edgeproxy: routing.db does not exist in {path.parent}: name another one with --db or "
        "EDGEPROXY_DB_PATH, restore it, "
        "or make an empty one with `edgeproxy db init --db routing.db`\n"
    )
    assert not path.exists()
    path.write_bytes(b"garbage" * 1000)
    done = commands.run("db", command)
    assert done.code == 1
    assert "routing.db is damaged or not an SQLite database" in done.err


def test_wrong_usage_is_exit_code_2(commands: Commands) -> None:
    for words in (["db"], ["db", "drop"], ["db", "show", "more"], ["db", "init", "--json"]):
        done = commands.run(*words)
        assert done.code == 2
        assert done.err.startswith("usage: edgeproxy ")


def test_sqlite_is_loaded_only_by_a_command_that_runs() -> None:
    program = (
        "import sys, edgeproxy.cli.database.node, edgeproxy.cli.database.db\n"
        "heavy = {'sqlite3', 'asyncio', 'edgeproxy.store.sqlite.nodes'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ("show --region us", ["us-node-1"]),
        ("show --app myapp --region eu", ["eu-node-1"]),
        ("show --app other", []),
        ("show --country BR", ["br"]),
        ("show --state healthy", ["sa-node-1", "eu-node-1", "br"]),
        ("show --state unhealthy", ["us-node-1"]),
        ("show --state deleted", ["gone"]),
        ("show --state faulty", ["bad"]),
        ("show --state faulty --region us", []),
        ("healthy --region eu", ["eu-node-1"]),
    ],
)
def test_filters_select_nodes(commands: Commands, path: Path, words: str, ids: list[str]) -> None:
    documented(path)
    execute(path, "ALTER TABLE backends ADD COLUMN country TEXT")
    execute(path, "UPDATE backends SET healthy = 0 WHERE id = 'us-node-1'")
    row = "INSERT INTO backends VALUES ('{}', 'a', 'sa', '10.0.0.1', {}, 1, 1, 1, 1, {}, {})"
    execute(path, row.format("br", 80, 0, "'BR'"))
    execute(path, row.format("gone", 80, 1, "NULL"))
    execute(path, row.format("bad", 70000, 0, "NULL"))
    found = [each["id"] for each in json.loads(commands.run("db", *words.split(), "--json").out)]
    if words == "show --state healthy":
        found.remove("bad")  # healthy is what was asked for, not whether it can be used
    assert found == ids
    text = commands.run("db", *words.split()).out
    assert all(name in text for name in ids)
