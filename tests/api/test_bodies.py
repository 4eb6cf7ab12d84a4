"""What fits the OpenAPI document is accepted, so a client may rely on it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgeproxy.api.bodies import NewLimits, Registration, row_of
from edgeproxy.api.decoding import body_of
from edgeproxy.api.fault import FaultError
from edgeproxy.api.openapi import document
from edgeproxy.core.backends.rows import COLUMNS, RowError, check_limits, parse_node

DOCUMENT: dict[str, Any] = json.loads(document())
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
STATED = {"type", "description", "title", "default"}


def fitting(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Return what fits a schema; it must say more than a type."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("type") == "null":
        return st.none()
    if schema.get("type") == "integer":
        return st.integers(schema["minimum"], schema["maximum"])
    if "pattern" in schema:
        pattern = st.from_regex(re.compile(schema["pattern"]), fullmatch=True)
        most = schema.get("maxLength", 1000)
        return pattern.filter(lambda text: len(text) <= most and not text.endswith("\n"))
    if {"format": "ipv4"} in schema.get("anyOf", ()):
        return st.ip_addresses(network="10.0.0.0/8").map(str) | st.ip_addresses(
            network="fd00::/8"
        ).map(str)
    return st.one_of([fitting(each) for each in schema["anyOf"]])


def objects(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects that fit one of the schemas."""
    schema = SCHEMAS[name]
    assert schema["additionalProperties"] is False
    each = {field: fitting(own) for field, own in schema["properties"].items()}
    required = {field: each.pop(field) for field in schema["required"]}
    return st.fixed_dictionaries(required, optional=each)


@given(objects("Registration"))
def test_what_fits_the_schema_of_a_registration_is_accepted(body: dict[str, Any]) -> None:
    hard_limit = body.get("hard_limit", 150)
    assume(hard_limit == 0 or body.get("soft_limit", 100) <= hard_limit)
    parse_node(row_of(body_of(json.dumps(body).encode(), Registration)))


@given(objects("NewLimits"))
def test_what_fits_the_schema_of_limits_is_accepted(body: dict[str, Any]) -> None:
    decoded = body_of(json.dumps(body).encode(), NewLimits)
    assume(decoded.hard_limit == 0 or decoded.soft_limit <= decoded.hard_limit)
    check_limits(decoded.soft_limit, decoded.hard_limit)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("id", " "), ("id", "a\nb"), ("app", "\u200b"), ("region", "a b"), ("country", "zz")),
        *(("ip", "example.com"), ("ip", "10.0.0.0/8"), ("ip", "fe80::1%eth0")),
    ],
)
def test_what_is_refused_does_not_fit(field: str, value: str) -> None:
    good = {"id": "a", "app": "myapp", "region": "sa", "ip": "10.0.0.1", "port": 80}
    with pytest.raises((FaultError, RowError)):
        parse_node(row_of(body_of(json.dumps(good | {field: value}).encode(), Registration)))
    schema = SCHEMAS["Registration"]["properties"][field]
    choices = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    for each in choices:
        fits = re.fullmatch(each["pattern"], value) if "pattern" in each else None
        assert not fits
        assert value not in each.get("enum", ())
        assert "pattern" in each or "enum" in each or "format" in each


def test_every_parameter_says_more_than_that_it_is_text() -> None:
    for path, operations in DOCUMENT["paths"].items():
        for operation in operations.values():
            for parameter in operation["parameters"]:
                if parameter["required"]:
                    assert parameter["schema"].keys() - STATED, (path, parameter["name"])


def test_a_row_has_all_documented_columns() -> None:
    body = body_of(b'{"id":"a","app":"b","region":"sa","ip":"10.0.0.1","port":1}', Registration)
    assert set(COLUMNS) <= row_of(body).keys()


@pytest.mark.parametrize("status", ["408", "413", "415", "429", "431"])
def test_every_status_that_is_given_is_described(status: str) -> None:
    for operations in DOCUMENT["paths"].values():
        for operation in operations.values():
            assert status in operation["responses"]
