"""Text tables line up, and no value can break out of its line."""

from __future__ import annotations

from edgeproxy.cli.table import cell, text_table


def test_text_is_aligned_left_and_numbers_right() -> None:
    table = text_table(["id", "port"], [["a", 80], ["longer", 8080]])
    assert table.splitlines() == [
        "id      port",
        "a         80",
        "longer  8080",
    ]


def test_a_table_without_rows_is_its_header() -> None:
    assert text_table(["id", "port"], []) == "id  port"


def test_a_column_that_holds_more_than_numbers_is_aligned_left() -> None:
    assert text_table(["port"], [[8080], [None], [1]]).splitlines() == ["port", "8080", "NULL", "1"]


def test_values_stay_on_one_line_and_in_one_cell() -> None:
    assert cell("a\nb\x1b[31m\u2028\udcff") == r"a\nb\x1b[31m\u2028\udcff"
    assert cell("São Paulo №1") == "São Paulo №1"
    assert cell(b"\x00\xff") == "x'00ff'"
    assert cell(80.5) == "80.5"
