"""A body becomes its type, or it is said which field is wrong."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.api.bodies import Registration
from edgeproxy.api.decoding import body_of
from edgeproxy.api.fault import FaultError
from edgeproxy.core.backends.rows import MAX_NAME_CHARS

GOOD = {"id": "a", "app": "myapp", "region": "sa", "ip": "10.0.0.1", "port": 80}
FIELDS = "id, app, region, ip, port, country, weight, soft_limit, hard_limit"
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


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": None}, "id has to be a text, not null"),
        ({"id": ""}, "id has to be a text that is not empty"),
        ({"id": "a" * 5000}, f"id has to be a text of at most {MAX_NAME_CHARS} characters"),
        ({"port": "80"}, "port has to be an integer, not a text"),
        ({"port": 70_000}, "port has to be an integer of at most 65535"),
        ({"weight": 1.5}, "weight has to be an integer, not a number with a fraction"),
        ({"country": 7}, "country has to be a text or null, not an integer"),
        (
            {"wieght": 1},
            f"there is no field `wieght`; the fields are {FIELDS}",
        ),
    ],
)
def test_a_fault_is_told_in_the_words_of_the_document(
    change: dict[str, object], reason: str
) -> None:
    assert str(read(json.dumps(GOOD | change).encode())) == reason


def test_a_field_that_is_missing_and_another_body_are_told() -> None:
    assert str(read(b"{}")) == "the field `id` is missing"
    assert str(read(b"[]")) == "the body has to be an object, not a list"
    assert str(read(b"")) == "the body is empty: it has to be an object in JSON"
