"""Only who has a key of the ring, and sits at the other end of this very connection, gets in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.cluster.sessions.auth import HINTS, Exchange, Identity, Outcome, Peer, Refusal
from edgeproxy.wire import session as wire
from edgeproxy.wire.session import Auth, Hello, Kind
from tests.cluster.sessions.nodes import Keys, StubKey

OLD, NEW = b"o" * 32, b"n" * 32
OLD_ID, NEW_ID = StubKey(OLD).id, StubKey(NEW).id
CHANNEL = b"channel of this connection"


class Forged(Keys):
    """A key with the id of another one."""

    def __init__(self) -> None:
        self._keys = (StubKey(NEW, OLD_ID),)


def node(
    name: str, *secrets: bytes, cluster: str = "edge", versions: tuple[int, int] = (1, 1)
) -> Identity:
    return Identity(name, cluster, Keys(*(secrets or (OLD,))), versions)


def frames(sent: bytes) -> list[tuple[Kind, bytes]]:
    """Return the kinds and bodies of complete frames."""
    found = []
    while sent:
        start = wire.frame_start(sent)
        assert start is not None
        found.append((start.kind, wire.body(sent[: start.size])))
        sent = sent[start.size :]
    return found


def hear(exchange: Exchange, sent: bytes) -> Outcome | Refusal | None:
    answer = None
    for kind, body in frames(sent):
        answer = exchange.receive(kind, body)
        if isinstance(answer, Refusal):
            return answer
    return answer


def dialler(me: Identity, channel: bytes = CHANNEL, expected: str | None = None) -> Exchange:
    return Exchange(me, channel, b"1" * 32, dialled=True, expected=expected)


def answerer(me: Identity, channel: bytes = CHANNEL) -> Exchange:
    return Exchange(me, channel, b"2" * 32, dialled=False)


def run(
    one: Identity, other: Identity, expected: str | None = None
) -> tuple[Outcome | Refusal | None, Outcome | Refusal | None]:
    """Return what either end makes of the other."""
    dials, answers = dialler(one, expected=expected), answerer(other)
    judged = hear(answers, dials.opening())
    if not isinstance(judged, Outcome):
        return None, judged
    return hear(dials, judged.reply), judged


def test_two_nodes_of_a_cluster_learn_who_the_other_is() -> None:
    key_id = OLD_ID
    ours, theirs = run(node("a"), node("b"))
    assert ours == Outcome(Peer("b", 1, key_id))
    assert isinstance(theirs, Outcome)
    assert theirs.peer == Peer("a", 1, key_id)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((OLD,), (OLD, NEW)),
        ((OLD, NEW), (NEW, OLD)),
        ((NEW, OLD), (OLD, NEW)),
        ((NEW,), (OLD, NEW)),
    ],
)
def test_any_key_of_the_ring_is_accepted_and_answered_with(
    one: tuple[bytes, ...], other: tuple[bytes, ...]
) -> None:
    ours, theirs = run(node("a", *one), node("b", *other))
    assert isinstance(ours, Outcome)
    assert isinstance(theirs, Outcome)
    assert ours.peer.key_id == theirs.peer.key_id == Keys(*one).primary.id


@pytest.mark.parametrize(
    ("other", "refusal"),
    [
        (node("b", cluster="other"), Refusal.CLUSTER),
        (node("b", versions=(2, 3)), Refusal.VERSION),
        (node("b", NEW), Refusal.KEY),
        (node("a"), Refusal.OWN_NODE),
    ],
)
def test_a_node_that_does_not_belong_here_gets_no_answer(other: Identity, refusal: Refusal) -> None:
    assert run(node("a"), other) == (None, refusal)


def test_a_key_with_the_id_of_another_one_is_found_out() -> None:
    forged = Identity("b", "edge", Forged())
    assert run(node("a"), forged) == (None, Refusal.PROOF)


def test_who_dials_finds_out_who_answers_with_a_forged_key() -> None:
    forged = Identity("b", "edge", Forged())
    reply = hear(answerer(forged), dialler(forged_as(forged, "a")).opening())
    assert isinstance(reply, Outcome)
    dials = dialler(node("a"))
    dials.opening()
    assert hear(dials, reply.reply) is Refusal.PROOF


def forged_as(me: Identity, name: str) -> Identity:
    return Identity(name, me.cluster, me.ring, me.versions)


def test_another_node_than_expected_is_refused() -> None:
    ours, _ = run(node("a"), node("b"), expected="c")
    assert ours is Refusal.OTHER_NODE
    ours, _ = run(node("a"), node("b"), expected="b")
    assert isinstance(ours, Outcome)


@pytest.mark.parametrize(
    ("one", "other", "spoken"),
    [((1, 1), (1, 3), 1), ((1, 4), (2, 3), 3), ((3, 4), (1, 3), 3), ((2, 2), (2, 2), 2)],
)
def test_the_newest_common_version_is_spoken(
    one: tuple[int, int], other: tuple[int, int], spoken: int
) -> None:
    ours, theirs = run(node("a", versions=one), node("b", versions=other))
    assert isinstance(ours, Outcome)
    assert isinstance(theirs, Outcome)
    assert ours.peer.version == theirs.peer.version == spoken


def test_a_proof_is_worth_nothing_on_another_connection() -> None:
    opening = dialler(node("a"), channel=b"with the one in the middle").opening()
    assert hear(answerer(node("b")), opening) is Refusal.PROOF


def test_who_sits_in_the_middle_cannot_answer_for_the_other_node() -> None:
    dials = dialler(node("a"))
    answered = hear(answerer(node("b"), b"another"), dialler(node("a"), b"another").opening())
    assert isinstance(answered, Outcome)
    dials.opening()
    assert hear(dials, answered.reply) is Refusal.PROOF


def test_what_a_node_has_sent_is_no_answer_to_it() -> None:
    dials = dialler(node("a"))
    assert hear(dials, dials.opening()) is Refusal.PROOF
    one, other = dialler(node("a")), dialler(node("b"))
    other.opening()
    assert hear(other, one.opening()) is Refusal.PROOF


def test_everything_that_a_proof_is_about_changes_it() -> None:
    me, key = node("a"), StubKey(OLD)
    proofs = {
        me.proof(key, b"dialled", b"channel", (b"one", b"other")),
        me.proof(key, b"answered", b"channel", (b"one", b"other")),
        me.proof(key, b"dialled", b"another", (b"one", b"other")),
        me.proof(key, b"dialled", b"channel", (b"other", b"one")),
        me.proof(key, b"dialled", b"channel", (b"one", b"othe", b"r")),
        me.proof(StubKey(NEW), b"dialled", b"channel", (b"one", b"other")),
        node("a", cluster="other").proof(key, b"dialled", b"channel", (b"one", b"other")),
    }
    assert len(proofs) == 7


@given(st.data())
def test_no_bit_of_what_is_said_can_be_changed(data: st.DataObject) -> None:
    dials, answers = dialler(node("a")), answerer(node("b", versions=(1, 2)))
    opening = dials.opening()
    forwards = data.draw(st.booleans())
    if not forwards:
        reply = hear(answers, opening)
        assert isinstance(reply, Outcome)
        opening = reply.reply
    said = frames(opening)
    which = data.draw(st.integers(0, 1))
    kind, body = said[which]
    at = data.draw(st.integers(0, len(body) - 1))
    changed = bytearray(body)
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    said[which] = (kind, bytes(changed))
    judge = answers if forwards else dials
    outcomes = [judge.receive(kind, body) for kind, body in said]
    assert any(isinstance(each, Refusal) for each in outcomes)


KINDS = st.sampled_from(Kind)
BODIES = (
    st.binary(max_size=80)
    | st.builds(
        lambda name, oldest, newest: wire.body(
            wire.hello(Hello(oldest, newest, node("x").cluster_hash, name, b"3" * 32))
        ),
        st.sampled_from(["a", "b", "c"]),
        st.integers(1, 2),
        st.integers(1, 2),
    )
    | st.builds(
        lambda key_id, mac: wire.body(wire.auth(Auth(key_id, mac))),
        st.sampled_from([OLD_ID, NEW_ID]),
        st.binary(min_size=32, max_size=32),
    )
)


@given(st.lists(st.tuples(KINDS, BODIES), max_size=8), st.booleans())
def test_nothing_but_a_proof_ends_well(said: list[tuple[Kind, bytes]], dialled: bool) -> None:
    exchange = Exchange(node("a"), CHANNEL, b"1" * 32, dialled=dialled)
    for kind, body in said:
        answer = exchange.receive(kind, body)
        assert answer is None or isinstance(answer, Refusal)
        if answer is not None:
            return


@pytest.mark.parametrize(
    "kinds", [(Kind.AUTH,), (Kind.HELLO, Kind.HELLO), (Kind.DATA,), (Kind.JOIN,)]
)
def test_what_comes_in_another_order_is_refused(kinds: tuple[Kind, ...]) -> None:
    bodies = dict(frames(dialler(node("a")).opening()))
    answers = answerer(node("b"))
    judged = [answers.receive(kind, bodies.get(kind, b"")) for kind in kinds]
    assert judged[-1] is Refusal.MALFORMED


def test_every_refusal_has_a_hint() -> None:
    assert set(HINTS) == set(Refusal)
