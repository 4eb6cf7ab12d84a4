"""The table of settings: it fits 100 columns, whatever the values, and cuts nothing off."""

from __future__ import annotations

from edgeproxy.cli.settings_table import WIDTH, settings_table
from edgeproxy.config import load as config
from edgeproxy.config.config import Effective
from edgeproxy.config.table import SETTINGS

LONG = "/a folder/" + "x" * 300


def test_it_fits_with_defaults_and_with_long_values() -> None:
    effective = config.load({}).effective
    long = [Effective(each, LONG, "/etc/" + "y" * 20) for each in SETTINGS]
    for settings in (effective, long):
        for with_meaning in (False, True):
            text = settings_table(settings, with_meaning=with_meaning)
            assert max(map(len, text.splitlines())) <= WIDTH
            assert all(each.variable in text for each in SETTINGS)


def test_a_value_too_long_for_its_column_has_a_line_of_its_own() -> None:
    (url,) = (each for each in SETTINGS if each.variable == "EDGEPROXY_POSTGRES_URL")
    value = "postgres://edgeproxy:***@pop-1.example.com:5432/routing?sslmode=verify-full"
    text = settings_table([Effective(url, value, "environment")])
    assert text.splitlines()[2] == f"  = {value}"


def test_one_too_long_for_a_line_has_several() -> None:
    (listen,) = (each for each in SETTINGS if each.variable == "EDGEPROXY_LISTENERS")
    value = ",".join(f"0.0.0.0:{port}=app of {port}" for port in range(8000, 8012))
    text = settings_table([Effective(listen, value, "environment")])
    assert "".join(line.removeprefix("  = ") for line in text.splitlines()[2:]) == value


def test_the_file_is_named_once() -> None:
    text = settings_table([Effective(each, "x", "/etc/e.toml") for each in SETTINGS])
    assert text.startswith("file: /etc/e.toml\n")
    assert text.count("/etc/e.toml") == 1


def test_no_value_is_said_to_be_none() -> None:
    lines = settings_table(config.load({}).effective).splitlines()
    (geo,) = (line for line in lines if line.endswith("EDGEPROXY_GEOIP_PATH"))
    assert geo.split() == ["database", "unset", "default", "EDGEPROXY_GEOIP_PATH"]
