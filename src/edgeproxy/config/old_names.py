"""The names that settings had before they were renamed.

An old name is read like the new one, in the environment as in the file; a warning says what to
write instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from edgeproxy.config.setting import Setting
from edgeproxy.values import boolean, seconds


class OldName(NamedTuple):
    """A former name of a setting.

    Attributes:
        variable: Its environment variable.
        file_key: Its section and key in the file.
        new_variable: The variable of the setting today.
        parse: Turns text into the value that the setting has today. Raises BadValueError.
    """

    variable: str
    file_key: str
    new_variable: str
    parse: Callable[[str], object]


def _log_level(text: str) -> str:
    return "debug" if boolean(text) else "info"


RENAMED = (
    OldName(
        "EDGEPROXY_CIRCUIT_MOMENT_SECS",
        "circuit_breaker.moment_secs",
        "EDGEPROXY_CIRCUIT_EARLY_CLOSE_SECS",
        seconds,
    ),
    OldName("DEBUG", "log.debug", "EDGEPROXY_LOG_LEVEL", _log_level),
)


def names_of(setting: Setting) -> tuple[Setting | OldName, ...]:
    """Return everything that names a setting: itself first, then its former names."""
    return (setting, *(old for old in RENAMED if old.new_variable == setting.variable))
