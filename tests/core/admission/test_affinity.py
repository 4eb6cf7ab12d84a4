"""Bindings live exactly as long as they should and never become too many."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import NoReturn

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgeproxy.core.admission.affinity import Affinity, AffinitySettings, Key
from edgeproxy.core.admission.client_key import block_of

KEY = ("192.0.2.1", "")


def test_a_binding_ends_exactly_at_its_ttl() -> None:
    affinity = Affinity(AffinitySettings(ttl_secs=600))
    affinity.bind(KEY, "a", now=100.0)
    assert affinity.get(KEY, 699.999) == "a"
    assert affinity.get(KEY, 700.0) is None


def test_looking_does_not_prolong_but_binding_again_does() -> None:
    affinity = Affinity(AffinitySettings(ttl_secs=10))
    affinity.bind(KEY, "a", now=0.0)
    assert affinity.get(KEY, 9.0) == "a"
    assert affinity.get(KEY, 10.0) is None
    affinity.bind(KEY, "a", now=20.0)
    affinity.bind(KEY, "a", now=29.0)
    assert affinity.get(KEY, 38.9) == "a"


def test_apps_do_not_share_bindings() -> None:
    affinity = Affinity(AffinitySettings())
    affinity.bind(("192.0.2.1", "web"), "a", now=0.0)
    assert affinity.get(("192.0.2.1", "db"), 0.0) is None


def test_a_ttl_of_zero_binds_nobody() -> None:
    affinity = Affinity(AffinitySettings(ttl_secs=0))
    affinity.bind(KEY, "a", now=0.0)
    assert affinity.get(KEY, 0.0) is None
    assert len(affinity) == 0


def test_the_one_unused_for_longest_makes_room() -> None:
    affinity = Affinity(AffinitySettings(max_bindings=2))
    affinity.bind(("a", ""), "x", now=0.0)
    affinity.bind(("b", ""), "x", now=1.0)
    affinity.bind(("a", ""), "x", now=2.0)
    affinity.bind(("c", ""), "x", now=3.0)
    assert affinity.get(("b", ""), 3.0) is None
    assert affinity.get(("a", ""), 3.0) == "x"


def test_a_sweep_looks_at_no_binding_that_stays() -> None:
    affinity = Affinity(AffinitySettings(ttl_secs=100, gc_interval_secs=1))
    seen = 0

    class Watched(OrderedDict[Key, tuple[str, float]]):
        def __getitem__(self, key: Key) -> tuple[str, float]:
            nonlocal seen
            seen += 1
            return super().__getitem__(key)

        def items(self) -> NoReturn:
            raise AssertionError("all bindings are copied")

    affinity._bindings = Watched()
    for number in range(5000):
        affinity.bind((str(number), ""), "a", now=float(number) / 1000)
    assert affinity.sweep(101.0) == 1000
    assert affinity.sweep(101.0) == 1
    assert affinity.sweep(101.0) == 0
    assert seen == 1002


def test_sweeping_removes_only_what_has_expired_and_not_too_often() -> None:
    affinity = Affinity(AffinitySettings(ttl_secs=10, gc_interval_secs=60))
    affinity.sweep(0.0)
    affinity.bind(("a", ""), "x", now=1.0)
    affinity.bind(("b", ""), "x", now=55.0)
    assert affinity.sweep(59.9) == 0
    assert affinity.sweep(60.0) == 1
    assert len(affinity) == 1


@pytest.mark.parametrize("keys", ["2001:db8:{}:{}", "198.51.{}.{}"])
@pytest.mark.parametrize("is_first", [True, False])
def test_no_prefix_pushes_out_the_bindings_of_others(keys: str, is_first: bool) -> None:
    """Whoever owns a whole prefix cannot have others lose what they use."""
    affinity = Affinity(AffinitySettings(max_bindings=400))
    others = [(f"192.{number}.2.1", "") for number in range(200)]
    owned = [(keys.format(number // 250, number % 250), "") for number in range(2000)]
    if is_first:
        for key in owned:
            affinity.bind(key, "b", now=0.0)
    for now in range(3):
        for number, key in enumerate(others):
            affinity.bind(key, "a", now=float(now))
            for other in range(10):
                affinity.bind(owned[number * 10 + other], "b", now=float(now))
    assert [affinity.get(key, 3.0) for key in others] == ["a"] * 200
    assert sum(affinity.get(key, 3.0) == "b" for key in owned) <= 200


def test_a_prefix_has_all_the_room_that_nobody_else_needs() -> None:
    affinity = Affinity(AffinitySettings(max_bindings=400))
    keys = [(f"2001:db8:{number}:1", "") for number in range(500)]
    for key in keys:
        affinity.bind(key, "a", now=0.0)
    assert [affinity.get(key, 1.0) for key in keys] == [None] * 100 + ["a"] * 400


def test_what_a_prefix_no_longer_uses_is_free_again() -> None:
    affinity = Affinity(AffinitySettings(ttl_secs=10, max_bindings=400))
    for number in range(100):
        affinity.bind((f"192.{number}.2.1", ""), "a", now=0.0)
    for number in range(300):
        affinity.bind((f"2001:db8:{number}:1", ""), "b", now=1.0)
    assert len(affinity) == 300
    affinity.bind(("2001:db8:7:1", ""), "c", now=5.0)
    assert affinity.get(("2001:db8:7:1", ""), 5.0) == "c"
    affinity.bind(("2001:db8:300:1", ""), "b", now=11.0)
    assert affinity.get(("2001:db8:300:1", ""), 11.0) == "b"
    affinity.drop(("2001:db8:300:1", ""))
    affinity.drop(("2001:db8:300:1", ""))
    affinity.sweep(100.0)
    assert affinity._by_block == {}


class Bindings(RuleBasedStateMachine):
    """Compares the bindings with a plain dictionary."""

    CLIENTS = st.sampled_from([("a", ""), ("b", ""), ("c", ""), ("a", "app")])
    TTL = 10.0

    def __init__(self) -> None:
        super().__init__()
        self.affinity = Affinity(AffinitySettings(self.TTL, gc_interval_secs=3, max_bindings=3))
        self.expected: dict[tuple[str, str], tuple[str, float]] = {}
        self.now = 0.0

    @rule(secs=st.floats(0, 7))
    def wait(self, secs: float) -> None:
        self.now += secs

    @rule(key=CLIENTS, backend=st.sampled_from("xyz"))
    def bind(self, key: tuple[str, str], backend: str) -> None:
        self.affinity.bind(key, backend, self.now)
        self.expected.pop(key, None)
        self.expected[key] = (backend, self.now + self.TTL)
        if len(self.expected) > 3:
            del self.expected[next(iter(self.expected))]

    @rule(key=CLIENTS)
    def drop(self, key: tuple[str, str]) -> None:
        self.affinity.drop(key)
        self.expected.pop(key, None)

    @rule(key=CLIENTS)
    def look(self, key: tuple[str, str]) -> None:
        backend, expires = self.expected.get(key, (None, 0.0))
        if expires <= self.now:
            self.expected.pop(key, None)
            backend = None
        assert self.affinity.get(key, self.now) == backend

    @rule()
    def sweep(self) -> None:
        if self.affinity.sweep(self.now):
            self.expected = {
                key: value for key, value in self.expected.items() if value[1] > self.now
            }

    @invariant()
    def never_too_many(self) -> None:
        assert len(self.affinity) <= 3

    @invariant()
    def blocks_are_counted(self) -> None:
        counts = Counter(block_of(client) for client, _ in self.affinity._bindings)
        assert self.affinity._by_block == counts


TestBindings = Bindings.TestCase
