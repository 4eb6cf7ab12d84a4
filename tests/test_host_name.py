"""A name has one form, whoever writes it and however it is spelled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.host_name import host_name, name_or_wildcard


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("WWW.Example.COM.", "www.example.com"),
        ("localhost", "localhost"),
        ("_sip._tcp.example", "_sip._tcp.example"),
        ("xn--mnchen-3ya.de", "xn--mnchen-3ya.de"),
        (".".join(["a" * 63] * 3 + ["b" * 61]), ".".join(["a" * 63] * 3 + ["b" * 61])),
        (".".join(["a" * 63] * 3 + ["b" * 61, ""]), ".".join(["a" * 63] * 3 + ["b" * 61])),
        (".".join(["a" * 63] * 3 + ["b" * 62]), None),
        ("a" * 64 + ".de", None),
        ("München.DE.", "xn--mnchen-3ya.de"),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ("straße.de", None),
        ("xn--strae-oqa.de", "xn--strae-oqa.de"),
        ("ü" * 250 + ".de", None),
        ("a\u200db.de", None),
        ("\ud800.de", None),
        ("ü..de", None),
        ("192.0.2.1", None),
        ("192.0.2.1.", None),
        ("2001:db8::1", None),
        ("", None),
        (".", None),
        ("a..b", None),
        (".a", None),
        ("a.b..", None),
        ("a b", None),
        ("a\0.b", None),
        ("a.b\n", None),
        ("*.a", None),
        ("a/b", None),
    ],
)
def test_a_host_name_has_one_form(text: str, name: str | None) -> None:
    assert host_name(text) == name


@given(st.text(max_size=40))
def test_the_form_of_a_form_is_itself(text: str) -> None:
    name = host_name(text)
    assert name is None or host_name(name) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("*.Example.COM.", "*.example.com"),
        ("*.münchen.de", "*.xn--mnchen-3ya.de"),
        ("a.b", "a.b"),
        *((text, None) for text in ("*", "*.", "*.*.a", "a.*.b", "*a.b")),
    ],
)
def test_a_wildcard_is_one_label_before_a_name(text: str, name: str | None) -> None:
    assert name_or_wildcard(text) == name
