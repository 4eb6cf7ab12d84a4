"""How probes of the backends of an app begin: as the connections of its clients do."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgeproxy.core.backends.health import Opening


def opening_by_app(
    header_of: Callable[[str], bytes],
    tls_names: Mapping[str, str],
    authorities: Callable[[], bytes],
    alpn: tuple[str, ...],
) -> Callable[[str], Opening]:
    """Return a function from an app to the opening of its probes.

    `header_of` returns the PROXY header for an app, `tls_names` has the name in the certificates of
    its backends ("" for all other apps), `authorities` returns those in force, as PEM.
    """

    def opening_of(app: str) -> Opening:
        name = tls_names.get(app, tls_names.get("", ""))
        return Opening(header_of(app), name, authorities(), alpn)

    return opening_of
