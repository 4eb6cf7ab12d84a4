"""What can be set of the API, and the token that it demands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgeproxy.core.geo.prefix import Network
from edgeproxy.errors import ConfigError
from edgeproxy.values import ListenAddress, Secret

DEFAULT_LISTEN = ListenAddress("0.0.0.0", 8081)  # noqa: S104 — as documented
NO_TOKEN = Secret("")
_TOKEN = re.compile(r"[!-~]{1,4096}")


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """The API.

    Attributes:
        enabled: Whether there is one.
        listen_addr: Address to serve it on.
        heartbeat_ttl_secs: How long a registered backend may be silent.
        home: What this POP is called where several register backends in one database.
        allow: Who may call it; empty: loopback, private and unique local addresses.
        token: What callers have to show; empty: nothing.
        token_file: Where it stands instead.
        own_address_only: A backend may speak only for the address that it calls from.
        max_backends: How many may be registered.
        rate_limit: Requests in a second of one caller; 0: no limit.
        timeout_secs: How long a request and its answer may take.
    """

    enabled: bool = False
    listen_addr: ListenAddress = DEFAULT_LISTEN
    heartbeat_ttl_secs: float = 60.0
    home: str | None = None
    allow: tuple[Network, ...] = ()
    token: Secret = NO_TOKEN
    token_file: Path | None = None
    own_address_only: bool = False
    max_backends: int = 20_000
    rate_limit: int = 1000
    timeout_secs: float = 10.0


def token_of(settings: ApiSettings) -> Secret:
    """Return the token that callers have to show, empty for none. Raises ConfigError."""
    path = settings.token_file
    if path is None:
        return settings.token
    if settings.token:
        raise ConfigError(
            "EDGEPROXY_API_TOKEN and EDGEPROXY_API_TOKEN_FILE are both set; set one of them"
        )
    where = f"EDGEPROXY_API_TOKEN_FILE={str(path)!r}"
    try:
        text = path.read_text("utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror}") from None
    except ValueError:
        text = ""
    if not _TOKEN.fullmatch(text):
        raise ConfigError(
            f"{where} holds no token; allowed is one line of 1 to 4096 printable ASCII characters "
            "without spaces"
        )
    return Secret(text)
