"""The bridge over real Corrosions: the cases of the bridge that hold with any engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.bridge import test_bridge
from tests.cluster.bridge.pops import Pop, exchange
from tests.cluster.corrosion.pops import corrosions, needs_corrosion, stop

pytestmark = needs_corrosion

CASES = """
    an_insert_an_update_and_a_delete_reach_every_pop
    edits_of_two_groups_of_one_row_are_both_kept
    what_comes_from_elsewhere_is_no_edit
    routes_and_leases_are_replicated
    columns_of_one_pop_alone_stay_there
    a_row_that_a_table_refuses_stays_out_of_it_alone
    a_value_that_cannot_be_replicated_stays_here
    an_accident_deletes_nothing_anywhere
    a_database_that_is_made_anew_adds_its_rows_and_overrules_none
    an_older_copy_undoes_nothing
    a_few_deletes_at_once_are_deletes
    many_deletes_by_command_are_deletes
    a_delete_by_command_while_the_bridge_is_down_is_a_delete
    an_edit_between_the_look_and_the_write_is_kept
    a_lost_shadow_loses_nothing
"""


@pytest.fixture
def pops(tmp_path: Path) -> Iterator[list[Pop]]:
    """Three POPs that have heard of each other."""
    engines = corrosions(tmp_path, ("sa", "us", "eu"))
    found = [Pop(tmp_path, each.node_id, engine=each) for each in engines]
    exchange(*found)
    yield found
    stop(engines)


filled = test_bridge.filled

for name in CASES.split():
    globals()[f"test_{name}"] = getattr(test_bridge, f"test_{name}")
