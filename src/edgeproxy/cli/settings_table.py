"""The settings as text for people: a table for each section of the file, at most 100 columns wide.

A value is never cut off: one that is too long for its column has lines of its own.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy.cli.table import cell

if TYPE_CHECKING:
    from edgeproxy.config.config import Effective

WIDTH = 100
GAP = "  "
UNSET = "unset"
"""Stands for no value, as in the meanings."""
OWN_LINE = "  = "
"""Begins a line with a value that is too long for its column."""


class _Row(NamedTuple):
    """One setting: the texts of its columns, and its meaning."""

    key: str
    value: str
    source: str
    variable: str
    meaning: str


def settings_table(effective: Iterable[Effective], *, with_meaning: bool = False) -> str:
    """Return a table for each section, with the meaning of each setting if that is wanted."""
    from edgeproxy.config.load import shown

    sections: dict[str, list[_Row]] = {}
    files: list[str] = []
    for each in effective:
        source = each.source
        if source not in ("default", "environment"):
            files = [source]
            source = "file"
        setting = each.setting
        row = _Row(
            setting.key, cell(shown(each.value)) or UNSET, source, setting.variable, setting.meaning
        )
        sections.setdefault(setting.section, []).append(row)
    parts = [f"file: {cell(file)}" for file in files]
    parts += [
        "\n".join([f"[{name}]", *_lines(rows, with_meaning=with_meaning)])
        for name, rows in sections.items()
    ]
    return "\n\n".join(parts)


def _lines(rows: Sequence[_Row], *, with_meaning: bool) -> list[str]:
    key, source, variable = (
        max(len(text) for text in column)
        for column in zip(*((row.key, row.source, row.variable) for row in rows), strict=True)
    )
    left = WIDTH - key - source - variable - 3 * len(GAP)
    width = max((len(row.value) for row in rows if len(row.value) <= left), default=0)
    lines = []
    for row in rows:
        is_long = len(row.value) > width
        value = "" if is_long else row.value
        cells = (row.key.ljust(key), value.ljust(width), row.source.ljust(source), row.variable)
        lines.append(GAP.join(cells))
        if is_long:
            starts = range(0, len(row.value), WIDTH - len(OWN_LINE))
            lines += [OWN_LINE + row.value[at : at + WIDTH - len(OWN_LINE)] for at in starts]
        if with_meaning:
            lines += textwrap.wrap(
                row.meaning, WIDTH, initial_indent=2 * GAP, subsequent_indent=2 * GAP
            )
    return lines
