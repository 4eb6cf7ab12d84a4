"""`edgeproxy status` and `edgeproxy sessions`: show the state of the running proxy."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

from edgeproxy.cli.running.options import socket_option

FROM_ERRORS = ("failed lately", "circuit open", "circuit half open")
"""States that follow from failed dials and early closes."""
RECENT_SECS = 60.0
"""For how long the last error of a backend that takes clients is shown."""
MAX_CAUSE_CHARS = 60


def add_parser(commands: Any) -> None:
    """Add the commands to the subparsers."""
    for name, text, run in (
        ("status", "show the state of the running proxy", run_status),
        ("sessions", "list the open sessions of the running proxy", run_sessions),
    ):
        parser = commands.add_parser(
            name, parents=[socket_option()], help=text, description=f"{text.capitalize()}."
        )
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.set_defaults(run=run)


def run_status(arguments: argparse.Namespace) -> int:
    """Print the state of the proxy and its backends."""
    from edgeproxy.cli.running.ask import ask

    status = ask(arguments, "/status")
    print(json.dumps(status, indent=2) if arguments.json else for_people(status))
    return 0


def run_sessions(arguments: argparse.Namespace) -> int:
    """Print the open sessions, the oldest first."""
    from edgeproxy.cli.running.ask import ask
    from edgeproxy.cli.table import text_table

    sessions = sorted(ask(arguments, "/sessions"), key=lambda session: -session["secs"])
    if arguments.json:
        print(json.dumps(sessions, indent=2))
        return 0
    names = ("client", "port", "backend", "how", "state", "secs", "bytes_in", "bytes_out")
    print(text_table(names, [[session[name] for name in names] for session in sessions]))
    return 0


def for_people(status: Mapping[str, Any]) -> str:
    """Return a status as a few lines and a table."""
    from edgeproxy.cli.table import text_table

    refused = ", ".join(f"{reason} {n}" for reason, n in sorted(status["refused"].items()))
    pid = f", pid {status['pid']}" if "pid" in status else ""  # an older proxy reports none
    lines = [
        f"edgeproxy {status['version']} ({status['engine']}) in {status['region']}",
        f"up        {status['uptime_secs']:.0f} s{pid}",
        *_surroundings(status.get("surroundings", {})),  # an older proxy reports none
        f"table     {status['table_version']}, {status['table_age_secs']:.0f} s old",
        f"clients   {status['active']} now, {status['connections']} so far",
        f"failovers {status['failovers']}",
        f"refused   {refused or 'none'}",
        f"bytes     {size(status['bytes_in'])} in, {size(status['bytes_out'])} out",
        "",
    ]
    headers = ("backend", "region", "load", "clients", "errors", "in", "out", "rtt", "state")
    rows = [
        (
            backend["id"],
            backend["region"],
            f"{backend['active']}/{backend['soft_limit']}/{backend['hard_limit'] or '∞'}",
            backend["connections"],
            backend["errors"],
            size(backend["bytes_in"]),
            size(backend["bytes_out"]),
            rtt(backend["rtt_secs"], " ms"),
            state_of(backend),
        )
        for backend in status["backends"]
    ]
    return "\n".join([*lines, text_table(headers, rows)])


def _surroundings(around: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines on what the proxy stands on, and what of it cannot be used."""
    if not around:
        return
    fault = around["database_fault"]
    yield f"database  {around['database']}{': UNREADABLE' if fault else ''}"
    if fault:
        yield f"          {fault}"
    if count := around["rows_skipped_now"]:
        more = ", …" if count > len(around["skipped"]) else ""
        yield f"          rows skipped: {count} ({', '.join(around['skipped'])}{more})"
    for number, each in enumerate(around["listeners"]):
        text = f"{each['address']} ({each['mode']})"
        yield f"{'' if number else 'listeners':<9} {text}{': FAILED' if each['fault'] else ''}"
        if each["fault"]:
            yield f"          {each['fault']}"
    for name, key in (
        ("config", "config_file"),
        ("control", "control_socket"),
        ("log", "access_log"),
        ("metrics", "metrics"),
        ("api", "api"),
    ):
        if around[key]:
            yield f"{name:<9} {around[key]}"
    if (cluster := around.get("cluster")) is not None:
        yield f"cluster   {cluster_line(cluster)}"


def cluster_line(cluster: Mapping[str, Any]) -> str:
    """Return how this POP and its cluster are, in one line."""
    if "node_id" not in cluster:
        return "NO ANSWER from the agent: routing goes on by the last table"
    members = cluster["members"]
    up = 1 + sum(member["state"] == "alive" for member in members)
    there = 1 + sum(member["state"] != "left" for member in members)
    faults = [f"{m['node_id']} {m['state']}" for m in members if m["state"] in ("suspect", "dead")]
    behind = sum(member["missing_here"] or 0 for member in members)
    if behind:
        faults.append(f"{behind} transactions behind")
    if not cluster["ready"]:
        faults.append("NOT READY")
    if cluster["bridge"]["fault"]:
        faults.append(f"STALLED: {cluster['bridge']['fault']}")
    text = f"{cluster['node_id']} in {cluster['cluster']}, {up} of {there} POPs up"
    return "; ".join([text, *faults])


def state_of(backend: Mapping[str, Any]) -> str:
    """Return the state of a backend and what is known of its cause.

    A half-open circuit takes clients, but only for trials.
    """
    state = str(backend.get("state", "?"))  # a proxy older than this command reports none
    if state in ("eligible", "circuit open") and backend.get("circuit") == "half_open":
        state = "circuit half open"
    fault, error = backend.get("fault"), backend.get("last_error")
    if state == "down" and fault:
        return f"{state}: {fault[:MAX_CAUSE_CHARS]}"
    secs_ago = backend.get("last_error_secs_ago") or 0.0
    if error and (state in FROM_ERRORS or (state == "eligible" and secs_ago <= RECENT_SECS)):
        return f"{state}: {error[:MAX_CAUSE_CHARS]} {secs_ago:.0f} s ago"
    return state


def rtt(secs: float, unit: str = "") -> str:
    """Return how long a dial took, in milliseconds; "-" for a backend that nobody has reached."""
    return f"{secs * 1000:.1f}{unit}" if secs else "-"


def size(count: float) -> str:
    """Return a number of bytes with its unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
