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


def test_a_long_value_goes_on_in_the_next_line() -> None:
    (listen,) = (each for each in SETTINGS if each.variable == "EDGEPROXY_LISTENERS")
    value = ",".join(f"0.0.0.0:{port}=app of {port}" for port in range(8000, 8012))
    text = settings_table([Effective(listen, value, "environment")])
    lines = text.splitlines()[1:]
    start = lines[0].index("0.0.0.0")
    width = lines[0].index("  environment") - start
    assert "".join(line[start : start + width] for line in lines) == value


def test_the_file_is_named_once() -> None:
    text = settings_table([Effective(each, "x", "/etc/e.toml") for each in SETTINGS])
    assert text.startswith("file: /etc/e.toml\n")
    assert text.count("/etc/e.toml") == 1
