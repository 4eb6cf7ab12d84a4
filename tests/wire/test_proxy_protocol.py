"""The bytes say which version a header has, and that there is none at the first wrong one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.wire import proxy_v1, proxy_v2
from edgeproxy.wire.proxy_header import Endpoint
from edgeproxy.wire.proxy_protocol import MAX_BYTES, decode
from tests.wire.cuts import answer, refused_after, whole

ENDS = Endpoint("192.0.2.1", 7), Endpoint("2001:db8::1", 443)


def test_both_versions_are_read() -> None:
    assert whole(decode, proxy_v1.encode(*ENDS)).version == 1
    assert whole(decode, proxy_v2.encode(*ENDS)).version == 2
    assert whole(decode, proxy_v1.UNKNOWN).source is None
    assert whole(decode, proxy_v2.LOCAL).is_local


@pytest.mark.parametrize(
    ("sent", "after"),
    [
        (b"GET / HTTP/1.1\r\n", 1),
        (b"\x16\x03\x01", 1),
        (b"\0", 1),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 3),
        (b"\r\n\r\n\r\n", 5),
    ],
)
def test_other_protocols_are_refused_at_once(sent: bytes, after: int) -> None:
    assert refused_after(decode, sent) == after


def test_nothing_is_not_an_answer_yet() -> None:
    assert decode(b"") is None


@given(st.sampled_from([b"", b"PROXY TCP4 ", b"PROXY UNKNOWN ", proxy_v2.SIGNATURE]), st.data())
def test_there_is_an_answer_in_the_end(start: bytes, data: st.DataObject) -> None:
    filler = data.draw(st.binary(min_size=1, max_size=50))
    sent = (start + filler * MAX_BYTES)[:MAX_BYTES]
    assert answer(decode, sent) is not None
