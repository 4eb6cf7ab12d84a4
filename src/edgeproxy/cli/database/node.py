"""`edgeproxy node …`: edit the nodes of the routing database, one short edit per command.

Running proxies follow the file. All values are validated before the database is touched; the
store, and with it SQLite, is imported when a command runs.
"""

from __future__ import annotations

import re
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from edgeproxy.cli.database.db import database_option, json_node, json_option
from edgeproxy.cli.database.opening import make, open_nodes
from edgeproxy.cli.table import cell
from edgeproxy.core.backends.rows import COUNTRY, parse_node
from edgeproxy.core.geo.regions import REGIONS

if TYPE_CHECKING:
    import argparse

    from edgeproxy.core.backends.backend import Backend
    from edgeproxy.store.edits import Node

_NUMBER = re.compile(r"-?[0-9]{1,18}")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `node` and what can be done with it to the commands of `edgeproxy`."""
    parser = commands.add_parser("node", help="add, change and remove nodes")
    subcommands = parser.add_subparsers(metavar="COMMAND", dest="node_command", required=True)
    options = [database_option(), json_option()]

    add = subcommands.add_parser(
        "add",
        parents=options,
        help="add a node",
        description="Add a node. A missing routing database is created.",
    )
    add.add_argument("id", help="unique name, for instance sa-node-2")
    add.add_argument("region", help=f"{', '.join(REGIONS)} or a short code of your own")
    add.add_argument("wg_ip", help="IPv4 or IPv6 address, usually on the WireGuard overlay")
    add.add_argument("port", nargs="?", default="8080", help="1 to 65535 (default: 8080)")
    add.add_argument("weight", nargs="?", default="1", help="0 to 1000 (default: 1)")
    add.add_argument("--app", default="myapp", metavar="NAME", help="(default: myapp)")
    add.add_argument("--country", metavar="CODE", help="two letters like BR (default: none)")
    add.add_argument("--soft-limit", default="100", metavar="N", help="(default: 100)")
    add.add_argument("--hard-limit", default="200", metavar="N", help="0: none (default: 200)")
    add.set_defaults(run=_add)

    for name, run, what in (
        ("remove", _remove, "mark a node as deleted; enable restores it"),
        ("delete", _delete, "take a node out of the database for good"),
        ("enable", _enable, "let a node take clients: healthy and not deleted"),
        ("disable", _disable, "keep new clients from a node: not healthy"),
        ("weight", _weight, "set a node's share of new clients"),
        ("limits", _limits, "set a node's connection limits"),
    ):
        command = subcommands.add_parser(name, parents=options, help=what, description=what)
        command.add_argument("id")
        if name == "weight":
            command.add_argument("weight", help="0 to 1000; 0 takes no new clients")
        elif name == "limits":
            command.add_argument("soft_limit", help="above it other nodes are preferred")
            command.add_argument("hard_limit", help="never exceeded; 0 is no limit")
        command.set_defaults(run=run)


def _add(args: argparse.Namespace) -> int:
    backend = parse_node(
        {
            "id": args.id,
            "app": args.app,
            "region": args.region,
            "wg_ip": args.wg_ip,
            "port": _number(args.port),
            "healthy": 1,
            "weight": _number(args.weight),
            "soft_limit": _number(args.soft_limit),
            "hard_limit": _number(args.hard_limit),
            "deleted": 0,
            COUNTRY: args.country,
        }
    )
    where, is_made = make(args)
    if is_made:
        _note(f"created {where}")
    with closing(open_nodes(args)) as nodes:
        node = nodes.add(backend)
        if backend.region not in REGIONS:
            _warn_of_new_region(backend, nodes.read())
    if backend.country and COUNTRY not in node.values:
        _note("warning: the table has no column country, so that it is not kept")
    where = f"{backend.region} {backend.address} weight {backend.weight}"
    return _done(args, node, f"added {args.id}: {where}")


def _remove(args: argparse.Namespace) -> int:
    with closing(open_nodes(args)) as nodes:
        node = nodes.remove(args.id)
    return _done(args, node, f"removed {args.id}: marked as deleted, enable restores it")


def _delete(args: argparse.Namespace) -> int:
    with closing(open_nodes(args)) as nodes:
        node = nodes.delete(args.id)
    return _done(args, node, f"deleted {args.id}: no longer in the database")


def _enable(args: argparse.Namespace) -> int:
    with closing(open_nodes(args)) as nodes:
        node = nodes.enable(args.id)
    return _done(args, node, f"enabled {args.id}: healthy, not deleted")


def _disable(args: argparse.Namespace) -> int:
    with closing(open_nodes(args)) as nodes:
        node = nodes.disable(args.id)
    return _done(args, node, f"disabled {args.id}: not healthy, takes no new clients")


def _weight(args: argparse.Namespace) -> int:
    with closing(open_nodes(args)) as nodes:
        node = nodes.set_weight(args.id, _number(args.weight))
    return _done(args, node, f"changed {args.id}: weight {node.values['weight']}")


def _limits(args: argparse.Namespace) -> int:
    limits = _number(args.soft_limit), _number(args.hard_limit)
    with closing(open_nodes(args)) as nodes:
        node = nodes.set_limits(args.id, *limits)
    soft, hard = node.values["soft_limit"], node.values["hard_limit"]
    return _done(args, node, f"changed {args.id}: soft limit {soft}, hard limit {hard}")


def _number(text: str) -> int | str:
    """Return what can be read as a whole number as one; the rest is for validation to refuse."""
    return int(text) if _NUMBER.fullmatch(text) else text


def _warn_of_new_region(backend: Backend, nodes: list[Node]) -> None:
    others = [node for node in nodes if node.values["id"] != backend.id]
    if all(node.values["region"] != backend.region for node in others):
        _note(
            f"warning: region {backend.region} is none of {', '.join(REGIONS)} and no other "
            "node is in it"
        )


def _done(args: argparse.Namespace, node: Node, line: str) -> int:
    if args.json:
        import json

        print(json.dumps(json_node(node)))
    else:
        print(cell(line))
    if node.fault and args.run is not _delete:
        _note(f"warning: proxies skip this node: {node.fault}")
    return 0


def _note(text: str) -> None:
    print(f"edgeproxy: {cell(text)}", file=sys.stderr)
