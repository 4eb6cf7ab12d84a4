"""Every country is in exactly one region, the one a map would say."""

from __future__ import annotations

from collections import Counter

import pycountry
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.geo.regions import COUNTRIES, REGIONS, region_of

ISO = {country.alpha_2 for country in pycountry.countries}


def test_every_iso_country_is_listed_exactly_once() -> None:
    listed = Counter(code for codes in COUNTRIES.values() for code in codes)
    assert set(listed) == ISO | {"XK"}
    assert set(listed.values()) == {1}


def test_the_regions_are_the_four() -> None:
    assert tuple(COUNTRIES) == REGIONS == ("sa", "us", "eu", "ap")


@pytest.mark.parametrize(
    ("region", "countries"),
    [
        ("sa", "BR AR CL CO VE SR FK AQ"),
        ("us", "US CA MX GT PA CU PR TT GL BM"),
        ("eu", "DE GB RU TR GE IL SA IR EG NG ZA MU XK UA"),
        ("ap", "KZ IN PK CN JP TW SG ID AU NZ FJ GU"),
    ],
)
def test_a_country_is_in_the_region_of_its_part_of_the_world(region: str, countries: str) -> None:
    assert {region_of(code) for code in countries.split()} == {region}


def test_an_unknown_country_has_no_region() -> None:
    assert region_of(None) is None


@given(st.text(max_size=3).filter(lambda text: text not in ISO | {"XK"}))
def test_whatever_is_no_upper_case_country_code_has_no_region(text: str) -> None:
    assert region_of(text) is None
