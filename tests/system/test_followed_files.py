"""Whatever comes into the place of a file that is read or followed: nothing else is held up."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edgeproxy.control.geoip import BUNDLED_DATABASE
from tests.authority import authority_pem, issued
from tests.system.hanging import hanging
from tests.system.pop import Pop
from tests.system.proxy import run_edgeproxy
from tests.waiting import wait_until

pytestmark = pytest.mark.system

MOST_MEMORY_BYTES = 512 << 20
"""Above what a proxy needs; what it may not read is larger."""


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 42)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


def directory(path: Path) -> None:
    path.mkdir()


REPLACEMENTS = [fifo, endless, huge, unix_socket, directory]
BAD_EVENTS = {
    "EDGEPROXY_CONFIG": "config_bad",
    "EDGEPROXY_API_TOKEN_FILE": "api_token_bad",
    "EDGEPROXY_GEO_OVERRIDES": "geo_overrides_bad",
    "EDGEPROXY_GEOIP_PATH": "geo_database_bad",
    "EDGEPROXY_TLS_CERT": "certificates_bad",
    "EDGEPROXY_TLS_CLIENT_CA": "certificates_bad",
    "EDGEPROXY_BACKEND_TLS_CA": "authorities_bad",
}
"""The files that a proxy follows, and what it says of one that it cannot use."""


def put_files(pop: Pop) -> dict[str, str]:
    """Put a good file in each place; return the variables of a proxy that follows them all."""
    files = {variable: pop.folder / variable.lower() for variable in BAD_EVENTS}
    files["EDGEPROXY_CONFIG"].write_text("")
    files["EDGEPROXY_API_TOKEN_FILE"].write_text("s3cret-t0ken")
    shutil.copy(BUNDLED_DATABASE, files["EDGEPROXY_GEOIP_PATH"])
    shutil.copy(pop.overrides, files["EDGEPROXY_GEO_OVERRIDES"])
    cert, key = issued("www.example.com").put(pop.folder / "pair", "edge")
    shutil.copy(cert, files["EDGEPROXY_TLS_CERT"])
    for variable in ("EDGEPROXY_TLS_CLIENT_CA", "EDGEPROXY_BACKEND_TLS_CA"):
        files[variable].write_bytes(authority_pem())
    return {
        **{variable: str(path) for variable, path in files.items()},
        "EDGEPROXY_TLS_KEY": str(key),
        "EDGEPROXY_BACKEND_TLS": "other=backend.internal",
        "EDGEPROXY_LISTENERS": "127.0.0.1:0=*,127.0.0.1:0=tls:*",
        "EDGEPROXY_API_ENABLED": "true",
        "EDGEPROXY_API_LISTEN_ADDR": "127.0.0.1:0",
        "EDGEPROXY_CONFIG_WATCH_ENABLED": "true",
        "EDGEPROXY_CONFIG_WATCH_INTERVAL_SECS": "0.1",
    }


@pytest.mark.parametrize("replace", REPLACEMENTS)
def test_what_comes_into_the_place_of_a_followed_file_holds_nothing_up(
    pop: Pop, replace: Callable[[Path], None]
) -> None:
    pop.backend("first")
    variables = put_files(pop)
    proxy = pop.serve(**variables)
    for variable, event in BAD_EVENTS.items():
        path = Path(variables[variable])
        told_before = len(proxy.seen(event))
        kept = path.rename(path.with_suffix(".kept"))
        replace(path)

        assert str(path) in proxy.wait_for(event, told_before + 1)["reason"]
        proxy.edit(f"UPDATE backends SET weight = weight + 1, app = '{len(variable)}'")
        assert pop.reached() == "first"

        path.rmdir() if path.is_dir() else path.unlink()
        kept.rename(path)
        proxy.send(signal.SIGHUP)
        wait_until(lambda: pop.reached() == "first", "the last good files to hold")
    assert proxy.memory_bytes() < MOST_MEMORY_BYTES


@pytest.mark.parametrize("replace", REPLACEMENTS)
def test_a_proxy_ends_while_all_its_files_are_something_else(
    pop: Pop, replace: Callable[[Path], None]
) -> None:
    pop.backend("first")
    variables = put_files(pop)
    proxy = pop.serve(**variables)
    for variable in BAD_EVENTS:
        path = Path(variables[variable])
        path.unlink()
        replace(path)
    proxy.send(signal.SIGHUP)
    for event in set(BAD_EVENTS.values()):
        proxy.wait_for(event)
    assert pop.reached() == "first"
    assert proxy.memory_bytes() < MOST_MEMORY_BYTES
    proxy.stop()


@pytest.mark.parametrize("variable", BAD_EVENTS)
def test_a_start_with_something_else_in_the_place_of_a_file_fails_and_names_it(
    pop: Pop, variable: str
) -> None:
    pop.backend("first")
    variables = put_files(pop)
    path = Path(variables[variable])
    for replace in (fifo, endless, huge):
        path.unlink()
        replace(path)
        done = run_edgeproxy("serve", folder=pop.folder, **variables)
        assert done.returncode in {1, 2}
        assert str(path) in done.stderr
        assert "Traceback" not in done.stderr
        assert "ready" not in done.stderr


def test_a_byte_order_mark_changes_no_file(pop: Pop) -> None:
    pop.backend("first")
    variables = put_files(pop)
    for variable in ("EDGEPROXY_CONFIG", "EDGEPROXY_API_TOKEN_FILE", "EDGEPROXY_GEO_OVERRIDES"):
        path = Path(variables[variable])
        path.write_text(path.read_text(), "utf-8-sig")
    Path(variables["EDGEPROXY_CONFIG"]).write_text("[proxy]\nregion = 'eu'\n", "utf-8-sig")
    proxy = pop.serve(**variables)
    assert proxy.seen("ready")[0]["region"] == "eu"
    assert pop.reached() == "first"


FOLLOWED = {
    "configuration",
    "configuration_file",
    "database",
    "geo_database",
    "geo_overrides",
    "certificates",
    "authorities",
    "api_token",
}
"""What has a check of its own, as the log calls it."""


def test_a_proxy_serves_and_ends_while_every_file_hangs(pop: Pop) -> None:
    pop.backend("first")
    variables = put_files(pop)
    proxy = pop.serve(**variables)
    proxy.wait_for("api")
    paths = [Path(variables[variable]) for variable in BAD_EVENTS]
    with closing(sqlite3.connect(pop.database)) as editor:
        editor.execute("SELECT * FROM backends").fetchall()  # it has opened the file
        with hanging(pop.database, *paths):
            for path in paths:
                os.utime(path)
            editor.execute("UPDATE backends SET weight = 2")
            editor.commit()
            proxy.send(signal.SIGHUP)

            for what in FOLLOWED:
                proxy.wait_for("check_hangs", what=what)
            assert len(proxy.seen("check_hangs")) == len(FOLLOWED), "each is said once"
            assert pop.reached() == "first"
            proxy.stop()


def stop_the_start(pop: Pop) -> None:
    """Begin a start, which waits for the system, and stop it."""
    proxy = pop.begin_to_serve()
    proxy.wait_for("geo")
    wchan = Path(f"/proc/{proxy.pid}/wchan")
    wait_until(lambda: wchan.read_text() not in ("", "0"), "the start waits")
    proxy.send(signal.SIGTERM)
    assert proxy.wait_for_exit() == 0
    assert not proxy.seen("ready")


def test_a_start_does_not_wait_for_a_side_file_that_is_something_else(pop: Pop) -> None:
    """SQLite would open it without asking what it is."""
    pop.backend("first")
    fifo(pop.database.with_name(f"{pop.database.name}-journal"))
    proxy = pop.begin_to_serve()
    assert proxy.wait_for_exit() == 1
    assert "`routing.db-journal` beside it, which is not a regular file" in proxy.told()


def test_a_start_that_waits_for_a_file_system_ends_when_it_is_stopped(pop: Pop) -> None:
    pop.backend("first")
    with hanging(pop.database):
        stop_the_start(pop)


def test_a_file_that_hangs_holds_up_no_other_and_is_read_when_it_does_no_more(pop: Pop) -> None:
    pop.backend("first")
    variables = put_files(pop)
    proxy = pop.serve(**variables)
    proxy.wait_for("api")
    for variable in BAD_EVENTS:
        path = Path(variables[variable])
        with hanging(path):
            os.utime(path)
            proxy.send(signal.SIGHUP)
            proxy.edit("UPDATE backends SET weight = weight + 1")
            assert pop.reached() == "first"
    with closing(sqlite3.connect(pop.database)) as editor:
        editor.execute("SELECT * FROM backends").fetchall()
        with hanging(pop.database):
            editor.execute("UPDATE backends SET weight = 0")
            editor.commit()
            Path(variables["EDGEPROXY_CONFIG"]).write_text("[rate_limit]\nburst = 7\n")
            proxy.wait_for("config_reloaded", variables="EDGEPROXY_RATE_LIMIT_BURST")
            pop.overrides.write_text("127.10.0.0/16, DE\n")
            Path(variables["EDGEPROXY_GEO_OVERRIDES"]).write_text("127.10.0.0/16, DE\n")
            proxy.wait_for("geo_reloaded", overrides="1")
            Path(variables["EDGEPROXY_API_TOKEN_FILE"]).write_text("an0ther-t0ken")
            proxy.wait_for("api_token_changed")
            assert pop.reached() == "first"
        wait_until(lambda: pop.reached() == "", "the edit, once the database can be read")
