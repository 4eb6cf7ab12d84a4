"""The score is the documented one, with country as a refinement."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.routing import scoring

REGIONS = st.sampled_from(["sa", "us", "eu", "ap", "mars"])
COUNTRIES = st.one_of(st.none(), st.sampled_from(["BR", "AR", "US", "DE", "JP"]))


def client(region: str | None, country: str | None = None) -> Origin:
    """Return a client from there."""
    return Origin("192.0.2.1", country, region)


def test_the_documented_example_values() -> None:
    assert scoring.region_score("sa", None, client("sa"), "eu") == 0
    assert scoring.region_score("eu", None, client("sa"), "eu") == 1
    assert scoring.region_score("us", None, client("sa"), "eu") == 2


def test_another_country_of_the_same_region_is_half_a_region_away() -> None:
    assert scoring.region_score("sa", "BR", client("sa", "BR"), "eu") == 0
    assert scoring.region_score("sa", "AR", client("sa", "BR"), "eu") == 0.5


def test_country_says_nothing_where_one_of_them_is_unknown() -> None:
    assert scoring.region_score("sa", None, client("sa", "BR"), "eu") == 0
    assert scoring.region_score("sa", "AR", client("sa", None), "eu") == 0


def test_country_says_nothing_outside_the_clients_region() -> None:
    assert scoring.region_score("eu", "BR", client("sa", "BR"), "eu") == 1
    assert scoring.region_score("us", "BR", client("sa", "BR"), "eu") == 2


def test_a_client_from_nowhere_goes_to_the_pops_region() -> None:
    assert scoring.region_score("eu", None, client(None), "eu") == 1
    assert scoring.region_score("sa", None, client(None), "eu") == 2


def test_an_unknown_region_code_matches_itself() -> None:
    assert scoring.region_score("mars", None, client("mars"), "eu") == 0


def test_a_soft_limit_of_zero_counts_as_one() -> None:
    backend = Backend("a", "myapp", "sa", "10.0.0.1", 80, soft_limit=0, weight=3)
    assert scoring.load_score(2, scoring.capacity(backend)) == 2 / 3


@given(REGIONS, COUNTRIES, st.one_of(st.none(), REGIONS), COUNTRIES, REGIONS)
def test_a_backend_is_never_nearer_than_one_in_the_clients_country(
    region: str, country: str | None, home: str | None, nation: str | None, pop: str
) -> None:
    origin = client(home, nation)
    score = scoring.region_score(region, country, origin, pop)
    assert score in scoring.TIER_NAMES
    if home is not None:
        assert scoring.region_score(home, nation, origin, pop) == 0 <= score


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(1, 1000), st.integers(1, 1000))
def test_equal_loads_are_exactly_equal(active: int, soft: int, weight: int, times: int) -> None:
    capacity = max(soft, 1) * weight
    assert scoring.load_score(active, capacity) == scoring.load_score(
        active * times, capacity * times
    )
    assert scoring.load_score(active, capacity) < scoring.load_score(active + 1, capacity)


@given(st.integers(0, 10_000), st.integers(1, 100), st.integers(1, 100))
def test_only_whole_rounds_are_compared(active: int, soft: int, unit: int) -> None:
    compared = scoring.compared_load(active, soft * unit, unit)
    assert compared == active // unit / soft
    assert compared <= scoring.load_score(active, soft * unit) < compared + 1 / soft
