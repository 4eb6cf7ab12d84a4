"""`edgeproxy cluster`: the POPs that share one routing table.

Every command but `keygen` and `agent` asks the agent that runs beside the proxy of this host.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeproxy.cluster.settings import ReplicationSettings
    from edgeproxy.config.load import Config

JSON_HELP = "print JSON"


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers."""
    parser = commands.add_parser(
        "cluster",
        help="show and change the cluster of POPs that share a routing table",
        description="Show and change the cluster of POPs that share one routing table.",
    )
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, text in (
        ("status", "show how this POP and its cluster are"),
        ("members", "list the POPs of the cluster"),
    ):
        asking = actions.add_parser(name, help=text, description=f"{text.capitalize()}.")
        asking.add_argument("--json", action="store_true", help=JSON_HELP)
        asking.set_defaults(run=run_status if name == "status" else run_members)
    for name, takes, text, run in (
        ("diff", "POP", "compare the rows here with those of another POP", run_diff),
        ("join", "ADDRESS", "look for the cluster at this address, too", run_join),
        ("forget", "POP", "forget a POP that never comes back, and end its leases", run_forget),
    ):
        asking = actions.add_parser(name, help=text, description=f"{text.capitalize()}.")
        asking.add_argument("what", metavar=takes)
        asking.set_defaults(run=run)
    for name, text, act in (
        ("leave", "leave the cluster until the agent starts again", run_leave),
        ("keygen", "print a new key for a cluster", run_keygen),
        ("rotate-key", "read the keys again, and show which are in use", run_rotate_key),
        ("agent", "run the agent, which the proxy starts by itself", run_agent),
    ):
        asking = actions.add_parser(name, help=text, description=f"{text.capitalize()}.")
        asking.set_defaults(run=act)


def run_agent(_arguments: argparse.Namespace) -> int:
    """Replicate until a signal ends it."""
    from edgeproxy import log as events
    from edgeproxy.cluster.agent import run
    from edgeproxy.errors import EdgeProxyError, UsageError

    config = _config()
    if not config.replication.enabled:
        raise EdgeProxyError(
            "replication is off: set EDGEPROXY_REPLICATION_ENABLED=true, here and for the proxy"
        )
    events.start(config.log)
    log = events.EventLog("cluster")
    try:
        return run(config.replication, config.database.path, config.admission.region)
    except EdgeProxyError as error:
        log.error("agent_failed", reason=str(error))  # noqa: TRY400
        return 2 if isinstance(error, UsageError) else 1
    finally:
        events.stop()


def run_keygen(_arguments: argparse.Namespace) -> int:
    """Print a key."""
    from edgeproxy.cluster.builtin.keys import new_key

    print(new_key().reveal())
    return 0


def run_status(arguments: argparse.Namespace) -> int:
    """Print the state of the cluster as this POP sees it."""
    status = _ask("status")
    print(json.dumps(status, indent=2) if arguments.json else "\n".join(for_people(status)))
    return 0


def run_members(arguments: argparse.Namespace) -> int:
    """Print the members."""
    members = _ask("status")["members"]
    print(json.dumps(members, indent=2) if arguments.json else _table(members))
    return 0


def run_diff(arguments: argparse.Namespace) -> int:
    """Print which rows differ at another POP. Exit code 1 if any does."""
    rows = _ask("diff", peer=arguments.what)
    for row in rows:
        print(f"{row['table']} {row['id']}: here {row['here']}, there {row['there']}")
    print(f"{len(rows)} rows differ" if rows else "no row differs")
    return 1 if rows else 0


def run_join(arguments: argparse.Namespace) -> int:
    """Look for the cluster at an address."""
    from edgeproxy.cluster.settings import peers
    from edgeproxy.errors import UsageError
    from edgeproxy.values import BadValueError

    try:
        found = peers(arguments.what)
    except BadValueError as bad:
        raise UsageError(str(bad)) from None
    for peer in found:
        print(_ask("join", host=peer.host, port=peer.port))
    return 0


def run_leave(_arguments: argparse.Namespace) -> int:
    """Leave the cluster."""
    print(_ask("leave"))
    return 0


def run_forget(arguments: argparse.Namespace) -> int:
    """Forget a POP."""
    print(_ask("forget", node=arguments.what))
    return 0


def run_rotate_key(_arguments: argparse.Namespace) -> int:
    """Read the keys again."""
    for line in _ask("rotate_key"):
        print(line)
    return 0


def for_people(status: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a status."""
    ready = "ready" if status["ready"] else "NOT READY: it has heard of no other POP yet"
    name = f"{status['node_id']} in cluster {status['cluster']}"
    yield f"node      {name} ({status['engine']}), {ready}"
    bridge = status["bridge"]
    yield f"edits     {bridge['edits']} taken from here, {bridge['rows']} rows written here"
    if bridge["fault"]:
        yield f"          STALLED: {bridge['fault']}"
    if bridge["rows_braked"]:
        yield f"          {bridge['rows_braked']} rows that vanished at once were restored"
    if bridge["rows_refused"]:
        yield f"          {bridge['rows_refused']} rows are refused by the tables here"
    for warning in status.get("warnings", ()):
        yield f"WARNING   {warning}"
    yield ""
    yield _table(status["members"])


def _table(members: list[Mapping[str, Any]]) -> str:
    from edgeproxy.cli.table import text_table

    headers = ("pop", "state", "region", "address", "rtt", "clock", "missing here", "there")
    rows = [
        (
            member["node_id"],
            member["state"],
            member["region"],
            member["address"],
            "-" if member["rtt_ms"] is None else f"{member['rtt_ms']:.0f} ms",
            "-" if member["clock_offset_ms"] is None else f"{member['clock_offset_ms']:+.0f} ms",
            "-" if member["missing_here"] is None else member["missing_here"],
            "-" if member["missing_there"] is None else member["missing_there"],
        )
        for member in members
    ]
    return text_table(headers, rows)


def _config() -> Config:
    from edgeproxy.config import load

    return load.load(os.environ).config


def _settings() -> ReplicationSettings:
    return _config().replication


def _ask(name: str, **arguments: str | int) -> Any:
    from edgeproxy.cluster.agent_socket import ANSWER_SECS, ask

    return ask(_settings().db_path, name, ANSWER_SECS, **arguments)
