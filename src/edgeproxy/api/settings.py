"""The settings of the API, and the token that callers must show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeproxy import regular_file
from edgeproxy.core.geo.prefix import Network
from edgeproxy.errors import ConfigError
from edgeproxy.registry.settings import RegistrySettings
from edgeproxy.values import BadValueError, ListenAddress, Secret, secret

DEFAULT_LISTEN = ListenAddress("0.0.0.0", 8081)  # noqa: S104 — as documented
NO_TOKEN = Secret("")


@dataclass(frozen=True, slots=True)
class ApiSettings(RegistrySettings):
    """The API, and the registry behind it.

    Attributes:
        enabled: Whether the proxy serves the API.
        listen_addr: The address of the API.
        allow: Networks that may call; empty: loopback, private and unique local addresses.
        token: The bearer token that callers must show; empty: none.
        token_file: A file that holds the token instead.
        rate_limit: Requests per second of one caller; twice as many after a pause.
        timeout_secs: How long a request and its answer may take.
    """

    enabled: bool = False
    listen_addr: ListenAddress = DEFAULT_LISTEN
    allow: tuple[Network, ...] = ()
    token: Secret = NO_TOKEN
    token_file: Path | None = None
    rate_limit: int = 1000
    timeout_secs: float = 10.0


def token_of(settings: ApiSettings) -> Secret:
    """Return the token that callers must show, empty for none. Raises ConfigError."""
    path = settings.token_file
    if path is None:
        return settings.token
    if settings.token:
        raise ConfigError(
            "EDGEPROXY_API_TOKEN and EDGEPROXY_API_TOKEN_FILE are both set; set one of them"
        )
    where = f"EDGEPROXY_API_TOKEN_FILE={str(path)!r}"
    try:
        text = regular_file.read_text(path, regular_file.MAX_TOKEN_BYTES).strip()
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror}") from None
    except ValueError:  # not UTF-8
        text = ""
    try:
        return secret(text)
    except BadValueError:
        raise ConfigError(
            f"{where} holds no token; allowed is one line of 1 to 4096 printable ASCII characters "
            "without spaces"
        ) from None
