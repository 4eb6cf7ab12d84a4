"""A configuration is either what the operator asked for or a message that says what is wrong."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tests.system.pop import Pop
from tests.system.proxy import SERVE, run_edgeproxy

pytestmark = pytest.mark.system

BAD = {
    "EDGEPROXY_DB_RELOAD_SECS": "abc",
    "EDGEPROXY_BINDING_TTL_SECS": "-1",
    "EDGEPROXY_SHUTDOWN_TIMEOUT_SECS": "inf",
    "EDGEPROXY_LISTEN_ADDR": "nonsense",
    "EDGEPROXY_REGION": "South America",
    "EDGEPROXY_CONNECT_ATTEMPTS": "2.5",
    "EDGEPROXY_LOG_FORMAT": "xml",
    "EDGEPROXY_ENGINE": "warp",
    "DEBUG": "maybe",
}


def test_bad_values_end_the_start_with_one_message_that_lists_all_of_them(tmp_path: Path) -> None:
    done = run_edgeproxy("serve", folder=tmp_path, **BAD)

    assert done.returncode == 2
    first, *faults = done.stderr.splitlines()
    assert first.startswith("edgeproxy: the configuration is not valid")
    for name, value in BAD.items():
        (fault,) = [line for line in faults if f"{name}={value!r}" in line]
        assert "allowed" in fault
    assert len(faults) == len(BAD)
    assert not list(tmp_path.iterdir()), "nothing was started, nothing was made"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EDGEPROXY_DB_RELOAD_SECS", "0"),
        ("EDGEPROXY_DB_RELOAD_SECS", "nan"),
        ("EDGEPROXY_LISTEN_ADDR", "127.0.0.1:70000"),
        ("EDGEPROXY_LISTEN_ADDR", "example.org:80"),
        ("EDGEPROXY_CONNECT_TIMEOUT_SECS", "5s"),
        ("EDGEPROXY_BINDING_MAX", "0"),
    ],
)
def test_a_proxy_with_one_bad_value_does_not_start(tmp_path: Path, name: str, value: str) -> None:
    done = run_edgeproxy("serve", folder=tmp_path, **{name: value})

    assert done.returncode == 2
    assert f"{name}={value!r}: allowed" in done.stderr
    assert "ready" not in done.stderr


def test_an_unknown_variable_is_a_warning_with_the_nearest_name(pop: Pop) -> None:
    proxy = pop.serve(EDGEPROXY_DB_RELOAD_SEC="3", EDGEPROXY_REGOIN="eu")

    warnings = [line["warning"] for line in proxy.seen("configuration", level="warning")]
    assert len(warnings) == 2
    assert "EDGEPROXY_DB_RELOAD_SEC " in warnings[0]
    assert "EDGEPROXY_DB_RELOAD_SECS?" in warnings[0]
    assert "EDGEPROXY_REGOIN " in warnings[1]
    assert "EDGEPROXY_REGION?" in warnings[1]


def test_an_empty_variable_counts_as_unset(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy = pop.serve(EDGEPROXY_GEOIP_PATH="", EDGEPROXY_REGION="", EDGEPROXY_APP="")

    assert proxy.seen("ready", region="sa", app="*")
    assert pop.reached() == "sa-1"


def test_a_port_in_use_ends_the_start_and_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"

        done = run_edgeproxy("serve", folder=tmp_path, EDGEPROXY_LISTEN_ADDR=address)

    assert done.returncode == 1
    assert address in done.stderr
    assert "in use" in done.stderr
    assert "EDGEPROXY_LISTEN_ADDR" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_of_another_host_ends_the_start_and_is_named(tmp_path: Path) -> None:
    done = run_edgeproxy("serve", folder=tmp_path, EDGEPROXY_LISTEN_ADDR="192.0.2.1:8080")

    assert done.returncode == 1
    assert "192.0.2.1:8080" in done.stderr


def test_the_ready_line_says_what_is_served_and_where(pop: Pop) -> None:
    pop.backend("a")
    pop.backend("b", healthy=0)
    proxy = pop.serve(EDGEPROXY_REGION="eu")

    (ready,) = proxy.seen("ready")
    assert ready["listen"] == f"127.0.0.1:{proxy.address[1]}"
    assert proxy.address[1] != 0
    assert ready["region"] == "eu"
    assert ready["engine"] in {"native", "portable"}
    assert ready["backends"] == "2"
    assert ready["pid"] == str(proxy.pid)


def test_a_file_gives_what_the_environment_does_not(pop: Pop) -> None:
    pop.backend("sa-1", "sa")
    pop.backend("eu-1", "eu")
    settings = pop.folder / "edgeproxy.toml"
    settings.write_text('[proxy]\nregion = "eu"\n\n[affinity]\nttl_secs = 1.5\n')

    proxy = pop.serve(EDGEPROXY_CONFIG=str(settings))
    assert pop.reached() == "eu-1"
    proxy.stop()

    pop.serve(EDGEPROXY_CONFIG=str(settings), EDGEPROXY_REGION="sa")
    assert pop.reached() == "sa-1"


def test_bad_values_of_file_and_environment_are_listed_together(tmp_path: Path) -> None:
    settings = tmp_path / "edgeproxy.toml"
    settings.write_text('[proxy]\nregion = "S"\nreigon = "sa"\n\n[timeouts]\nconnect_secs = -1\n')

    done = run_edgeproxy("serve", folder=tmp_path, EDGEPROXY_CONFIG=str(settings), DEBUG="perhaps")

    assert done.returncode == 2
    assert "proxy.region = 'S'" in done.stderr
    assert "proxy.reigon is not a setting" in done.stderr
    assert "did you mean proxy.region?" in done.stderr
    assert "timeouts.connect_secs" in done.stderr
    assert "DEBUG='perhaps'" in done.stderr


@pytest.mark.parametrize("content", [None, "[proxy\n", b"\xff\xfe"])
def test_a_file_that_cannot_be_read_ends_the_start(
    tmp_path: Path, content: str | bytes | None
) -> None:
    settings = tmp_path / "edgeproxy.toml"
    if content is not None:
        settings.write_bytes(content.encode() if isinstance(content, str) else content)

    done = run_edgeproxy("serve", folder=tmp_path, EDGEPROXY_CONFIG=str(settings))

    assert done.returncode == 2
    assert "edgeproxy.toml" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_commonest_settings_are_options(pop: Pop) -> None:
    pop.backend("eu-1", "eu")
    pop.backend("sa-1", "sa")
    settings = pop.folder / "edgeproxy.toml"
    settings.write_text("[affinity]\nttl_secs = 1.5\n[proxy]\nregion = 'sa'\n")
    database = pop.database.rename(pop.folder / "other.db")
    words = ("--listen", "127.0.0.2:0", "--db", str(database), "--region", "eu")
    command = (*SERVE, *words, "--config", str(settings))
    proxy = pop.serve_with(command, EDGEPROXY_CONFIG="none", EDGEPROXY_REGION="us")

    (ready,) = proxy.seen("ready")
    assert (ready["region"], ready["db"], ready["backends"]) == ("eu", str(database), "2")
    assert ready["listen"].startswith("127.0.0.2:")
    assert pop.reached() == "eu-1"


@pytest.mark.parametrize(
    ("words", "variables", "said"),
    [
        (("--listen", "8080"), {}, "--listen '8080': allowed is ADDRESS:PORT"),
        (("--region", "E U"), {}, "--region 'E U': "),
        (("--db", ""), {}, "--db is empty"),
        (("--config", "none.toml"), {}, "'none.toml': cannot be read"),
        (
            ("--listen", "127.0.0.1:0"),
            {"EDGEPROXY_LISTENERS": "127.0.0.1:0=web"},
            "--listen has no effect next to EDGEPROXY_LISTENERS",
        ),
        (
            ("--db", "x.db"),
            {"EDGEPROXY_POSTGRES_ENABLED": "1", "EDGEPROXY_POSTGRES_URL": "postgres://u@h/d"},
            "--db has no effect next to EDGEPROXY_POSTGRES_ENABLED",
        ),
    ],
)
def test_a_bad_option_is_named_and_nothing_starts(
    tmp_path: Path, words: tuple[str, ...], variables: dict[str, str], said: str
) -> None:
    done = run_edgeproxy("serve", *words, folder=tmp_path, **variables)
    assert done.returncode == 2
    assert said in done.stderr
    assert not list(tmp_path.iterdir())


def test_config_show_shows_a_section_or_what_was_changed(tmp_path: Path) -> None:
    environ = {"EDGEPROXY_REGION": "eu", "EDGEPROXY_API_ENABLED": "true"}

    def show(*words: str) -> str:
        done = run_edgeproxy("config", "show", *words, folder=tmp_path, **environ)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    changed = {each["variable"] for each in json.loads(show("--changed", "--json"))}
    assert changed == {*environ, "EDGEPROXY_CONTROL_SOCKET"}  # off, so that tests keep apart
    assert "EDGEPROXY_API_LISTEN_ADDR" not in show("--changed")
    assert "EDGEPROXY_REGION" in show("proxy", "--changed")
    assert "EDGEPROXY_API_ENABLED" not in show("proxy", "--changed")
    assert "the region of this POP" in show("proxy")
    assert show("database", "--changed") == "nothing but defaults\n"
    assert show("proxy", "--toml").startswith("[proxy]\n")
    assert "[api]" not in show("proxy", "--toml")
    assert max(map(len, show().splitlines())) <= 100

    wrong = run_edgeproxy("config", "show", "proxi", folder=tmp_path)
    assert wrong.returncode == 2
    assert "there is no section 'proxi'; did you mean proxy?" in wrong.stderr


def test_config_check_tells_a_good_configuration_from_a_bad_one(tmp_path: Path) -> None:
    here = {"EDGEPROXY_LISTEN_ADDR": "127.0.0.1:0", "EDGEPROXY_REGION": "eu"}
    good = run_edgeproxy("config", "check", folder=tmp_path, **here)
    assert (good.returncode, good.stderr) == (0, "")
    assert "valid" in good.stdout

    bad = run_edgeproxy("config", "check", folder=tmp_path, **BAD)
    assert bad.returncode == 2
    assert all(f"{name}={value!r}" in bad.stderr for name, value in BAD.items())

    unknown = run_edgeproxy("config", "check", folder=tmp_path, EDGEPROXY_REGOIN="eu")
    assert unknown.returncode == 0
    assert "did you mean EDGEPROXY_REGION?" in unknown.stderr

    no_geo = run_edgeproxy("config", "check", folder=tmp_path, EDGEPROXY_GEOIP_PATH="none.mmdb")
    assert no_geo.returncode in {1, 2}
    assert "none.mmdb" in no_geo.stderr

    no_certificate = run_edgeproxy(
        *("config", "check"),
        folder=tmp_path,
        EDGEPROXY_TLS_ENABLED="true",
        EDGEPROXY_TLS_CERT_DIR="none.d",
    )
    assert no_certificate.returncode == 1
    assert "none.d: cannot be read: No such file or directory" in no_certificate.stderr


def test_config_show_tells_every_value_and_its_source(tmp_path: Path) -> None:
    settings = tmp_path / "edgeproxy.toml"
    settings.write_text("[database]\nreload_secs = 0.5\n")

    done = run_edgeproxy(
        *("config", "show", "--json"),
        folder=tmp_path,
        EDGEPROXY_CONFIG=str(settings),
        EDGEPROXY_REGION="eu",
    )

    assert done.returncode == 0
    shown = {each["variable"]: (each["value"], each["source"]) for each in json.loads(done.stdout)}
    assert shown["EDGEPROXY_REGION"] == ("eu", "environment")
    assert shown["EDGEPROXY_DB_RELOAD_SECS"] == ("0.5", str(settings))
    assert shown["EDGEPROXY_BINDING_TTL_SECS"] == ("600", "default")
    assert shown["EDGEPROXY_LISTEN_ADDR"] == ("0.0.0.0:8080", "default")

    table = run_edgeproxy("config", "show", folder=tmp_path, EDGEPROXY_REGION="eu")
    assert table.returncode == 0
    assert all(name in table.stdout for name in shown)
