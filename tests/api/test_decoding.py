"""A body becomes its type, or it is said which field is wrong."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.api.bodies import Registration
from edgeproxy.api.decoding import body_of
from edgeproxy.api.fault import FaultError

GOOD = {"id": "a", "app": "myapp", "region": "sa", "ip": "10.0.0.1", "port": 80}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def read(body: bytes) -> Registration | FaultError:
    """Return what is read, or why nothing is."""
    try:
        return body_of(body, Registration)
    except FaultError as error:
        return error


def test_what_is_left_out_has_its_default() -> None:
    found = body_of(json.dumps(GOOD).encode(), Registration)
    assert (found.weight, found.soft_limit, found.hard_limit, found.country) == (2, 100, 150, None)


@given(st.binary() | JSON.map(lambda each: json.dumps(each).encode()))
def test_anything_is_read_or_refused(body: bytes) -> None:
    found = read(body)
    if isinstance(found, FaultError):
        assert found.status == 400
        assert len(str(found)) < 500


@given(st.sampled_from(sorted(GOOD)), JSON)
def test_a_field_of_another_type_is_named(field: str, other: object) -> None:
    found = read(json.dumps(GOOD | {field: other}).encode())
    if isinstance(found, FaultError):
        assert found.field in (field, None)
    else:
        assert isinstance(getattr(found, field), type(GOOD[field]))


def test_nesting_without_end_is_refused() -> None:
    for body in (b"[" * 60_000, b'{"id":' * 10_000):
        with pytest.raises(FaultError):
            body_of(body, Registration)


@pytest.mark.parametrize("field", sorted(GOOD))
@pytest.mark.parametrize("spelling", ["{}", "\\u{:04x}"])
def test_a_field_that_is_there_twice_is_named(field: str, spelling: str) -> None:
    other = spelling.format(field if spelling == "{}" else ord(field[0]))
    other += "" if spelling == "{}" else field[1:]
    text = json.dumps(GOOD)[:-1] + f', "{other}": {json.dumps(GOOD[field])}}}'
    found = read(text.encode())
    assert isinstance(found, FaultError)
    assert (found.status, found.field) == (400, field)


def test_only_that_is_read_which_other_parsers_read() -> None:
    found = read(json.dumps(GOOD).encode())
    assert not isinstance(found, FaultError)
    assert found.id == "a"


@pytest.mark.parametrize("region", ["", "SA", "s a", "x" * 17])
def test_a_region_is_refused_in_words(region: str) -> None:
    found = read(json.dumps(GOOD | {"region": region}).encode())
    assert isinstance(found, FaultError)
    assert found.field == "region"
    assert "a short code like sa, us, eu or ap" in str(found)
    assert "regex" not in str(found)
