"""`edgeproxy config check` finds everything that would keep a proxy from starting, at once."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from edgeproxy.cli.config_check import check
from tests.cli.commands import Commands
from tests.ports import free_port
from tests.store.editing import documented, execute

HERE = {"EDGEPROXY_LISTEN_ADDR": "127.0.0.1:0", "EDGEPROXY_CONTROL_SOCKET": "off"}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("text\n")


def test_nothing_is_found_where_nothing_is_wrong_and_nothing_is_made(tmp_path: Path) -> None:
    found = check(
        {
            **HERE,
            "EDGEPROXY_CONTROL_SOCKET": str(tmp_path / "made" / "control"),
            "EDGEPROXY_ACCESS_LOG": "access.log",
            "EDGEPROXY_METRICS_ENABLED": "true",
            "EDGEPROXY_METRICS_LISTEN_ADDR": "127.0.0.1:0",
            "EDGEPROXY_LISTENERS": f"unix:{tmp_path}/socket=web,[::1]:0=web",
        }
    )
    assert (found.faults, found.warnings) == ([], [])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_all_faults_are_found_at_once() -> None:
    found = check(
        {
            **HERE,
            "EDGEPROXY_GEOIP_PATH": "file",
            "EDGEPROXY_GEO_OVERRIDES": "none",
            "EDGEPROXY_TLS_ENABLED": "true",
            "EDGEPROXY_TLS_LISTEN_ADDR": "127.0.0.1:0",
            "EDGEPROXY_TLS_CERT": "file",
            "EDGEPROXY_TLS_KEY": "file",
            "EDGEPROXY_TLS_CERT_DIR": "folder",
            "EDGEPROXY_TLS_CLIENT_CA": "authorities",
            "EDGEPROXY_BACKEND_TLS": "backend.internal",
            "EDGEPROXY_BACKEND_TLS_CA": "backends",
            "EDGEPROXY_ACCESS_LOG": "no/access.log",
            "EDGEPROXY_DB_PATH": "file/routing.db",
            "EDGEPROXY_CONTROL_SOCKET": "file",
            "EDGEPROXY_METRICS_ENABLED": "true",
            "EDGEPROXY_METRICS_LISTEN_ADDR": "192.0.2.1:9090",
            "EDGEPROXY_API_ENABLED": "true",
            "EDGEPROXY_API_LISTEN_ADDR": "192.0.2.1:9091",
            "EDGEPROXY_API_TOKEN_FILE": "token",
        }
    )
    starts = (
        "geo database file: ",
        "geo overrides none: ",
        "EDGEPROXY_API_TOKEN_FILE='token' ",
        "file: holds no certificate",
        "folder: cannot be read",
        "authorities: cannot be read",
        "EDGEPROXY_BACKEND_TLS_CA: backends: ",
        "EDGEPROXY_ACCESS_LOG='no/access.log': cannot be made: there is no folder",
        "EDGEPROXY_CONTROL_SOCKET='file': is another file",
        "EDGEPROXY_DB_PATH='file/routing.db': cannot be made",
        "cannot listen on 192.0.2.1:9090: ",
        "cannot listen on 192.0.2.1:9091: ",
    )
    for start in starts:
        assert sum(fault.startswith(start) for fault in found.faults) == 1, found.faults
    assert len(found.faults) == len(starts), found.faults


def test_bad_values_are_listed_one_by_one() -> None:
    found = check({"EDGEPROXY_REGION": "E U", "EDGEPROXY_BINDING_MAX": "x"})
    assert [fault.partition("=")[0] for fault in found.faults] == [
        "EDGEPROXY_REGION",
        "EDGEPROXY_BINDING_MAX",
    ]
    assert found.is_usage


def test_what_does_not_depend_on_a_bad_value_is_looked_at() -> None:
    found = check(
        {
            **HERE,
            "EDGEPROXY_REGION": "SA",
            "EDGEPROXY_LISTEN_ADDR": "192.0.2.1:8080",
            "EDGEPROXY_GEOIP_PATH": "none",
            "EDGEPROXY_DB_PATH": "no/routing.db",
        }
    )
    assert [fault.partition(":")[0] for fault in found.faults] == [
        "EDGEPROXY_REGION='SA'",
        "geo database none",
        "EDGEPROXY_DB_PATH='no/routing.db'",
        "cannot listen on 192.0.2.1",
    ]
    assert found.unchecked == []


@pytest.mark.parametrize(
    ("variable", "unchecked"),
    [
        ("EDGEPROXY_LISTEN_ADDR", ["the access log and Unix sockets", "addresses"]),
        ("EDGEPROXY_POSTGRES_URL", ["the driver for PostgreSQL", "the routing database"]),
        ("EDGEPROXY_ENGINE", ["the engine"]),
        ("EDGEPROXY_BINDING_MAX", []),
    ],
)
def test_what_depends_on_a_bad_value_is_not_looked_at(variable: str, unchecked: list[str]) -> None:
    found = check({**HERE, "EDGEPROXY_ACCESS_LOG": "no/log", variable: "x"})
    assert found.unchecked == unchecked
    assert len(found.faults) == 1 + ("addresses" not in unchecked)


def test_of_a_half_pair_only_that_is_told() -> None:
    found = check({**HERE, "EDGEPROXY_TLS_ENABLED": "true", "EDGEPROXY_TLS_KEY": "file"})
    assert (len(found.faults), "certificates" in found.unchecked) == (1, True)
    assert found.warnings == []


def test_what_was_not_looked_at_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "edgeproxy.toml").write_text("[proxy]\nregoin = 'eu'\n")
    monkeypatch.setenv("EDGEPROXY_CONFIG", "edgeproxy.toml")
    done = Commands(capsys).run("config", "check")
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[-1] == (
        "  correct that and check again: not looked at yet are geo files, the token, certificates, "
        "the driver for PostgreSQL, the engine, the access log and Unix sockets, the keys "
        "of the cluster, the routing database, addresses"
    )
    told = json.loads(Commands(capsys).run("config", "check", "--json").out)
    assert (told["valid"], len(told["faults"]), len(told["unchecked"])) == (False, 1, 9)


def test_a_database_is_read_and_one_without_a_table_is_no_fault(tmp_path: Path) -> None:
    environ = {**HERE, "EDGEPROXY_DB_PATH": str(documented(tmp_path / "a.db"))}
    assert check(environ).faults == []
    execute(tmp_path / "a.db", "ALTER TABLE backends DROP COLUMN weight")
    (fault,) = check(environ).faults
    assert "has no column weight" in fault
    execute(tmp_path / "a.db", "DROP TABLE backends")
    assert check(environ).faults == []


@pytest.mark.parametrize(
    ("one", "other", "is_fault"),
    [
        ("127.0.0.1:{}", "127.0.0.1:{}", True),
        ("0.0.0.0:{}", "127.0.0.1:{}", True),
        ("127.0.0.1:{}", "[::]:{}", True),
        ("127.0.0.1:{}", "127.0.0.2:{}", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
    ],
)
def test_an_address_that_is_wanted_twice_is_a_fault(one: str, other: str, is_fault: bool) -> None:
    port = free_port()
    environ = {
        **HERE,
        "EDGEPROXY_LISTEN_ADDR": one.format(port),
        "EDGEPROXY_API_ENABLED": "true",
        "EDGEPROXY_API_LISTEN_ADDR": other.format(port),
    }
    faults = check(environ).faults
    assert [("EDGEPROXY_LISTEN_ADDR and EDGEPROXY_API" in fault) for fault in faults] == [
        True
    ] * is_fault


def test_an_address_in_use_is_a_fault_unless_this_proxy_may_hold_it(tmp_path: Path) -> None:
    control = tmp_path / "control"
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        environ = {"EDGEPROXY_LISTEN_ADDR": address, "EDGEPROXY_CONTROL_SOCKET": str(control)}
        (fault,) = check(environ).faults
        assert fault.startswith(f"cannot listen on {address}: Address already in use")
        with socket.socket(socket.AF_UNIX) as proxy:
            proxy.bind(str(control))
            proxy.listen()
            found = check(environ)
        assert found.faults == []
        assert found.warnings[0].startswith(f"cannot listen on {address}")
        found = check({**environ, "EDGEPROXY_CONTROL_SOCKET": "off"})
        assert (found.faults, len(found.warnings)) == ([], 1), "nobody can be asked"


def test_a_self_signed_certificate_is_a_warning_in_words(tmp_path: Path) -> None:
    environ = {
        **HERE,
        "EDGEPROXY_TLS_ENABLED": "true",
        "EDGEPROXY_TLS_LISTEN_ADDR": "127.0.0.1:0",
    }
    [warning] = check(environ).warnings
    assert "self-signed" in warning
    assert "EDGEPROXY_TLS_CERT_DIR" in warning
    found = check({**environ, "EDGEPROXY_TLS_CERT": str(tmp_path / "file")})
    assert found.warnings == []


@pytest.mark.parametrize("words", [("check",), ("show",)])
def test_a_file_can_be_named_as_for_serve(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: tuple[str, ...],
) -> None:
    """It goes before that of the environment, which stays as it is."""
    for name in [each for each in os.environ if each.startswith("EDGEPROXY_")]:
        monkeypatch.delenv(name)
    for name, text in HERE.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("EDGEPROXY_CONFIG", str(tmp_path / "missing.toml"))
    (tmp_path / "new.toml").write_text("[proxy]\nregion = 'eu'\n")
    commands = Commands(capsys)
    done = commands.run("config", *words, "--config", "new.toml")
    assert (done.code, done.err) == (0, "")
    (tmp_path / "new.toml").write_text("[proxy]\nregion = 'EU!'\n")
    done = commands.run("config", *words, "--config", "new.toml")
    assert done.code == 2
    assert "new.toml: line 2: proxy.region = 'EU!'" in done.err
    assert commands.run("config", *words).code == 2


def test_a_section_of_a_backend_that_is_not_there_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "edgeproxy.toml"
    file.write_text("[backends.'sa-nod-1']\nweight = 3\n[backends.'us-node-1']\nweight = 3\n")
    environ = {**HERE, "EDGEPROXY_CONFIG": str(file), "EDGEPROXY_DB_PATH": "routing.db"}
    found = check(environ)
    assert (found.faults, found.warnings) == ([], [])  # no database is made yet
    documented(tmp_path / "routing.db")
    [warning] = check(environ).warnings
    assert warning.startswith('[backends."sa-nod-1"] has no effect: routing.db has no such ')
    assert warning.endswith("did you mean sa-node-1?")
