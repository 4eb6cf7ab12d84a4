"""Renamed settings still work, removed ones have no effect; a warning says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeproxy.config import load as config
from edgeproxy.config.load import Loaded
from edgeproxy.config.old_names import REMOVED, RENAMED, OldName, Removed
from edgeproxy.config.table import SETTINGS
from edgeproxy.errors import ConfigError

MOMENT, LOG_LEVEL = "EDGEPROXY_CIRCUIT_MOMENT_SECS", "EDGEPROXY_LOG_LEVEL"
PREAMBLE, HANDSHAKE = "EDGEPROXY_PREAMBLE_TIMEOUT_SECS", "EDGEPROXY_TLS_HANDSHAKE_TIMEOUT_SECS"
SETUP = "EDGEPROXY_CLIENT_SETUP_TIMEOUT_SECS"
EARLY_CLOSE = "EDGEPROXY_CIRCUIT_EARLY_CLOSE_SECS"


def loaded_from(folder: Path, content: str, **environ: str) -> Loaded:
    """Return what a file and an environment give."""
    file = folder / "edgeproxy.toml"
    file.write_text(content)
    return config.load({"EDGEPROXY_CONFIG": str(file), **environ})


def value_in(loaded: Loaded, variable: str) -> object:
    """Return the value of a setting."""
    (value,) = [each.value for each in loaded.effective if each.setting.variable == variable]
    return value


def text_for(old: OldName) -> tuple[str, object]:
    """Return a text that is not the default of a setting, and its value."""
    return ("true", "debug") if old.variable == "DEBUG" else ("7.5", 7.5)


def test_an_old_name_is_no_name_of_today_and_its_setting_exists() -> None:
    today = {name for each in SETTINGS for name in (each.variable, each.file_key)}
    former = [name for old in (*RENAMED, *REMOVED) for name in (old.variable, old.file_key)]
    assert not today & set(former)
    assert len(set(former)) == len(former)
    assert {old.new_variable for old in RENAMED} <= today


@pytest.mark.parametrize("old", RENAMED, ids=lambda old: old.variable)
def test_an_old_variable_works_and_is_a_warning(old: OldName) -> None:
    text, value = text_for(old)
    loaded = config.load({old.variable: text})
    (setting,) = [each for each in SETTINGS if each.variable == old.new_variable]
    assert value_in(loaded, old.new_variable) == value
    advice = f"set {old.new_variable} or {setting.file_key} to {config.shown(value)!r} instead"
    assert loaded.warnings == (f"{old.variable}={text!r} still works; {advice}",)


@pytest.mark.parametrize("old", RENAMED, ids=lambda old: old.variable)
def test_an_old_key_in_the_file_works_and_is_a_warning(old: OldName, tmp_path: Path) -> None:
    text, value = text_for(old)
    section, _, key = old.file_key.partition(".")
    loaded = loaded_from(tmp_path, f"[{section}]\n{key} = {text}\n")
    assert value_in(loaded, old.new_variable) == value
    (warning,) = loaded.warnings
    assert f"line 2: {old.file_key} = {text!r} still works; set {old.new_variable}" in warning


@pytest.mark.parametrize("old", REMOVED, ids=lambda old: old.variable)
def test_a_removed_setting_has_no_effect_and_is_a_warning(old: Removed, tmp_path: Path) -> None:
    section, _, key = old.file_key.partition(".")
    loaded = loaded_from(tmp_path, f"[{section}]\n{key} = 7\n", **{old.variable: "8"})
    assert loaded.config == config.load({}).config
    in_environ, in_file = loaded.warnings
    assert in_environ == f"{old.variable}='8' has no effect: {old.instead}; remove it"
    assert f"line 2: {old.file_key} = '7' has no effect: {old.instead}; remove it" in in_file


@pytest.mark.parametrize(("preamble", "handshake"), [("3", "8"), ("8", "3")])
def test_where_two_became_one_the_longer_time_applies(preamble: str, handshake: str) -> None:
    loaded = config.load({PREAMBLE: preamble, HANDSHAKE: handshake})
    assert value_in(loaded, SETUP) == 8
    assert len(loaded.warnings) == 2
    assert all(f"set {SETUP} or" in each and "to '8'" in each for each in loaded.warnings)


@pytest.mark.parametrize(("preamble", "handshake"), [("2", "30"), ("30", "2")])
def test_the_longer_time_applies_wherever_the_two_are_set(
    tmp_path: Path, preamble: str, handshake: str
) -> None:
    file = f"[tls]\nhandshake_timeout_secs = {handshake}\n"
    loaded = loaded_from(tmp_path, file, **{PREAMBLE: preamble})
    assert value_in(loaded, SETUP) == 30
    assert len(loaded.warnings) == 2
    assert all("to '30' instead" in each for each in loaded.warnings)


@pytest.mark.parametrize("variable", [PREAMBLE, HANDSHAKE])
def test_one_of_two_shortens_not_the_other(variable: str) -> None:
    loaded = config.load({variable: "0.3"})
    assert value_in(loaded, SETUP) == 5
    assert value_in(config.load({variable: "30"}), SETUP) == 30


def test_an_old_key_in_the_file_that_the_environment_overrides_is_a_warning(tmp_path: Path) -> None:
    file = "[circuit_breaker]\nmoment_secs = 2\n"
    for variable in (MOMENT, EARLY_CLOSE):
        loaded = loaded_from(tmp_path, file, **{variable: "1"})
        assert value_in(loaded, EARLY_CLOSE) == 1
        assert any("moment_secs = '2' has no effect next to" in each for each in loaded.warnings)


def test_debug_off_is_the_level_info() -> None:
    assert value_in(config.load({"DEBUG": "no"}), LOG_LEVEL) == "info"


def test_the_new_name_wins_over_the_old_one() -> None:
    loaded = config.load({MOMENT: "1", EARLY_CLOSE: "2"})
    assert value_in(loaded, EARLY_CLOSE) == 2
    assert loaded.warnings == (f"{MOMENT}='1' has no effect next to {EARLY_CLOSE}='2'; remove it",)


def test_the_environment_wins_over_the_file_under_any_name(tmp_path: Path) -> None:
    loaded = loaded_from(tmp_path, "[circuit_breaker]\nearly_close_secs = 2\n", **{MOMENT: "1"})
    assert value_in(loaded, EARLY_CLOSE) == 1
    assert loaded.pinned == {EARLY_CLOSE: "2"}
    assert [each.split("=")[0] for each in loaded.warnings] == [MOMENT]


def test_an_empty_old_variable_counts_as_unset() -> None:
    assert config.load({MOMENT: "", "EDGEPROXY_CIRCUIT_TRIALS": ""}).warnings == ()


def test_a_bad_value_is_named_as_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{MOMENT}='-1': allowed"):
        config.load({MOMENT: "-1"})
    with pytest.raises(ConfigError, match=r"line 2: log\.debug = 'maybe': allowed"):
        loaded_from(tmp_path, "[log]\ndebug = 'maybe'\n")
