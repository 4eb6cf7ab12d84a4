"""Clients reach the backend that is nearest to their country."""

from __future__ import annotations

import pytest

from tests.store.editing import DOCUMENTED_TABLE, execute
from tests.system.pop import ARGENTINA, BRAZIL, GERMANY, JAPAN, NOWHERE, UNITED_STATES, Pop
from tests.waiting import wait_until

pytestmark = pytest.mark.system


def test_each_country_reaches_its_region(pop: Pop) -> None:
    for region in ("sa", "us", "eu", "ap"):
        pop.backend(f"{region}-1", region)
    pop.serve(EDGEPROXY_REGION="eu")

    assert pop.reached(BRAZIL) == "sa-1"
    assert pop.reached(ARGENTINA) == "sa-1"
    assert pop.reached(UNITED_STATES) == "us-1"
    assert pop.reached(GERMANY) == "eu-1"
    assert pop.reached(JAPAN) == "ap-1"


def test_a_client_of_an_unknown_country_or_unserved_region_reaches_the_region_of_the_pop(
    pop: Pop,
) -> None:
    for region in ("sa", "us", "eu"):
        pop.backend(f"{region}-1", region)
    pop.serve(EDGEPROXY_REGION="us")

    assert pop.reached(NOWHERE) == "us-1"
    assert pop.reached(JAPAN) == "us-1"


def test_a_region_of_ones_own_in_the_override_file_matches_itself(pop: Pop) -> None:
    pop.backend("sa-1", "sa")
    pop.backend("lab-1", "lab-2")
    pop.overrides.write_text("127.60.0.0/16, BR, lab-2\n127.60.7.0/24, BR\n")
    pop.serve(EDGEPROXY_REGION="eu")

    assert pop.reached("127.60.0.1") == "lab-1"
    assert pop.reached("127.60.7.1") == "sa-1", "the longest prefix wins"


def test_with_a_country_column_the_own_country_comes_before_the_rest_of_the_region(
    pop: Pop,
) -> None:
    execute(pop.database, DOCUMENTED_TABLE)
    for name, region in (("br-1", "sa"), ("ar-1", "sa"), ("us-1", "us")):
        pop.backend(name, region)
    execute(
        pop.database,
        "ALTER TABLE backends ADD COLUMN country TEXT;"
        "UPDATE backends SET country = upper(substr(id, 1, 2));",
    )
    proxy = pop.serve(EDGEPROXY_REGION="us")

    assert [pop.reached(f"127.10.0.{number}") for number in range(1, 6)] == ["br-1"] * 5
    assert [pop.reached(f"127.11.0.{number}") for number in range(1, 6)] == ["ar-1"] * 5

    proxy.edit("UPDATE backends SET healthy = 0 WHERE id = 'br-1'")
    assert pop.reached(BRAZIL) == "ar-1", "the region comes before the region of the POP"


def test_a_full_tier_falls_through_to_the_next_and_is_used_again_when_there_is_room(
    pop: Pop,
) -> None:
    pop.backend("eu-1", "eu", hard_limit=1)
    pop.backend("sa-1", "sa", hard_limit=1)
    pop.backend("us-1", "us", hard_limit=1)
    pop.serve(EDGEPROXY_REGION="sa")

    first, at_first = pop.holder("127.30.0.1")
    _, at_second = pop.holder("127.30.0.2")
    _, at_third = pop.holder("127.30.0.3")
    assert [at_first, at_second, at_third] == ["eu-1", "sa-1", "us-1"]
    assert pop.reached("127.30.0.4") == "", "everything is full"

    first.close()
    wait_until(lambda: pop.reached("127.30.0.4") == "eu-1", "room in the own region")


def test_a_dead_tier_falls_through_to_the_next(pop: Pop) -> None:
    pop.dead_backend("eu-1", "eu")
    pop.dead_backend("eu-2", "eu")
    pop.backend("sa-1", "sa")
    pop.backend("us-1", "us")
    pop.serve(EDGEPROXY_REGION="sa")

    assert [pop.reached(f"127.30.0.{number}") for number in range(1, 11)] == ["sa-1"] * 10


def test_a_disabled_tier_falls_through_to_the_next(pop: Pop) -> None:
    pop.backend("eu-1", "eu")
    pop.backend("sa-1", "sa")
    proxy = pop.serve(EDGEPROXY_REGION="sa")

    assert pop.reached("127.30.0.1") == "eu-1"
    proxy.edit("UPDATE backends SET healthy = 0 WHERE region = 'eu'")
    assert pop.reached("127.30.0.2") == "sa-1"


def test_a_pop_can_be_restricted_to_one_app(pop: Pop) -> None:
    pop.backend("shop-br", "sa", app="shop")
    blog = pop.backend("blog-us", "us", app="blog")
    proxy = pop.serve(EDGEPROXY_APP="blog", EDGEPROXY_REGION="sa")

    assert proxy.seen("ready")[0]["app"] == "blog"
    assert pop.reached(BRAZIL) == "blog-us", "the other app's backend is nearer"
    proxy.edit(f"UPDATE backends SET healthy = 0 WHERE id = '{blog.id}'")
    assert pop.reached("127.10.0.2") == "", "the other app's backend is no way out"


def test_without_a_restriction_all_apps_are_one_pool(pop: Pop) -> None:
    pop.backend("shop-br", "sa", app="shop")
    pop.backend("blog-us", "us", app="blog")
    pop.serve()

    assert pop.reached(BRAZIL) == "shop-br"
    assert pop.reached(UNITED_STATES) == "blog-us"
