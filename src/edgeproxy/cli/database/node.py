"""`edgeproxy node …`: edit the nodes of the routing database, one short edit per command.

`EDITS` is the table of the commands on an existing node. Running proxies follow the database. All
values are validated before the database is touched. The store, and with it SQLite, is imported
only when a command runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from edgeproxy.cli.database.destination import warning_of
from edgeproxy.cli.database.opening import make, open_nodes
from edgeproxy.cli.database.options import database_option, json_option
from edgeproxy.cli.database.output import json_node, note
from edgeproxy.cli.table import cell
from edgeproxy.core.backends.rows import COUNTRY, parse_node
from edgeproxy.core.geo.regions import REGIONS

if TYPE_CHECKING:
    import argparse

    from edgeproxy.core.backends.backend import Backend
    from edgeproxy.store.edits import Node, NodeEdits

_NUMBER = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Edit:
    """A command that edits one node.

    Attributes:
        apply: Makes the edit and returns the node as it is afterwards.
        report: The line to print; columns of the node fill its placeholders.
        arguments: Names and help texts of the arguments after the id.
        keeps_node: Whether the node is still in the database afterwards.
    """

    name: str
    help: str
    apply: Callable[[NodeEdits, argparse.Namespace], Node]
    report: str
    arguments: tuple[tuple[str, str], ...] = ()
    keeps_node: bool = True


EDITS = (
    Edit(
        "remove",
        "mark a node as deleted; enable restores it",
        lambda nodes, args: nodes.remove(args.id),
        "removed {id}: marked as deleted, enable restores it",
    ),
    Edit(
        "delete",
        "delete a node from the database for good",
        lambda nodes, args: nodes.delete(args.id),
        "deleted {id}: no longer in the database",
        keeps_node=False,
    ),
    Edit(
        "enable",
        "let a node take clients: healthy and not deleted",
        lambda nodes, args: nodes.enable(args.id),
        "enabled {id}: healthy, not deleted",
    ),
    Edit(
        "disable",
        "keep new clients from a node: not healthy",
        lambda nodes, args: nodes.disable(args.id),
        "disabled {id}: not healthy, takes no new clients",
    ),
    Edit(
        "weight",
        "set a node's share of new clients",
        lambda nodes, args: nodes.set_weight(args.id, _number(args.weight)),
        "changed {id}: weight {weight}",
        (("weight", "0 to 1000; 0 takes no new clients"),),
    ),
    Edit(
        "limits",
        "set a node's connection limits",
        lambda nodes, args: nodes.set_limits(
            args.id, _number(args.soft_limit), _number(args.hard_limit)
        ),
        "changed {id}: soft limit {soft_limit}, hard limit {hard_limit}",
        (
            ("soft_limit", "above this, other nodes are preferred"),
            ("hard_limit", "never exceeded; 0 means no limit"),
        ),
    ),
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `node` and its subcommands to the commands of `edgeproxy`."""
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
    add.add_argument(
        "--hard-limit", default="200", metavar="N", help="0 means no limit (default: 200)"
    )
    add.set_defaults(run=_add)

    for edit in EDITS:
        command = subcommands.add_parser(
            edit.name, parents=options, help=edit.help, description=edit.help
        )
        command.add_argument("id")
        for name, text in edit.arguments:
            command.add_argument(name, help=text)
        command.set_defaults(run=partial(_run, edit))


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
    warning = warning_of(backend)
    where, is_made = make(args)
    if is_made:
        note(f"created {where}")
    with closing(open_nodes(args)) as nodes:
        node = nodes.add(backend)
        if warning is not None:
            note(f"warning: {warning}")
        if backend.region not in REGIONS:
            _warn_of_new_region(backend, nodes.read())
    if backend.country and COUNTRY not in node.values:
        note("warning: the table has no column country, so that it is not kept")
    where = f"{backend.region} {backend.address} weight {backend.weight}"
    return _done(args, node, f"added {args.id}: {where}")


def _run(edit: Edit, args: argparse.Namespace) -> int:
    with closing(open_nodes(args)) as nodes:
        node = edit.apply(nodes, args)
    report = edit.report.format_map({**node.values, "id": args.id})
    return _done(args, node, report, is_in_database=edit.keeps_node)


def _number(text: str) -> int | str:
    """Return a whole number as an int; leave any other text for validation to refuse."""
    return int(text) if _NUMBER.fullmatch(text) else text


def _warn_of_new_region(backend: Backend, nodes: list[Node]) -> None:
    others = [node for node in nodes if node.values["id"] != backend.id]
    if all(node.values["region"] != backend.region for node in others):
        note(
            f"warning: region {backend.region} is none of {', '.join(REGIONS)} and no other "
            "node is in it"
        )


def _done(args: argparse.Namespace, node: Node, line: str, *, is_in_database: bool = True) -> int:
    if args.json:
        import json

        print(json.dumps(json_node(node.values, node.fault)))
    else:
        print(cell(line))
    if node.fault and is_in_database:
        note(f"warning: proxies skip this node: {node.fault}")
    return 0
