"""Why a request is not done: a status, words, and the field of the request that is wrong."""

from __future__ import annotations

from collections.abc import Mapping

from edgeproxy.errors import EdgeProxyError


class FaultError(EdgeProxyError):
    """The answer is this status, and JSON with these words.

    Attributes:
        status: Of HTTP.
        field: Which field of the request is wrong, or None.
        headers: Of the answer.
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


def unknown(backend_id: str) -> FaultError:
    """Return that there is no such backend."""
    from edgeproxy.core.backends.rows import shown

    return FaultError(404, f"there is no backend {shown(backend_id)}", "id")
