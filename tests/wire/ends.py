"""Ends of connections, for properties of headers."""

from __future__ import annotations

from hypothesis import strategies as st

from edgeproxy.core.geo.address import normalise
from edgeproxy.wire.proxy_header import Endpoint

IPV4 = st.ip_addresses(v=4).map(str)
IPV6 = st.ip_addresses(v=6).map(str).map(normalise)
ENDPOINT = st.builds(Endpoint, st.one_of(IPV4, IPV6), st.integers(0, 65535))
