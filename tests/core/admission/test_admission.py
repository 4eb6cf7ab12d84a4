"""Who gets which backend, and that the books are right whatever happens."""

from __future__ import annotations

import dataclasses
import gc
import random
import weakref

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgeproxy.core.admission.admission import Admission, AdmissionSettings
from edgeproxy.core.admission.affinity import AffinitySettings
from edgeproxy.core.admission.explanation import explain
from edgeproxy.core.admission.ticket import Blame, Refusal, Ticket
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.breaker import BreakerSettings
from edgeproxy.core.backends.ejection import EjectionSettings
from edgeproxy.core.backends.health import HealthSettings
from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.routing import ranking, scoring
from edgeproxy.core.routing.choice import How, Reason
from edgeproxy.core.routing.eligibility import Ineligible, ineligible
from edgeproxy.core.routing.ranking import Candidate
from edgeproxy.core.routing.server_names import ServerNames

NOW = 0.0
"""Monotonic seconds, where a test does not depend on the time."""

ORIGINS = {
    "br": Origin("br", "BR", "sa"),
    "ar": Origin("ar", "AR", "sa"),
    "us": Origin("us", "US", "us"),
    "de": Origin("de", "DE", "eu"),
    "jp": Origin("jp", "JP", "ap"),
    "nowhere": Origin("nowhere"),
}


def locate(client: str) -> Origin:
    """Return the origin that the client's name begins with: `br`, `br-7`."""
    return ORIGINS[client.split("-", maxsplit=1)[0]]


def backend(backend_id: str, region: str = "sa", **values: object) -> Backend:
    """Return a backend with these values and no limits."""
    defaults: dict[str, object] = {"soft_limit": 100, "hard_limit": 0}
    plain = Backend(backend_id, "myapp", region, "10.0.0.1", 8080)
    return dataclasses.replace(plain, **{**defaults, **values})  # type: ignore[arg-type]


def admission(
    *backends: Backend, region: str = "sa", ttl_secs: float = 0, **values: float
) -> Admission:
    """Return an admission with these backends in force; nobody is bound unless asked for."""
    made = Admission(
        AdmissionSettings(region=region),
        AffinitySettings(ttl_secs=ttl_secs),
        EjectionSettings(**values),
        locate,
    )
    made.publish(backends)
    return made


def admit(to: Admission, client: str, now: float = 0.0, scope: str = "") -> Ticket:
    """Admit a client that must be admitted."""
    ticket = to.admit(client, scope, now)
    assert isinstance(ticket, Ticket), ticket
    return ticket


def served(to: Admission, clients: int, client: str = "br") -> dict[str, int]:
    """Count which backend each of so many clients gets, one after the other."""
    counts: dict[str, int] = {}
    for number in range(clients):
        ticket = admit(to, f"{client}-{number}", now=float(number))
        counts[ticket.backend.id] = counts.get(ticket.backend.id, 0) + 1
        to.closed(ticket, NOW)
    return counts


class TestGeography:
    """Country, then region, then the POP's region, then the rest."""

    BACKENDS = (
        backend("sa-br", "sa", country="BR"),
        backend("sa-ar", "sa", country="AR"),
        backend("us-1", "us"),
        backend("eu-1", "eu"),
    )

    @pytest.mark.parametrize(
        ("client", "expected"),
        [("br", "sa-br"), ("ar", "sa-ar"), ("us", "us-1"), ("de", "eu-1"), ("jp", "eu-1")],
    )
    def test_the_nearest_backend_wins(self, client: str, expected: str) -> None:
        ticket = admit(admission(*self.BACKENDS, region="eu"), client)
        assert (ticket.backend.id, ticket.how) == (expected, How.SCORED)

    def test_a_client_from_nowhere_goes_to_the_pops_region(self) -> None:
        assert admit(admission(*self.BACKENDS, region="us"), "nowhere").backend.id == "us-1"

    def test_a_full_tier_falls_through_to_the_next(self) -> None:
        full = [dataclasses.replace(each, hard_limit=1) for each in self.BACKENDS]
        pop = admission(*full, region="us")
        chosen = [admit(pop, "br").backend.id for _ in range(4)]
        assert chosen == ["sa-br", "sa-ar", "us-1", "eu-1"]
        assert pop.admit("br", "", 0.0) == Refusal(Reason.FULL)

    def test_spilling_is_told(self) -> None:
        pop = admission(backend("a", "sa", hard_limit=1), backend("b", "us"))
        assert admit(pop, "br").how is How.SCORED
        assert admit(pop, "br").how is How.SPILLED

    def test_enormous_load_outweighs_distance_as_the_formula_says(self) -> None:
        pop = admission(backend("near", "sa", soft_limit=1), backend("far", "us"), region="us")
        chosen = [admit(pop, "br").backend.id for _ in range(102)]
        assert chosen.index("far") == 101
        assert chosen.count("far") == 1


class TestWeights:
    """Weights hold, one after the other and all at once."""

    def test_three_to_one_one_after_the_other(self) -> None:
        pop = admission(backend("a", weight=3), backend("b", weight=1))
        assert served(pop, 40) == {"a": 30, "b": 10}

    def test_three_to_one_all_at_once(self) -> None:
        pop = admission(backend("a", weight=3), backend("b", weight=1))
        chosen = [admit(pop, f"br-{n}").backend.id for n in range(40)]
        assert (chosen.count("a"), chosen.count("b")) == (30, 10)

    @pytest.mark.parametrize("open_at_once", range(1, 13))
    def test_three_to_one_with_any_number_open_at_once(self, open_at_once: int) -> None:
        pop = admission(backend("a", weight=3), backend("b", weight=1))
        held: list[Ticket] = []
        chosen = []
        for number in range(200):
            held.append(admit(pop, f"br-{number}"))
            chosen.append(held[-1].backend.id)
            if len(held) > open_at_once:
                pop.closed(held.pop(0), NOW)
        for start in range(160):
            assert 29 <= chosen[start : start + 40].count("a") <= 31, chosen

    @given(st.integers(1, 12), st.randoms(use_true_random=False))
    @hypothesis_settings(max_examples=50)
    def test_three_to_one_in_the_long_run_however_long_they_last(
        self, open_at_once: int, rng: random.Random
    ) -> None:
        pop = admission(backend("a", weight=3), backend("b", weight=1))
        held: list[Ticket] = []
        heavy = 0
        for number in range(1000):
            held.append(admit(pop, f"br-{number}"))
            heavy += held[-1].backend.id == "a"
            if len(held) > open_at_once:
                pop.closed(held.pop(rng.randrange(len(held))), NOW)
        assert 680 <= heavy <= 820

    @pytest.mark.parametrize("weight", [1, 2, 100])
    def test_equal_weights_give_the_plain_formula(self, weight: int) -> None:
        pop = admission(
            backend("a", weight=weight),
            backend("b", weight=weight),
            backend("gone", weight=1, deleted=True),
            backend("far", "eu", weight=1),
        )
        lasting = admit(pop, "br").backend.id
        for number in range(10):
            ticket = admit(pop, f"br-{number}")
            assert ticket.backend.id != lasting
            pop.closed(ticket, NOW)

    def test_load_counts_long_before_a_large_weight_is_reached(self) -> None:
        pop = admission(
            backend("a", weight=100, soft_limit=10), backend("b", weight=99, soft_limit=10)
        )
        held = [admit(pop, f"br-{n}") for n in range(20)]
        for ticket in held:
            if ticket.backend.id == "b":
                pop.closed(ticket, NOW)
        assert {admit(pop, f"ar-{n}").backend.id for n in range(8)} == {"b"}

    def test_shares_hold_over_any_run_of_forty(self) -> None:
        pop = admission(backend("a", weight=3), backend("b", weight=1))
        chosen = []
        for number in range(200):
            ticket = admit(pop, f"br-{number}")
            chosen.append(ticket.backend.id)
            pop.closed(ticket, NOW)
        for start in range(160):
            assert 29 <= chosen[start : start + 40].count("a") <= 31

    def test_more_weights_than_there_are_queues(self) -> None:
        pop = admission(*(backend(f"w{n}", weight=n) for n in range(1, 21)))
        counts = served(pop, 210)
        assert all(abs(counts[f"w{n}"] - n) <= 1 for n in range(1, 21)), counts

    def test_weights_hold_across_regions(self) -> None:
        pop = admission(backend("u", "us", weight=3), backend("e", "eu", weight=1), region="xx")
        assert served(pop, 40, client="jp") == {"u": 30, "e": 10}

    def test_places_share_by_what_they_have_now(self) -> None:
        rows = [*(backend(name, "eu") for name in ("e1", "e2", "e3")), backend("u1", "us")]
        pop = admission(*rows, region="xx")
        assert served(pop, 40, client="jp") == {"e1": 10, "e2": 10, "e3": 10, "u1": 10}
        pop.drain("e2", draining=True)
        pop.set_health("e3", up=False, now=0.0)
        assert served(pop, 80, client="jp") == {"e1": 40, "u1": 40}
        pop.publish(rows)
        assert served(pop, 80, client="jp") == {"e1": 40, "u1": 40}
        pop.drain("e2", draining=False)
        pop.set_health("e3", up=True, now=0.0)
        assert served(pop, 40, client="jp") == {"e1": 10, "e2": 10, "e3": 10, "u1": 10}

    def test_a_place_that_comes_slowly_gets_a_share_of_its_weight(self) -> None:
        pop = admission(backend("e", "eu"), backend("u", "us"), region="xx")
        pop.change(BreakerSettings(), HealthSettings(slow_start_secs=100))
        pop.set_health("e", up=True, now=0.0)
        served(pop, 2, client="jp")
        assert served(pop, 44, client="jp") == {"e": 4, "u": 40}

    @pytest.mark.parametrize("regions", [("eu", "eu"), ("eu", "us")])
    @pytest.mark.parametrize("open_at_once", [1, 2, 5])
    def test_also_while_connections_before_are_still_closing(
        self, regions: tuple[str, str], open_at_once: int
    ) -> None:
        slow, steady = regions
        pop = admission(backend("a", slow), backend("b", steady), region="xx")
        pop.change(BreakerSettings(), HealthSettings(slow_start_secs=100))
        pop.set_health("a", up=True, now=0.0)
        held: list[Ticket] = []
        chosen = []
        for number in range(220):
            held.append(admit(pop, f"jp-{number}"))
            chosen.append(held[-1].backend.id)
            if len(held) > open_at_once:
                pop.closed(held.pop(0), NOW)
        assert 10 <= chosen.count("a") <= 21

    def test_one_that_comes_slowly_does_not_get_all_clients_where_they_stay(self) -> None:
        pop = admission(backend("a"), backend("b"), backend("c"))
        pop.change(BreakerSettings(), HealthSettings(slow_start_secs=100))
        pop.set_health("a", up=False, now=0.0)
        held = [admit(pop, f"br-{n}") for n in range(50)]
        pop.set_health("a", up=True, now=1.0)
        held += [admit(pop, f"br-{n}") for n in range(42)]
        assert [each.backend.id for each in held].count("a") == 2

    def test_a_share_that_changes_during_the_making_of_a_table_holds_in_it(self) -> None:
        pop = admission(backend("a"), backend("b"))
        pop.change(BreakerSettings(), HealthSettings(slow_start_secs=10))
        pop.set_health("a", up=True, now=0.0)

        class Meanwhile(tuple[Backend, ...]):
            """Rows after whose reading a backend has all of its share."""

            __slots__ = ()

            def __iter__(self):  # type: ignore[no-untyped-def]
                yield from (backend("a"), backend("b"))
                pop.tick(20.0)

        pop.publish(Meanwhile())
        assert served(pop, 20) == {"a": 10, "b": 10}

    def test_places_with_nobody_left_are_tried_by_the_weights_they_had(self) -> None:
        pop = admission(backend("e", "eu"), backend("u", "us", weight=3), region="xx")
        for name in ("e", "u"):
            pop.set_health(name, up=False, now=0.0)
        assert set(served(pop, 40, client="jp")) == {"e", "u"}
        for name in ("e", "u"):
            pop.set_health(name, up=True, now=0.0)
        assert served(pop, 40, client="jp") == {"e": 10, "u": 30}

    def test_a_verdict_during_the_making_of_a_table_holds_in_it(self) -> None:
        rows = [*(backend(name, "eu") for name in ("e1", "e2", "e3")), backend("u1", "us")]
        pop = admission(*rows, region="xx")
        pop.adopt()

        class Meanwhile(tuple[Backend, ...]):
            """Rows after whose reading backends go down."""

            __slots__ = ()

            def __iter__(self):  # type: ignore[no-untyped-def]
                yield from rows
                for name in ("e2", "e3"):
                    pop.set_health(name, up=False, now=0.0)

        pop.publish(Meanwhile())
        assert served(pop, 80, client="jp") == {"e1": 40, "u1": 40}

    def test_no_burst_for_a_backend_that_comes_late(self) -> None:
        pop = admission(backend("a"), backend("b"))
        served(pop, 100)
        pop.publish([backend("a"), backend("b"), backend("c")])
        assert max(served(pop, 30).values()) <= 11

    def test_weight_zero_takes_no_new_clients(self) -> None:
        pop = admission(backend("a", weight=0), backend("b", weight=1))
        assert served(pop, 10) == {"b": 10}

    def test_only_weight_zero_is_no_backend(self) -> None:
        assert admission(backend("a", weight=0)).admit("br", "", 0.0) == Refusal(Reason.NO_BACKEND)


class TestAffinity:
    """A client comes back to its backend."""

    BACKENDS = tuple(backend(name) for name in "abcd")

    def test_a_client_stays_for_the_ttl_and_slides(self) -> None:
        pop = admission(*self.BACKENDS, ttl_secs=10)
        first = admit(pop, "br").backend.id
        for now in (5.0, 14.0, 23.0):
            ticket = admit(pop, "br", now)
            assert (ticket.backend.id, ticket.how) == (first, How.BOUND)
        assert admit(pop, "br", 33.0).how is How.SCORED

    @pytest.mark.parametrize("change", [{"healthy": False}, {"deleted": True}, {"app": "other"}])
    def test_a_backend_that_cannot_serve_loses_its_clients(self, change: dict[str, bool]) -> None:
        pop = admission(ttl_secs=600)
        pop.publish(self.BACKENDS, ["myapp"])
        first = admit(pop, "br", scope="myapp")
        changed = [
            dataclasses.replace(each, **change) if each.id == first.backend.id else each  # type: ignore[arg-type]
            for each in self.BACKENDS
        ]
        pop.publish(changed, [first.scope])
        moved = admit(pop, "br", scope=first.scope)
        assert moved.backend.id != first.backend.id
        pop.publish(self.BACKENDS, [first.scope])
        assert admit(pop, "br", scope=first.scope).backend.id == moved.backend.id

    def test_a_full_backend_keeps_its_client(self) -> None:
        pop = admission(*(dataclasses.replace(b, hard_limit=1) for b in self.BACKENDS), ttl_secs=9)
        first = admit(pop, "br")
        elsewhere = admit(pop, "br")
        assert elsewhere.backend.id != first.backend.id
        pop.closed(first, NOW)
        assert admit(pop, "br").backend.id == first.backend.id

    def test_a_lent_out_client_keeps_its_binding_alive(self) -> None:
        pop = admission(backend("a", hard_limit=1), ttl_secs=10)
        held = admit(pop, "br")
        pop.publish([backend("a", hard_limit=1), backend("b", "us")])
        for now in (5.0, 14.0, 23.0):
            assert admit(pop, "br", now).backend.id == "b"
        pop.closed(held, NOW)
        assert admit(pop, "br", 30.0).backend.id == "a"

    def test_weight_zero_keeps_its_clients(self) -> None:
        pop = admission(backend("a"), ttl_secs=600)
        admit(pop, "br")
        pop.publish([backend("a", weight=0), backend("b")])
        assert admit(pop, "br").backend.id == "a"
        assert admit(pop, "ar").backend.id == "b"

    def test_weight_zero_keeps_its_clients_only_up_to_its_limit(self) -> None:
        pop = admission(backend("a", hard_limit=1), ttl_secs=600)
        admit(pop, "br")
        pop.publish([backend("a", weight=0, hard_limit=1), backend("b")])
        assert admit(pop, "br").backend.id == "b"

    def test_a_failed_dial_moves_the_binding(self) -> None:
        pop = admission(*self.BACKENDS, ttl_secs=600)
        ticket = admit(pop, "br")
        dead = ticket.backend.id
        assert pop.failed(ticket, 0.0) is ticket
        alive = ticket.backend.id
        assert alive != dead
        assert admit(pop, "br", 100.0).backend.id == alive

    def test_a_client_bound_to_a_backend_that_failed_others_is_lent_out(self) -> None:
        pop = admission(backend("a"), backend("b"), ttl_secs=600)
        bound = {admit(pop, name).backend.id: name for name in ("br", "ar")}
        pop.failed(admit(pop, bound["a"]), 0.0)
        # The one that failed has moved to b; nobody else is bound to a.
        assert admit(pop, bound["a"], 1.0).backend.id == "b"


class TestVerdicts:
    """What probes and operators say holds, whatever table there is when they say it."""

    @staticmethod
    def pop(**health: float) -> Admission:
        """Return an admission with two backends in force."""
        made = Admission(
            AdmissionSettings(),
            AffinitySettings(ttl_secs=0),
            EjectionSettings(),
            locate,
            health=HealthSettings(**health),  # type: ignore[arg-type]
        )
        made.publish([backend("a"), backend("b")])
        made.adopt()
        return made

    def test_a_backend_that_left_while_it_was_down_is_up_when_it_comes_back(self) -> None:
        pop = self.pop()
        pop.set_health("a", up=False, now=0.0)
        pop.publish([backend("b")])
        pop.set_health("a", up=True, now=1.0)
        pop.publish([backend("a"), backend("b")])
        assert served(pop, 20) == {"a": 10, "b": 10}

    def test_also_if_a_connection_kept_it_known_for_long(self) -> None:
        pop = self.pop()
        held = [admit(pop, f"br-{n}") for n in range(2)]
        pop.set_health("a", up=False, now=0.0)
        for _ in range(3):
            pop.publish([backend("b")])
            pop.adopt()
        pop.set_health("a", up=True, now=1.0)
        pop.publish([backend("a"), backend("b")])
        for ticket in held:
            pop.closed(ticket, NOW)
        assert served(pop, 20) == {"a": 10, "b": 10}

    def test_a_backend_that_left_while_it_came_slowly_has_all_of_its_share_in_the_end(self) -> None:
        pop = self.pop(slow_start_secs=10)
        pop.set_health("a", up=True, now=0.0)
        pop.publish([backend("b")])
        pop.tick(20.0)
        pop.publish([backend("a"), backend("b")])
        assert pop.load.of("a").share == 1.0
        assert served(pop, 20) == {"a": 10, "b": 10}

    def test_a_verdict_on_somebody_unknown_is_not_remembered(self) -> None:
        pop = self.pop(slow_start_secs=10)
        pop.set_health("c", up=True, now=0.0)
        assert not pop.drain("c", draining=True)
        pop.publish([backend("a"), backend("b"), backend("c")])
        pop.tick(1.0)
        assert pop.load.of("c").share == 1.0
        assert set(served(pop, 30)) == {"a", "b", "c"}

    def test_every_change_of_a_drain_is_told_once_whoever_asks(self) -> None:
        told: list[tuple[str, bool]] = []
        pop = Admission(
            AdmissionSettings(),
            AffinitySettings(),
            EjectionSettings(),
            Origin,
            drain_changed=lambda live: told.append((live.backend_id, live.draining)),
        )
        pop.publish([backend("a")])
        for draining in (True, True, False, False):
            pop.drain("a", draining=draining)
        pop.drain("nobody", draining=True)
        assert told == [("a", True), ("a", False)]

    def test_a_drained_backend_is_so_still_when_it_comes_back(self) -> None:
        pop = self.pop()
        assert pop.drain("a", draining=True)
        for _ in range(3):
            pop.publish([backend("b")])
            pop.adopt()
        pop.publish([backend("a"), backend("b")])
        assert served(pop, 10) == {"b": 10}
        pop.publish([backend("b")])
        assert pop.drain("a", draining=False)
        pop.publish([backend("a"), backend("b")])
        assert served(pop, 20) == {"a": 10, "b": 10}


class TestFailover:
    """A dead backend costs time, not the connection."""

    def test_the_next_candidate_is_tried(self) -> None:
        pop = admission(backend("a"), backend("b"))
        ticket = admit(pop, "br")
        first = ticket.backend.id
        again = pop.failed(ticket, 0.0)
        assert again is ticket
        assert ticket.backend.id != first
        assert (ticket.attempts, ticket.tried) == (2, (first,))

    def test_attempts_are_bounded(self) -> None:
        pop = admission(*(backend(name) for name in "abcdefghijkl"))
        ticket = admit(pop, "br")
        for _ in range(AdmissionSettings().connect_attempts - 1):
            assert pop.failed(ticket, 0.0) is ticket
        assert pop.failed(ticket, 0.0) == Refusal(Reason.UNREACHABLE)
        assert pop.load.active() == {}

    def test_nobody_is_tried_twice_for_one_client(self) -> None:
        pop = admission(backend("a"))
        assert pop.failed(admit(pop, "br"), 0.0) == Refusal(Reason.UNREACHABLE)

    def test_new_clients_pass_the_failed_one_over_for_a_while(self) -> None:
        pop = admission(backend("a"), backend("b"), first_secs=5)
        dead = admit(pop, "br", 0.0)
        name = dead.backend.id
        pop.failed(dead, 0.0)
        for second in range(5):
            assert admit(pop, f"br-{second}", second + 0.0).backend.id != name
        late = [admit(pop, f"ar-{n}", 5.1) for n in range(6)]
        assert [each.backend.id for each in late].count(name) == 1, "one client tries it"
        (trial,) = [each for each in late if each.backend.id == name]
        pop.dialed(trial, 0.0, NOW)
        assert name in {admit(pop, f"de-{n}", 5.2).backend.id for n in range(12)}

    def test_those_that_failed_are_tried_when_nobody_else_is_left(self) -> None:
        pop = admission(backend("a"))
        pop.failed(admit(pop, "br"), 0.0)
        ticket = admit(pop, "br", 1.0)
        assert (ticket.backend.id, ticket.how) == ("a", How.LAST_RESORT)

    def test_without_a_port_towards_one_backend_another_one_will_do(self) -> None:
        pop = admission(backend("a"), backend("b", "us"), ttl_secs=600)
        ticket = admit(pop, "br")
        assert pop.failed(ticket, 0.0, Blame.PATH) is ticket
        assert ticket.backend.id == "b"
        assert pop.load.of("a").failures == 0
        assert admit(pop, "br", 1.0).backend.id == "a"

    def test_a_fault_of_this_host_blames_nobody(self) -> None:
        pop = admission(backend("a"), backend("b"))
        ticket = admit(pop, "br")
        assert pop.failed(ticket, 0.0, Blame.HOST) == Refusal(Reason.NO_RESOURCES)
        assert pop.load.of(ticket.backend.id).failures == 0
        assert pop.load.active() == {}


class TestTables:
    """A new table takes over without a seam."""

    def test_a_replaced_table_needs_no_garbage_collector(self) -> None:
        pop = admission(backend("a"), backend("b"))
        first = weakref.ref(pop.table)
        gc.disable()
        try:
            for _ in range(3):
                pop.publish([backend("a"), backend("b")])
                pop.closed(admit(pop, "br"), NOW)
            tables = [weakref.ref(each) for each in (pop.table,)]
            candidate = weakref.ref(pop.table.candidates["a"].rankings[0])
            for _ in range(3):
                pop.publish([backend("a")])
                pop.adopt()
            assert first() is None
            assert tables[0]() is None
            assert candidate() is None
        finally:
            gc.enable()

    def test_open_connections_count_across_tables(self) -> None:
        pop = admission(backend("a", hard_limit=2))
        admit(pop, "br")
        pop.publish([backend("a", hard_limit=2, weight=5)])
        admit(pop, "br")
        assert pop.admit("br", "", 0.0) == Refusal(Reason.FULL)

    def test_a_slot_released_between_publishing_and_adopting_is_free(self) -> None:
        pop = admission(backend("a", hard_limit=1))
        ticket = admit(pop, "br")
        pop.publish([backend("a", hard_limit=1)])
        pop.closed(ticket, NOW)
        assert admit(pop, "br").backend.id == "a"

    def test_a_slot_reserved_while_a_table_is_built_is_known_to_it(self) -> None:
        pop = admission(backend("a", hard_limit=1), backend("b", "us"))
        tickets = []

        class Meanwhile(tuple[Backend, ...]):
            """Rows during whose reading a client comes."""

            __slots__ = ()

            def __iter__(self):  # type: ignore[no-untyped-def]
                yield backend("a", hard_limit=1)
                tickets.append(admit(pop, "br"))
                yield backend("b", "us")

        pop.publish(Meanwhile())
        assert tickets[0].backend.id == "a"
        assert admit(pop, "br").backend.id == "b"

    def test_a_removed_backend_is_forgotten_only_when_idle(self) -> None:
        pop = admission(backend("a", hard_limit=1))
        ticket = admit(pop, "br")
        for _ in range(3):
            pop.publish([])
            pop.adopt()
        pop.publish([backend("a", hard_limit=1)])
        assert pop.admit("br", "", 0.0) == Refusal(Reason.FULL)
        pop.closed(ticket, NOW)
        assert admit(pop, "br").backend.id == "a"

    def test_a_corrected_address_does_not_wait_for_what_the_wrong_one_did(self) -> None:
        pop = admission(backend("a"), backend("b"), first_secs=60)
        pop.failed(admit(pop, "br"), 0.0)
        pop.failed(admit(pop, "br"), 0.0)
        pop.publish([backend("a", wg_ip="10.0.0.2"), backend("b", weight=2)])
        assert [admit(pop, "br", 1.0).backend.id for _ in range(3)] == ["a"] * 3
        assert pop.load.of("a").failures == 0
        assert pop.load.of("b").failures == 1

    def test_also_if_it_left_the_table_in_between(self) -> None:
        pop = admission(backend("a"), backend("b"), first_secs=60)
        pop.failed(admit(pop, "br"), 0.0)
        pop.publish([backend("b")])
        pop.adopt()
        pop.publish([backend("a", port=81), backend("b")])
        assert {admit(pop, "br", 1.0).backend.id for _ in range(2)} == {"a", "b"}

    def test_a_dial_to_the_old_address_that_fails_late_blames_nobody(self) -> None:
        pop = admission(backend("a"))
        ticket = admit(pop, "br")
        pop.publish([backend("a", port=81)])
        pop.failed(ticket, 0.0)
        assert admit(pop, "br", 0.0).how is How.SCORED

    def test_of_two_tables_that_come_at_once_the_last_says_who_has_moved(self) -> None:
        pop = admission(backend("a"), backend("b"), first_secs=60)
        for _ in range(2):
            pop.failed(admit(pop, "br"), 0.0)
        pop.publish([backend("a", port=81), backend("b", port=81)])
        pop.publish([backend("a", port=81), backend("b")])
        assert admit(pop, "br", 1.0).how is How.SCORED
        assert [pop.load.of(name).failures for name in "ab"] == [0, 1]

    def test_scopes_keep_apps_apart(self) -> None:
        pop = admission()
        pop.publish([backend("a", app="web"), backend("b", app="db")], ["web", "db", ""])
        assert admit(pop, "br", scope="web").backend.id == "a"
        assert admit(pop, "br", scope="db").backend.id == "b"
        assert admit(pop, "br", scope="").backend.id in {"a", "b"}
        assert pop.admit("br", "none", 0.0) == Refusal(Reason.NO_BACKEND)

    def test_server_names_count_from_the_moment_they_are_published(self) -> None:
        pop = admission()
        pop.publish([backend("a", app="web")], [], ServerNames({"*": "web"}))
        assert pop.server_names().find(None) == "web"
        assert admit(pop, "br", scope="web").backend.id == "a"
        assert pop.admit("br", "", 0.0) == Refusal(Reason.NO_BACKEND)

    def test_a_client_whose_name_was_looked_up_before_finds_its_app(self) -> None:
        pop, backends = admission(), [backend("a", app="web"), backend("b", app="db")]
        pop.publish(backends, [], ServerNames({"*": "web"}))
        app = pop.server_names().find(None)
        assert app == "web"
        pop.publish(backends, [], ServerNames({"*": "db"}))
        assert admit(pop, "br", scope=app).backend.id == "a"
        assert pop.server_names().find(None) == "db"
        pop.publish(backends, [], ServerNames({"*": "db"}))
        assert pop.admit("br", "web", 0.0) == Refusal(Reason.NO_BACKEND)

    def test_one_backend_in_two_scopes_has_one_limit(self) -> None:
        pop = admission()
        pop.publish([backend("a", app="web", hard_limit=1)], ["web", ""])
        ticket = admit(pop, "br", scope="web")
        assert pop.admit("br", "", 0.0) == Refusal(Reason.FULL)
        pop.closed(ticket, NOW)
        assert admit(pop, "br", scope="").backend.id == "a"


BACKENDS = st.lists(
    st.builds(
        Backend,
        id=st.sampled_from("abcdefgh"),
        app=st.sampled_from(["web", "db"]),
        region=st.sampled_from(["sa", "us", "eu"]),
        wg_ip=st.sampled_from(["10.0.0.1", "10.0.0.2"]),
        port=st.just(80),
        healthy=st.booleans() | st.just(True),
        weight=st.integers(0, 3),
        soft_limit=st.integers(0, 3),
        hard_limit=st.integers(0, 3),
        deleted=st.just(False) | st.booleans(),
        country=st.none() | st.sampled_from(["BR", "AR", "US"]),
    ),
    max_size=8,
    unique_by=lambda each: each.id,
)


def parts(of: Candidate) -> int:
    """Return what a candidate has of its weight now."""
    return int(of.backend.weight * of.live.share * ranking.PARTS)


class Books(RuleBasedStateMachine):
    """Random clients, failures and tables: the choice is always right and the books balance."""

    HEALTH = HealthSettings()

    def __init__(self) -> None:
        super().__init__()
        self.pop = Admission(
            AdmissionSettings(region="us", connect_attempts=2),
            AffinitySettings(ttl_secs=20, max_bindings=3),
            EjectionSettings(first_secs=3, longest_secs=9),
            locate,
            health=self.HEALTH,
        )
        self.scopes = ("", "web", "db")
        self.tickets: list[Ticket] = []
        self.rows: dict[str, Backend] = {}
        self.now = 0.0

    @rule(backends=BACKENDS)
    def publish(self, backends: list[Backend]) -> None:
        self.pop.publish(backends, self.scopes)
        self.rows = {each.id: each for each in backends}

    @rule(backend_id=st.sampled_from("abcdefgh"), up=st.booleans())
    def set_health(self, backend_id: str, up: bool) -> None:
        self.pop.set_health(backend_id, up, self.now)

    @rule(backend_id=st.sampled_from("abcdefgh"), draining=st.booleans())
    def drain(self, backend_id: str, draining: bool) -> None:
        self.pop.drain(backend_id, draining)

    @rule(secs=st.floats(0, 5))
    def wait(self, secs: float) -> None:
        self.now += secs
        self.pop.tick(self.now)

    @rule(client=st.sampled_from(sorted(ORIGINS)), scope=st.sampled_from(["", "web", "db"]))
    def admit(self, client: str, scope: str) -> None:
        told = explain(self.pop, client, scope, self.now)
        before = self.pop.load.active()
        answer = self.pop.admit(client, scope, self.now)
        if isinstance(answer, Refusal):
            assert (told.backend, told.how) == (None, answer.reason)
            assert self.pop.load.active() == before
            assert not any(each.excluded is None for each in told.candidates)
            return
        assert (told.backend, told.how) == (answer.backend.id, answer.how)
        self.tickets.append(answer)
        row = self.rows[answer.backend.id]
        assert row.healthy
        assert not row.deleted
        assert scope in ("", row.app)
        if answer.how in (How.SCORED, How.SPILLED):
            self.was_lowest(client, scope, answer, before)

    def was_lowest(self, client: str, scope: str, ticket: Ticket, before: dict[str, int]) -> None:
        """Compare with the documented formula over all rows.

        With soft limits as low as here a round is one connection.
        """

        def score(row: Backend) -> float:
            distance = scoring.region_score(row.region, row.country, locate(client), "us")
            load = before.get(row.id, 0) / max(row.soft_limit, 1) / row.weight
            return distance * 100 + load

        lives = self.pop.load
        eligible = [
            row
            for row in self.rows.values()
            if row.healthy
            and not row.deleted
            and row.weight
            and lives.of(row.id).takes_clients
            and scope in ("", row.app)
            and before.get(row.id, 0) < (row.hard_limit or 1 << 30)
            and (row.id == ticket.backend.id or lives.of(row.id).passed_over_until <= self.now)
        ]
        lowest = min(map(score, eligible))
        assert score(self.rows[ticket.backend.id]) == pytest.approx(lowest)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), blame=st.sampled_from(Blame))
    def fail(self, data: st.DataObject, blame: Blame) -> None:
        ticket = self.tickets.pop(data.draw(st.integers(0, len(self.tickets) - 1)))
        failed = ticket.backend.id
        answer = self.pop.failed(ticket, self.now, blame)
        if isinstance(answer, Ticket):
            assert answer.backend.id not in answer.tried
            assert failed in answer.tried
            self.tickets.append(answer)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def dialed(self, data: st.DataObject) -> None:
        self.pop.dialed(data.draw(st.sampled_from(self.tickets)), 0.0, NOW)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        self.pop.closed(self.tickets.pop(data.draw(st.integers(0, len(self.tickets) - 1))), NOW)

    @invariant()
    def places_know_what_they_have(self) -> None:
        for each in self.pop.table.candidates.values():
            assert each.live.address == each.backend.address
            for place in each.rankings:
                there = [member for member in place.members if member.live.takes_clients]
                assert place.available == sum(map(parts, there))
                slow = [member for member in there if member.live.share < 1]
                assert place.slow_start.standing == sum(map(parts, slow))

    @invariant()
    def books_balance(self) -> None:
        held: dict[str, int] = {}
        for ticket in self.tickets:
            held[ticket.backend.id] = held.get(ticket.backend.id, 0) + 1
        assert self.pop.load.active() == held

    def teardown(self) -> None:
        for ticket in self.tickets:
            self.pop.closed(ticket, NOW)
        assert self.pop.load.active() == {}


class SlowBooks(Books):
    """The same with backends that come slowly: then the lowest score is not all that counts."""

    HEALTH = HealthSettings(slow_start_secs=8)

    def was_lowest(self, client: str, scope: str, ticket: Ticket, before: dict[str, int]) -> None:
        """Say nothing of it."""


TestSlowBooks = SlowBooks.TestCase
TestSlowBooks.settings = hypothesis_settings(max_examples=75, stateful_step_count=40, deadline=None)
TestBooks = Books.TestCase
TestBooks.settings = hypothesis_settings(max_examples=75, stateful_step_count=40, deadline=None)


def eligibility(pop: Admission, backend_id: str) -> Ineligible | None:
    """Return why a backend takes no client at time 0, or None."""
    candidate = pop.table.candidates[backend_id]
    return ineligible(candidate.backend, candidate.live, 0.0)


class TestLeases:
    """A registered backend whose lease has expired gets nobody."""

    def test_it_gets_nobody_not_even_those_bound_to_it_until_it_is_heard_again(self) -> None:
        pop = admission(backend("a"), backend("b", "us"))
        held = admit(pop, "br")
        assert held.backend.id == "a"
        assert pop.expire("a", True)
        assert admit(pop, "br").backend.id == "b"
        assert eligibility(pop, "a") == "lease expired"
        assert held.held is not None  # an open connection goes on
        pop.expire("a", False)
        assert admit(pop, "br-2").backend.id == "a"
        assert not pop.expire("nobody", True)

    def test_panic_does_not_bring_it_back(self) -> None:
        pop = admission(backend("a"), backend("b"))
        pop.expire("a", True)
        pop.set_health("b", False, 0.0)
        assert {admit(pop, f"br-{n}").backend.id for n in range(6)} == {"b"}
        pop.expire("b", True)
        assert pop.admit("br", "", 0.0) == Refusal(Reason.DOWN)

    def test_draining_and_probes_are_remembered_beside_it(self) -> None:
        pop = admission(backend("a"))
        pop.drain("a", True)
        pop.expire("a", True)
        assert eligibility(pop, "a") == "draining"
        pop.drain("a", False)
        assert eligibility(pop, "a") == "lease expired"
        pop.expire("a", False)
        assert eligibility(pop, "a") is None
