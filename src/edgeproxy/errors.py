"""What can go wrong, in the few kinds a caller can treat differently.

Foreign exceptions (`sqlite3.Error`, `OSError`) become one of these at the edge of the
module that met them. A message says what was wrong, where, what is allowed and what to
do; it never holds a secret. A refused client is not an error but a value
(`core.admission.Refusal`): it happens at connection rate.
"""


class EdgeProxyError(Exception):
    """Base of all errors that are shown to people. Exit code 1 at the command line."""


class UsageError(EdgeProxyError):
    """A value that was given is not allowed; nothing has changed. Exit code 2."""


class ConfigError(UsageError):
    """The environment or the configuration file holds bad values; lists all of them."""


class StoreError(EdgeProxyError):
    """The routing database could not be read or changed; nothing has changed.

    Attributes:
        reason: The message without the name of the database.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


class GeoError(EdgeProxyError):
    """A geo database or override file cannot be used; the last good one stays in use."""


class WireError(EdgeProxyError):
    """What a peer has sent, or is to be sent, is not what the protocol allows.

    The message is one of a fixed set of texts and holds nothing that a peer has sent.
    """
