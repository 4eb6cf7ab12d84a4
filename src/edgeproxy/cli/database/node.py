"""`edgeproxy node …`: edit the nodes of the routing database, one short edit per command.

`EDITS` is the table of the commands on existing nodes, `FIELDS` what `set` can change. Running
proxies follow the database. All values are validated before the database is touched. The store,
and with it SQLite, is imported only when a command runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from edgeproxy.cli.database.destination import warning_of
from edgeproxy.cli.database.opening import make, open_nodes
from edgeproxy.cli.database.options import database_option, json_option
from edgeproxy.cli.database.output import json_node, note
from edgeproxy.cli.table import cell
from edgeproxy.core.backends.rows import (
    COUNTRY,
    RowError,
    check_address,
    check_limits,
    check_port,
    faults_of,
    parse_node,
)
from edgeproxy.core.geo.regions import REGIONS
from edgeproxy.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from edgeproxy.store.edits import Node, NodeEdits

_NUMBER = re.compile(r"-?[0-9]{1,18}")


def _warning_of(node: Node, values: Mapping[str, object] | None = None) -> str | None:
    """Return what to warn of if the node has these values, as for a node that is added, or None.

    Raises RowError for the address of the proxy itself.
    """
    after = {**node.values, **(values or {})}
    try:
        address, port = check_address(after["wg_ip"]), check_port(after["port"])
    except RowError:
        return None  # the edit refuses a bad value, and proxies skip a row that has one already
    return warning_of(address, port)


@dataclass(frozen=True, slots=True)
class Edit:
    """A command that edits one node.

    Attributes:
        apply: Makes the edit and returns the node as it is afterwards.
        report: The line to print; columns of the node fill its placeholders.
        arguments: Names and help texts of the arguments after the id.
        keeps_node: Whether the node is still in the database afterwards.
        check: Judges the node before the edit and returns what to warn of. Raises RowError.
    """

    name: str
    help: str
    apply: Callable[[NodeEdits, str, argparse.Namespace], Node]
    report: str
    arguments: tuple[tuple[str, str], ...] = ()
    keeps_node: bool = True
    check: Callable[[Node], str | None] | None = None


EDITS = (
    Edit(
        "remove",
        "mark a node as deleted; enable restores it",
        lambda nodes, node_id, _: nodes.remove(node_id),
        "removed {id}: marked as deleted, enable restores it",
    ),
    Edit(
        "delete",
        "delete a node from the database for good",
        lambda nodes, node_id, _: nodes.delete(node_id),
        "deleted {id}: no longer in the database",
        keeps_node=False,
    ),
    Edit(
        "enable",
        "let a node take clients: healthy and not deleted",
        lambda nodes, node_id, _: nodes.enable(node_id),
        "enabled {id}: healthy, not deleted",
        check=_warning_of,
    ),
    Edit(
        "disable",
        "keep new clients from a node: not healthy",
        lambda nodes, node_id, _: nodes.disable(node_id),
        "disabled {id}: not healthy, takes no new clients",
    ),
    Edit(
        "weight",
        "set a node's share of new clients",
        lambda nodes, node_id, args: nodes.set_weight(node_id, _number(args.weight)),
        "changed {id}: weight {weight}",
        (("weight", "0 to 1000; 0 takes no new clients"),),
    ),
    Edit(
        "limits",
        "set a node's connection limits",
        lambda nodes, node_id, args: nodes.set_limits(
            node_id, _number(args.soft_limit), _number(args.hard_limit)
        ),
        "changed {id}: soft limit {soft_limit}, hard limit {hard_limit}",
        (
            ("soft_limit", "above this, other nodes are preferred"),
            ("hard_limit", "never exceeded; 0 means no limit"),
        ),
    ),
)

FIELDS = (
    ("app", "app", "NAME", "the application that it serves"),
    ("region", "region", "CODE", f"{', '.join(REGIONS)} or a short code of your own"),
    ("country", "country", "CODE", "two letters like BR; '' for none"),
    ("address", "wg_ip", "IP", "IPv4 or IPv6 address, usually on the WireGuard overlay"),
    ("port", "port", "N", "1 to 65535"),
    ("weight", "weight", "N", "0 to 1000; 0 takes no new clients"),
    ("soft-limit", "soft_limit", "N", "above this, other nodes are preferred"),
    ("hard-limit", "hard_limit", "N", "never exceeded; 0 means no limit"),
)
"""What `node set` changes: option, column, what it takes, help."""
NUMBERS = {"port", "weight", "soft_limit", "hard_limit"}


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

    change = subcommands.add_parser(
        "set",
        parents=options,
        help="change any field of nodes",
        description="Change the fields that are named; the others stay. Clients that are connected "
        "stay where they are.",
    )
    change.add_argument("id", nargs="+")
    for option, column, takes, text in FIELDS:
        change.add_argument(f"--{option}", dest=column, metavar=takes, help=text)
    change.set_defaults(run=_set)

    show = subcommands.add_parser("show", parents=options, help="show all fields of nodes")
    show.add_argument("id", nargs="+")
    show.set_defaults(run=_show)

    for edit in EDITS:
        command = subcommands.add_parser(
            edit.name, parents=options, help=edit.help, description=edit.help
        )
        command.add_argument("id", nargs="+", help="one node or more")
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
    warning = warning_of(backend.wg_ip, backend.port)
    where, is_made = make(args)
    if is_made:
        note(f"created {where}")
    with closing(open_nodes(args)) as nodes:
        node = nodes.add(backend)
        if warning is not None:
            note(f"warning: {warning}")
        if backend.region not in REGIONS:
            _warn_of_new_region(backend.region, [backend.id], nodes.read())
    if backend.country and COUNTRY not in node.values:
        from edgeproxy.store.edits import ADD_COUNTRY

        note(
            "warning: the table has no column country, so that it is not kept: add it with "
            f"{ADD_COUNTRY}, then set it with `edgeproxy node set`"
        )
    if args.json:
        import json

        print(json.dumps(json_node(node.values, node.fault)))
    else:
        where = f"{backend.region} {backend.address} weight {backend.weight}"
        print(cell(f"added {args.id}: {where}"))
    return 0


def _run(edit: Edit, args: argparse.Namespace) -> int:
    def apply(nodes: NodeEdits, node_id: str) -> Node:
        return edit.apply(nodes, node_id, args)

    def report(node_id: str, node: Node) -> str:
        return edit.report.format_map({**node.values, "id": node_id})

    return _for_each(args, apply, report, check=edit.check, is_in_database=edit.keeps_node)


def _set(args: argparse.Namespace) -> int:
    given = {column: getattr(args, column) for _, column, _, _ in FIELDS}
    values = {
        column: _number(text) if column in NUMBERS else text
        for column, text in given.items()
        if text is not None
    }
    if not values:
        options = [option for option, _, _, _ in FIELDS]
        words = (word.partition("=")[0].replace("_", "-") for word in args.id)
        meant = next((f"; did you mean --{word}?" for word in words if word in options), "")
        listed = ", ".join(f"--{option}" for option in options)
        raise UsageError(f"node set: name at least one field to change: {listed}{meant}")
    if "region" in values:
        with closing(open_nodes(args)) as nodes:
            _warn_of_new_region(str(values["region"]), args.id, nodes.read())

    def apply(nodes: NodeEdits, node_id: str) -> Node:
        return nodes.set(node_id, values)

    def report(node_id: str, node: Node) -> str:
        return f"changed {node_id}: " + ", ".join(
            f"{option.replace('-', ' ')} {node.values[column]}"
            for option, column, _, _ in FIELDS
            if column in values
        )

    def check(node: Node) -> str | None:
        limits = {**node.values, **values}
        if "soft_limit" in values or "hard_limit" in values:
            check_limits(limits["soft_limit"], limits["hard_limit"])
        return _warning_of(node, values) if "wg_ip" in values or "port" in values else None

    # Without need, one row of a large table is changed without reading the others.
    is_judged = not values.keys().isdisjoint({"wg_ip", "port", "soft_limit", "hard_limit"})
    return _for_each(args, apply, report, check=check if is_judged else None)


def _show(args: argparse.Namespace) -> int:
    with closing(open_nodes(args)) as opened:
        found = opened.get_all(list(dict.fromkeys(args.id)))
    # A proxy needs only the first fault of a row; whoever is to mend it wants them all.
    nodes = [
        node._replace(fault="; ".join(dict.fromkeys([node.fault, *faults_of(node.values)])))
        if node.fault
        else node
        for node in found
    ]
    if args.json:
        _print_json(nodes)
        return 0
    for number, node in enumerate(nodes):
        if number:
            print()
        fields = {**node.values, **({"fault": node.fault} if node.fault else {})}
        width = max(map(len, fields))
        print("\n".join(f"{name:<{width}}  {cell(value)}" for name, value in fields.items()))
    return 0


def _for_each(
    args: argparse.Namespace,
    apply: Callable[[NodeEdits, str], Node],
    report: Callable[[str, Node], str],
    *,
    check: Callable[[Node], str | None] | None = None,
    is_in_database: bool = True,
) -> int:
    """Edit each node and say so, and what `check` warns of.

    If one of several is not there, or `check` raises for it, nothing is changed.
    """
    ids = list(dict.fromkeys(args.id))
    warnings: list[str | None] = [None] * len(ids)
    with closing(open_nodes(args)) as nodes:
        if check is not None or len(ids) > 1:
            before = nodes.get_all(ids)
            warnings = [check(node) if check is not None else None for node in before]
        done = [apply(nodes, node_id) for node_id in ids]
    for node_id, node, warning in zip(ids, done, warnings, strict=True):
        if not args.json:
            print(cell(report(node_id, node)))
        if warning is not None:
            note(f"warning: {f'{node_id}: ' if len(ids) > 1 else ''}{warning}")
        if node.fault and is_in_database:
            of = f" {node_id}" if len(ids) > 1 else ""
            note(f"warning: proxies skip this node{of}: {node.fault}")
    if args.json:
        _print_json(done)
    return 0


def _print_json(nodes: list[Node]) -> None:
    """Print the node, or a list if several are named."""
    import json

    objects = [json_node(node.values, node.fault) for node in nodes]
    print(json.dumps(objects if len(objects) > 1 else objects[0]))


def _number(text: str) -> int | str:
    """Return a whole number as an int; leave any other text for validation to refuse."""
    return int(text) if _NUMBER.fullmatch(text) else text


def _warn_of_new_region(region: str, ids: Collection[str], nodes: list[Node]) -> None:
    """Warn of a region that only these nodes have: it may be a mistake."""
    others = [node.values for node in nodes if node.values["id"] not in ids]
    if region not in REGIONS and all(each["region"] != region for each in others):
        note(f"warning: region {region} is none of {', '.join(REGIONS)} and no other node is in it")
