"""Rows and values from outside: what is a backend, what is refused, and what the refusal says."""

from __future__ import annotations

from dataclasses import asdict
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.rows import (
    COLUMNS,
    MAX_NAME_CHARS,
    MAX_SHOWN_CHARS,
    RowError,
    check_address,
    check_country,
    check_limits,
    check_name,
    check_weight,
    faults_of,
    parse_node,
    parse_row,
    parse_rows,
    shown,
)
from edgeproxy.errors import UsageError

DOCUMENTED = dict(
    zip(COLUMNS, ("sa-node-1", "myapp", "sa", "10.50.1.1", 8080, 1, 2, 50, 100, 0), strict=True)
)


def row(**changes: object) -> dict[str, object]:
    return {**DOCUMENTED, **changes}


def test_the_documented_row_is_a_backend() -> None:
    assert parse_row(DOCUMENTED) == Backend(
        "sa-node-1", "myapp", "sa", "10.50.1.1", 8080, True, 2, 50, 100, False, None
    )


@pytest.mark.parametrize("field", COLUMNS)
def test_null_in_a_documented_column_is_refused(field: str) -> None:
    with pytest.raises(RowError, match=f"^{field} NULL is not allowed: ") as refused:
        parse_row(row(**{field: None}))
    assert refused.value.field == field


@pytest.mark.parametrize("field", COLUMNS)
def test_a_missing_key_is_refused_as_null(field: str) -> None:
    values = row()
    del values[field]
    with pytest.raises(RowError, match=f"^{field} NULL is not allowed: "):
        parse_row(values)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("id", "", "id '' is not allowed: 1 to 128 printable characters, not only blanks"),
        ("id", "  ", "id '  ' is not allowed: 1 to 128 printable characters, not only blanks"),
        ("id", "a\nb", r"id 'a\nb' is not allowed: 1 to 128 printable characters, not only blanks"),
        ("id", 7, "id 7 is not allowed: 1 to 128 printable characters, not only blanks"),
        ("app", b"x", "app a blob of 1 bytes is not allowed: 1 to 128 printable characters, "),
        ("app", "\udcff", r"app '\udcff' is not allowed: 1 to 128 printable characters, "),
        ("region", "SA", "region 'SA' is not allowed: a short code like sa, us, eu or ap"),
        ("region", "-sa", "region '-sa' is not allowed: a short code"),
        ("region", "a" * 17, f"region '{'a' * 17}' is not allowed: a short code"),
        ("region", "sa\n", r"region 'sa\n' is not allowed: a short code"),
        ("wg_ip", "node.example", "wg_ip 'node.example' is not allowed: the IPv4 or IPv6 address"),
        ("wg_ip", 5, "wg_ip 5 is not allowed: the IPv4 or IPv6 address"),
        ("wg_ip", "10.50.1.0/24", "wg_ip '10.50.1.0/24' is not allowed: the IPv4 or IPv6 address"),
        ("wg_ip", "0.0.0.0", "wg_ip '0.0.0.0' is not allowed: the IPv4 or IPv6 address"),
        ("wg_ip", "::", "wg_ip '::' is not allowed: the IPv4 or IPv6 address"),
        ("wg_ip", "::ffff:0.0.0.0", "wg_ip '::ffff:0.0.0.0' is not allowed: the IPv4"),
        ("wg_ip", "224.0.0.1", "wg_ip '224.0.0.1' is not allowed: the IPv4 or IPv6 address"),
        ("wg_ip", "ff02::1", "wg_ip 'ff02::1' is not allowed: the IPv4 or IPv6 address"),
        ("wg_ip", "fe80::1%eth0", "without a zone"),
        ("port", 0, "port 0 is not allowed: 1 to 65535"),
        ("port", 70000, "port 70000 is not allowed: 1 to 65535"),
        ("port", 80.5, "port 80.5 is not allowed: a whole number, 1 to 65535"),
        ("port", 80.0, "port 80.0 is not allowed: a whole number, 1 to 65535"),
        ("port", "80", "port '80' is not allowed: a whole number, 1 to 65535"),
        ("port", True, "port True is not allowed: a whole number, 1 to 65535"),
        ("healthy", 2, "healthy 2 is not allowed: 0 or 1"),
        ("healthy", "true", "healthy 'true' is not allowed: 0 or 1"),
        ("healthy", 1.0, "healthy 1.0 is not allowed: 0 or 1"),
        ("deleted", -1, "deleted -1 is not allowed: 0 or 1"),
        ("weight", "heavy", "weight 'heavy' is not allowed: a whole number, 0 or more"),
        ("weight", -1, "weight -1 is not allowed: 0 or more"),
        ("soft_limit", -1, "soft_limit -1 is not allowed: 0 or more"),
        ("hard_limit", 1.5, "hard_limit 1.5 is not allowed: a whole number, 0 or more"),
        ("country", "BRA", "country 'BRA' is not allowed: two letters like BR, or nothing"),
        ("country", "É1", "country 'É1' is not allowed: two letters like BR, or nothing"),
        ("country", 55, "country 55 is not allowed: two letters like BR, or nothing"),
    ],
)
def test_a_refusal_names_field_value_and_what_is_allowed(
    field: str, value: object, message: str
) -> None:
    with pytest.raises(RowError) as refused:
        parse_row(row(**{field: value}))
    assert message in str(refused.value)
    assert refused.value.field == field
    assert refused.value.reason == str(refused.value)


def test_a_refusal_counts_as_bad_usage_and_as_a_value_error() -> None:
    with pytest.raises(RowError) as refused:
        parse_row(row(port=0))
    assert isinstance(refused.value, UsageError)
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize(
    "changes",
    [
        {"weight": 5000},
        {"weight": 0},
        {"soft_limit": 0, "hard_limit": 0},
        {"soft_limit": 300, "hard_limit": 200},
        {"hard_limit": 2**63 - 1},
        {"region": "mars-2"},
        {"port": 1},
        {"port": 65535},
        {"id": "naïve node №1"},
        {"id": "x" * MAX_NAME_CHARS},
    ],
)
def test_rows_are_taken_as_far_as_they_can_be_routed_to(changes: dict[str, object]) -> None:
    backend = asdict(parse_row(row(**changes)))
    assert {name: backend[name] for name in changes} == changes


@pytest.mark.parametrize(
    ("value", "country"), [(None, None), ("", None), ("br", "BR"), ("De", "DE"), ("JP", "JP")]
)
def test_a_country_is_optional_and_upper_cased(value: object, country: str | None) -> None:
    assert check_country(value) == country
    assert parse_row(row(country=value)).country == country


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.50.1.1", "10.50.1.1"),
        ("FD00:0::0001", "fd00::1"),
        ("::ffff:10.50.1.1", "10.50.1.1"),
        ("::1", "::1"),
        ("127.0.0.1", "127.0.0.1"),
    ],
)
def test_an_address_is_normalised(text: str, address: str) -> None:
    assert check_address(text) == address


def test_people_may_set_weights_from_0_to_1000() -> None:
    assert [check_weight(weight) for weight in (0, 1, 1000)] == [0, 1, 1000]
    for weight in (-5, 1001):
        with pytest.raises(RowError, match=f"weight {weight} is not allowed: 0 to 1000"):
            parse_node(row(weight=weight))


@pytest.mark.parametrize("country", ["zz", "ZZ", "UK", "EU", "AP", "XX", "QQ"])
def test_people_may_not_set_a_country_that_does_not_exist(country: str) -> None:
    with pytest.raises(RowError, match=f"country '{country}' is not allowed: an ISO 3166-1 code"):
        parse_node(row(country=country))
    assert parse_row(row(country=country)).country == country.upper()  # it is in the table already


@pytest.mark.parametrize("country", [None, "", "br", "XK"])
def test_people_may_set_a_country_that_exists(country: str | None) -> None:
    assert parse_node(row(country=country)) == parse_row(row(country=country))


def test_people_may_not_set_a_soft_limit_above_the_hard_limit() -> None:
    with pytest.raises(
        RowError, match="soft_limit 201 is not allowed: at most the hard_limit, 200"
    ):
        parse_node(row(soft_limit=201, hard_limit=200))


@pytest.mark.parametrize(("soft", "hard"), [(0, 0), (0, 5), (5, 0), (5, 5), (200, 500)])
def test_a_limit_of_0_never_conflicts_with_the_other(soft: int, hard: int) -> None:
    assert check_limits(soft, hard) == (soft, hard)


@pytest.mark.parametrize(("soft", "hard"), [(-1, 5), (5, -1), (None, 5), ("5", 5), (0, 10**20)])
def test_people_may_not_set_limits_that_are_no_limits(soft: object, hard: object) -> None:
    with pytest.raises(RowError, match=r"_limit .* is not allowed: .*0 to 1000000000"):
        check_limits(soft, hard)


def test_of_rows_with_the_same_id_the_first_valid_one_counts() -> None:
    faulty, first, second = row(port=0), row(port=1), row(port=2)
    results = list(parse_rows([faulty, first, second]))
    assert isinstance(results[0], RowError)
    assert results[1] == parse_row(first)
    assert str(results[2]) == "id 'sa-node-1' is used by an earlier row already"


ODD = "az-0.: \n\t\x00\x1b\x7fé日\u200b\u2028\udcff"
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(ODD, max_size=140),
    st.binary(max_size=8),
    st.sampled_from(["sa", "us", "10.50.1.1", "fd00::1", "br"]),
    st.integers(0, 1),
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys((*COLUMNS, "country"), ANYTHING)))
def test_whatever_a_row_holds_it_is_a_valid_backend_or_a_named_refusal(
    changes: dict[str, object],
) -> None:
    (backend,) = parse_rows([{**DOCUMENTED, **changes}])
    if isinstance(backend, RowError):
        assert backend.field in changes
        assert backend.reason.startswith(backend.field)
        assert backend.reason.isprintable()
        return
    assert backend.id.strip()
    assert backend.app.isprintable()
    assert str(ip_address(backend.wg_ip)) == backend.wg_ip
    assert 1 <= backend.port <= 65535
    assert min(backend.weight, backend.soft_limit, backend.hard_limit) >= 0
    assert type(backend.healthy) is type(backend.deleted) is bool
    assert backend.country is None or backend.country.isupper()


def test_all_faults_of_a_row_are_named() -> None:
    assert faults_of(DOCUMENTED) == []
    assert faults_of({**DOCUMENTED, "port": 0, "deleted": 2, "country": "x"}) == [
        "port 0 is not allowed: 1 to 65535",
        "deleted 2 is not allowed: 0 or 1",
        "country 'x' is not allowed: two letters like BR, or nothing",
    ]


@given(st.fixed_dictionaries({}, optional=dict.fromkeys((*COLUMNS, "country"), ANYTHING)))
def test_the_first_fault_is_one_of_all(row: dict[str, object]) -> None:
    (found,) = parse_rows([row])
    faults = faults_of(row)
    assert (found.reason in faults) if isinstance(found, RowError) else faults == []


NAMES = st.text("azAZ09-_./:@ é№日", min_size=1, max_size=128).filter(str.strip)
LIMITS = st.integers(0, 10**9)


@given(
    st.builds(
        Backend,
        id=NAMES,
        app=NAMES,
        region=st.from_regex(r"[a-z0-9][a-z0-9-]{0,15}", fullmatch=True),
        wg_ip=st.ip_addresses(network="10.0.0.0/8").map(str)
        | st.ip_addresses(network="fd00::/8").map(str),
        port=st.integers(1, 65535),
        healthy=st.booleans(),
        weight=st.integers(0, 1000),
        soft_limit=LIMITS,
        hard_limit=LIMITS,
        deleted=st.booleans(),
        country=st.none() | st.sampled_from(["BR", "US", "DE"]),
    )
)
def test_every_backend_is_the_same_after_a_trip_through_a_row(backend: Backend) -> None:
    values = asdict(backend)
    values.update(healthy=int(backend.healthy), deleted=int(backend.deleted))
    assert parse_row(values) == backend
    if backend.soft_limit <= backend.hard_limit or backend.hard_limit == 0:
        assert parse_node(values) == backend


@given(ANYTHING | st.text(ODD, min_size=200, max_size=2000))
def test_a_value_is_shown_on_one_line_of_bounded_length(value: object) -> None:
    text = shown(value)
    assert text.isprintable()
    assert len(text) <= MAX_SHOWN_CHARS + 3


def test_a_name_is_refused_one_character_above_the_bound() -> None:
    with pytest.raises(RowError, match=r"is not allowed: 1 to 128 printable characters"):
        check_name("id", "x" * (MAX_NAME_CHARS + 1))
