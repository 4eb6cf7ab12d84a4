"""Every setting from environment and file, and what is said about bad ones."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.config import load as config
from edgeproxy.config.config import Config
from edgeproxy.config.file import written
from edgeproxy.config.table import SETTINGS
from edgeproxy.errors import ConfigError

README = Path(__file__).parents[2] / "README.md"

DOCUMENTED = {
    "EDGEPROXY_LISTEN_ADDR": "0.0.0.0:8080",
    "EDGEPROXY_DB_PATH": "routing.db",
    "EDGEPROXY_REGION": "sa",
    "EDGEPROXY_DB_RELOAD_SECS": "5",
    "EDGEPROXY_BINDING_TTL_SECS": "600",
    "EDGEPROXY_GEOIP_PATH": "",
    "EDGEPROXY_SHUTDOWN_TIMEOUT_SECS": "30",
    "EDGEPROXY_TLS_ENABLED": "false",
    "EDGEPROXY_TLS_LISTEN_ADDR": "0.0.0.0:8443",
    "EDGEPROXY_TLS_CERT": "",
    "EDGEPROXY_TLS_KEY": "",
    "EDGEPROXY_LOG_LEVEL": "info",
}

BOUNDED = {
    "EDGEPROXY_CLIENT_IPV4_PREFIX",
    "EDGEPROXY_CLIENT_IPV6_PREFIX",
    "EDGEPROXY_CONNECT_ATTEMPTS",
    "EDGEPROXY_BYTE_THREADS",
    "EDGEPROXY_HEALTH_CHECK_STATUS",
    "EDGEPROXY_POSTGRES_MAX_CONNECTIONS",
    "EDGEPROXY_POSTGRES_MIN_CONNECTIONS",
    "EDGEPROXY_REPLICATION_GOSSIP_INTERVAL_MS",
    "EDGEPROXY_REPLICATION_SYNC_INTERVAL_MS",
}


def complaint(environ: dict[str, str]) -> str:
    """Return what is said about this environment."""
    with pytest.raises(ConfigError) as error:
        config.load(environ)
    return str(error.value)


def test_the_documented_defaults() -> None:
    defaults = {each.variable: config.shown(config.default_of(each)) for each in SETTINGS}
    assert {name: defaults[name] for name in DOCUMENTED} == DOCUMENTED


def test_nothing_set_gives_the_defaults_of_the_parts() -> None:
    loaded = config.load({})
    assert loaded.config == Config()
    assert {each.source for each in loaded.effective} == {"default"}


def test_every_variable_file_key_and_field_is_there_once() -> None:
    for name in ("variable", "file_key"):
        values = [getattr(each, name) for each in SETTINGS]
        assert len(set(values)) == len(values)
    assert len({(each.part, each.field) for each in SETTINGS}) == len(SETTINGS)


def test_every_field_of_every_part_can_be_set_or_is_known_not_to() -> None:
    fixed = {
        "affinity.gc_interval_secs",
        "api.rate_limit",
        "api.timeout_secs",
        "circuit_breaker.trials",
        "ejection.longest_secs",
        "engine.backend_ca_pem",  # read from a file
        "rate_limit.max_clients",
    }
    fields = {
        f"{part.name}.{field.name}"
        for part in dataclasses.fields(Config)
        for field in dataclasses.fields(getattr(Config(), part.name))
    }
    assert fields - {f"{each.part}.{each.field}" for each in SETTINGS} == fixed


def test_environment_wins_over_file_and_file_over_default(tmp_path: Path) -> None:
    file = tmp_path / "edgeproxy.toml"
    file.write_text('[proxy]\nregion = "eu"\napp = "web"\n[database]\nreload_secs = 2\n')
    loaded = config.load({"EDGEPROXY_CONFIG": str(file), "EDGEPROXY_REGION": "us"})
    assert loaded.config.admission.region == "us"
    assert loaded.config.admission.app == "web"
    assert loaded.config.database.reload_secs == 2
    sources = {each.setting.variable: each.source for each in loaded.effective}
    assert sources["EDGEPROXY_REGION"] == "environment"
    assert sources["EDGEPROXY_APP"] == str(file)
    assert sources["EDGEPROXY_LOG_LEVEL"] == "default"


def test_what_has_commas_between_may_be_a_list_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "edgeproxy.toml"
    file.write_text('[tls]\nalpn = ["h2", "http/1.1"]\n[entrance]\ndeny = ["192.0.2.0/24"]\n')
    loaded = config.load({"EDGEPROXY_CONFIG": str(file)}).config
    assert loaded.tls.alpn == ("h2", "http/1.1")
    assert list(map(str, loaded.access.deny)) == ["192.0.2.0/24"]


def test_an_empty_variable_counts_as_unset() -> None:
    assert config.load({"EDGEPROXY_GEOIP_PATH": ""}).config.geo.database is None


def test_all_bad_values_are_listed_at_once() -> None:
    said = complaint(
        {
            "EDGEPROXY_DB_RELOAD_SECS": "abc",
            "EDGEPROXY_BINDING_TTL_SECS": "-1",
            "EDGEPROXY_LISTEN_ADDR": "nonsense",
            "EDGEPROXY_REGION": "us",
        }
    )
    assert "EDGEPROXY_DB_RELOAD_SECS='abc': allowed is a number of seconds" in said
    assert "EDGEPROXY_BINDING_TTL_SECS='-1'" in said
    assert "EDGEPROXY_LISTEN_ADDR='nonsense': allowed is ADDRESS:PORT" in said
    assert "EDGEPROXY_REGION" not in said


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("EDGEPROXY_DB_RELOAD_SECS", "0"),
        ("EDGEPROXY_DB_RELOAD_SECS", "nan"),
        ("EDGEPROXY_BINDING_TTL_SECS", "inf"),
        ("EDGEPROXY_CONNECT_ATTEMPTS", "0"),
        ("EDGEPROXY_CONNECT_ATTEMPTS", "2.5"),
        ("EDGEPROXY_REGION", "South America"),
        ("EDGEPROXY_ENGINE", "rust"),
        ("EDGEPROXY_LOG_FORMAT", "xml"),
        ("EDGEPROXY_LISTEN_ADDR", "8080"),
        ("EDGEPROXY_LISTEN_ADDR", "0.0.0.0:70000"),
        ("EDGEPROXY_LISTEN_ADDR", "::1:8080"),
        ("EDGEPROXY_LISTEN_ADDR", "[127.0.0.1]:80"),
        ("EDGEPROXY_METRICS_PATH", "/m?x=1"),
        ("DEBUG", "maybe"),
        ("EDGEPROXY_LOG_LEVEL", "verbose"),
    ],
)
def test_bad_values_are_refused_with_what_is_allowed(variable: str, text: str) -> None:
    assert f"{variable}={text!r}: allowed" in complaint({variable: text})


@pytest.mark.parametrize("text", ["true", "1", "yes", "on", "TRUE", "On"])
def test_booleans_in_any_form(text: str) -> None:
    assert config.load({"EDGEPROXY_TLS_ENABLED": text}).config.tls.enabled is True


def test_an_unknown_variable_is_a_warning_with_the_nearest_name() -> None:
    (warning,) = config.load({"EDGEPROXY_REGON": "us"}).warnings
    assert "EDGEPROXY_REGON" in warning
    assert "did you mean EDGEPROXY_REGION?" in warning


def test_what_is_for_commands_of_probes_is_no_setting() -> None:
    assert config.load({"EDGEPROXY_CHECK_PASSWORD": "secret"}).warnings == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[proxy]\nregoin = 'eu'", "proxy.regoin is not a setting; did you mean proxy.region?"),
        ("[proxy]\nregion = ['eu']", "proxy.region takes one value"),
        ("[proxy]\nregion = 'EU!'", "proxy.region = 'EU!': allowed"),
        ("[database]\nreload_secs = -1", "database.reload_secs = '-1': allowed"),
        ("region = 'eu'", "region is not a setting"),
        ("[proxy", "is not valid TOML"),
        (
            "[proxy]\nregion = eu",
            "line 2, column 10); a setting is NAME = VALUE on one line",
        ),
        (
            "[proxy]\nregion = 'eu'\n[proxy]",
            "is not valid TOML: table [proxy] is there twice (at line 3, column 7); put all",
        ),
        (
            "[backends.'sa.1']\n[backends.'sa.1']",
            "is not valid TOML: table [backends.sa.1] is there twice (at line 2",
        ),
        (
            "[proxy]\nregion = 'eu'\nregion = 'sa'\n",
            "is not valid TOML: a name is there twice (at line 3, column 14); remove one",
        ),
        ("[proxy]\nEDGEPROXY_REGION = 'eu'", "is not a setting; did you mean proxy.region?"),
        ("[web]\nEDGEPROXY_API_ALLOW = '::1'", "is not a setting; did you mean api.allow?"),
        ("x = " + "[" * 5000, "is not valid TOML: it is nested too deeply"),
        ("x = " + "{a=" * 5000, "is not valid TOML: it is nested too deeply"),
        ("x = " + "1" * 5000, "is not valid TOML: Exceeds the limit"),
        ("proxy.region" + ".a" * 5000 + " = 1", "proxy.region takes one value, not a table"),
        ("backends.x.weight" + ".a" * 5000 + " = 1", "backends.x.weight takes one value, not a"),
        ("[proxy]\nregion = 2026-01-01", "proxy.region takes one value, not a date"),
        (
            "[timeouts]\nidle_secs = 0x1" + "0" * 5000,
            "timeouts.idle_secs takes one value, not a whole number of more than 64 bits",
        ),
        ('[entrance]\nallow = [""]', "entrance.allow = ',': the list is empty"),
        ("[entrance]\nallow = [10]", 'entrance.allow takes a list of texts such as "10.0.0.0/8"'),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "edgeproxy.toml"
    file.write_text(content)
    assert said in complaint({"EDGEPROXY_CONFIG": str(file)})


def test_a_command_that_is_asked_for_as_a_probe_has_to_be_there(tmp_path: Path) -> None:
    file = tmp_path / "edgeproxy.toml"
    probes = '[health_check]\nenabled = true\ntype = "{}"\n{}\n'
    overlay = '[backends."sa-1"]\nhealth_check_type = "exec"\n'
    environ = {"EDGEPROXY_CONFIG": str(file)}
    missing = "set EDGEPROXY_HEALTH_CHECK_COMMAND, too"
    file.write_text(probes.format("exec", ""))
    assert f"EDGEPROXY_HEALTH_CHECK_TYPE='exec': {missing}" in complaint(environ)
    file.write_text(probes.format("tcp", "") + overlay)
    said = complaint(environ)
    assert f"{file}: line 6: backends.sa-1.health_check_type = 'exec': {missing}" in said
    assert "EDGEPROXY_HEALTH_CHECK_TYPE" not in said
    file.write_text(probes.format("tcp", "command = 'true'") + overlay)
    assert config.load(environ).overlays["sa-1"].check_type == "exec"
    file.write_text(overlay)  # nobody is probed
    assert config.load(environ).overlays["sa-1"].check_type == "exec"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    said = complaint({"EDGEPROXY_CONFIG": str(tmp_path / "none.toml")})
    assert "cannot be read: No such file" in said


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (600.0, "600"),
        (0.05, "0.05"),
        (2592000.0, "2592000"),
        (86400.25, "86400.25"),
        (1e-7, "0.0000001"),
        (1e22, "10000000000000000000000"),
    ],
)
def test_numbers_are_shown_in_plain_digits(number: float, text: str) -> None:
    assert config.shown(number) == text


@pytest.mark.parametrize("literal", ["1000000.0", "1e6", "1_000_000"])
def test_a_number_in_the_file_may_be_written_in_any_way(tmp_path: Path, literal: str) -> None:
    file = tmp_path / "edgeproxy.toml"
    file.write_text(f"[affinity]\nttl_secs = {literal}\nmax_bindings = {literal}\n")
    loaded = config.load({"EDGEPROXY_CONFIG": str(file)})
    assert loaded.config.affinity.ttl_secs == 1_000_000
    assert loaded.config.affinity.max_bindings == 1_000_000


@given(
    secs=st.floats(min_value=0.05, allow_infinity=False, allow_nan=False),
    count=st.integers(min_value=1, max_value=10**18 - 1),
)
def test_any_number_survives_being_written_to_a_file_and_read(secs: float, count: int) -> None:
    chosen = [
        each._replace(value=secs if isinstance(each.value, float) else count)
        for each in config.load({}).effective
        if type(each.value) in (int, float) and each.setting.variable not in BOUNDED
    ]
    assert len(chosen) > 20
    with TemporaryDirectory() as folder:
        file = Path(folder) / "edgeproxy.toml"
        file.write_text(written(chosen, {}), encoding="utf-8")
        loaded = config.load({"EDGEPROXY_CONFIG": str(file)})
    for each in chosen:
        assert config.value_of(loaded.config, each.setting) == each.value


def test_the_readme_lists_exactly_the_settings_with_their_defaults_and_meanings() -> None:
    row = re.compile(r"^\| `([A-Z0-9_]+)` \| (?:`([^`]*)`|unset) \| (.*) \|$", re.MULTILINE)
    rows = row.findall(README.read_text(encoding="utf-8"))
    expected = [
        (each.variable, config.shown(config.default_of(each)), each.meaning) for each in SETTINGS
    ]
    *listed, (file_variable, _, _) = rows
    assert listed == expected
    assert file_variable == config.FILE_VARIABLE


def test_a_postgresql_server_has_the_documented_defaults() -> None:
    postgres = config.load({}).config.postgres
    assert (postgres.enabled, postgres.url, postgres.snapshot) == (False, None, None)
    assert (postgres.max_connections, postgres.min_connections) == (10, 2)
    secs = (postgres.connect_timeout_secs, postgres.query_timeout_secs, postgres.reload_secs)
    assert secs == (5.0, 10.0, 5.0)


@pytest.mark.parametrize(("given", "lacking"), [("CERT", "KEY"), ("KEY", "CERT")])
def test_half_a_pair_is_a_fault_where_tls_is_spoken(given: str, lacking: str) -> None:
    half = {f"EDGEPROXY_TLS_{given}": "/file.pem"}
    said = complaint({**half, "EDGEPROXY_LISTENERS": "127.0.0.1:1=tls:web"})
    assert f"EDGEPROXY_TLS_{given}='/file.pem': set EDGEPROXY_TLS_{lacking}, too" in said
    config.load(half)  # nobody looks at it


def test_what_a_postgresql_server_lacks_is_said() -> None:
    said = complaint({"EDGEPROXY_POSTGRES_ENABLED": "true"})
    assert "set EDGEPROXY_POSTGRES_URL, too" in said
    said = complaint({"EDGEPROXY_POSTGRES_MIN_CONNECTIONS": "11"})
    assert "no more than EDGEPROXY_POSTGRES_MAX_CONNECTIONS, 10" in said
    said = complaint({"EDGEPROXY_POSTGRES_MAX_CONNECTIONS": "1"})
    assert "allowed is a whole number, from 2 to 1000" in said


def test_a_password_is_shown_nowhere(tmp_path: Path) -> None:
    url = "postgres://u:hidden-pw@h:5432/db"
    loaded = config.load({"EDGEPROXY_POSTGRES_URL": url})
    file = tmp_path / "edgeproxy.toml"
    file.write_text(written(loaded.effective, {}), encoding="utf-8")
    assert "hidden-pw" not in file.read_text() + repr(loaded.config) + repr(loaded.effective)
    masked = loaded.config.postgres.url
    file.write_text(f'[postgres]\nurl = "{masked}"\n')
    said = complaint({"EDGEPROXY_CONFIG": str(file)})  # the mask is no password
    assert "postgres.url = '***': the password is *** or contains a #" in said
    file.write_text('[postgres]\nurl = "mysql://u:hidden-pw@h/db"\n')
    assert "hidden-pw" not in complaint({"EDGEPROXY_CONFIG": str(file)})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("EDGEPROXY_PORT", ""),  # the prefix alone is no likeness
        ("EDGEPROXY_XYZ", ""),
        ("EDGEPROXY_LOGLEVEL", "EDGEPROXY_LOG_LEVEL"),
        ("EDGEPROXY_LISTEN", "EDGEPROXY_LISTENERS"),
    ],
)
def test_names_are_compared_without_the_prefix_that_all_share(name: str, meant: str) -> None:
    (warning,) = config.load({name: "1"}).warnings
    hint = f"; did you mean {meant}?" if meant else ""
    assert warning == f"{name} is not a known variable and does nothing{hint}"
