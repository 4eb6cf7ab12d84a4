"""The exceptions that callers distinguish.

A module that calls foreign code turns its exceptions (`sqlite3.Error`, `OSError`) into one of
these. A message says what was wrong, where, what is allowed and what to do; it never contains a
secret. A refused client is a value (`core.admission.ticket.Refusal`) and not an error, because
clients are refused at connection rate.
"""

from __future__ import annotations

import os
import re

_FAILED_CALL = re.compile(r"\[Errno (\d+)\] Connect call failed \('([^']*)', (\d+)[^)]*\)")
_NUMBER = re.compile(r"\[Errno -?\d+\] ")


def reason_of(error: BaseException) -> str:
    """Return why foreign code failed, in words: no number, no name of a system call."""
    text = str(error).removeprefix("Multiple exceptions: ")
    text = _FAILED_CALL.sub(lambda call: f"{os.strerror(int(call[1]))} ({call[2]}:{call[3]})", text)
    return _NUMBER.sub("", text) or type(error).__name__


class EdgeProxyError(Exception):
    """Base of all errors with a message for a person. Exit code 1 at the command line."""


class UsageError(EdgeProxyError):
    """A value is not allowed; nothing has changed. Exit code 2."""


class ConfigError(UsageError):
    """The environment or the configuration file has bad values; the message lists all of them."""


class StoreError(EdgeProxyError):
    """The routing database could not be read or changed; nothing has changed.

    Attributes:
        reason: The message without the name of the database.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


class StateError(EdgeProxyError):
    """The file with what this POP knows of the cluster could not be used; nothing has changed."""


class GeoError(EdgeProxyError):
    """A geo database or override file cannot be used; the last good one stays in use."""


class WireError(EdgeProxyError):
    """Bytes that a peer sent, or that it is to be sent, violate the protocol.

    The message is one of a fixed set of texts and contains nothing that a peer has sent.
    """
