"""Why the registry refuses a request, in terms of backends: no statuses, no headers.

`api/fault.py` maps each kind to an answer. A value that is not allowed is a `RowError` of
`core/backends/rows`.
"""

from __future__ import annotations

from edgeproxy.core.backends.rows import shown
from edgeproxy.errors import EdgeProxyError, StoreError


class RegistryError(EdgeProxyError):
    """A request is refused.

    Attributes:
        field: Which field of the request is the reason, or None.
    """

    def __init__(self, reason: str, field: str | None = None) -> None:
        super().__init__(reason)
        self.field = field


class InvalidClientError(RegistryError):
    """The address of a client is not valid."""

    def __init__(self, client: str) -> None:
        super().__init__(f"client {shown(client)} is not an IPv4 or IPv6 address", "client")


class NotOwnerError(RegistryError):
    """The caller's address is not the address of the backend."""

    def __init__(self, field: str) -> None:
        super().__init__(
            "a caller may register or change only backends at its own address; see "
            "EDGEPROXY_API_OWN_ADDRESS_ONLY",
            field,
        )


class ForbiddenAddressError(RegistryError):
    """A backend may not register at this address."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, "ip")


class UnknownBackendError(RegistryError):
    """The routing table has no backend with this id."""

    def __init__(self, backend_id: str, skipped: str | None = None) -> None:
        """`skipped` is why the row of this backend is not used."""
        reason = f"there is no backend {shown(backend_id)}"
        if skipped is not None:
            reason += f" in force, because its row in the database is skipped: {skipped}"
        super().__init__(reason, "id")


class NotReplicatedError(RegistryError):
    """The routing table is that of this POP alone."""

    def __init__(self) -> None:
        super().__init__(
            "the routing table is that of this POP alone; see EDGEPROXY_REPLICATION_ENABLED"
        )


class NotRegisteredError(RegistryError):
    """The backend has no lease here: it never registered, or its lease expired."""

    def __init__(self) -> None:
        super().__init__(
            "this backend is not registered here: register it; what an operator has added needs no "
            "heartbeats",
            "id",
        )


class ConflictError(RegistryError):
    """The stored row does not allow what is asked for."""


class UnavailableError(RegistryError):
    """The request is allowed and cannot be done now.

    Attributes:
        retry_after_secs: When the caller may try again; None: this proxy cannot say.
    """

    def __init__(self, reason: str, retry_after_secs: int | None = None) -> None:
        super().__init__(reason)
        self.retry_after_secs = retry_after_secs


class TooManyBackendsError(UnavailableError):
    """As many backends are registered as the settings allow."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, retry_after_secs=60)


class StoreUnavailableError(UnavailableError):
    """The routing database cannot be written."""

    def __init__(self, cause: StoreError) -> None:
        # `reason` leaves out the path or URL of the database, which callers need not know.
        super().__init__(f"the routing database {cause.reason}", retry_after_secs=1)
