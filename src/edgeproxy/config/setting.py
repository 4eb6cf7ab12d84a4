"""What a setting is. The settings themselves are in `settings`.

Defaults are those of the parts' own settings; see `config.Config`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

LIVE_PARTS = ("entrance", "rate", "breaker", "probe", "health")
LIVE_TARGETS = (
    "log.debug",
    "door.listeners",
    "door.routes",
    "door.proxy_in",
    "door.preamble_timeout_secs",
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that can be set.

    Attributes:
        variable: Its environment variable.
        place: Its section and key in the file, for instance `database.path`.
        target: Its part and field in `Config`.
        parse: Turns text into the value; raises BadValueError.
        meaning: One line for people.
        is_secret: Its text is never shown; its value, as text, shows no secret.
    """

    variable: str
    place: str
    target: str
    parse: Callable[[str], object]
    meaning: str
    is_secret: bool = False

    @property
    def is_live(self) -> bool:
        """Whether a change takes effect while the proxy runs."""
        return self.target.partition(".")[0] in LIVE_PARTS or self.target in LIVE_TARGETS
