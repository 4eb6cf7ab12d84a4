"""The page of `edgeproxy top`: a status, and rates since the one before, as lines of text.

Lines are clipped to the width of the terminal. Only what is not well has a colour.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Status = Mapping[str, Any]

_YELLOW, _RED, _PLAIN = "\x1b[33m", "\x1b[31m", "\x1b[0m"
_WELL = "eligible"
_BUSY = {"draining", "circuit half open", "full"}
"""States of a backend that takes no new clients, or few, without being broken."""

SORTS: dict[str, tuple[str, Callable[[Status], Any]]] = {
    "backend": ("b", lambda row: row["id"]),
    "region": ("r", lambda row: (row["region"], row["id"])),
    "load": ("l", lambda row: (-row["active"], row["id"])),
    "new": ("n", lambda row: (-row["new_rate"], row["id"])),
    "in": ("i", lambda row: (-row["in_rate"], row["id"])),
    "out": ("o", lambda row: (-row["out_rate"], row["id"])),
    "rtt": ("t", lambda row: (-row["rtt_secs"], row["id"])),
    "errors": ("e", lambda row: (-row["errors"], row["id"])),
    "state": ("s", lambda row: (row["shown_state"] == _WELL, row["shown_state"], row["id"])),
}
"""Columns to sort by: the key that chooses it, and the order. The largest come first."""


def page(
    before: Status | None,
    status: Status,
    sort: str = "load",
    *,
    width: int | None = None,
    coloured: bool = False,
) -> str:
    """Return the page as text. Rates are since `before`."""
    from edgeproxy.cli.running.status import cluster_line, rtt, size
    from edgeproxy.cli.table import text_table

    secs = status["uptime_secs"] - before["uptime_secs"] if before else 0.0
    refused = sum(status["refused"].values()) - sum((before or status)["refused"].values())
    reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(status["refused"].items()))
    clients = (
        f"{status['active']} now, {_rate(status, before, 'connections', secs):.0f}/s, "
        f"{status['connections']} so far; failovers {status['failovers']}; "
        f"bindings {status['bindings']}"
    )
    bytes_in, bytes_out = (_rate(status, before, name, secs) for name in ("bytes_in", "bytes_out"))
    head = f"edgeproxy {status['version']} ({status['engine']}) in {status['region']}"
    rows = sorted(_rows(before, status, secs), key=SORTS[sort][1])
    headers = ("backend", "region", "load", "new/s", "in/s", "out/s", "rtt ms", "errors", "state")
    table = text_table(
        headers,
        [
            (
                row["id"],
                row["region"],
                f"{row['active']}/{row['soft_limit']}/{row['hard_limit'] or '∞'}",
                f"{row['new_rate']:.0f}",
                size(row["in_rate"]),
                size(row["out_rate"]),
                rtt(row["rtt_secs"]),
                row["errors"],
                row["shown_state"],
            )
            for row in rows
        ],
    )
    cluster = status.get("surroundings", {}).get("cluster")
    shown_cluster = "" if cluster is None else cluster_line(cluster)
    lines = [
        (f"{head}, up {status['uptime_secs']:.0f} s, table {status['table_version']}", ""),
        (f"clients  {clients}", ""),
        (f"bytes    {size(bytes_in)}/s in, {size(bytes_out)}/s out", ""),
        (
            f"refused  {refused / secs if secs > 0 else 0:.0f}/s; {reasons or 'none so far'}",
            _RED if refused > 0 else "",
        ),
        ("", ""),
        *([(f"cluster  {shown_cluster}", _RED if ";" in shown_cluster else "")] if cluster else []),
        *zip(table.split("\n"), ["", *(_colour_of(row) for row in rows)], strict=True),
    ]
    return "\n".join(_painted(text[:width], colour if coloured else "") for text, colour in lines)


def _rows(before: Status | None, status: Status, secs: float) -> list[Status]:
    """Return the backends with their rates and the state that is shown."""
    from edgeproxy.cli.running.status import state_of

    earlier = {backend["id"]: backend for backend in before["backends"]} if before else {}
    rows: list[Status] = []
    for backend in status["backends"]:
        then = earlier.get(backend["id"])
        rows.append(
            {
                **backend,
                "new_rate": _rate(backend, then, "connections", secs),
                "in_rate": _rate(backend, then, "bytes_in", secs),
                "out_rate": _rate(backend, then, "bytes_out", secs),
                "shown_state": state_of(backend),
            }
        )
    return rows


def _rate(now: Status, then: Status | None, name: str, secs: float) -> float:
    return max(now[name] - then[name], 0) / secs if then and secs > 0 else 0.0


def _colour_of(row: Status) -> str:
    if row["shown_state"] == _WELL:
        return ""
    return _YELLOW if row["shown_state"] in _BUSY else _RED


def _painted(text: str, colour: str) -> str:
    return f"{colour}{text}{_PLAIN}" if colour and text else text
