"""Nothing that is not authentic is opened, nothing twice, and nothing is remembered for it."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.cluster.builtin import sealing
from edgeproxy.cluster.builtin.keys import KeyRing, key_ring, new_key
from edgeproxy.cluster.builtin.sealing import (
    MAX_BYTES,
    MAX_SENDERS,
    OVERHEAD_BYTES,
    Dropped,
    Opened,
    Opener,
    Sealer,
    sender_hash,
)
from edgeproxy.values import Secret
from edgeproxy.wire import gossip

OLD, NEW = new_key(), new_key()
GOLDEN = (
    "454701005ba9d52cb7c9160ae11e2a66000000000000000700000000000000000000000000000000"
    "4401787747c4a9b8c9405c1c39d63c0bf96d9acba8bab65ddd0280e2"
)


def ring(*keys: Secret) -> KeyRing:
    return key_ring(Secret(",".join(key.reveal() for key in keys)))


def sealer(instance: int = 1, node_id: str = "a", cluster: str = "prod") -> Sealer:
    return Sealer(ring(OLD), cluster, node_id, instance)


def opener(cluster: str = "prod", *keys: Secret) -> Opener:
    return Opener(ring(*(keys or (OLD,))), cluster)


def opened(result: Opened | Dropped) -> Opened:
    assert isinstance(result, Opened)
    return result


@given(st.binary(max_size=MAX_BYTES - OVERHEAD_BYTES))
def test_what_is_sealed_is_opened(body: bytes) -> None:
    datagram = sealer(7).seal(body)
    assert len(datagram) == len(body) + OVERHEAD_BYTES
    result = opened(opener().open(datagram))
    assert (result.body, result.instance, result.is_stale) == (body, 7, False)
    assert result.sender == sender_hash("a")
    assert result.key_id == ring(OLD).primary.id


def test_the_longest_message_fits_into_a_datagram() -> None:
    assert gossip.MAX_BYTES + OVERHEAD_BYTES == MAX_BYTES


def test_every_flipped_bit_is_found() -> None:
    datagram, receiver = sealer().seal(b"body"), opener()
    for bit in range(8 * len(datagram)):
        changed = bytearray(datagram)
        changed[bit // 8] ^= 1 << bit % 8
        assert isinstance(receiver.open(bytes(changed)), Dropped), bit
    assert opened(receiver.open(datagram)).body == b"body"


def test_every_truncation_and_extension_is_found() -> None:
    datagram, receiver = sealer().seal(b"body"), opener()
    for size in range(len(datagram)):
        assert isinstance(receiver.open(datagram[:size]), Dropped), size
    assert receiver.open(datagram + b"\0") is Dropped.FORGED
    assert receiver.open(datagram + bytes(MAX_BYTES)) is Dropped.LENGTH


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: b"", Dropped.LENGTH),
        (lambda: bytes(MAX_BYTES), Dropped.FOREIGN),
        (lambda: b"EG\x02" + sealer().seal(b"")[3:], Dropped.VERSION),
        (lambda: Sealer(ring(NEW), "prod", "a", 1).seal(b""), Dropped.UNKNOWN_KEY),
        (lambda: sealer(cluster="test").seal(b""), Dropped.FORGED),
    ],
)
def test_what_is_not_of_this_cluster_is_dropped(make: Callable[[], bytes], reason: Dropped) -> None:
    assert opener().open(make()) is reason


def test_a_name_that_begins_with_another_is_another_cluster() -> None:
    assert opener("prod2").open(sealer(cluster="prod").seal(b"")) is Dropped.FORGED


def test_a_datagram_is_opened_once() -> None:
    sender, receiver = sealer(), opener()
    datagrams = [sender.seal(bytes([number])) for number in range(50)]
    random.Random(1).shuffle(datagrams)
    for datagram in datagrams:
        opened(receiver.open(datagram))
    assert {receiver.open(datagram) for datagram in datagrams} == {Dropped.REPLAYED}


def test_what_was_opened_is_not_opened_again_after_another_key_came_first() -> None:
    sender, receiver = sealer(), opener()
    datagram = sender.seal(b"")
    opened(receiver.open(datagram))
    receiver.use(ring(NEW, OLD))
    assert receiver.open(datagram) is Dropped.REPLAYED


def test_an_earlier_start_is_stale_as_soon_as_a_later_one_was_heard() -> None:
    early, late, receiver = sealer(1), sealer(2), opener()
    recorded = [early.seal(b""), early.seal(b"")]
    assert not opened(receiver.open(recorded[0])).is_stale
    assert not opened(receiver.open(late.seal(b""))).is_stale
    assert opened(receiver.open(recorded[1])).is_stale
    assert not opened(receiver.open(late.seal(b""))).is_stale


def test_a_receiver_that_has_just_started_takes_an_old_datagram_until_it_hears_a_new_one() -> None:
    early, late = sealer(1), sealer(2)
    recorded = [early.seal(b""), early.seal(b"")]
    receiver = opener()
    assert not opened(receiver.open(recorded[0])).is_stale
    assert receiver.open(recorded[0]) is Dropped.REPLAYED
    assert not opened(receiver.open(late.seal(b""))).is_stale
    assert opened(receiver.open(recorded[1])).is_stale


def test_two_clones_of_one_disk_never_use_a_nonce_twice() -> None:
    one, other = sealer(5), sealer(5)
    first, second = one.seal(b"same"), other.seal(b"same")
    assert first[32:40] == second[32:40], "the counters are equal"
    assert first[24:32] != second[24:32], "the salts are not"
    assert first[48:] != second[48:]


def test_a_key_is_replaced_without_a_gap() -> None:
    """Add behind, put first, remove: at no moment do two nodes fail to understand each other."""
    steps = [ring(OLD), ring(OLD, NEW), ring(NEW, OLD), ring(NEW)]
    sealers = [Sealer(steps[0], "prod", name, 1) for name in "abc"]
    openers = [Opener(steps[0], "prod") for _ in "abc"]
    rng = random.Random(1)
    for step in steps:
        for node in rng.sample(range(3), 3):
            sealers[node].use(step)
            openers[node].use(step)
            for one in sealers:
                for other in openers:
                    assert opened(other.open(one.seal(b"x"))).body == b"x"


def test_a_key_that_was_removed_opens_nothing() -> None:
    receiver = opener("prod", NEW, OLD)
    opened(receiver.open(sealer().seal(b"")))
    receiver.use(ring(NEW))
    assert receiver.open(sealer().seal(b"")) is Dropped.UNKNOWN_KEY


def test_a_flood_of_forged_headers_derives_and_remembers_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    receiver, real = opener(), sealer().seal(b"body")
    opened(receiver.open(real))
    derived = 0
    original = sealing._KeysOf.of_start

    def counted(keys: sealing._KeysOf, start: bytes) -> object:
        nonlocal derived
        derived += 1
        return original(keys, start)

    monkeypatch.setattr(sealing._KeysOf, "of_start", counted)
    rng = random.Random(1)
    for _ in range(10_000):
        forged = real[:8] + rng.randbytes(40) + real[48:]
        assert receiver.open(forged) is Dropped.FORGED
    assert derived == 0
    assert len(receiver._senders) == 1


def test_authentic_senders_are_remembered_within_bounds() -> None:
    receiver = opener()
    for number in range(MAX_SENDERS + 100):
        opened(receiver.open(sealer(1, f"node-{number}").seal(b"")))
    assert len(receiver._senders) == MAX_SENDERS
    (keys,) = receiver._keys.values()
    assert len(keys._starts) <= MAX_SENDERS


def test_a_genuine_header_on_another_body_is_not_remembered() -> None:
    receiver = opener()
    genuine = sealer(9).seal(b"body")
    assert receiver.open(genuine[:48] + b"x" * 20) is Dropped.FORGED
    assert not receiver._senders
    opened(receiver.open(genuine))


def test_a_hundred_thousand_hostile_datagrams_open_nothing() -> None:
    rng, sender, receiver = random.Random(2), sealer(), opener()
    real = [sender.seal(rng.randbytes(rng.randint(0, 200))) for _ in range(20)]
    for number in range(100_000):
        if number % 4 == 0:
            data = rng.randbytes(rng.randint(0, 300))
        elif number % 4 == 1:
            data = real[number % 20][:48] + rng.randbytes(rng.randint(0, 100))
        else:
            changed = bytearray(rng.choice(real))
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            data = bytes(changed)
        assert isinstance(receiver.open(data), Dropped)
    assert not receiver._senders
    for datagram in real:
        opened(receiver.open(datagram))


@given(st.binary(max_size=1300))
@settings(max_examples=300)
def test_any_bytes_are_dropped(data: bytes) -> None:
    assert isinstance(opener().open(data), Dropped)


def test_a_datagram_of_version_1_is_these_bytes_and_opens_in_every_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("secrets.token_bytes", bytes)
    key = key_ring(Secret(base64.b64encode(bytes(range(32))).decode()))
    datagram = Sealer(key, "prod", "fra-1", 7).seal(b"body")
    assert datagram.hex() == GOLDEN
    result = opened(Opener(key, "prod").open(bytes.fromhex(GOLDEN)))
    assert (result.body, result.instance) == (b"body", 7)
