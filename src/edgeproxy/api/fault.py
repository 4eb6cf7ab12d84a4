"""Why a request is refused, in terms of HTTP: a status, a reason, the field that is wrong.

This is the one place that maps the errors of the registry to statuses and headers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from edgeproxy.core.backends.rows import RowError
from edgeproxy.errors import EdgeProxyError
from edgeproxy.registry.errors import (
    ConflictError,
    ForbiddenAddressError,
    InvalidClientError,
    NotOwnerError,
    NotRegisteredError,
    NotReplicatedError,
    RegistryError,
    UnavailableError,
    UnknownBackendError,
)

STATUS_OF: Mapping[type[RegistryError], int] = {
    InvalidClientError: 400,
    NotOwnerError: 403,
    ForbiddenAddressError: 403,
    UnknownBackendError: 404,
    NotRegisteredError: 404,
    NotReplicatedError: 404,
    ConflictError: 409,
    UnavailableError: 503,
}
"""The status of each kind of error; a subclass has the status of its base."""


class FaultError(EdgeProxyError):
    """The answer is this status, with the message as JSON.

    Attributes:
        status: The HTTP status.
        field: Which field of the request is wrong, or None.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        error: str,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(error)
        self.status = status
        self.field = field
        self.headers = dict(headers or {})


@contextmanager
def mapping_faults() -> Iterator[None]:
    """Turn errors of the registry into FaultError."""
    try:
        yield
    except RowError as error:
        # The API calls the address `ip`; the column is `wg_ip`.
        field = "ip" if error.field == "wg_ip" else error.field
        raise FaultError(400, error.reason.replace("wg_ip", "ip", 1), field) from None
    except RegistryError as error:
        raise _fault_of(error) from None


def _fault_of(error: RegistryError) -> FaultError:
    (status,) = [status for kind, status in STATUS_OF.items() if isinstance(error, kind)]
    headers = {}
    if isinstance(error, UnavailableError) and error.retry_after_secs is not None:
        headers["Retry-After"] = str(error.retry_after_secs)
    return FaultError(status, str(error), error.field, headers)
