"""An exact name wins, then one label's wildcard, then the default; without it nobody enters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.routing.server_names import ServerNames, pattern

NAMES = ServerNames(
    {
        "www.example.com": "web",
        "*.example.com": "any",
        "*.B.example.com.": "deep",
        "db": "db",
        "*.internal": "private",
    }
)
LABEL = st.sampled_from(["a", "b", "www", "x-1", "_dmarc"])
HOST = st.lists(LABEL, min_size=1, max_size=5).map(".".join)
PATTERN = st.one_of(HOST, HOST.map("*.{}".format), st.just("*"))


@pytest.mark.parametrize(
    ("name", "app"),
    [
        ("www.example.com", "web"),
        ("api.example.com", "any"),
        ("example.com", None),
        ("a.www.example.com", None),
        ("b.example.com", "any"),
        ("a.b.example.com", "deep"),
        ("a.a.b.example.com", None),
        ("db", "db"),
        ("x.internal", "private"),
        ("internal", None),
        ("www.example.org", None),
        (None, None),
    ],
)
def test_the_nearest_pattern_wins(name: str | None, app: str | None) -> None:
    assert NAMES.find(name) == app


@pytest.mark.parametrize("name", ["other.example.org", "a.b.c.d", "localhost", None])
def test_the_default_takes_everything_else(name: str | None) -> None:
    assert ServerNames({"*": "rest", "www.example.com": "web"}).find(name) == "rest"
    assert ServerNames({}).find(name) is None


@given(st.dictionaries(PATTERN, LABEL, max_size=8), HOST)
def test_it_finds_what_looking_through_all_patterns_finds(apps: dict[str, str], name: str) -> None:
    first, _, rest = name.partition(".")
    wanted = [name, f"*.{rest}", "*"] if rest else [name, "*"]
    assert first
    expected = next((apps[each] for each in wanted if each in apps), None)
    assert ServerNames(apps).find(name) == expected


@pytest.mark.parametrize(
    "text", ["", "**", "*.", "*.*", "*.*.example.com", "a.*.com", "*a.com", "192.0.2.1", "*com"]
)
def test_what_is_no_pattern_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"allowed is a host name such as www\.example\.com"):
        pattern(text)
    with pytest.raises(ValueError, match="allowed"):
        ServerNames({text: "app"})


def test_the_apps_are_known() -> None:
    assert ServerNames({"a.b": "one", "*.b": "two", "*": "rest"}).apps == {"one", "two", "rest"}
    assert ServerNames({}).apps == set()


def test_two_spellings_of_a_pattern_may_not_disagree() -> None:
    assert ServerNames({"A.b": "one", "a.b.": "one"}).find("a.b") == "one"
    with pytest.raises(ValueError, match=r"\*\.b is given twice, with different apps"):
        ServerNames({"*.b": "one", "*.B": "two"})
