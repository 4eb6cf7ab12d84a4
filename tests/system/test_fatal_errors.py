"""Why a proxy does not start: in words, as JSON in a log in JSON, and found by `config check`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.store.editing import DOCUMENTED_TABLE, execute
from tests.system.backends import Backend
from tests.system.pop import Pop
from tests.system.proxy import run_edgeproxy

pytestmark = pytest.mark.system

MECHANISM = re.compile(
    r"\[Errno|\.new\b|_ssl\.c|Traceback|<class|\w+Error\b|\bNone\b|\(\?|\[a-z|\{\d+,"
)
"""What only a programmer would understand."""

LISTEN = {"EDGEPROXY_LISTEN_ADDR": "127.0.0.1:0"}
FATAL = {
    "setting": ({"EDGEPROXY_REGION": "E U"}, 2),
    "two settings": ({"EDGEPROXY_REGION": "E U", "EDGEPROXY_BINDING_MAX": "x"}, 2),
    "address": ({"EDGEPROXY_LISTEN_ADDR": "192.0.2.1:8080"}, 1),
    "metrics": (
        {"EDGEPROXY_METRICS_ENABLED": "1", "EDGEPROXY_METRICS_LISTEN_ADDR": "192.0.2.1:1"},
        1,
    ),
    "api": ({"EDGEPROXY_API_ENABLED": "1", "EDGEPROXY_API_LISTEN_ADDR": "192.0.2.1:1"}, 1),
    "unix socket": ({"EDGEPROXY_LISTENERS": "unix:/none/socket=web"}, 1),
    "folder of the database": ({"EDGEPROXY_DB_PATH": "none/routing.db"}, 1),
    "file for a folder": ({"EDGEPROXY_DB_PATH": "file/routing.db"}, 1),
    "database": ({"EDGEPROXY_DB_PATH": "file"}, 1),
    "directory": ({"EDGEPROXY_DB_PATH": "."}, 1),
    "access log": ({"EDGEPROXY_ACCESS_LOG": "none/access.log"}, 1),
    "control socket": ({"EDGEPROXY_CONTROL_SOCKET": "none/of/these"}, 1),
    "control socket in a file": ({"EDGEPROXY_CONTROL_SOCKET": "file/control"}, 1),
    "geo database": ({"EDGEPROXY_GEOIP_PATH": "file"}, 1),
    "geo overrides": ({"EDGEPROXY_GEO_OVERRIDES": "file"}, 1),
    "token": ({"EDGEPROXY_API_ENABLED": "1", "EDGEPROXY_API_TOKEN_FILE": "none"}, 2),
    "certificate": (
        {
            "EDGEPROXY_TLS_ENABLED": "1",
            "EDGEPROXY_TLS_CERT": "file",
            "EDGEPROXY_TLS_KEY": "file",
        },
        1,
    ),
    "authorities": (
        {"EDGEPROXY_BACKEND_TLS": "backend.internal", "EDGEPROXY_BACKEND_TLS_CA": "file"},
        1,
    ),
    "file of settings": ({"EDGEPROXY_CONFIG": "file"}, 2),
}


@pytest.mark.parametrize("name", FATAL)
def test_it_is_said_in_words_and_as_json_where_the_log_is(tmp_path: Path, name: str) -> None:
    variables, code = FATAL[name]
    (tmp_path / "file").write_bytes(b"no more than \xff some bytes\n" * 100)

    done = run_edgeproxy("serve", folder=tmp_path, **{**LISTEN, **variables})
    message = done.stderr[done.stderr.index("edgeproxy: ") :]
    assert done.returncode == code
    assert not MECHANISM.search(message), message

    done = run_edgeproxy(
        "serve", folder=tmp_path, EDGEPROXY_LOG_FORMAT="json", **{**LISTEN, **variables}
    )
    *_, last = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == code
    assert (last["event"], last["level"]) == ("fatal", "error")
    assert f"edgeproxy: {last['reason']}\n" == message

    checking = run_edgeproxy(
        *("config", "check", "--json"), folder=tmp_path, **{**LISTEN, **variables}
    )
    assert (checking.returncode, checking.stderr) == (code, "")
    told = json.loads(checking.stdout)
    assert not told["valid"]
    assert len(told["faults"]) >= 1
    assert not MECHANISM.search(" ".join(told["faults"])), told


def test_the_file_may_ask_for_json_even_if_it_has_faults(tmp_path: Path) -> None:
    settings = tmp_path / "edgeproxy.toml"
    settings.write_text("[log]\nformat = 'json'\n[proxy]\nregion = 'E U'\n")
    done = run_edgeproxy("serve", "--config", str(settings), folder=tmp_path)
    assert done.returncode == 2
    assert "proxy.region = 'E U'" in json.loads(done.stderr)["reason"]


# -- a start that looks like success --------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "variables", "words"),
    [
        ((), {}, ""),
        (("sa-1",), {"EDGEPROXY_APP": "web"}, "--app web "),
    ],
    ids=["no database", "no backend of the app"],
)
def test_one_warning_says_what_to_do_where_every_client_would_be_refused(
    pop: Pop, rows: tuple[str, ...], variables: dict[str, str], words: str
) -> None:
    for name in rows:
        pop.backend(name)
    proxy = pop.serve(**variables)
    warning = proxy.wait_for("no_backends")
    assert [each for each in proxy.events if each["level"] == "warning"] == [warning]
    _, _, command = warning["hint"].partition("edgeproxy ")
    assert command == f"node add ID REGION ADDRESS PORT {words}--db {pop.database}"
    backend = pop.keep(Backend("new"))
    backend.start()
    published = len(proxy.seen("table_published"))
    typed = command.replace("ID REGION ADDRESS PORT", f"new sa {backend.host} {backend.port}")
    assert run_edgeproxy(*typed.split(), folder=Path("/")).returncode == 0
    proxy.wait_for("table_published", published + 1)
    assert pop.reached() == "new"


def test_there_is_no_such_warning_where_there_are_backends_or_they_register(pop: Pop) -> None:
    execute(pop.database, DOCUMENTED_TABLE)
    api = {"EDGEPROXY_API_ENABLED": "true", "EDGEPROXY_API_LISTEN_ADDR": "127.0.0.1:0"}
    proxy = pop.serve(**api)
    proxy.wait_for("api")
    assert not proxy.seen("no_backends")
    proxy.stop()
    pop.backend("sa-1")
    proxy = pop.serve()
    assert pop.reached() == "sa-1"
    assert not proxy.seen("no_backends")
