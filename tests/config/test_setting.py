"""The names of a setting follow from its key and its section."""

from __future__ import annotations

from edgeproxy.config.setting import Setting, section, setting


def names(of: Setting) -> tuple[str, str, str, str]:
    """Return the variable, the file key, the part and the field of a setting."""
    return of.variable, of.file_key, of.part, of.field


def test_all_names_follow_from_the_key() -> None:
    (burst,) = section("rate_limit", rows=(setting("burst", int, "at once"),))
    assert names(burst) == (
        "EDGEPROXY_RATE_LIMIT_BURST",
        "rate_limit.burst",
        "rate_limit",
        "burst",
    )
    assert not burst.is_live
    assert not burst.is_secret


def test_a_section_may_be_held_by_another_part_under_other_variables() -> None:
    rows = (setting("user_secs", float, "user", field="user_timeout_secs"),)
    (user,) = section("timeouts", part="engine", variables="", rows=rows)
    assert names(user) == (
        "EDGEPROXY_USER_SECS",
        "timeouts.user_secs",
        "engine",
        "user_timeout_secs",
    )


def test_a_row_wins_over_its_section() -> None:
    rows = (
        setting("path", str, "path", variable="DATA", secret=True),
        setting("mode", str, "mode"),
    )
    path, mode = section("data", part="files", variables="d", live=True, rows=rows)
    assert names(path) == ("DATA", "data.path", "files", "path")
    assert names(mode) == ("EDGEPROXY_D_MODE", "data.mode", "files", "mode")
    assert (path.is_secret, mode.is_secret) == (True, False)
    assert path.is_live
    assert mode.is_live
