"""Text tables for people: aligned columns, one line per row, for any values."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

GAP = "  "


def text_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return lines of aligned columns under `headers`; a column of numbers is right-aligned."""
    values = [list(row) for row in rows]
    cells = [[cell(value) for value in row] for row in values]
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    numeric = [
        bool(values) and all(isinstance(row[index], int) for row in values)
        for index in range(len(headers))
    ]
    lines = []
    for line in [list(headers), *cells]:
        aligned = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        lines.append(GAP.join(aligned).rstrip())
    return "\n".join(lines)


def cell(value: object) -> str:
    """Return a value on one line: NULL for None, control characters escaped."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value))
