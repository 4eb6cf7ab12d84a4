"""Every refusal of the registry has one status, and the headers that go with it."""

from __future__ import annotations

import pytest

from edgeproxy.api.fault import STATUS_OF, FaultError, mapping_faults
from edgeproxy.core.backends.rows import RowError
from edgeproxy.errors import EdgeProxyError, StoreError
from edgeproxy.registry import errors


def mapped(error: EdgeProxyError) -> FaultError:
    """Return the fault that this error becomes."""
    with pytest.raises(FaultError) as found, mapping_faults():
        raise error
    return found.value


@pytest.mark.parametrize(
    ("error", "status", "field", "headers"),
    [
        (errors.InvalidClientError("x"), 400, "client", {}),
        (errors.NotOwnerError("ip"), 403, "ip", {}),
        (errors.ForbiddenAddressError("not there"), 403, "ip", {}),
        (errors.UnknownBackendError("a"), 404, "id", {}),
        (errors.NotRegisteredError(), 404, "id", {}),
        (errors.ConflictError("it is so"), 409, None, {}),
        (errors.UnavailableError("not now"), 503, None, {}),
        (errors.TooManyBackendsError("full"), 503, None, {"Retry-After": "60"}),
        (errors.StoreUnavailableError(StoreError("is away")), 503, None, {"Retry-After": "1"}),
    ],
)
def test_an_error_of_the_registry_has_a_status(
    error: errors.RegistryError, status: int, field: str | None, headers: dict[str, str]
) -> None:
    fault = mapped(error)
    assert (fault.status, str(fault), fault.field, fault.headers) == (
        status,
        str(error),
        field,
        headers,
    )


def test_every_kind_of_error_is_mapped_once() -> None:
    kinds = [each for each in vars(errors).values() if isinstance(each, type)]
    for kind in kinds:
        if issubclass(kind, errors.RegistryError) and kind is not errors.RegistryError:
            assert sum(issubclass(kind, base) for base in STATUS_OF) == 1, kind


def test_a_bad_address_is_named_as_the_request_names_it() -> None:
    fault = mapped(RowError("wg_ip", "wg_ip is 'x': allowed is an address"))
    assert (fault.status, fault.field) == (400, "ip")
    assert str(fault) == "ip is 'x': allowed is an address"
