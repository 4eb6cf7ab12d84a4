"""Records as hypothesis makes them up."""

from __future__ import annotations

from hypothesis import strategies as st

from edgeproxy.core.cluster.swim.records import Address, Record
from edgeproxy.core.cluster.swim.tuning import MAX_ID_BYTES, MAX_REGION_BYTES

PRINTABLE = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
IDS = st.text(PRINTABLE, min_size=1, max_size=MAX_ID_BYTES)
REGIONS = st.text(PRINTABLE, max_size=MAX_REGION_BYTES)
ADDRESSES = st.builds(
    Address,
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
    .filter(lambda ip: not ip.is_multicast and not ip.is_unspecified)
    .map(str),
    st.integers(1, 65535),
)
U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
RECORDS = st.builds(
    Record,
    node_id=IDS,
    instance=U64,
    incarnation=U32,
    state=st.integers(0, 3),
    region=REGIONS,
    gossip=ADDRESSES,
    transport=ADDRESSES,
    proto_min=st.integers(0, 255),
    proto_max=st.integers(0, 255),
    accuser=st.one_of(st.just(""), IDS),
    age_secs=U32,
)
