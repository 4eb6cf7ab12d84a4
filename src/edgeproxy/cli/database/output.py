"""Prints what commands on a routing database report: nodes as JSON, notes on stderr."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from edgeproxy.cli.table import cell

_INFINITIES = (float("inf"), float("-inf"))  # JSON has no infinities, SQLite has


def json_node(values: Mapping[str, object], fault: str | None) -> dict[str, object]:
    """Return a node as an object for JSON; `fault` is a key only if the node has one."""
    plain = {
        name: cell(value) if isinstance(value, bytes) or value in _INFINITIES else value
        for name, value in values.items()
    }
    return {**plain, "fault": fault} if fault else plain


def note(text: str) -> None:
    """Print a line to stderr that does not disturb the output for programs."""
    print(f"edgeproxy: {cell(text)}", file=sys.stderr)
