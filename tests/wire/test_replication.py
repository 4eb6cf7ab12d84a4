"""The codec of replication messages."""

from __future__ import annotations

import math
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeproxy.core.cluster.cells import (
    ALIVE,
    GONE,
    LIFE,
    MAX_ID_BYTES,
    MAX_TEXT_BYTES,
    Cell,
    size_of,
)
from edgeproxy.core.cluster.clock import VOID
from edgeproxy.core.cluster.messages import Cells, Hello, Message, Pull, Push, Reset, Wanted
from edgeproxy.core.cluster.own_copy import MAX_ROWS, OwnCopy
from edgeproxy.core.cluster.rows import BACKENDS, TABLES, Edit, Key
from edgeproxy.core.cluster.store import MemoryStore
from edgeproxy.core.cluster.vectors import Head
from edgeproxy.errors import WireError
from edgeproxy.wire.replication import COMPRESSED, MAX_FRAME_BYTES, decode, encode
from tests.core.cluster.samples import ORIGINS, ROUTE, cells, keys

HASH = b"12345678"
ONE = ORIGINS[0]
LIFE_CELL = Cell(ROUTE, LIFE, 5, ONE, 1, ALIVE)
APP_CELL = Cell(ROUTE, "app", 5, ONE, 1, ("é", None, -1, 1.5))

numbers = st.integers(1, (1 << 63) - 1)
hashes = st.binary(min_size=8, max_size=8)
origins = st.binary(min_size=16, max_size=16)
lives = st.builds(
    Cell,
    keys,
    st.just(LIFE),
    st.integers(1, VOID - 1),
    origins,
    numbers,
    st.sampled_from([ALIVE, GONE]),
)
many_cells = st.lists(
    st.one_of(cells, lives), max_size=5, unique_by=lambda cell: (cell.key, cell.group)
).map(tuple)
pasts = st.dictionaries(
    origins, st.tuples(numbers, hashes, st.integers(0, 1 << 62)), max_size=4
).map(
    lambda past: (
        {origin: Head(seq, chain) for origin, (seq, chain, _) in past.items()},
        {origin: min(seq, gone) for origin, (seq, _, gone) in past.items() if gone},
    )
)


def hello(
    past: Any, versions: tuple[int, int], origin: bytes, ids: tuple[bytes, bytes], digest: bytes
) -> Hello:
    return Hello(versions, origin, *ids, digest, *past)


messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        hello,
        st.one_of(st.just((None, {})), pasts),
        st.tuples(st.integers(1, 9), st.integers(9, 255)),
        origins,
        st.tuples(hashes, hashes),
        st.binary(min_size=16, max_size=16),
    ),
    st.builds(
        lambda cells, generation, origin, seq, previous: Push(
            generation,
            origin,
            seq,
            previous,
            tuple(cell._replace(origin=origin, seq=seq) for cell in cells),
        ),
        many_cells.filter(bool),
        hashes,
        origins,
        numbers,
        hashes,
    ),
    st.builds(Pull, numbers, st.sampled_from(Wanted), hashes, pasts.map(lambda past: past[0])),
    st.builds(
        Cells,
        numbers,
        numbers,
        hashes,
        many_cells,
        st.one_of(st.none(), pasts.map(lambda past: past[0])),
    ),
    st.builds(
        lambda past, clock, one, two, id_, cells: Reset(
            one, two, id_, cells, past[0], past[1], clock
        ),
        st.one_of(st.just((None, {})), pasts),
        st.integers(0, VOID - 1),
        numbers,
        numbers,
        hashes,
        many_cells,
    ),
)

GOLDEN: dict[str, Message] = {
    "hello": Hello((1, 1), ONE, HASH, HASH, b"d" * 16, {ONE: Head(300, HASH)}, {ONE: 2}),
    "brief": Hello((1, 1), ONE, HASH, HASH, b"d" * 16, None, {}),
    "push": Push(HASH, ONE, 1, bytes(8), (LIFE_CELL, APP_CELL)),
    "pull": Pull(7, Wanted.CLONE, HASH, {ONE: Head(1, HASH)}),
    "cells": Cells(7, 0, HASH, (LIFE_CELL,), None),
    "last": Cells(7, 1, HASH, (APP_CELL,), {ONE: Head(1, HASH)}),
    "reset": Reset(7, 1, HASH, (LIFE_CELL,), {ONE: Head(2, HASH)}, {ONE: 1}, 1 << 40),
}
FRAMES = {
    "hello": (
        "010197920101c41001010101010101010101010101010101c4083132333435363738c40831323334"
        "35363738c4106464646464646464646464646464646481c410010101010101010101010101010101"
        "0192cd012cc408313233343536373881c4100101010101010101010101010101010102"
    ),
    "brief": (
        "010197920101c41001010101010101010101010101010101c4083132333435363738c40831323334"
        "35363738c41064646464646464646464646464646464c080"
    ),
    "push": (
        "010295c4083132333435363738c4100101010101010101010101010101010101c408000000000000"
        "0000929692b06564676570726f78795f726f75746573a9612e6578616d706c65a46c69666505c410"
        "010101010101010101010101010101010191019692b06564676570726f78795f726f75746573a961"
        "2e6578616d706c65a361707005c410010101010101010101010101010101010194a2c3a9c0ffcb3f"
        "f8000000000000"
    ),
    "pull": (
        "0103940702c408313233343536373881c410010101010101010101010101010101019201c4083132"
        "333435363738"
    ),
    "cells": (
        "0104950700c4083132333435363738919692b06564676570726f78795f726f75746573a9612e6578"
        "616d706c65a46c69666505c41001010101010101010101010101010101019101c0"
    ),
    "last": (
        "0104950701c4083132333435363738919692b06564676570726f78795f726f75746573a9612e6578"
        "616d706c65a361707005c410010101010101010101010101010101010194a2c3a9c0ffcb3ff80000"
        "0000000081c410010101010101010101010101010101019201c4083132333435363738"
    ),
    "reset": (
        "0105970701c4083132333435363738919692b06564676570726f78795f726f75746573a9612e6578"
        "616d706c65a46c69666505c4100101010101010101010101010101010101910181c4100101010101"
        "01010101010101010101019202c408313233343536373881c4100101010101010101010101010101"
        "010101cf0000010000000000"
    ),
}


def test_a_frame_is_the_same_in_every_release() -> None:
    assert {name: encode(message).hex() for name, message in GOLDEN.items()} == FRAMES


@pytest.mark.parametrize("name", GOLDEN)
def test_a_frame_of_an_earlier_release_is_understood(name: str) -> None:
    assert decode(bytes.fromhex(FRAMES[name])) == GOLDEN[name]


@given(messages)
def test_a_message_comes_back(message: Message) -> None:
    found = decode(encode(message))
    assert ascii(found) == ascii(message)
    assert type(found) is type(message)


@given(st.binary(max_size=200))
@example(b"\x01\x01")
@example(b"\x01\x04" + b"\x91" * 100_000)
@example(b"\x01\x05" + b"\xdf\xff\xff\xff\xff")
@example(bytes(MAX_FRAME_BYTES + 1))
def test_any_bytes_are_a_message_or_refused(frame: bytes) -> None:
    check_total(frame)


@settings(max_examples=500)
@given(messages, st.data())
def test_any_damaged_frame_is_a_message_or_refused(message: Message, data: st.DataObject) -> None:
    frame = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(frame) - 1))
        kind = data.draw(st.sampled_from(["set", "cut", "double", "insert"]))
        if kind == "set":
            frame[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del frame[at : at + data.draw(st.integers(1, 9))]
        elif kind == "double":
            frame[at:at] = frame[at:]
        else:
            frame[at:at] = data.draw(st.binary(max_size=9))
        if not frame:
            break
    check_total(bytes(frame))


LARGE = Cells(7, 0, HASH, tuple(APP_CELL._replace(key=Key("t", str(n))) for n in range(300)), None)


def test_a_large_message_is_compressed_and_comes_back() -> None:
    frame = encode(LARGE)
    assert len(frame) < len(msgspec.msgpack.encode(LARGE)) / 5
    assert decode(frame) == LARGE


@settings(max_examples=500)
@example(855, 6)
@given(st.integers(0), st.integers(0, 255))
def test_a_damaged_compressed_frame_is_refused_or_says_the_same(at: int, value: int) -> None:
    """Some bits of a stream say nothing, such as those between its last word and its checksum."""
    frame = bytearray(encode(LARGE))
    frame[2 + at % (len(frame) - 2)] = value
    try:
        found = decode(bytes(frame))
    except WireError:
        return
    assert found == LARGE


def test_a_compressed_frame_with_another_checksum_is_refused() -> None:
    whole = encode(LARGE)
    for at in range(len(whole) - 4, len(whole)):
        frame = bytearray(whole)
        frame[at] ^= 1
        with pytest.raises(WireError):
            decode(bytes(frame))


@pytest.mark.parametrize(
    "body",
    [
        zlib.compress(bytes(MAX_FRAME_BYTES + 1)),
        zlib.compress(bytes(1 << 24), 9),
        encode(LARGE)[2:-1],
        encode(LARGE)[2:] + b"x",
        b"no stream",
    ],
    ids=["too large", "a bomb", "cut", "with more", "no stream"],
)
def test_what_is_not_compressed_as_it_says_is_refused(body: bytes) -> None:
    with pytest.raises(WireError, match=r"compressed|cut"):
        decode(bytes((1, 4 | COMPRESSED)) + body)


def check_total(frame: bytes) -> None:
    try:
        message = decode(frame)
    except WireError:
        return
    assert ascii(decode(encode(message))) == ascii(message)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_frame_with_anything_missing_or_added_is_refused(name: str) -> None:
    frame = bytes.fromhex(FRAMES[name])
    for end in range(len(frame)):
        with pytest.raises(WireError):
            decode(frame[:end])
    with pytest.raises(WireError, match="fields of its kind"):
        decode(frame + b"\0")


@pytest.mark.parametrize("head", ["0001", "0201", "0100", "0106"])
def test_unknown_versions_and_kinds_are_refused(head: str) -> None:
    with pytest.raises(WireError, match=r"version|kind"):
        decode(bytes.fromhex(head) + b"\x90")


def with_cell(**fields: Any) -> Cells:
    return Cells(1, 0, HASH, (APP_CELL._replace(**fields),), None)


HELLO, PUSH, RESET = GOLDEN["hello"], GOLDEN["push"], GOLDEN["reset"]
assert isinstance(HELLO, Hello)
assert isinstance(PUSH, Push)
assert isinstance(RESET, Reset)

BAD: list[Message] = [
    HELLO._replace(versions=(2, 1)),
    HELLO._replace(versions=(0, 1)),
    HELLO._replace(versions=(1, 256)),
    HELLO._replace(origin=b"short"),
    HELLO._replace(vector_id=b"short"),
    HELLO._replace(generation_id=b"short"),
    HELLO._replace(digest=b"short"),
    HELLO._replace(vector={b"short": Head(1, HASH)}),
    HELLO._replace(vector={ONE: Head(0, HASH)}, generation={}),
    HELLO._replace(vector={ONE: Head(1, b"short")}, generation={}),
    HELLO._replace(vector={ONE: Head(1, HASH)}),
    HELLO._replace(generation={ONE: 0}),
    HELLO._replace(generation={ORIGINS[1]: 1}),
    HELLO._replace(vector={number.to_bytes(16): Head(1, HASH) for number in range(10_001)}),
    PUSH._replace(seq=0),
    PUSH._replace(seq=2),
    PUSH._replace(origin=ORIGINS[1]),
    PUSH._replace(cells=()),
    PUSH._replace(previous=b""),
    PUSH._replace(cells=(APP_CELL, APP_CELL)),
    Pull(-1, Wanted.ALL, HASH, {}),
    Cells(1, -1, HASH, (), None),
    Cells(1, 1, HASH, (LIFE_CELL,) * 10_001, None),
    RESET._replace(clock=VOID),
    RESET._replace(clock=-1),
    RESET._replace(generation={ONE: 3}),
    RESET._replace(vector=None),
    with_cell(stamp=VOID),
    with_cell(stamp=0),
    with_cell(seq=0),
    with_cell(origin=b"short"),
    with_cell(group=""),
    with_cell(group="x" * 65),
    with_cell(group=LIFE),
    with_cell(group=LIFE, values=(2,)),
    with_cell(key=Key("", "a")),
    with_cell(key=Key("x" * 65, "a")),
    with_cell(key=Key("x", "a" * (MAX_ID_BYTES + 1))),
    with_cell(values=("a" * (MAX_TEXT_BYTES + 1),)),
    with_cell(values=(math.nan,)),
    with_cell(values=(math.inf,)),
    with_cell(values=(1 << 63,)),
    with_cell(values=(None,) * 33),
]


@pytest.mark.parametrize("message", BAD, ids=range(len(BAD)))
def test_what_no_node_sends_is_neither_sent_nor_taken(message: Message) -> None:
    with pytest.raises(WireError, match="replication message has"):
        encode(message)
    number = {Hello: 1, Push: 2, Pull: 3, Cells: 4, Reset: 5}[type(message)]
    with pytest.raises(WireError):
        decode(bytes((1, number)) + msgspec.msgpack.encode(message))


def test_text_that_is_not_unicode_is_not_sent() -> None:
    with pytest.raises(WireError):
        encode(with_cell(values=("\udc80",)))


def test_a_number_that_is_not_whole_is_no_number() -> None:
    body = msgspec.msgpack.encode((1, 0, HASH, [[["t", "a"], "g", 5.0, ONE, 1, []]], None))
    with pytest.raises(WireError):
        decode(b"\x01\x04" + body)


def test_the_largest_row_fits_into_a_frame() -> None:
    columns = TABLES[BACKENDS].columns
    largest = Edit(
        Key(BACKENDS, "x" * MAX_ID_BYTES), dict.fromkeys(columns, "é" * (MAX_TEXT_BYTES // 2))
    )
    copy = OwnCopy(MemoryStore(), lambda: ONE)
    edits = [largest, *(Edit(Key(BACKENDS, str(n)), {}) for n in range(2 * MAX_ROWS))]
    for push in copy.write(edits, "", 0):
        assert len(encode(push)) <= MAX_FRAME_BYTES


@given(cells)
def test_a_cell_takes_no_more_room_than_is_estimated(cell: Cell) -> None:
    one = Cells(1, 0, HASH, (cell,), None)
    none = Cells(1, 0, HASH, (), None)
    assert len(encode(one)) - len(encode(none)) <= size_of(cell)
