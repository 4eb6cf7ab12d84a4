"""Ids of replicated rows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.backends.rows import COLUMNS, COUNTRY
from edgeproxy.core.cluster.rows import BACKENDS, LEASES, TABLES, Key, id_of, key_values


def test_every_documented_column_of_a_backend_is_replicated() -> None:
    table = TABLES[BACKENDS]
    assert sorted((*table.keys, *table.columns)) == sorted((*COLUMNS, COUNTRY))


@given(st.text(), st.text())
def test_a_key_of_two_columns_comes_back(backend_id: str, home: str) -> None:
    assert key_values(Key(LEASES, id_of((backend_id, home)))) == (backend_id, home)


@given(st.text())
def test_a_key_of_one_column_is_its_value(backend_id: str) -> None:
    assert key_values(Key(BACKENDS, id_of((backend_id,)))) == (backend_id,)


@pytest.mark.parametrize("text", ["", "a", "[]", '["a"]', '["a", 1]', '"ab"', '{"a": 1, "b": 2}'])
def test_an_id_of_another_shape_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        key_values(Key(LEASES, text))
